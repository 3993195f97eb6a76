"""What the documents name exists: commands and their options, import paths, files, targets of make."""

import ast
import importlib
import importlib.util
import re

import pytest
from doc_text import COMMANDS, DOCUMENTS, LINK, ROOT, block_commands, blocks, commands, option_names, our_command, spans

from arccse_hf.cli.recipes import find_recipe
from arccse_hf.study.plan import read_study
from arccse_hf.training.config import merge_settings, read_values
from arccse_hf.training.config_file import read_config

PLACEHOLDERS = {"field", "option", "with_underscores"}


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
def test_commands_of_blocks_are_whole_and_their_values_allowed(document, monkeypatch):
    monkeypatch.chdir(ROOT)  # recipes are named as from there
    for words in block_commands(document):
        words = ["1" if word.startswith("$") else word for word in words]  # a variable of the shell
        command, arguments = our_command(words) or (None, [])
        if command and command.name == "train":
            read_values(arguments)
        elif command:
            values = command.read(command.parse(arguments))
            fields = {option.name for option in command.options if option.group is None}
            given = {name: value for name, value in command.parse(arguments).items() if name in fields}
            if command.name == "study":
                read_study(find_recipe(values["config"], "studies"), None, given, values["seeds"]).check_fields()
            elif command.name == "reproduce":
                read_values(merge_settings(read_config(find_recipe(values["config"])), given))


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
