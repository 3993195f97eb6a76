"""The settings of the model that a run trains, as dataclass fields with their help texts."""

from dataclasses import dataclass, field
from typing import cast

from ..errors import UserError
from ..model.configuration_arccse import ArcCSEConfig, Pooling, Projection
from .field_rules import check_rules

HEAD_SETTINGS = tuple(
    "pooling projection temperature angular_margin triplet_margin matryoshka_dims matryoshka_weights".split()
)
"""Fields of `ModelArguments` that are fields of `ArcCSEConfig` too, which has their defaults and their ranges."""


@dataclass
class ModelArguments:
    """Which encoder to start from, and the settings that its checkpoints carry: the pooling and the two heads.

    How the triplets are made and what they weigh is decided by `ArcCSETrainingArguments`.
    """

    model_name_or_path: str = field(
        metadata={
            "help": "Encoder to start from: a hub id, a folder, or package:NAME/PATH[#sha256=HEX] for a folder inside "
            "an installed Python package, with the checksum of its model.safetensors."
        }
    )
    model_revision: str = field(default="main", metadata={"help": "Branch, tag or commit of the hub id."})
    attn_implementation: str | None = field(
        default=None, metadata={"help": "eager, sdpa, flash_attention_2 ...; transformers chooses by default."}
    )
    pooling: Pooling | None = field(
        default=None,
        metadata={"help": "How token states become a sentence embedding. By default as the encoder itself, else cls."},
    )
    projection: Projection | None = field(
        default=cast("Projection | None", ArcCSEConfig.projection),
        metadata={
            "help": "SimCSE's MLP on the pooled vector. By default as the encoder itself; where it says nothing of a "
            "pooling, mlp_train_only for cls without --matryoshka_dims, and none otherwise."
        },
    )
    temperature: float = field(default=ArcCSEConfig.temperature, metadata={"help": "Divides the cosines in ArcCon."})
    angular_margin: float = field(
        default=ArcCSEConfig.angular_margin,
        metadata={"help": "ArcCon's margin in degrees; 0 gives NT-Xent (SimCSE)."},
    )
    triplet_margin: float = field(
        default=ArcCSEConfig.triplet_margin, metadata={"help": "Cosine by which the less masked version must win."}
    )
    matryoshka_dims: list[int] = field(
        default_factory=list,
        metadata={
            "help": "Train the first so many dimensions on their own, such as 384 192 96 48, so that embeddings can be "
            "cut to them. By default all dimensions alone."
        },
    )
    matryoshka_weights: list[float] = field(
        default_factory=list, metadata={"help": "Weight of the losses at each of --matryoshka_dims. Equal by default."}
    )

    def __post_init__(self):
        check_rules(self)
        try:
            ArcCSEConfig(**self.head_settings())
        except ValueError as error:
            raise UserError(f"--{error}") from error

    def head_settings(self) -> dict[str, object]:
        """Returns the fields that go into `ArcCSEConfig`; those that the user left open are left out."""
        return {name: getattr(self, name) for name in HEAD_SETTINGS if getattr(self, name) not in (None, [])}
