"""The ArcCSE sentence encoder, and the model with the two heads that trains it.

This folder is copied into every checkpoint, so that `trust_remote_code=True` opens one where the package is not
installed. It therefore imports nothing else of the package.
"""

import contextlib
import copy
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.dynamic_module_utils import custom_object_save
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput

from .adapters import has_adapters, plain_state_dict
from .checkpoint_layout import write_layout
from .configuration_arccse import ArcCSEConfig
from .encoder_checks import require_encoder, without_pooler
from .heads import ArcConHead, Projection, TripletHead
from .length_batching import embed_by_length
from .losses import cosine_matrix
from .pooling import LAYER_WEIGHTS, POOLING_FUNCTIONS
from .positions import position_limits


@dataclass
class ArcCSEOutput(ModelOutput):
    """What one forward call gives: of texts their embeddings, of a training batch the losses and what is behind them.

    Args:
        arccon_loss: Scalar, the mean over the anchors.
        triplet_loss: Scalar, the mean over the triplets; absent where the batch holds none.
        sentence_embedding: Of texts: `[texts, dim]`, as inference uses it.
        training_embedding: Of texts: `[texts, dim]`, as the heads are given it, behind the projection.
        anchors: Embeddings `[batch, dim]`.
        key_embeddings: `[keys, dim]`: key i is the positive of anchor i; then follow, where there are any, the hard
            negatives and the keys of other processes.
        arccon_losses: `[batch]`, without gradient: the loss of each anchor.
        triplet_losses: `[triplets]`, without gradient.
        triplet_embeddings: `[triplets, 3, dim]`, without gradient.
        closer_cosine: `[triplets]`, without gradient: each sentence against its version with the small span masked.
        farther_cosine: `[triplets]`, without gradient: the same with the large span masked.
    """

    arccon_loss: Tensor | None = None
    triplet_loss: Tensor | None = None
    sentence_embedding: Tensor | None = None
    training_embedding: Tensor | None = None
    anchors: Tensor | None = None
    key_embeddings: Tensor | None = None
    arccon_losses: Tensor | None = None
    triplet_losses: Tensor | None = None
    triplet_embeddings: Tensor | None = None
    closer_cosine: Tensor | None = None
    farther_cosine: Tensor | None = None

    @property
    def cosines(self) -> Tensor:
        """`[batch, keys]`: each anchor with every key."""
        return cosine_matrix(self.anchors, self.key_embeddings)


class ArcCSEPreTrainedModel(PreTrainedModel):
    """What the two models share: how weights start, and how a pretrained encoder is put inside."""

    config: ArcCSEConfig
    base_model_prefix = "arccse"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # The encoder initialises its own modules: what is ours is the projection's, which starts as BERT's pooler does.
        # Its Linear must be looked for, as transformers passes over modules that hold no weights of their own.
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)

    def save_pretrained(self, save_directory: str | os.PathLike, is_main_process: bool = True, **kwargs) -> None:
        """Saves the model with what `SentenceTransformer` needs to embed as `ArcCSEModel` does, its adapters merged.

        The weights keep their names. Of some encoders transformers would write those of the original code, which it
        knows to read again, and Trainer, which loads the best checkpoint and the one of a resumed run, does not.
        """
        kwargs.setdefault("save_original_format", False)
        if has_adapters(self):
            kwargs["state_dict"] = plain_state_dict(self)
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if is_main_process:
            write_layout(save_directory, self.config)

    @classmethod
    def from_backbone(
        cls,
        name_or_path: str | os.PathLike,
        *,
        attn_implementation: str | None = None,
        revision: str = "main",
        **config,
    ) -> "ArcCSEPreTrainedModel":
        """Loads a pretrained encoder, in float32, into a new model.

        Args:
            name_or_path: A hub id or a folder; `...ForPreTraining` and `...ForMaskedLM` checkpoints serve too.
            attn_implementation: `eager`, `sdpa`, `flash_attention_2` ...; transformers' choice by default.
            revision: Revision of the hub id.
            config: Fields of `ArcCSEConfig` other than `backbone_config`.

        Raises:
            ValueError: The checkpoint is not that of an encoder, or lacks weights that the encoder needs.
            OSError: There is no such checkpoint.

        Example:
            >>> model = ArcCSEForContrastiveLearning.from_backbone("bert-base-uncased", pooling="cls")
        """
        # Checkpoints of an encoder that brings its own code would not open again.
        loading = {"revision": revision, "trust_remote_code": False}
        backbone_config = AutoConfig.from_pretrained(name_or_path, **loading)
        if isinstance(backbone_config, ArcCSEConfig):
            raise ValueError(f"{name_or_path} holds an ArcCSE model, not a plain encoder: open it with from_pretrained")
        require_encoder(backbone_config, name_or_path)
        backbone, report = AutoModel.from_pretrained(
            name_or_path,
            config=backbone_config,
            dtype=torch.float32,
            attn_implementation=attn_implementation,
            output_loading_info=True,
            **without_pooler(backbone_config),
            **loading,
        )
        missing, mismatched = sorted(report["missing_keys"]), sorted(str(key) for key in report["mismatched_keys"])
        if missing or mismatched:
            raise ValueError(
                f"{name_or_path} lacks {len(missing)} weights of a {type(backbone).__name__} and {len(mismatched)} "
                f"have another shape; the first is {(missing + mismatched)[0]}. Training would start from noise there."
            )
        # A copy: config objects are shared between models and mutated by them.
        model = cls(ArcCSEConfig(backbone_config=copy.deepcopy(backbone.config), **config))
        model.base_model.encoder.load_state_dict(backbone.state_dict())
        if attn_implementation is not None:
            model.set_attn_implementation(attn_implementation)
        return model.eval()


