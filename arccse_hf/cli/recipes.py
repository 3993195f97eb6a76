"""The recipes that ship with the package (`configs/`), found by name."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from ..errors import UserError, did_you_mean

RECIPES = Path(str(files("arccse_hf"))) / "configs"
"""Recipes of `train`; its folder `studies` has those of `study`, and `published` the papers' scores."""

_TEXT = (".txt", ".csv", ".tsv", ".jsonl", ".parquet", ".gz")


def find_recipe(name: str, folder: str = ".") -> Path:
    """Returns the file behind a recipe's name, or `name` itself where it is a path.

    Args:
        name: A path, or the name of a file of `RECIPES` without its suffix: "quickstart".
        folder: Of `RECIPES`, where names are looked up: "." or "studies".

    Raises:
        UserError: It is neither, or a file of text.

    Example:
        >>> find_recipe("quickstart").name
        'quickstart.yaml'
    """
    if os.path.isfile(name):  # False, and no error, where a name is too long for a file
        if name.endswith(_TEXT):
            raise UserError(f"{name}: is no recipe, which ends in .yaml or .json; text is given as --train_file {name}")
        return Path(name)
    known = sorted(path.stem for path in (RECIPES / folder).glob("*.yaml"))
    if name in known:
        return RECIPES / folder / f"{name}.yaml"
    if Path(name).suffix in (".yaml", ".yml", ".json") or "/" in name:
        raise UserError(f"{name}: there is no such file; recipes that ship with the package: {', '.join(known)}")
    raise UserError(f"{name}: neither a file nor a recipe ({', '.join(known)}){did_you_mean(name, known)}")
