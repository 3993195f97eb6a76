"""What a run trains with, kept in its checkpoints: a resumed run says what is different, or is refused."""

import hashlib
from collections.abc import Iterator
from enum import Enum

import datasets
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainingArguments

from ..errors import UserError

_HEADS = ("temperature", "angular_margin", "triplet_margin", "matryoshka_dims", "matryoshka_weights")
_RESTORED = ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon")
"""A checkpoint of the optimizer brings these along: a new value has no effect."""
_SETTINGS = (
    *_RESTORED,
    *"seed data_seed max_steps num_train_epochs lr_scheduler_type warmup_steps optim max_grad_norm bf16 fp16".split(),
    *"per_device_train_batch_size gradient_accumulation_steps world_size dataloader_drop_last".split(),
    *"train_sampling_strategy triplet_weight small_span_ratio large_span_ratio span_corruption".split(),
    *"triplet_min_tokens triplet_dropout gather_negatives save_only_model".split(),
    *"train_last_layers anchor_weight false_negative_threshold lora_dropout".split(),
    *"lora_r lora_alpha lora_target_modules max_seq_length".split(),
)
_STRUCTURE = ("pooling", "projection", "lora_r", "lora_alpha", "lora_target_modules")
"""What decides which weights there are, and what they mean."""
_ROWS = 10_000
"""Rows that are hashed at once."""
_VALUES = 16


def run_identity(model: nn.Module, args: TrainingArguments, train_dataset: Dataset | None) -> dict[str, object]:
    """Returns what decides the course of a run, as JSON holds it.

    Args:
        model: The model before training.
        args: The settings.
        train_dataset: The rows, all of which are hashed; or what has a `fingerprint`.
    """
    config = model.config
    return {
        "encoder": _fingerprint_of_weights(model),
        "pooling": getattr(config, "pooling", None),
        "projection": getattr(config, "projection", None),
        "text": _fingerprint_of_rows(train_dataset),
        **{name: getattr(config, name, None) for name in _HEADS},
        **{name: _plain(getattr(args, name, None)) for name in _SETTINGS},
    }


def differences(before: dict[str, object], now: dict[str, object]) -> Iterator[str]:
    """Yields one line for each difference between a checkpoint's run and this one.

    Raises:
        UserError: The checkpoint's weights belong to another model.
    """
    changed = {name: (before[name], now[name]) for name in now if name in before and before[name] != now[name]}
    if before.get("text") is None:
        changed.pop("text", None)  # it was not looked at, as streams were not in earlier versions
    if "encoder" in changed:
        raise UserError(
            "--model_name_or_path: the checkpoint was trained from another encoder; give that one, or "
            "--overwrite_output_dir to start anew"
        )
    for name in _STRUCTURE:
        if name in changed:
            before_words, now_words = (f"--{name} {_in_words(value)}" for value in changed[name])
            raise UserError(
                f"{now_words}: the checkpoint was trained with {before_words}; give that, or --overwrite_output_dir to "
                "start anew"
            )
    for name, (old, new) in changed.items():
        if name == "text":
            yield "the text is not the one that the checkpoint was trained on"
        elif name == "world_size":
            yield f"{new} processes go on with what {old} had begun: not exactly the run that it would have been"
        elif name in _RESTORED and not before.get("save_only_model"):
            yield f"--{name} {new}: has no effect, the checkpoint goes on with {old}"
        else:
            yield f"--{name} {new}: was {old} until this checkpoint"
    if before.get("save_only_model"):
        alone = "the checkpoint holds the model only (--save_only_model True)"
        yield f"{alone}: the optimizer starts anew, and so does the learning rate's schedule"


def _in_words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _plain(value: object) -> object:
    return value.value if isinstance(value, Enum) else value


def _fingerprint_of_weights(model: nn.Module) -> str:
    """Of some values of each weight of the encoder; heads and adapters start from random numbers."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        if "projection" not in name and "lora_" not in name:
            values = weight.detach().flatten()[:_VALUES].to("cpu", torch.float32)
            name = name.replace(".base_layer.", ".")
            digest.update(f"{name} {tuple(weight.shape)} ".encode() + values.numpy().tobytes())
    return digest.hexdigest()


def _fingerprint_of_rows(rows: Dataset | None) -> str | None:
    """None where the rows cannot be looked at without being used up."""
    if not isinstance(rows, datasets.Dataset):
        return getattr(rows, "fingerprint", None)
    digest = hashlib.sha256(repr(rows.column_names).encode())
    # Messages of Arrow are equal where the rows are, whatever chunks, slices and indices these come from.
    for table in rows.with_format("arrow").iter(_ROWS):
        for batch in table.combine_chunks().to_batches():
            digest.update(batch.serialize())
    return digest.hexdigest()
