"""The blocks of shell commands and Python of every document are executed, in the order of the page.

Each page has a folder of its own with the files that the documents name (`doc_folder.py`). A command is executed as it
stands there, but for what `SHORTER` appends. Commands of ours run in this process. The commands of a page are examples,
not a session: where a command trains, the folder that it writes is removed before. The examples of `--help` are a page.
Commands in the prose that lack nothing are executed after the blocks of their page.
"""

import contextlib
import functools
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser
from doc_folder import make_folder, make_hub, shrink_evaluation_sets
from doc_text import COMMANDS, DOCUMENTS, FENCE, ROOT, our_command, spans

from arccse_hf.__main__ import main
from arccse_hf.errors import UserError

FEW_STEPS = (
    "--max_steps 2 --per_device_train_batch_size 8 --save_steps 2 --eval_steps 2 --cosine_samples False --use_cpu True"
)
SHORTER = {
    "train": FEW_STEPS,
    "train quickstart": f"{FEW_STEPS} --model tests/tiny",
    "reproduce": FEW_STEPS,
    "study": f"{FEW_STEPS} --model tests/tiny --seeds 1",
    "tune": f"{FEW_STEPS} --model tests/tiny --n_trials 2",
}
"""What is appended to the commands of a verb, or of a verb and a recipe: few steps on the CPU, and a tiny encoder where
there are many runs or texts. A setting that is given twice has its last value."""

EXCEPTED = {
    "pip install": "needs a package index",
    "make test ": "is the test suite",
    "make coverage": "is the test suite",
    "make docs": "test_site.py builds the site",
    "HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 .venv/bin/python -m pytest": "is a part of the test suite",
    "arccse demo": "serves until it is stopped; test_demo_page.py starts this command",
    "export MAIN=$(scontrol": "is Slurm's",
    "srun": "is Slurm's; its command stands above it on the page, for two machines",
    "import faiss": "is no dependency of ours",
    "from transformers import AutoTokenizer\n\nfrom arccse_hf import ArcCSEForContrastiveLearning": (
        "trains twenty times; test_doc_examples.py lets it train three times"
    ),
}
"""Beginnings of commands and Python blocks that are not executed, and why."""

MADE_EARLIER = {
    "out": "docs/evaluation.md docs/exporting.md docs/scaling.md docs/tuned-encoders.md docs/using.md --help".split(),
    "tickets-encoder": ["docs/exporting.md"],
    "runs/simcse": ["docs/reproduce.md", "--help"],
    "runs/arccse": ["docs/reproduce.md", "--help"],
}
"""Trained encoders that pages use without making them: what another page trains."""

YAML_FILES = {"space.yaml": ("docs/around-training.md", ["docs/around-training.md", "--help"])}
"""Files that a page shows in its block of YAML, and the pages whose commands read them."""

LAUNCHED = ("accelerate launch run_arccse.py configs/arccse-bert-base.yaml --train_file 'support_tickets/*.txt'",)
"""Commands that `accelerate launch` really starts. Of the others its options are parsed, and the script runs here."""


def shell_commands(block: str) -> list[str]:
    """Returns the commands of a shell block, without comments."""
    lines = [line.strip() for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines()]
    return [part for line in lines if line and line[0] != "#" for part in line.split(" && ")]


def exception_of(text: str) -> str | None:
    return next((beginning for beginning in EXCEPTED if text.startswith(beginning)), None)


OURS = re.compile(r"(^|[ /])(arccse|run_arccse\.py|-m arccse_hf) ")
PAGES: dict[str, list[tuple[str, str]]] = {
    page.relative_to(ROOT).as_posix(): FENCE.findall(page.read_text(encoding="utf-8")) for page in DOCUMENTS
}
PAGES["--help"] = [("bash", command.example) for command in reversed(COMMANDS.values())]  # train writes `out` anew
SHELL = [
    command
    for blocks in PAGES.values()
    for language, block in blocks
    if language == "bash"
    for command in shell_commands(block)
]


def is_whole(span: str) -> bool:
    """Returns whether a code span of the prose is a command that lacks nothing, and stands in no block."""
    words = shlex.split(span) if span.startswith("arccse ") else []
    if len(words) < 3 or {"...", "--help"} & set(words) or any(span in command for command in SHELL):
        return False
    command, arguments = our_command(words)
    if command.name == "train":
        return "--train_file" in arguments or arguments[0].endswith(".yaml")
    with contextlib.suppress(UserError):
        return bool(command.read(command.parse(arguments)))
    return False