class ArcCSEModel(ArcCSEPreTrainedModel):
    """Any encoder of transformers with a pooling: `pooler_output` is the sentence embedding, as inference uses it.

    Example:
        >>> import arccse_hf  # AutoModel knows it from then on
        >>> folder = "out/training/checkpoint-125"
        >>> model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        >>> model(**tokenizer(["The printer jams."], return_tensors="pt")).pooler_output.shape
        torch.Size([1, 768])
    """

    _keys_to_ignore_on_load_unexpected = [r"^projection\."]  # noqa: RUF012  (trained, and dropped at inference)

    def __init__(self, config: ArcCSEConfig):
        super().__init__(config)
        self.encoder = AutoModel.from_config(config.backbone_config, **without_pooler(config.backbone_config))
        if limits := position_limits(self.encoder):
            config.max_positions = min(limits)
        self.projection = Projection(config.hidden_size) if config.projection == "mlp" else nn.Identity()
        self._reads_token_embeddings: bool | None = None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Returns the backbone's table of token embeddings."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces that table, as `resize_token_embeddings` does."""
        self.encoder.set_input_embeddings(value)

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **kwargs
    ) -> BaseModelOutputWithPooling:
        """Embeds sentences.

        Args:
            input_ids: `[batch, length]`; or `inputs_embeds` `[batch, length, dim]` among the encoder's own arguments.
            attention_mask: `[batch, length]`, 1 for tokens and 0 for padding; all 1 if absent.
            kwargs: Other arguments of the encoder.

        Returns:
            `last_hidden_state` `[batch, length, dim]` and `pooler_output` `[batch, dim]`, the sentence embedding.
        """
        if attention_mask is None:
            embedded = input_ids if input_ids is not None else kwargs["inputs_embeds"]
            attention_mask = torch.ones(embedded.shape[:2], dtype=torch.long, device=embedded.device)
        if self.config.pooling in LAYER_WEIGHTS:
            kwargs["output_hidden_states"] = True
        outputs = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **{**kwargs, "return_dict": True})
        layers = outputs.hidden_states or (outputs.last_hidden_state,)
        pooled = POOLING_FUNCTIONS[self.config.pooling](layers, attention_mask)
        return BaseModelOutputWithPooling(
            last_hidden_state=outputs.last_hidden_state,
            pooler_output=self.projection(pooled),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    @torch.no_grad()
    def reads_token_embeddings(self, input_ids: Tensor, attention_mask: Tensor) -> bool:
        """Returns whether the encoder makes of token embeddings what it makes of their ids.

        Not every encoder does: some take ids only, and some read more from them. It is tried once, on the first texts.

        Args:
            input_ids: `[texts, length]`.
            attention_mask: `[texts, length]`.
        """
        if self._reads_token_embeddings is None:
            self._reads_token_embeddings = "inputs_embeds" in inspect.signature(self.encoder.forward).parameters
            if self._reads_token_embeddings:
                # Autocast, where it is on, would keep the weights that it casts here, without a graph, for training.
                with without_dropout(self), torch.autocast(input_ids.device.type, enabled=False):
                    by_ids, by_embeddings = (
                        self.encoder(**given, attention_mask=attention_mask, return_dict=True).last_hidden_state
                        for given in (
                            {"input_ids": input_ids},
                            {"inputs_embeds": self.get_input_embeddings()(input_ids)},
                        )
                    )
                tokens = attention_mask.bool()
                self._reads_token_embeddings = torch.allclose(
                    by_embeddings[tokens], by_ids[tokens], rtol=1e-3, atol=1e-5
                )
        return self._reads_token_embeddings


class ArcCSEForContrastiveLearning(ArcCSEPreTrainedModel):
    """An `ArcCSEModel` with the projection and the two heads that train it.

    Example:
        >>> model = ArcCSEForContrastiveLearning.from_backbone("bert-base-uncased", pooling="cls").train()
        >>> outputs = model(**ArcCSECollator(tokenizer)(rows))  # of token ids, as `tokenize_texts` makes them
        >>> loss = outputs.arccon_loss
        >>> loss = loss if outputs.triplet_loss is None else loss + 0.1 * outputs.triplet_loss
    """

    def __init__(self, config: ArcCSEConfig):
        super().__init__(config)
        self.arccse = ArcCSEModel(config)
        self.projection = Projection(config.hidden_size) if config.projection == "mlp_train_only" else nn.Identity()
        self.arccon_head = ArcConHead(config)
        self.triplet_head = TripletHead(config)
        self._most_triplets_cost = False  # of those in the last training step
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Returns the backbone's table of token embeddings."""
        return self.arccse.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces that table, as `resize_token_embeddings` does."""
        self.arccse.set_input_embeddings(value)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pair: Mapping[str, Tensor] | None = None,
        triplet: Mapping[str, Tensor] | None = None,
        triplet_dropout: bool = False,
        gather_keys: Callable[[Tensor], Tensor] | None = None,
        sharded: bool = False,
        left_out: Tensor | None = None,
    ) -> ArcCSEOutput:
        """Embeds texts, given `input_ids`; or computes the losses of a training batch, given `pair`.

        Args:
            input_ids: `[texts, length]`: texts to embed.
            attention_mask: `[texts, length]`, with `input_ids`; all 1 if absent.
            pair: `input_ids` and `attention_mask` `[batch, views, length]`, where the views are an anchor, its positive
                (the same sentence again, for another dropout mask) and, if there are three, its hard negative.
            triplet: The same with the views sentence, small span masked, large span masked, of any part of the batch.
            triplet_dropout: Whether dropout is on in the triplets' pass.
            gather_keys: Adds the keys of other processes behind the `[keys, dim]` of this one.
            sharded: Whether the weights are sharded over processes (FSDP, DeepSpeed), which then have to make the same
                calls of the encoder, whatever their texts are.
            left_out: Booleans `[batch, keys]`: negatives that ArcCon leaves out, with the keys of `gather_keys`.

        Raises:
            ValueError: Not exactly one of `input_ids` and `pair`.
        """
        if (input_ids is None) == (pair is None):
            raise ValueError("Give either input_ids, to embed sentences, or pair, to train.")
        if pair is None:
            attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            pooled = self._pool(input_ids, attention_mask, sharded)
            return ArcCSEOutput(sentence_embedding=pooled, training_embedding=self.projection(pooled))

        embeddings = {"pair": self._embed_views(pair, sharded)}
        if triplet is not None:
            # Dropout masks would have to be the same twice, calls of sharded weights as many on every process, and
            # compiled shapes known beforehand: there, all triplets get a backward pass.
            all_with_graph = triplet_dropout or sharded or torch.compiler.is_compiling()
            with contextlib.nullcontext() if triplet_dropout else without_dropout(self):
                embeddings["triplet"] = (
                    self._embed_views(triplet, sharded) if all_with_graph else self._embed_costly_triplets(triplet)
                )
        return self.losses(**embeddings, gather_keys=gather_keys, left_out=left_out)

    def losses(
        self,
        pair: Tensor,
        triplet: Tensor | None = None,
        gather_keys: Callable[[Tensor], Tensor] | None = None,
        left_out: Tensor | None = None,
    ) -> ArcCSEOutput:
        """Computes both heads' losses of embeddings `[batch, views, dim]`; the arguments are as in `forward`."""
        # All positives, then all hard negatives: key i stays the positive of anchor i.
        anchors, *others = pair.unbind(1)
        keys = torch.cat(others)
        keys = keys if gather_keys is None else gather_keys(keys)
        arccon_losses = self.arccon_head(anchors, keys, left_out)
        output = ArcCSEOutput(
            arccon_loss=arccon_losses.mean(),
            anchors=anchors,
            key_embeddings=keys,
            arccon_losses=arccon_losses.detach(),
        )
        if triplet is not None:
            triplet_losses, closer_cosine, farther_cosine = self.triplet_head(triplet)
            output.triplet_loss, output.triplet_losses = triplet_losses.mean(), triplet_losses.detach()
            output.triplet_embeddings = triplet.detach()
            output.closer_cosine, output.farther_cosine = closer_cosine.detach(), farther_cosine.detach()
        return output

    def _embed_costly_triplets(self, triplet: Mapping[str, Tensor]) -> Tensor:
        """Returns what `_embed_views` does, with a graph of those triplets alone that have a loss.

        The others have no gradient. Where more than half of the triplets have a loss, all get a graph: the backward
        pass of all then costs less than embedding some again. One step of a run tends to be like the step before, so
        that step says whether this look at the triplets keeps its graph.
        """
        training = torch.is_grad_enabled()
        with torch.set_grad_enabled(training and self._most_triplets_cost):
            embeddings = self._embed_views(triplet)
        (costly,) = self.triplet_head.may_cost(embeddings).nonzero(as_tuple=True)
        if not training:
            return embeddings
        self._most_triplets_cost = 2 * len(costly) > len(embeddings)
        if self._most_triplets_cost:
            return embeddings if embeddings.requires_grad else self._embed_views(triplet)
        embeddings = embeddings.detach()  # which drops the graph
        if len(costly):
            again = self._embed_views({name: values[costly] for name, values in triplet.items()})
            embeddings = embeddings.index_put((costly,), again)
        return embeddings

    def _embed_views(self, sentences: Mapping[str, Tensor], sharded: bool = False) -> Tensor:
        """Returns the embeddings `[batch, views, dim]`, as the heads are given them, of `[batch, views, length]`."""
        flat = {name: values.flatten(0, 1) for name, values in sentences.items()}
        return self.projection(self._pool(**flat, sharded=sharded)).unflatten(0, sentences["input_ids"].shape[:2])

    def _pool(self, input_ids: Tensor, attention_mask: Tensor, sharded: bool) -> Tensor:
        """Returns the `pooler_output` `[texts, dim]` of texts `[texts, length]`, which are padded on the right."""
        # How many sub-batches there are depends on the texts; and each shape may be compiled on its own.
        if sharded or torch.compiler.is_compiling():
            return self.arccse(input_ids, attention_mask).pooler_output
        return embed_by_length(self.arccse, input_ids, attention_mask)

    def save_pretrained(self, save_directory: str | os.PathLike, is_main_process: bool = True, **kwargs) -> None:
        """Saves the model so that `AutoModel` opens the folder as an `ArcCSEModel`, with the package or without."""
        if is_main_process:
            os.makedirs(save_directory, exist_ok=True)
            custom_object_save(self.arccse, save_directory, config=self.config)
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)


@contextlib.contextmanager
def without_dropout(module: nn.Module) -> Iterator[None]:
    """Puts `module` into evaluation mode for a while; each submodule then returns to the mode that it had."""
    training = [submodule for submodule in module.modules() if submodule.training]
    for submodule in training:
        submodule.training = False
    try:
        yield
    finally:
        for submodule in training:
            submodule.training = True
