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
HEAVY = {
    "torch",
    "transformers",
    "sentence_transformers",
    "datasets",
    "accelerate",
    "numpy",
    "pandas",
    "scipy",
    "sklearn",
}


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


def test_the_first_help_and_the_version():
    status, text, _ = run("--help")
    assert status == 0 and all(f"\n    {verb}" in text for verb in VERBS) and "arccse train quickstart" in text
    assert run() == (status, text, "")
    assert run("--version")[1].startswith("arccse_hf 0.")


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_shells_complete_verbs_and_options(shell):
    status, script, _ = run("--print-completion", shell)
    assert status == 0 and "evaluate" in script and "angular_margin" in script and "mean_first_last" in script


MISTAKES = [
    ("evaluat", "arccse: error: evaluat: there is no such command; did you mean evaluate?"),
    ("--versio", "arccse: error: "),
    ("evaluate", "arccse evaluate: error: --model: is missing"),
    ("evaluate m --bach_size 3", "arccse evaluate: error: --bach_size: there is no such option; did you mean --batch"),
    ("evaluate m --batch_size 0", "arccse evaluate: error: --batch_size 0: must be a whole number from 1"),
    ("evaluate m --dtype int8", "arccse evaluate: error: --dtype int8: must be one of float32, bfloat16, float16"),
    ("evaluate m --seed", "arccse evaluate: error: --seed: needs a value"),
    ("encode --model m --output_dir o", "arccse encode: error: --input: is missing"),
    ("encode m --input a --output_dir o", "arccse encode: error: 'm': belongs to no option"),
    ("encode --model m --input a --output_dir o --shard_rows 0", "arccse encode: error: --shard_rows 0: must be"),
    ("search --model m", "arccse search: error: --corpus: is missing, and needed unless --index"),
    (
        "search --model m --corpus a --query x --top_k 0",
        "arccse search: error: --top_k 0: must be a whole number from 1",
    ),
    ("similarity one --model m", "arccse similarity: error: TEXT TEXT ...: give two texts or more"),
    ("duplicates --model m", "arccse duplicates: error: --input: is missing"),
    ("cluster --model m --input a --threshold 2", "arccse cluster: error: --threshold 2: must be a number above 0 and"),
    ("mine --model m --train_file a", "arccse mine: error: --output: is missing"),
    ("info", "arccse info: error: FILE|MODEL|RUN: is missing"),
    ("report", "arccse report: error: RUN ...: is missing"),
    ("train", "arccse train: error: nothing is given"),
    ("train quikstart", "arccse train: error: quikstart: neither a file nor a recipe (.*did you mean quickstart?"),
    ("train quickstart --lr 1", "arccse train: error: --lr: there is no such field; did you mean --learning_rate?"),
    ("train quickstart --temperature 0", "arccse train: error: --temperature 0: must be a number from 0.001 to 100"),
    ("train setup.py", "arccse train: error: setup.py: "),
    ("study", "arccse study: error: STUDY: is missing"),
    ("study objectvs", "arccse study: error: objectvs: neither a file nor a recipe (.*did you mean objectives?"),
    ("study objectives --seed 1", "arccse study: error: --seed: there is no such field; did you mean --seeds?"),
    ("study objectives --seeds 1 x", "arccse study: error: --seeds x: must be a whole number"),
    ("study objectives --max_steps 0", "arccse study: error: --max_steps 0: must be"),
    ("reproduce quickstart --pooling max", "arccse reproduce: error: --pooling max: must be one of"),
]


@pytest.mark.parametrize(("line", "message"), MISTAKES)
def test_a_mistake_is_one_line_and_status_2(line, message):
    status, out, err = run(*line.split())
    start, _, end = message.partition(".*")
    assert (status, out) == (2, "") and err.startswith(start) and end in err and err.count("\n") == 1


def test_help_and_mistakes_import_nothing_heavy(tmp_path):
    """In one new process, as this one has imported everything."""
    (tmp_path / "bad.yaml").write_text("a: [\n")
    lines = (
        [line for line, _ in MISTAKES] + [f"{verb} --help" for verb in VERBS] + ["--help", f"train {tmp_path}/bad.yaml"]
    )
    code = f"""
import contextlib, io, sys, arccse_hf
from contextlib import redirect_stderr, redirect_stdout
from arccse_hf.__main__ import main
for line in {lines!r}:
    with contextlib.suppress(SystemExit), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        main(line.split())
    heavy = {HEAVY!r} & sys.modules.keys()
    assert not heavy, (line, heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


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
    line += " --seed 4 --max_seq_length 9"
    assert run("evaluate", "m_1", "m_2", *line.replace("_", spelling).replace(f"d{spelling}d", "d_d")
               .replace(f"o{spelling}o", "o_o").split()) == (3, "", "")  # fmt: skip
    wanted = {
        "data": "d_d", "pooling": "cls", "output": Path("o_o"), "batch_size": 3, "dtype": "bfloat16",
        "max_seq_length": 9, "seed": 4,
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


def test_the_script_is_train():
    done = subprocess.run(
        [sys.executable, "run_arccse.py", "quickstart", "--lerning_rate", "1"],
        capture_output=True, text=True, cwd=ROOT, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("arccse train: error: --lerning_rate: there is no such field; did you mean")
