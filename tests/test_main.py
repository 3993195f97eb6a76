"""The command line: one dialect for all verbs, one line for each mistake, and no torch for help and mistakes."""

import contextlib
import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from arccse_hf.__main__ import main
from arccse_hf.cli.command import note_new_name
from arccse_hf.commands import VERBS
from arccse_hf.errors import UserError, exit_with

ROOT = Path(__file__).parents[1]


def run(*argv: object) -> tuple[int, str, str]:
    """Returns exit status, stdout and stderr of a command line."""
    note_new_name.cache_clear()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as done:
        main([str(argument) for argument in argv])
    return done.value.code or 0, out.getvalue(), err.getvalue()


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_has_an_example_that_is_right(verb):
    status, text, _ = run(verb, "--help")
    assert status == 0 and text.startswith(f"usage: arccse {verb}")
    example = shlex.split(text.split("Example:\n")[1].splitlines()[0])
    assert example[:2] == ["arccse", verb]
    command = VERBS[verb][0]()
    command.read(command.parse(example[2:]) | {option.name: "x" for option in command.options if option.required})
    options = [line.split()[0] for line in text.splitlines() if line.startswith("  --")]
    assert options and not [option for option in options if "-" in option[2:] or option.startswith("--no_")]


def test_the_first_help_names_every_verb():
    status, text, _ = run("--help")
    assert status == 0 and all(f"\n    {verb}" in text for verb in VERBS)
    assert run() == (status, text, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_shells_complete_verbs_and_options(shell):
    status, script, _ = run("--print-completion", shell)
    assert status == 0 and "evaluate" in script and "angular_margin" in script and "mean_first_last" in script


class Calls(list):
    """A stand-in for the function that does a verb's work."""

    def __call__(self, *args, **options):
        self.append((args, options))
        return 3


@pytest.mark.parametrize("spelling", ["_", "-"])
def test_evaluate_passes_every_option_on(monkeypatch, spelling):
    calls = Calls()
    monkeypatch.setattr("arccse_hf.inference.evaluate.evaluate_and_print", calls)
    line = "--eval_tasks sts mr,cr --eval_data d_d --pooling cls --output_dir o_o --batch_size=3 --dtype bfloat16"
    line += " --seed 4 --max_seq_length 9 --truncate_dims 7 5"
    assert run("evaluate", "m_1", "m_2", *line.replace("_", spelling).replace(f"d{spelling}d", "d_d")
               .replace(f"o{spelling}o", "o_o").split()) == (3, "", "")  # fmt: skip
    wanted = {
        "data": "d_d", "pooling": "cls", "output": Path("o_o"), "batch_size": 3, "dtype": "bfloat16",
        "max_seq_length": 9, "seed": 4, "truncate_dims": [7, 5],
    }  # fmt: skip
    assert calls == [((["m_1", "m_2"], ["sts", "mr", "cr"]), wanted)]
    run("evaluate", "--seed", "4", "--model", "m_1", "m_2")
    assert calls[1][0] == (["m_1", "m_2"], ["sts"])


def test_encode_passes_every_option_on(monkeypatch):
    from arccse_hf.inference.encode_files.reading import Columns
    from arccse_hf.inference.encode_files.windows import EncodeOptions

    calls = Calls()
    monkeypatch.setattr("arccse_hf.inference.encode_files.command.open_and_encode", calls)
    line = "--text_column body --id-column key --pooling cls --normalize --max_seq_length 9 --batch_size=3"
    line += " --dtype bfloat16 --output_dtype float16 --shard_rows 7"
    start = "encode --model m --input a_b/*.txt c,d.txt --input e.txt --output_dir o_o"
    assert run(*start.split(), *line.split()) == (3, "", "")
    wanted = EncodeOptions(Columns("body", "key"), True, 3, "float16", 7)
    options = {"pooling": "cls", "dtype": "bfloat16", "max_seq_length": 9}
    assert calls == [(("m", ["a_b/*.txt", "c,d.txt", "e.txt"], Path("o_o"), wanted), options)]


def test_study_and_reproduce_tell_their_options_from_fields(monkeypatch):
    calls = Calls()
    monkeypatch.setattr("arccse_hf.study.command.run_study", calls)
    monkeypatch.setattr("arccse_hf.study.command.reproduce", calls)
    given = "--train_file a b --eval_data=d --no_bf16 --output_dir o"
    assert run("study", "objectives", *given.split(), "--seeds", "1", "2,3", "--resume", "--run", "1", "--list")[0] == 3
    fields = {"train_file": ["a", "b"], "eval_data": "d", "bf16": "false"}
    options = {
        "overrides": fields,
        "output": Path("o"),
        "seeds": [1, 2, 3],
        "resume": True,
        "only": 1,
        "list_runs": True,
    }
    (path,), found = calls[0]
    assert path.name == "objectives.yaml" and found == options
    assert run("reproduce", "--resume", "minilm-cls", *given.split(), "--seed", "5")[0] == 3
    (path,), found = calls[1]
    assert path.name == "minilm-cls.yaml"
    assert found == {"overrides": fields | {"seed": "5"}, "output": Path("o"), "resume": True}


def test_old_names_work_and_say_the_new_ones(monkeypatch):
    calls = Calls()
    monkeypatch.setattr("arccse_hf.inference.evaluate.evaluate_and_print", calls)
    status, _, err = run("evaluate", "m", "--tasks", "sts,mr", "--data", "d", "--output", "o")
    assert status == 3 and calls[0][0] == (["m"], ["sts", "mr"]) and calls[0][1]["output"] == Path("o")
    for old, new in (("tasks", "eval_tasks"), ("data", "eval_data"), ("output", "output_dir")):
        assert f"note: --{old} is called --{new} now; the old name goes with the next version\n" in err


def test_the_first_process_of_a_machine_tells_a_mistake(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert run("evaluate") == (2, "", "")


def test_a_dataloader_workers_error_is_told_without_its_traceback(capsys):
    traceback = "Caught UserError in DataLoader worker process 0.\n  File x\narccse_hf.errors.UserError: "
    with pytest.raises(SystemExit):
        exit_with(UserError(f"{traceback}a.txt: bad\nline"), "arccse train")
    assert capsys.readouterr().err == "arccse train: error: a.txt: bad line\n"


@pytest.mark.parametrize("buffered", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_output_that_nobody_reads_ends_the_command_without_a_word(buffered):
    """As after `| head`, with the exit status that a shell gives for SIGPIPE."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | buffered
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "arccse_hf", "--print_completion", "bash"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_pipe_of_something_else_that_breaks_is_not_hidden(monkeypatch):
    def broken(argv):
        raise BrokenPipeError("a worker is gone")

    monkeypatch.setitem(VERBS, "info", (VERBS["info"][0], broken))
    with pytest.raises(BrokenPipeError, match="a worker is gone"):
        main(["info", "x"])


def test_ctrl_c_is_no_traceback(monkeypatch, capsys):
    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setitem(VERBS, "encode", (VERBS["encode"][0], interrupted))
    with pytest.raises(SystemExit) as ended:
        main(["encode", "x"])
    assert (ended.value.code, capsys.readouterr().err) == (130, "\narccse encode: interrupted\n")


def test_the_script_is_train():
    done = subprocess.run(
        [sys.executable, "run_arccse.py", "quickstart", "--lerning_rate", "1"],
        capture_output=True, text=True, cwd=ROOT, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("arccse train: error: --lerning_rate: there is no such field; did you mean")
