"""`arccse report`: what happened in one or several runs, as pictures and one page that holds them all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import UserError
from ..paths import replacing
from .runs import read_runs

PAGE = "report.html"


@contextlib.contextmanager
def needing_matplotlib(command: str) -> Iterator[None]:
    """Around imports: matplotlib is an extra, and a UserError says so where it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        raise UserError(f"{command}: the pictures need matplotlib: pip install 'arccse-hf[report]'") from error


def write_report(folders: Sequence[str | os.PathLike], output: str | os.PathLike) -> Path:
    """Writes `report.html`, which needs no other file, and its pictures as PNG beside it, light and dark.

    Args:
        folders: Output folders of `run_arccse.py`, finished or not. What a run has not left is said on the page.
        output: The folder to write into; files of the same names are replaced.

    Returns:
        The path of the page.

    Raises:
        UserError: A folder that is no run, a broken file, an `output` that cannot be written, or no matplotlib.
    """
    runs = read_runs(folders)
    with needing_matplotlib("report"):
        from .page import build_page
        from .sections import sections_of

    folder = Path(output)
    sections = sections_of(runs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for section in sections:
            for figure in section.figures:
                for file, png in figure.files.items():
                    (folder / file).write_bytes(png)
        page = folder / PAGE
        with replacing(page) as unfinished:
            unfinished.write_text(build_page(runs, sections), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"--output_dir {output}: cannot write there ({error.strerror}); choose another folder"
        ) from error
    return page
