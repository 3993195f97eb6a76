"""The table of command lines (command_lines.txt): what each prints, how it exits, in this process.

Mistakes of the user are one line and status 2, before anything is trained and without an empty folder left behind.
"""

import contextlib
import io
import itertools
import logging
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from backbones import WORDS, save_encoder, tiny_tokenizer

from arccse_hf.__main__ import main
from arccse_hf.cli.command import note_new_name
from arccse_hf.commands import VERBS

ROOT = Path(__file__).parents[1]
HEAVY = {
    "torch", "transformers", "sentence_transformers", "datasets", "accelerate", "numpy", "pandas", "scipy", "sklearn",
}  # fmt: skip
RUN = (
    "train --model enc --train_file text.txt --output_dir out --use_cpu True --max_steps 2 --max_seq_length 24 "
    "--per_device_train_batch_size 8 --triplet_min_tokens 10 --save_strategy no --disable_tqdm True "
    "--cosine_samples False --eval_on_start False"
)


def read_table() -> dict[str, list[tuple[int, str, str]]]:
    """Returns the lines of the table by section: status, command line, text; one for each value in braces."""
    table: dict[str, list[tuple[int, str, str]]] = {}
    for line in Path(__file__).with_name("command_lines.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            rows = table.setdefault(line.removeprefix("## "), [])
        elif line and not line.startswith("#"):
            status, command, text = line.split(" | ", 2)
            parts = re.split(r"\{([^{}\"]*,[^{}\"]*)\}", command)
            choices = [part.split(",") if odd % 2 else [part] for odd, part in enumerate(parts)]
            rows += [(int(status), "".join(chosen), text) for chosen in itertools.product(*choices)]
    return table


TABLE = read_table()
EARLY = [row for section, rows in TABLE.items() if section.startswith("Without torch") for row in rows]
RECIPE = "model_name_or_path: enc\ntrain_file: text.txt\nuse_cpu: true\n"
BOMB = "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12))
RECIPES = {
    "good": "", "list": None, "twice": None, "section": "section: {seed: 1}", "set": "pooling: !!set {cls}",
    "float": "learning_rate: !!float abc", "brackets": "seed: " + "[" * 3000, "several": "seed: [1, 2]", "bomb": BOMB,
    "open": "pooling: [cls", "code": "seed: !!python/object/apply:os.system [ls]", "misspelt": "lerning_rate: 1e-5",
    "max": "pooling: max", "number": "1: 2", "mapping": "seed: {a: 1}", "nested": "text_columns: [a, [b]]",
    "names": "snapshots: no\ncosine_samples: no",
}  # fmt: skip
SENTENCES = [" ".join(WORDS[(7 * row + word) % len(WORDS)] for word in range(6 + row % 20)) for row in range(48)]
SCORED = "".join(f"{SENTENCES[row]},{SENTENCES[row + 9]},{row}\n" for row in range(6))
FILES = {
    "text.txt": "\n".join(SENTENCES), "one.txt": "a single line", "empty.txt": "", "binary.txt": "text\0text\n" * 50,
    "blank.txt": "\n\n   \n", "nested.json": '{"data": [{"rows": [{"text": "a b c"}]}]}', "null.json": "null",
    "brackets.json": "[" * 200_000, "numbers.jsonl": '{"text": 1}\n{"text": 2}\n', "words.jsonl": '{"text": "a b"}\n',
    "semicolon.csv": "text;score\na red dog;1\ntwo cats;2\n", "headless.csv": f"{SENTENCES[0]}\n{SENTENCES[1]}\nx y\n",
    "scored.csv": f"sentence1,sentence2,score\n{SCORED}", "2 my.eval v1.csv": f"sentence1,sentence2,score\n{SCORED}",
    "constant.csv": "sentence1,sentence2,score\na,b,1\nc,d,1\n",
    "digits.csv": f"sentence1,sentence2,score\na,b,1\nc,d,{'9' * 400}\n",
    "eval.csv": "query,document\n" + "".join(f"{SENTENCES[row]},{SENTENCES[row + 9]}\n" for row in range(6)),
    "project/README.md": "# Of the user",
    "a/dev.csv": f"sentence1,sentence2,score\n{SCORED}", "b/dev.csv": f"sentence1,sentence2,score\n{SCORED}",
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    save_encoder(folder / "enc", tiny_tokenizer())
    for name in ("cut", "bare", "mixed"):
        shutil.copytree(folder / "enc", folder / name)
    tiny_tokenizer([f"word{number}" for number in range(75)]).save_pretrained(folder / "mixed")
    weights = folder / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    for path in folder.glob("bare/token*"):
        path.unlink()
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    for name, content in RECIPES.items():
        (folder / f"{name}.yaml").write_text(RECIPE + (content or ""))
    (folder / "list.yaml").write_text("- a\n- b\n")
    (folder / "twice.yaml").write_text(f"seed: 1\nseed: 2\n{RECIPE}")
    words = shlex.split(RUN)[1:]
    settings = "".join(f"{name[2:]}: {value}\n" for name, value in zip(words[::2], words[1::2], strict=True))
    (folder / "merged.yaml").write_text(f"<<: {{seed: 3, pooling: mean}}\n{settings}")
    (folder / "latin.txt").write_bytes("caf\xe9 au lait\n".encode("latin-1") * 50)
    (folder / "loop.txt").symlink_to("loop.txt")
    (folder / "dangling.txt").symlink_to("gone.txt")
    return folder


@pytest.fixture
def run(files, monkeypatch):
    """Runs a command line in the folder of the files, and returns its status and what it printed."""
    monkeypatch.chdir(files)
    before = set(files.iterdir())

    def run_line(line: str) -> tuple[int, str, str]:
        note_new_name.cache_clear()
        out, err = io.StringIO(), io.StringIO()
        handler = logging.StreamHandler(err)
        logging.getLogger("arccse_hf").addHandler(handler)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as done:
                main(shlex.split(re.sub(r"^RUN", RUN, line).replace("LONG", "x" * 300)))
        finally:
            logging.getLogger("arccse_hf").removeHandler(handler)
        return done.value.code or 0, out.getvalue(), err.getvalue()

    yield run_line
    for path in set(files.iterdir()) - before:
        shutil.rmtree(path)


@pytest.mark.parametrize(("status", "line", "text"), [row for rows in TABLE.values() for row in rows])
def test_a_command_line_prints_what_the_table_says(status, line, text, run, files):
    before = set(files.iterdir())
    found, out, err = run(line)
    printed = " ".join((out + err).split())
    assert re.search(".*".join(map(re.escape, re.split(" ?… ?", text))), printed), printed[-600:]
    assert found == status and "Traceback" not in printed
    if status == 2:
        last = err.strip().splitlines()[-1]
        assert last.startswith("arccse") and ": error: " in last and len(last) < 1300
        assert out == "" and set(files.iterdir()) == before


def test_help_and_mistakes_import_nothing_heavy(files):
    """In one new process, as this one has imported everything."""
    lines = [re.sub(r"^RUN", RUN, line) for _, line, _ in EARLY] + [f"{verb} --help" for verb in VERBS]
    code = f"""
import contextlib, io, shlex, sys
sys.path.insert(0, {str(ROOT)!r})
from contextlib import redirect_stderr, redirect_stdout
from arccse_hf.__main__ import main
for line in {lines!r}:
    with contextlib.suppress(SystemExit), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        main(shlex.split(line))
    heavy = {HEAVY!r} & sys.modules.keys()
    assert not heavy, (line, heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=files)
    assert done.returncode == 0, done.stderr
