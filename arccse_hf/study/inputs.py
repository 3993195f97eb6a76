"""What a run reads besides its fields: a file can change while its name stays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.documents import list_files
from ..errors import UserError
from ..inference.loading import resolve_model_path

if TYPE_CHECKING:
    from ..training.arguments import DataArguments
    from ..training.model_arguments import ModelArguments

_ENCODER = ("*.safetensors", "*.bin", "*.json", "*.txt", "[0-9]*_*/*")
_END = 2**20


def inputs_of(model: ModelArguments, data: DataArguments) -> dict[str, str]:
    """Returns a hash of the encoder's files and one of the text; what lies on a hub has none.

    Of a text its name, its size and its two ends count, so that one of any size is looked at in a moment.

    Raises:
        UserError: A file of text is missing, or the package that has the encoder is; or a file cannot be read.
    """
    folder = Path(resolve_model_path(model.model_name_or_path)).expanduser()
    encoder = sorted(path for pattern in _ENCODER for path in folder.glob(pattern)) if folder.is_dir() else []
    text = map(Path, list_files(data.train_file, data.one_document_per_file)) if data.train_file else []
    found = {"model_name_or_path": _hash_of(filter(Path.is_file, encoder)), "train_file": _hash_of(text, ends=True)}
    return {name: value for name, value in found.items() if value is not None}


def _hash_of(paths: Iterable[Path], ends: bool = False) -> str | None:
    digest, empty = hashlib.sha256(), True
    for path in paths:
        empty = False
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                digest.update(f"{path.name} {size} ".encode("utf-8", "surrogateescape"))
                if ends:
                    digest.update(file.read(_END))
                    file.seek(max(0, size - _END))
                    digest.update(file.read(_END))
                else:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    return None if empty else digest.hexdigest()
