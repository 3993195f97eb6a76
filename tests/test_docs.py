"""What the documents name exists: commands and their options, import paths, files, targets of make."""

import ast
import importlib
import importlib.util
import re

import pytest
from doc_text import (
    COMMANDS,
    DOCUMENTS,
    ROOT,
    anchors,
    block_commands,
    blocks,
    commands,
    links,
    option_names,
    our_command,
    spans,
)

from arccse_hf.cli.recipes import find_recipe
from arccse_hf.study.plan import read_study
from arccse_hf.training.config import merge_settings, read_values
from arccse_hf.training.config_file import read_config

GENERATED = {"command-line.md", "configuration.md"}  # by the site's build
LINKED = [*DOCUMENTS, ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "RESULTS.md"]
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


@pytest.mark.parametrize("document", LINKED, ids=lambda path: path.name)
def test_links_lead_to_files(document):
    for link in links(document):
        path = document.parent / link.partition("#")[0]
        assert path.exists() or path.name in GENERATED, f"{document.name}: {link}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_exist(document):
    top = {path.name for path in ROOT.iterdir()}
    modules = {path.name for folder in ("arccse_hf", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")}
    for span in spans(document):
        if re.fullmatch(r"[\w.-]+\.py", span):
            assert span in modules | top, f"{document.name}: {span}"
        elif re.fullmatch(r"[\w.-]+(/[\w.*-]*)+", span) and span.split("/")[0] in top:
            assert any(ROOT.glob(span)), f"{document.name}: {span}"


@pytest.mark.parametrize("document", LINKED, ids=lambda path: path.name)
def test_anchors_exist(document):
    for link in links(document):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if anchor and target.suffix == ".md" and target.name not in GENERATED:
            assert anchor in anchors(target), f"{document.name}: {link}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_pictures_have_alternative_texts(document):
    text = document.read_text(encoding="utf-8")
    for picture in re.findall(r"<img[^>]*>", text):
        assert re.search(r'alt="[^"]{10,}"', picture), f"{document.name}: {picture}"
    assert not re.search(r"!\[\s*\]\(", text), document.name


def test_the_readme_is_short():
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("\n") <= 150


def test_every_page_of_the_site_is_in_its_navigation():
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in DOCUMENTS if path.is_relative_to(ROOT / "docs")}
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert {page for page in pages if not page.startswith("studies/")} <= set(
        re.findall(r": (\S+\.md)$", text, re.MULTILINE)
    )


def compared_features(name):
    """Returns the cells of each feature in the tables whose first column of features is ours; "" has the header's."""
    tables = re.findall(r"^\| \| ours \|.*\n(?:\|.*\n)+", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for table in tables for line in table.splitlines()]
    names = [row[0] for row in rows if row[0] not in ("", "---")]
    assert tables and len(set(names)) == len(names), f"{name}: a feature stands there twice"
    return {row[0]: row[1:] for row in rows if row[0] != "---"}


def test_the_readmes_features_are_rows_of_the_whole_table():
    whole = compared_features("docs/features.md")
    for feature, cells in compared_features("README.md").items():
        assert cells == whole[feature][:-1], feature


def test_each_feature_that_we_have_names_its_test():
    for feature, (ours, *others, test) in compared_features("docs/features.md").items():
        assert len(others) == 5 and all(others), feature
        if feature and ours == "-":
            assert test == "-", feature
        elif feature:
            assert re.fullmatch(r"`test_\w+\.py`", test), feature
            assert len(list((ROOT / "tests").rglob(test.strip("`")))) == 1, feature
