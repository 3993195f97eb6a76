"""What a run reads besides its fields: a file can change while its name stays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.documents import list_files
from ..inference.loading import resolve_model_path

if TYPE_CHECKING:
    from ..training.arguments import DataArguments
    from ..training.model_arguments import ModelArguments

_WEIGHTS = ("*.safetensors", "*.bin", "[0-9]*_*/*.safetensors")
_END = 2**20


def inputs_of(model: ModelArguments, data: DataArguments) -> dict[str, str]:
    """Returns a hash of the encoder's weights and one of the text; what lies on a hub has none.

    Of each file its name, its size and its two ends count, so that texts of any size are looked at in a moment.

    Raises:
        UserError: A file of text is missing, or the package that has the encoder is.
    """
    folder = Path(resolve_model_path(model.model_name_or_path)).expanduser()
    weights = sorted(path for pattern in _WEIGHTS for path in folder.glob(pattern)) if folder.is_dir() else []
    text = map(Path, list_files(data.train_file, data.one_document_per_file)) if data.train_file else []
    found = {"model_name_or_path": _hash_of(weights), "train_file": _hash_of(text)}
    return {name: value for name, value in found.items() if value is not None}


def _hash_of(paths: Iterable[Path]) -> str | None:
    digest, empty = hashlib.sha256(), True
    for path in paths:
        empty = False
        with path.open("rb") as file:
            digest.update(f"{path.name} {path.stat().st_size} ".encode("utf-8", "surrogateescape") + file.read(_END))
            file.seek(max(0, path.stat().st_size - _END))
            digest.update(file.read(_END))
    return None if empty else digest.hexdigest()
