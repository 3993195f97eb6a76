"""The notebooks run from top to bottom with a tiny encoder and few steps; what is stored in them is small and whole."""

import ast
import json
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from doc_text import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_stored_is_small_whole_and_of_no_machine(notebook):
    text = notebook.read_text(encoding="utf-8")
    cells = json.loads(text)["cells"]
    assert len(text) < 150_000
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            shown = json.dumps({kind: part for kind, part in output.get("data", output).items() if "image" not in kind})
            assert not any(place in shown for place in ("/tmp/", "/root/", "/home/", "\\u001b")), shown[:200]


@pytest.mark.extras
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(notebook, encoder, tmp_path, monkeypatch):
    if not find_spec("nbclient") or not find_spec("ipykernel"):
        pytest.skip("nbclient and ipykernel are not installed: make docs")
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    content = nbformat.read(notebook, 4)
    parameters = [cell for cell in content.cells if "parameters" in cell.metadata.get("tags", ())]
    assert len(parameters) == 1
    names = {line.split(" = ")[0] for line in parameters[0].source.splitlines()}
    quick = {"FOLDER": "pages", "BASE": encoder, "STEPS": 2, "SENTENCES": 80}
    parameters[0].source = "\n".join(f"{name} = {quick[name]!r}" for name in names)
    NotebookClient(content, timeout=1800, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in content.cells for output in cell.get("outputs", ())]
    shown = json.dumps(outputs)
    assert ("VERDICT: " in shown) == (notebook.stem == "own-text-to-search")
    assert sum("image/png" in output.get("data", ()) for output in outputs) == (0 if "VERDICT: " in shown else 3)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_it_imports_of_the_package_is_there(notebook):
    """Also where there is nothing to run it with."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    lines = [line for source in code for line in source.splitlines() if not line.startswith(("!", "%"))]
    tree = ast.parse("\n".join(lines))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and "arccse_hf" in str(node.module)]
    assert found
    for node in found:
        for alias in node.names:
            assert hasattr(import_module(node.module), alias.name), (node.module, alias.name)
