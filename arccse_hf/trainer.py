"""`ArcCSETrainer`: one call of the model a step, the two heads' losses merged, each of them logged."""

from collections.abc import Callable

import datasets
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import EvalPrediction, PreTrainedTokenizerBase, Trainer, TrainerCallback

from .arguments import ArcCSETrainingArguments
from .collator import ArcCSECollator, SentenceCollator
from .distributed import gather_keys, world_size
from .evaluation import TaskSuite, greater_is_better
from .modeling_arccse import ArcCSEForContrastiveLearning, ArcCSEOutput


class ArcCSETrainer(Trainer):
    """Trains an `ArcCSEForContrastiveLearning` on ArcCon + `triplet_weight` * triplet, and measures its embeddings.

    Args:
        model: the model to train.
        args: the run's settings.
        train_dataset: rows of token ids, with special tokens and without padding, in `anchor` [, `positive`
            [, `negative`]]; `arccse_hf.data.tokenize_texts` makes them.
        processing_class: the tokenizer.
        eval_suite: what is measured at every evaluation. Each of its distinct sentences is embedded once, over all
            processes, and the suite scores the embeddings.
        eval_max_length: tokens a sentence of the suite is cut to; as many as the tokenizer allows by default.
        kwargs: any other argument of `transformers.Trainer`.
    """

    def __init__(
        self,
        model: ArcCSEForContrastiveLearning,
        args: ArcCSETrainingArguments,
        train_dataset: Dataset | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        eval_suite: TaskSuite | None = None,
        eval_max_length: int | None = None,
        **kwargs,
    ):
        if kwargs.get("data_collator") is None:
            kwargs["data_collator"] = ArcCSECollator(
                processing_class,
                triplets=args.triplet_weight > 0,
                small_ratio=args.small_span_ratio,
                large_ratio=args.large_span_ratio,
                triplet_min_tokens=args.triplet_min_tokens,
                span_corruption=args.span_corruption,
                seed=args.data_seed if args.data_seed is not None else args.seed,
            )
        if eval_suite is not None or kwargs.get("eval_dataset") is None:
            args.settle_evaluation(eval_suite.metric_names() if eval_suite else [], greater_is_better)
        if eval_suite is not None:
            kwargs["eval_dataset"] = tokenized_sentences(eval_suite.sentences, processing_class, eval_max_length)
            kwargs["compute_metrics"] = _scores_of(eval_suite)
        super().__init__(
            model=model, args=args, train_dataset=train_dataset, processing_class=processing_class, **kwargs
        )
        # The loss is a mean over the micro-batch: Trainer has to divide it by the accumulation steps.
        self.model_accepts_loss_kwargs = False
        self._gather_keys = gather_keys if args.gather_negatives and world_size() > 1 else None
        self._sums: dict[str, Tensor] = {}
        if isinstance(self.data_collator, ArcCSECollator):
            self.data_collator.always_triplet = self.is_fsdp_enabled or self.is_deepspeed_enabled
            self.add_callback(_NewSpansEachEpoch(self.data_collator))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, dict[str, Tensor]],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, ArcCSEOutput]:
        # The model handed in is the wrapped one (DDP, FSDP, compiled): exactly one call of it a step.
        outputs = model(**inputs, triplet_dropout=self.args.triplet_dropout, gather_keys=self._gather_keys)
        loss = outputs.arccon_loss
        if outputs.triplet_loss is not None:
            loss = loss + self.args.triplet_weight * outputs.triplet_loss
        self._track(outputs)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:  # a line of training, not of evaluation
            logs.update(self._tracked())
        super().log(logs, start_time)

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> DataLoader:
        # Trainer has one collator and one drop_last for training and evaluation: no evaluation row may be dropped.
        collator, drop_last = self.data_collator, self.args.dataloader_drop_last
        self.data_collator, self.args.dataloader_drop_last = SentenceCollator(self.processing_class), False
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator, self.args.dataloader_drop_last = collator, drop_last

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, Tensor, Tensor]:
        """No loss, the embeddings `[batch, dim]` in float32, and the sentences' positions `[batch]` as labels."""
        inputs = self._prepare_inputs(inputs)
        index = inputs.pop("index")
        with torch.no_grad(), self.compute_loss_context_manager():
            embeddings = model(**inputs).pooler_output
        return None, embeddings.float(), index

    def floating_point_ops(self, inputs: dict[str, dict[str, Tensor]]) -> int:
        tokens = sum(batch["input_ids"].numel() for batch in inputs.values())
        return 6 * tokens * self.model.num_parameters(exclude_embeddings=True)

    def _track(self, outputs: ArcCSEOutput) -> None:
        """Adds a batch to the sums behind the next log line; nothing is copied from the device here."""
        cosines = outputs.cosines
        rows, negatives = cosines.shape[0], cosines.shape[1] - 1
        positive = cosines.diagonal().sum()
        self._add("arccon_loss", outputs.arccon_loss.detach(), 1)
        self._add("positive_cosine", positive, rows)
        self._add("negative_cosine", cosines.sum() - positive, rows * negatives)
        triplets = outputs.triplet_loss is not None
        self._add("triplet_loss", outputs.triplet_loss.detach() if triplets else cosines.new_zeros(()), int(triplets))
        violated = (outputs.farther_cosine > outputs.closer_cosine) if triplets else cosines.new_zeros(0)
        self._add("triplets_violated", violated.sum(), violated.numel())

    def _add(self, name: str, total: Tensor, count: int) -> None:
        sums = torch.stack([total.float(), total.new_tensor(count, dtype=torch.float32)])
        self._sums[name] = self._sums[name] + sums if name in self._sums else sums

    def _tracked(self) -> dict[str, float]:
        """Means over all processes since the last call; a mean over nothing (no triplet at all) is left out."""
        if not self._sums:
            return {}
        names, sums = list(self._sums), torch.stack(list(self._sums.values()))
        self._sums = {}
        totals = self.accelerator.reduce(sums, reduction="sum").tolist()
        return {name: total / count for name, (total, count) in zip(names, totals, strict=True) if count}


class _NewSpansEachEpoch(TrainerCallback):
    def __init__(self, collator: ArcCSECollator):
        self.collator = collator

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.collator.set_epoch(int(state.epoch or 0))


def tokenized_sentences(
    sentences: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int | None = None
) -> datasets.Dataset:
    """Rows of `input_ids` and `index` (the position in `sentences`), longest first: less padding."""
    token_ids = tokenizer(sentences, truncation=max_length is not None, max_length=max_length)["input_ids"]
    order = sorted(range(len(sentences)), key=lambda position: -len(token_ids[position]))
    return datasets.Dataset.from_dict({"input_ids": [token_ids[position] for position in order], "index": order})


def _scores_of(suite: TaskSuite) -> Callable[[EvalPrediction], dict[str, float]]:
    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        embeddings = np.empty_like(prediction.predictions)
        embeddings[prediction.label_ids] = prediction.predictions
        return suite.flatten(suite.score(embeddings))

    return compute_metrics
