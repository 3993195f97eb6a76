"""What the documents name exists: commands and their options, import paths, files, targets of make."""

import ast
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from arccse_hf.cli.command import Command
from arccse_hf.commands import VERBS

COMMANDS = {verb: build() for verb, (build, _) in VERBS.items()}
ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PLACEHOLDERS = {"field", "option", "with_underscores"}
FENCE = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)|(?:src|srcset)=\"([^\"]+)\"")


def blocks(document: Path, language: str) -> list[str]:
    """Returns the contents of the fenced blocks in `language`."""
    return [body for name, body in FENCE.findall(document.read_text(encoding="utf-8")) if name == language]


def spans(document: Path) -> list[str]:
    """Returns what stands between single backticks outside of fenced blocks."""
    prose = FENCE.sub("", document.read_text(encoding="utf-8"))
    return [" ".join(span.split()) for span in CODE.findall(prose)]


def commands(document: Path) -> Iterator[list[str]]:
    """Yields the words of every command in shell blocks and code spans, without variables, comments and ellipses."""
    shell = "\n".join(blocks(document, "bash")).replace("\\\n", " ")
    lines = shell.splitlines() + [span for span in spans(document) if " " in span]
    for line in lines:
        quoted = line.count("'") % 2  # a quotation over several lines, as in a job's script
        words = shlex.split(line.replace("'", "") if quoted else line, comments=True)
        words = [word.rstrip(";") for word in words if not re.match(r"[A-Z_]+=", word)]
        words = [word for word, last in zip(words, ["", *words], strict=False) if word != "..." or last[:2] == "--"]
        while words:
            end = next((index for index, word in enumerate(words) if word in ("&&", "|", ";")), len(words))
            if words[:end]:
                yield words[:end]
            words = words[end + 1 :]


def our_command(words: list[str]) -> tuple[Command, list[str]] | None:
    """Returns one of our commands and its arguments, if that is what `words` start."""
    if "run_arccse.py" in words:
        return COMMANDS["train"], words[words.index("run_arccse.py") + 1 :]
    if words[0] == "arccse" or "arccse_hf" in words:
        start = 1 if words[0] == "arccse" else words.index("arccse_hf") + 1
        if words[start:] and not words[start].startswith("-"):
            return COMMANDS[words[start]], words[start + 1 :]
    return None


def option_names(command: Command) -> set[str]:
    """Returns every spelling of its options but old ones."""
    return {name for option in command.options for name in (option.name, *option.aliases)} | {"help", "version"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_are_accepted_as_they_stand(document):
    for words in commands(document):
        if found := our_command(words):
            command, arguments = found
            given = {word[2:].partition("=")[0] for word in arguments if word.startswith("--")}
            assert given <= option_names(command), f"{document.name}: {' '.join(words)}"
            if "help" not in given:
                command.parse(arguments)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_benchmarks_have_the_options_that_are_named(document):
    for words in commands(document):
        script = next((word for word in words if word.startswith("benchmarks/") and word.endswith(".py")), None)
        if script:
            sources = (ROOT / script, ROOT / "benchmarks" / "trainers.py")
            source = "".join(path.read_text(encoding="utf-8") for path in sources)
            for word in words:
                assert not word.startswith("--") or f'"{word}"' in source, f"{document.name}: {' '.join(words)}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_options_in_the_prose_exist(document):
    known = set().union(PLACEHOLDERS, *map(option_names, COMMANDS.values()))
    benchmarks = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py"))
    for span in spans(document):
        for option in re.findall(r"^--([a-z][\w-]*)", span):
            assert option in known or f'"--{option}"' in benchmarks, f"{document.name}: {span}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_targets_of_make_exist(document):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in commands(document):
        for target in words[1:] if words[0] == "make" else []:
            assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), f"{document.name}: {' '.join(words)}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_import_paths_exist(document):
    names = [span for span in spans(document) if re.fullmatch(r"arccse_hf(\.\w+)+", span)]
    for block in blocks(document, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "arccse_hf":
                names += [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names += [alias.name for alias in node.names if alias.name.startswith("arccse_hf.")]
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute) or importlib.util.find_spec(name), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_exist(document):
    links = [first or second for first, second in LINK.findall(document.read_text(encoding="utf-8"))]
    for link in (link for link in links if not re.match(r"https?:|mailto:", link)):
        assert (document.parent / link).exists(), f"{document.name}: {link}"
    top = {path.name for path in ROOT.iterdir()}
    modules = {path.name for folder in ("arccse_hf", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")}
    for span in spans(document):
        if re.fullmatch(r"[\w.-]+\.py", span):
            assert span in modules | top, f"{document.name}: {span}"
        elif re.fullmatch(r"[\w.-]+(/[\w.*-]*)+", span) and span.split("/")[0] in top:
            assert any(ROOT.glob(span)), f"{document.name}: {span}"
