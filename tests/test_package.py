"""The package as others get it: its names come when they are asked for, and a wheel holds all that it needs."""

import ast
import inspect
import pydoc
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import arccse_hf

ROOT = Path(__file__).parents[1]


def test_every_public_name_is_found_in_its_module():
    for name in arccse_hf._HOMES:
        value = getattr(arccse_hf, name)
        assert value.__name__ == name and value.__doc__ and name in dir(arccse_hf)
    with pytest.raises(AttributeError, match="module 'arccse_hf' has no attribute 'nothing'"):
        arccse_hf.nothing  # noqa: B018


def test_type_checkers_see_the_same_names():
    tree = ast.parse(inspect.getsource(arccse_hf))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert seen == arccse_hf._HOMES


def test_help_fits_a_few_screens():
    text = pydoc.plain(pydoc.render_doc(arccse_hf))
    assert all(name in text for name in arccse_hf._HOMES) and len(text.splitlines()) < 100


def test_auto_classes_know_ours_in_any_order_of_imports():
    """In a fork per order, so that what transformers imports is imported once."""
    code = """
import os, sys, datasets, scipy.optimize, sklearn.metrics, torch, torch._dynamo, torch.distributed.fsdp
assert "transformers" not in sys.modules
orders = (
    "import arccse_hf; import transformers; transformers.AutoModel",
    "import transformers; transformers.AutoModel; import arccse_hf",
    "from arccse_hf import ArcCSEForContrastiveLearning",
)
for order in orders:
    if not os.fork():
        exec(order)
        from transformers import AutoConfig
        from transformers.models.auto.modeling_auto import MODEL_MAPPING
        config = AutoConfig.for_model("arccse")
        model = MODEL_MAPPING[type(config)]
        assert type(config).__module__ == "arccse_hf.model.configuration_arccse"
        assert model.__module__ == "arccse_hf.model.modeling_arccse"
        assert (model._auto_class, config._auto_class) == ("AutoModel", "AutoConfig")
        sys.exit()
    assert os.wait()[1] == 0, order
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The built wheel, without an isolated environment and without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("arccse_hf", "configs"):
        shutil.copytree(
            ROOT / name, folder / "source" / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    build = f"import setuptools.build_meta as backend; print(backend.build_wheel({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", build], cwd=folder / "source", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


def test_a_wheel_holds_recipes_studies_scores_and_the_table_of_fields(wheel):
    files = set(zipfile.ZipFile(wheel).namelist())
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "arccse_hf").rglob("*.py")}
    recipes = {f"arccse_hf/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert len(recipes) > 10
    assert sources | recipes | {"arccse_hf/training/fields.json", "arccse_hf/py.typed"} <= files


def test_an_installed_wheel_finds_recipes_by_name(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    for line in ("train quickstart --help", "train quickstart --max_steps 0", "study objectives --max_steps 0"):
        done = subprocess.run(
            [sys.executable, "-m", "arccse_hf", *line.split()],
            cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == (0 if "--help" in line else 2), done.stderr
        assert "--max_steps" in done.stdout + done.stderr and "no such file" not in done.stderr
