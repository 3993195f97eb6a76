"""Configuration of an ArcCSE sentence encoder: its backbone, how it pools, and what its heads are set to."""

import math
from collections.abc import Callable
from typing import Literal, get_args

from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec

Pooling = Literal["cls", "mean", "mean_first_last", "mean_top2"]
Projection = Literal["none", "mlp", "mlp_train_only"]

POOLINGS: tuple[str, ...] = get_args(Pooling)
PROJECTIONS: tuple[str, ...] = get_args(Projection)


class ArcCSEConfig(PreTrainedConfig):
    """Configuration of `ArcCSEModel` and `ArcCSEForContrastiveLearning`.

    Args:
        backbone_config: Configuration (or its dict, with `model_type`) of any encoder of transformers; BERT if absent.
        pooling: How token states become a sentence embedding: `cls` (the first token), `mean` (of all tokens),
            `mean_first_last` (of the first and the last layer, averaged), `mean_top2` (of the last two, averaged).
        projection: `none`; `mlp`, a Linear and a Tanh on the pooled vector, part of the embedding for good; or
            `mlp_train_only`, the same while training, dropped at inference as unsupervised SimCSE does. By default
            `mlp_train_only` for `cls` without `matryoshka_dims`, and `none` otherwise.
        temperature: Divides the cosines in ArcCon. 0.05 is read in other people's code, not in the paper.
        angular_margin: ArcCon's margin in degrees, added to the angle of a positive pair. 0 makes the loss NT-Xent.
            10 is read in other people's code, not in the paper.
        triplet_margin: Cosine by which the less masked version must be the closer one. 0 is read in other people's
            code, not in the paper.
        matryoshka_dims: Numbers of dimensions. Both losses are taken of the first so many of each embedding, scaled to
            length 1 again, as in Matryoshka representation learning (Kusupati et al., NeurIPS 2022). By default all
            dimensions alone.
        matryoshka_weights: Weight of the losses at each of `matryoshka_dims`, which are averaged; equal by default.
        normalize: Whether the exported folder scales embeddings to length 1, as the encoder that it started from did.
        max_seq_length: Tokens that the exported folder cuts a text to, special tokens included; by default as many as
            the encoder reads.
        max_positions: Tokens that the backbone has position embeddings for, where it has a table of them; the model
            knows.
        prompts: Texts by name that sentence-transformers can put before a text.
        default_prompt_name: Which of them it puts there by default.
        similarity: Sentence-transformers' name of the similarity function: "cosine", "dot" ...

    Raises:
        ValueError: A value is not allowed; the message names the field and what is.

    Example:
        >>> bert = AutoConfig.from_pretrained("bert-base-uncased")
        >>> config = ArcCSEConfig(backbone_config=bert, pooling="mean", angular_margin=20)
        >>> config.projection
        'none'
    """

    model_type = "arccse"
    sub_configs_defaults = {"backbone_config": SubConfigSpec(config_class=AutoConfig, model_type="bert")}  # noqa: RUF012

    backbone_config: dict | PreTrainedConfig | None = None
    pooling: str = "cls"
    projection: str | None = None
    temperature: float = 0.05
    angular_margin: float = 10.0
    triplet_margin: float = 0.0
    matryoshka_dims: list[int] | None = None
    matryoshka_weights: list[float] | None = None
    normalize: bool = False
    max_seq_length: int | None = None
    max_positions: int | None = None
    prompts: dict[str, str] | None = None
    default_prompt_name: str | None = None
    similarity: str | None = None

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.projection is None:
            self.projection = "mlp_train_only" if self.pooling == "cls" and not self.matryoshka_dims else "none"
        _require_choice("pooling", self.pooling, POOLINGS)
        _require_choice("projection", self.projection, PROJECTIONS)
        _require_number("temperature", self.temperature, "above 0", lambda value: value > 0)
        _require_number("angular_margin", self.angular_margin, "in [0, 90) degrees", lambda value: 0 <= value < 90)
        _require_number("triplet_margin", self.triplet_margin, "in [0, 2)", lambda value: 0 <= value < 2)
        _require_prefixes(self.matryoshka_dims or [], self.matryoshka_weights)
        if self.matryoshka_dims and self.projection == "mlp_train_only":
            raise ValueError(
                "matryoshka_dims: with projection mlp_train_only, the first dimensions of its output are trained, and "
                "not those of the embeddings, which leave it out; use projection none or mlp"
            )

    @property
    def prefixes(self) -> list[tuple[int | None, float]]:
        """The numbers of dimensions at which the losses are taken, None for all, and the share of each in the mean."""
        if not self.matryoshka_dims:
            return [(None, 1.0)]
        weights = self.matryoshka_weights or [1.0] * len(self.matryoshka_dims)
        return [(dim, weight / sum(weights)) for dim, weight in zip(self.matryoshka_dims, weights, strict=True)]

    @property
    def hidden_size(self) -> int:
        """Width of the sentence embedding."""
        return self._backbone.hidden_size

    @property
    def num_hidden_layers(self) -> int:
        """Number of the backbone's layers, the embeddings not counted."""
        return self._backbone.num_hidden_layers

    @property
    def max_position_embeddings(self) -> int:
        """Tokens that the backbone reads; sentence-transformers asks. AttributeError where it has no limit."""
        return self.max_positions or self._backbone.max_position_embeddings

    @property
    def vocab_size(self) -> int:
        """Number of token ids that the backbone knows."""
        return self._backbone.vocab_size

    @property
    def _backbone(self) -> PreTrainedConfig:
        # What was given as a dict, or not at all, `PreTrainedConfig.__post_init__` has made a config of.
        assert isinstance(self.backbone_config, PreTrainedConfig)
        return self.backbone_config


def _require_choice(field: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{field} must be one of {', '.join(choices)}, not {value!r}")


def _require_prefixes(dims: list[int], weights: list[float] | None) -> None:
    if not all(isinstance(dim, int) and dim > 0 for dim in dims) or len(set(dims)) < len(dims):
        raise ValueError(f"matryoshka_dims must be different whole numbers from 1, not {dims}")
    if weights is not None and (len(weights) != len(dims) or not all(weight > 0 for weight in weights)):
        raise ValueError(f"matryoshka_weights must be one number above 0 for each of {dims}, not {weights}")


def _require_number(field: str, value: object, allowed: str, holds: Callable[[float], bool]) -> None:
    if isinstance(value, bool) or not (isinstance(value, (int, float)) and math.isfinite(value) and holds(value)):
        raise ValueError(f"{field} must be a number {allowed}, not {value!r}")
