"""What stands in the documents: their fenced blocks, code spans and command lines."""

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from arccse_hf.cli.command import Command
from arccse_hf.commands import VERBS

COMMANDS = {verb: build() for verb, (build, _) in VERBS.items()}
ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def blocks(document: Path, language: str) -> list[str]:
    """Returns the contents of the fenced blocks in `language`."""
    return [body for name, body in FENCE.findall(document.read_text(encoding="utf-8")) if name == language]


def spans(document: Path) -> list[str]:
    """Returns what stands between single backticks outside of fenced blocks."""
    prose = FENCE.sub("", document.read_text(encoding="utf-8"))
    return [" ".join(span.split()) for span in CODE.findall(prose)]


def commands(document: Path) -> Iterator[list[str]]:
    """Yields the words of every command in shell blocks and code spans, without variables, comments and ellipses."""
    yield from block_commands(document)
    yield from _words(span for span in spans(document) if " " in span)


def block_commands(document: Path) -> Iterator[list[str]]:
    """Yields the words of every command in shell blocks, as `commands` does."""
    yield from _words("\n".join(blocks(document, "bash")).replace("\\\n", " ").splitlines())


def _words(lines: Iterable[str]) -> Iterator[list[str]]:
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


def links(document: Path) -> list[str]:
    """Returns the links and pictures of a document that do not lead elsewhere, with their anchors."""
    prose = FENCE.sub("", document.read_text(encoding="utf-8"))
    found = [first or second for first, second in LINK.findall(prose)]
    return [link for link in found if not re.match(r"https?:|mailto:", link)]


def anchors(document: Path) -> set[str]:
    """Returns the anchors of a document's headings, as GitHub makes them; the site makes the same ones."""
    headings = HEADING.findall(FENCE.sub("", document.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