for page in DOCUMENTS:  # after the blocks of the page
    PAGES[page.relative_to(ROOT).as_posix()] += [("bash", span) for span in spans(page) if is_whole(span)]
PAGES_RUN = [name for name, blocks in PAGES.items() if {"bash", "python"} & {language for language, _ in blocks}]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder that each page gets a copy of, with the runs that earlier pages have made."""
    folder = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        shrink_evaluation_sets(patch)
        make_hub(tmp_path_factory.mktemp("home"), patch)
        make_folder(folder)
        patch.chdir(folder)
        steps = SHORTER["train"].replace("--cosine_samples False", "").split()
        run(["train", "arccse-bert-base", "--train_file", "sentences.txt", "--output_dir", "trained", *steps])
        (folder / "trained/training/checkpoint-2").rename(folder / "trained/training/checkpoint-125")
        yield folder


@pytest.fixture
def place(page, prepared, tmp_path, monkeypatch):
    """The folder in which a page is read."""
    folder = tmp_path / "reader"
    shutil.copytree(prepared, folder, symlinks=True)
    for name, pages in MADE_EARLIER.items():
        if page in pages:
            shutil.copytree(folder / "trained", folder / name)
    for name, (source, pages) in YAML_FILES.items():
        if page in pages:
            (folder / name).write_text(dict(PAGES[source])["yaml"])
    monkeypatch.chdir(folder)
    monkeypatch.delenv("ARCCSE_SHARED_DATA", raising=False)  # make quickstart would measure on its sets
    terminal = type("Terminal", (io.StringIO,), {"isatty": lambda _: True})
    monkeypatch.setattr(sys, "stdin", terminal())  # which search asks for queries, and which ends at once
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.extras
@pytest.mark.parametrize("page", PAGES_RUN)
def test_blocks_run_as_they_stand(page, place):
    names: dict[str, object] = {}
    for language, block in PAGES[page]:
        if language == "bash":
            for command in shell_commands(block):
                if not exception_of(command):
                    execute(command)
        elif language == "python" and not exception_of(block):
            exec(compile(block, page, "exec"), names)


def execute(line: str) -> None:
    """Runs one command in this folder; it has to end with status 0."""
    words = shlex.split(os.path.expandvars(line), comments=True)
    while re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    if words[0] == "make":
        execute_made(shlex.join(words))
        return
    found = our_command(words)
    if found is None:
        subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], check=True)
        return
    command, arguments = found
    recipe = Path(arguments[0]).stem
    shorter = SHORTER.get(f"{command.name} {recipe}", SHORTER.get(command.name, "")).split()
    arguments = [*arguments, *shorter]
    output_dir = {"train": f"runs/{recipe}", "reproduce": "runs/reproduce"}.get(command.name)
    if "--output_dir" in arguments:
        output_dir = arguments[arguments.index("--output_dir") + 1]
    if shorter and output_dir:
        shutil.rmtree(output_dir, ignore_errors=True)
    if line.startswith(LAUNCHED):
        subprocess.run([*words, *shorter], check=True)
        return
    if "launch" in words:
        launch_command_parser().parse_args(words[words.index("launch") + 1 :])
    run([command.name, *arguments])


@functools.cache
def execute_made(line: str) -> None:
    """Runs the commands of ours that a target of make runs; once, as several pages name the same targets."""
    words = [*shlex.split(line), "--dry-run"]
    made = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = [line for line in shell_commands(made) if OURS.search(line) and not line.startswith("echo")]
    assert lines, f"{line}: runs no command of ours"
    for line in lines:
        execute(line)


def run(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(argv)
    assert not done.value.code, f"arccse {shlex.join(argv)}: status {done.value.code}"


def test_exceptions_are_commands_of_a_page():
    python = [block for blocks in PAGES.values() for language, block in blocks if language == "python"]
    for beginning in (*EXCEPTED, *LAUNCHED):
        assert any(text.startswith(beginning) for text in (*SHELL, *python)), f"{beginning}: stands nowhere any more"
