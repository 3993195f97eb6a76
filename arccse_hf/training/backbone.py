"""Opening the encoder that a run starts from, with every check that can be made before training."""

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..data.collator import require_pad_token
from ..errors import UserError, one_line
from ..inference.loading import resolve_model_path, silence_load_report, without_zero3_init
from ..model.modeling_arccse import ArcCSEForContrastiveLearning
from .arguments import ModelArguments


def load_backbone(arguments: ModelArguments) -> tuple[ArcCSEForContrastiveLearning, PreTrainedTokenizerBase]:
    """The model to train, with the pretrained encoder inside, and its tokenizer.

    Raises:
        UserError: there is no such encoder, it is none, its checkpoint lacks weights, or the tokenizer does not fit.
    """
    name = f"--model_name_or_path {arguments.model_name_or_path}"
    path = resolve_model_path(arguments.model_name_or_path)
    loading = {"revision": arguments.model_revision, "trust_remote_code": arguments.trust_remote_code}
    try:
        with silence_load_report(), without_zero3_init():  # from_backbone makes errors of what the report would say
            model = ArcCSEForContrastiveLearning.from_backbone(
                path,
                attn_implementation=arguments.attn_implementation,
                **arguments.head_settings(),
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
