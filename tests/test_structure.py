"""The rules of the house: dependencies point one way, private names stay at home, and no file grows too long."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "arccse_hf"
FOLDERS = ("commands", "study", "report", "training", "inference", "evaluation", "data", "model")
"""From the top down: a folder may import those after it."""
LEAVES = ("errors", "cli", "paths", "run_folder", "compat")
"""Modules and a folder that every folder but `model` may import."""
MAX_LINES = 400

SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
}
TREES = {module: ast.parse(path.read_bytes()) for module, path in SOURCES.items()}


def imports(module: str) -> Iterator[tuple[str, str, int]]:
    """Yields (module of the package, name or "", level of the relative import) of every import, lazy ones included."""
    package = module.split(".") if SOURCES[module].name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "", 0) for alias in node.names if alias.name.split(".")[0] == PACKAGE)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*start, *filter(None, [node.module])])
            if source.split(".")[0] != PACKAGE:
                continue
            for alias in node.names:
                submodule = f"{source}.{alias.name}"
                yield (submodule, "", node.level) if submodule in SOURCES else (source, alias.name, node.level)


def home(module: str) -> str:
    """Returns the folder of a module, or its own name where it lies in the package's root."""
    return [*module.split("."), "__init__"][1]


def test_folders_are_the_ones_the_rules_know():
    folders = {home(module) for module in SOURCES if SOURCES[module].parent != ROOT / PACKAGE}
    assert folders <= {*FOLDERS, "cli"}


def allowed_homes(module: str) -> set[str]:
    """Returns the folders and leaves that a module may import from."""
    own = home(module)
    if own in FOLDERS:
        return {*FOLDERS[FOLDERS.index(own) :], *(LEAVES if own != "model" else ())}
    return set(LEAVES) if own in LEAVES else {home(source) for source in SOURCES}


def test_imports_point_downwards():
    wrong = [
        f"{module} imports {source} {name}".strip()
        for module in SOURCES
        for source, name, _ in imports(module)
        if home(source) not in allowed_homes(module)
    ]
    assert wrong == []


def test_a_model_file_imports_its_neighbours_only():
    """What a checkpoint carries is copied flat: `from .losses import ...` is the one form that still works there."""
    for module in (module for module in SOURCES if home(module) == "model"):
        assert SOURCES[module].parent == ROOT / PACKAGE / "model"
        assert all(level == 1 for _, _, level in imports(module)), module


def test_no_cycles():
    graph = {module: {source for source, _, _ in imports(module)} - {module} for module in SOURCES}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


def test_private_names_stay_in_their_folder():
    taken = []
    for module in SOURCES:
        foreign = {
            (name or source).rpartition(".")[2] for source, name, _ in imports(module) if home(source) != home(module)
        }
        taken += [f"{module}: {name}" for name in foreign if is_private(name)]
        for node in ast.walk(TREES[module]):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in foreign:
                taken += [f"{module}: {node.value.id}.{node.attr}"] if is_private(node.attr) else []
    assert taken == []


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_no_file_is_too_long():
    files = [path for folder in (PACKAGE, "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in [*files, *ROOT.glob("*.py")]}
    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}
