"""Opening the encoder that a run starts from, with every check that can be made before training."""

import logging
import os
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..compat import without_zero3_init
from ..data.collator import require_pad_token
from ..errors import UserError, one_line
from ..inference.base_modules import BaseModules, read_base_modules
from ..inference.loading import require_tokenizer, resolve_model_path, silence_load_report, why_not_opened
from ..model.modeling_arccse import ArcCSEForContrastiveLearning, Projection
from ..paths import without_checksum
from .model_arguments import ModelArguments
from .provenance import without_folder

logger = logging.getLogger(__name__)


def load_backbone(arguments: ModelArguments) -> tuple[ArcCSEForContrastiveLearning, PreTrainedTokenizerBase]:
    """The model to train, with the pretrained encoder inside, and its tokenizer.

    Raises:
        UserError: There is no such encoder, it is none, its checkpoint lacks weights, or the tokenizer does not fit.
    """
    name = f"--model_name_or_path {arguments.model_name_or_path}"
    path = resolve_model_path(arguments.model_name_or_path, "--model_name_or_path")
    loading: dict[str, Any] = {"revision": arguments.model_revision}
    with silence_load_report(), without_zero3_init():
        base = read_base_modules(path, **loading)
    settings: dict[str, Any] = arguments.head_settings() | (settings_of_base(base, arguments) if base else {})
    try:
        with silence_load_report(), without_zero3_init():  # from_backbone makes errors of what the report would say
            model = ArcCSEForContrastiveLearning.from_backbone(
                path,
                attn_implementation=arguments.attn_implementation,
                **settings,
                **loading,
            )
            if base and base.dense and model.config.projection == "mlp":
                model.base_model.projection.dense.load_state_dict(base.dense)
        if os.path.isdir(path):  # checkpoints, which may be uploaded, would name all of it
            encoder, shown = model.base_model.encoder, without_folder(without_checksum(arguments.model_name_or_path))
            encoder.name_or_path = encoder.config.name_or_path = shown.removeprefix("package:")
    except (OSError, ValueError, ImportError, SafetensorError, StrictDataclassError) as error:
        # Not there, not an encoder, not complete, damaged, a package missing.
        raise UserError(f"{name}: {why_not_opened(arguments.model_name_or_path, error)}") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, **loading)
        require_pad_token(tokenizer)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"{name}: no usable tokenizer there: {one_line(error)}") from error
    require_tokenizer(tokenizer, name, model.config.vocab_size)
    return model, tokenizer


def has_new_projection(model: ArcCSEForContrastiveLearning) -> bool:
    """Returns whether embeddings end in a projection that nothing has trained yet: its bias is 0, as it starts."""
    projection = model.base_model.projection
    return isinstance(projection, Projection) and not projection.dense.bias.any()


def settings_of_base(base: BaseModules, arguments: ModelArguments) -> dict[str, Any]:
    """Returns the fields of `ArcCSEConfig` that a sentence-transformers model brings; what the user set goes over them.

    Raises:
        UserError: The model does what cannot be trained here, and the user set nothing in its place.
    """
    name = f"--model_name_or_path {arguments.model_name_or_path}"
    if arguments.pooling is None and base.pooling is None:
        raise UserError(
            f"{name}: its pooling ({base.pooling_name}) cannot be trained here; --pooling mean or --pooling cls sets "
            "another, and its embeddings will be others from the start"
        )
    unknown = ", ".join(base.unknown)
    if unknown and arguments.projection != "none":
        raise UserError(
            f"{name}: its modules {unknown} cannot be trained here; --projection none leaves them out, and its "
            "embeddings will be others from the start"
        )
    own = {"pooling": base.pooling, "projection": "mlp" if base.dense else "none"}
    chosen = {field: getattr(arguments, field) or value for field, value in own.items()}
    kept = [f"{chosen['pooling']} pooling", f"projection {chosen['projection']}"]
    kept += ["Normalize"] if base.settings["normalize"] else []
    kept += [f"{base.settings['max_seq_length']} tokens"] if base.settings["max_seq_length"] else []
    kept += [f"prompts {', '.join(base.settings['prompts'])}"] if base.settings["prompts"] else []
    logger.info("%s is a sentence-transformers model; the exported one will have %s", name, ", ".join(kept))
    if unknown:
        logger.warning("%s: left out: %s; its embeddings are others from the start", name, unknown)
    for field, value in own.items():
        if chosen[field] != value:
            logger.warning("--%s %s: the encoder itself has %s", field, chosen[field], value or base.pooling_name)
    if base.settings["default_prompt_name"]:
        prompt = base.settings["default_prompt_name"]
        logger.warning("%s puts its prompt %r before every text; training does not", name, prompt)
    return {**base.settings, **chosen}
