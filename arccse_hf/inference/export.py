"""The finished model as a folder that every tool opens: the plain encoder in sentence-transformers layout."""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Normalize,
    Pooling,
    Transformer,
    WeightedLayerPooling,
)
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..model.adapters import has_adapters, plain_state_dict
from ..model.modeling_arccse import ArcCSEForContrastiveLearning, ArcCSEModel, Projection
from ..model.pooling import LAYER_WEIGHTS
from ..run_folder import CARD, MODULES, STAGING_PREFIX
from .loading import max_input_length, silence_load_report


def export(
    model: ArcCSEForContrastiveLearning | ArcCSEModel,
    tokenizer: PreTrainedTokenizerBase,
    output_dir: str | os.PathLike,
    model_card: str | None = None,
) -> list[str]:
    """Writes the encoder so that stock `AutoModel` and `SentenceTransformer` open `output_dir`, with no custom code.

    `SentenceTransformer(output_dir).encode` gives `ArcCSEModel`'s embeddings; a projection that is for training only is
    left out. Everything is written beside `output_dir`'s files first, so that a model there stays whole until the new
    one is complete.

    Args:
        model: What was trained.
        tokenizer: Its tokenizer.
        output_dir: The folder. Modules of a model that was there go; other files in it stay.
        model_card: Text of the README.md.

    Returns:
        The names of the files that were written, within `output_dir`.

    Example:
        >>> export(trainer.model, trainer.processing_class, "out")
        >>> SentenceTransformer("out").encode("The printer jams.").shape
        (384,)
    """
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output_dir, prefix=STAGING_PREFIX) as staging:
        to_sentence_transformer(model, tokenizer, output_dir).save(staging, create_model_card=False)
        if model_card is not None:
            (Path(staging) / CARD).write_text(model_card, encoding="utf-8")
        share_weights(Path(staging))
        written = [path.relative_to(staging).as_posix() for path in Path(staging).rglob("*") if path.is_file()]
        old_modules = _module_folders(output_dir)
        (output_dir / MODULES).unlink(missing_ok=True)
        for name in old_modules:
            shutil.rmtree(output_dir / name)
        for source in sorted(Path(staging).iterdir(), key=lambda path: path.name == MODULES):
            target = output_dir / source.name
            if target.is_dir():
                shutil.rmtree(target)
            source.replace(target)
    return written


def _module_folders(folder: Path) -> list[str]:
    """Returns the folders of a model's modules, such as `1_Pooling`; none where there is no model."""
    try:
        modules = json.loads((folder / MODULES).read_text(encoding="utf-8"))
        names = [str(module["path"]) for module in modules]
    except (OSError, ValueError, KeyError, TypeError):  # missing or damaged
        return []
    return [name for name in names if re.fullmatch(r"\d+_\w+", name) and (folder / name).is_dir()]


def share_weights(folder: Path) -> None:
    """Lets everyone read the weights who may read the other files; safetensors writes them for their owner alone."""
    mode = (folder / MODULES).stat().st_mode
    for weights in folder.rglob("*.safetensors"):
        weights.chmod(mode)


def to_sentence_transformer(
    model: ArcCSEForContrastiveLearning | ArcCSEModel, tokenizer: PreTrainedTokenizerBase, scratch: Path | None = None
) -> SentenceTransformer:
    """Returns the same encoder, pooling and projection as modules of sentence-transformers, in float32 on the CPU.

    Args:
        model: What is converted.
        tokenizer: Its tokenizer.
        scratch: Where the encoder is written for a moment; None: in the folder for temporary files.
    """
    config = model.config
    projection = model.base_model.projection if config.projection == "mlp" else getattr(model, "projection", None)
    model = model.base_model
    with tempfile.TemporaryDirectory(dir=scratch, prefix=STAGING_PREFIX) as folder:
        # The encoder's own configuration, without what the training model added to the shared object.
        adapted = has_adapters(model.encoder)
        model.encoder.save_pretrained(folder, state_dict=plain_state_dict(model.encoder) if adapted else None)
        tokenizer.save_pretrained(folder)
        all_layers = {"output_hidden_states": True} if config.pooling in LAYER_WEIGHTS else {}
        with silence_load_report():  # it would report the pooler, which is filled below
            transformer = Transformer(
                folder,
                max_seq_length=config.max_seq_length or max_input_length(model, tokenizer),
                config_kwargs=all_layers,
            )
    _fill_pooler(transformer.model, projection if config.pooling == "cls" else None)
    modules: list[nn.Module] = [transformer]
    if config.pooling in LAYER_WEIGHTS:
        num_layers = config.num_hidden_layers
        weights = torch.zeros(num_layers)
        for layer in LAYER_WEIGHTS[config.pooling]:
            weights[layer] += 1
        modules.append(
            WeightedLayerPooling(config.hidden_size, num_layers, layer_start=1, layer_weights=nn.Parameter(weights))
        )
    modules.append(Pooling(config.hidden_size, pooling_mode="cls" if config.pooling == "cls" else "mean"))
    if config.projection == "mlp":
        dense = Dense(config.hidden_size, config.hidden_size, activation_function=nn.Tanh())
        dense.linear.load_state_dict(model.projection.dense.state_dict())
        modules.append(dense)
    if config.normalize:
        modules.append(Normalize())
    return SentenceTransformer(
        modules=modules,
        device="cpu",
        prompts=config.prompts,
        default_prompt_name=config.default_prompt_name,
        similarity_fn_name=config.similarity,
    )


@torch.no_grad()
def _fill_pooler(encoder: nn.Module, projection: nn.Module | None) -> None:
    """Fills the weights of an encoder's own pooler, which nothing here trains and which would come out random.

    A projection trained on the first token is one, so it goes there, as in SimCSE's models. Otherwise zeros: whoever
    takes stock transformers' `pooler_output` for the embedding sees at once that it is not.
    """
    pooler = getattr(encoder, "pooler", None)
    if pooler is None:
        return
    dense = getattr(pooler, "dense", pooler)
    if isinstance(projection, Projection):
        dense.load_state_dict(projection.dense.state_dict())
    else:
        for weight in dense.parameters():
            weight.zero_()
