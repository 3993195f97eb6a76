"""What a run leaves in its folder: the names of all files, and the mark that says that it is done."""

import tempfile
from pathlib import Path

from transformers.trainer_utils import get_last_checkpoint

from .errors import UserError

FINISHED = "modules.json"
"""Sentence-transformers' table of contents, written last: the folder is a finished model once it is there."""


def check_output_dir(output_dir: str, *, overwrite: bool, resume: str | None) -> None:
    """Makes sure, before anything is trained, that the result can be written and that nothing of worth is replaced.

    Raises:
        UserError: `output_dir` can't be written, or holds a model or checkpoints that the run would mix with its own.
    """
    option = f"--output_dir {output_dir}"
    folder = Path(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{option}: can't write there ({error.strerror}); choose another folder") from error
    if overwrite:
        return
    if (folder / FINISHED).exists():
        raise UserError(f"{option}: holds a finished model; choose another folder, or --overwrite_output_dir")
    if resume is None and get_last_checkpoint(output_dir):
        raise UserError(
            f"{option}: holds checkpoints of an interrupted run; --resume_from_checkpoint True goes on with it, "
            "--overwrite_output_dir starts anew"
        )
