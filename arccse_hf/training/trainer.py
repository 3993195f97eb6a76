"""`ArcCSETrainer`: one call of the model per step, the two heads' losses merged, each of them logged."""

import copy
import math
import time
from collections.abc import Callable, Sequence, Sized
from functools import partial
from typing import NoReturn

import datasets
import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, set_seed
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import IntervalStrategy, TrainOutput, speed_metrics

from ..compat import train_batch_size, train_sampler
from ..data.collator import ArcCSECollator
from ..data.dataloaders import loader_options
from ..data.pair_dataset import PairDataset
from ..data.streaming import TextStream
from ..errors import UserError
from ..evaluation.suite import TaskSuite, greater_is_better
from ..inference.embed import TrainingEncoder, embed
from ..inference.process_group import world_size
from ..model.modeling_arccse import ArcCSEForContrastiveLearning, ArcCSEOutput
from .anchor import anchor_loss, start_encoder
from .arguments import ArcCSETrainingArguments
from .backbone import load_backbone
from .console import ConsoleCallback
from .distributed import EvenlySplitBatchSampler, gather_keys, require_one_gpu, set_up_fsdp
from .early_stopping import EarlyStopping
from .false_negatives import same_texts
from .fault_tolerance import FaultTolerantTrainer
from .frozen_layers import train_last_layers
from .grad_cache import GradCache
from .lora import AdapterTrainer, add_adapters
from .model_arguments import ModelArguments
from .objective_log import ObjectiveLog, gradients_at_embeddings
from .stream_resume import StreamTrainer
from .throughput import TrainingClock
from .trainer_inputs import choose_suite, default_collator, input_length, refuse_functions, refuse_trial, train_rows


class ArcCSETrainer(FaultTolerantTrainer, StreamTrainer, AdapterTrainer):
    """Trains an `ArcCSEForContrastiveLearning` on ArcCon + `triplet_weight` * triplet, and measures its embeddings.

    Args:
        model: The model to train, or the name of an encoder, which is opened with the heads' default settings.
        args: The run's settings. They are copied: the trainer changes its own `args` only.
        data_collator: Makes batches of the rows; an `ArcCSECollator` with the settings of `args` by default.
        train_dataset: Text: a list of sentences, (anchor, positive) pairs or (anchor, positive, negative) triples, or a
            `datasets.Dataset` of such columns. Or token ids in `anchor` [, `positive` [, `negative`]], with special
            tokens and without padding. Or a `TextStream` or `PairDataset` of `arccse_hf.data`.
        eval_dataset: A `datasets.Dataset` of `sentence1`, `sentence2` and `score`; `sts_spearman` is measured on it.
        processing_class: The tokenizer; not needed where `model` is a name.
        eval_suite: What is measured at every evaluation, instead of `eval_dataset`. Each of its distinct sentences is
            embedded once, over all processes, and the suite scores the embeddings.
        kwargs: Any other argument of `transformers.Trainer`, by name.

    Raises:
        UserError: Arguments or settings that do not go together, or several GPUs for one process.

    Example:
        >>> trainer = ArcCSETrainer("bert-base-uncased", train_dataset=sentences)  # 64 of them at least
        >>> trainer.train()
    """

    control: TrainerControl

    def __init__(
        self,
        model: ArcCSEForContrastiveLearning | str | None = None,
        args: ArcCSETrainingArguments | None = None,
        data_collator: Callable | None = None,
        train_dataset: Dataset | list | None = None,
        eval_dataset: datasets.Dataset | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        *,
        eval_suite: TaskSuite | None = None,
        **kwargs,
    ):
        args = ArcCSETrainingArguments() if args is None else copy.copy(args)
        refuse_functions(kwargs)
        require_one_gpu(args)
        model, processing_class = _open(model, processing_class, args.seed)
        if args.train_last_layers is not None:
            if model is None:
                raise UserError("--train_last_layers: does not go with model_init; let that freeze its layers")
            train_last_layers(model, args.train_last_layers)
        if args.lora_r is not None:
            if model is None:
                raise UserError("--lora_r: does not go with model_init; let that add its adapters")
            self.adapters = add_adapters(model, args)
        suite = choose_suite(eval_dataset, eval_suite, model)
        args.resolve_eval_settings(suite.metric_names() if suite else [], greater_is_better)
        with args.main_process_first(desc="tokenizing"):
            train_dataset = train_rows(train_dataset, processing_class, args)
        sentences = None if suite is None else suite.sentences  # Trainer wants a dataset; `evaluate` embeds them
        super().__init__(model, args, data_collator, train_dataset, sentences, processing_class, **kwargs)
        if data_collator is None:
            self.data_collator = default_collator(args, self.model, processing_class)
        # The loss is a mean over the micro-batch: Trainer has to divide it by the accumulation steps.
        self.model_accepts_loss_kwargs = False
        self._gather_keys = gather_keys if args.gather_negatives and world_size() > 1 else None
        self._objective_log = ObjectiveLog(partial(self.accelerator.reduce, reduction="sum"))
        self._grad_cache: GradCache | None = None
        self._start = start_encoder(self.model, args)
        # The one answer to whether processes have to make the same calls of the encoder.
        self.sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        self.eval_suite = suite
        longest = input_length(self.model, processing_class, args.max_seq_length)
        self._encoder = TrainingEncoder(self.model, processing_class, longest, self.sharded)
        self._set_up_sharding()
        self._set_up_callbacks()

    def _set_up_sharding(self) -> None:
        if self.sharded and self.adapters is not None:
            raise UserError(
                f"--lora_r {self.args.lora_r}: does not go with FSDP or DeepSpeed; leave it out, or train with DDP "
                "(configs/accelerate/multi-gpu.yaml)"
            )
        if self.sharded and self.args.grad_cache_chunk_size is not None:
            raise UserError(
                f"--grad_cache_chunk_size {self.args.grad_cache_chunk_size}: does not go with FSDP or DeepSpeed; leave "
                "it out, or train with DDP (configs/accelerate/multi-gpu.yaml)"
            )
        if not self.is_fsdp_enabled and (self.args.fsdp or parse_flag_from_env("ACCELERATE_USE_FSDP")):
            raise UserError("FSDP: accelerate does not share weights among CPUs; train with DDP, or on GPUs")
        if self.is_fsdp_enabled:
            set_up_fsdp(self.accelerator.state.fsdp_plugin, self.model)

    def _set_up_callbacks(self) -> None:
        # Transformers' own callbacks print dicts, and one or the other of them is there.
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        self.remove_callback(DEFAULT_PROGRESS_CALLBACK)  # in a notebook another one
        rows = len(self.train_dataset) if isinstance(self.train_dataset, Sized) else None
        self.clock = TrainingClock()
        self._console = ConsoleCallback(self.clock, rows)
        self.add_callback(self.clock)
        self.add_callback(self._console)
        self.add_callback(SeedPerProcessCallback())
        if self.args.early_stopping_patience is not None:
            self.add_callback(EarlyStopping(self.args.early_stopping_patience))
        if isinstance(self.data_collator, ArcCSECollator):
            self.add_callback(SetCollatorEpochCallback(self.data_collator))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, dict[str, Tensor]],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, ArcCSEOutput]:
        """Computes ArcCon + `triplet_weight` * triplet of a batch.

        It is scaled so that averaging over processes, as DDP does, gives the loss and the gradient of one process with
        all rows: ArcCon's mean is over all rows, the triplets' over all triplets. With a gradient cache, its gradient
        reaches the weights in `training_step`.

        Args:
            model: The wrapped model.
            inputs: `pair` and, where there are triplets, `triplet`, each with `input_ids` and `attention_mask`
                `[batch, views, length]`.
            return_outputs: Whether to return the model's output too.
            num_items_in_batch: Not used.
        """
        counts = [len(inputs[kind]["input_ids"]) if kind in inputs else 0 for kind in ("pair", "triplet")]
        own = torch.tensor(counts, dtype=torch.float32, device=self.args.device)
        total = self.accelerator.reduce(own, reduction="sum")
        arccon_share, triplet_share = world_size() * own / total.clamp(min=1)
        if self.model.training:
            self.clock.rows = self.clock.rows.to(total.device) + total[0].long()
        if self.sharded and self.args.triplet_weight > 0 and "triplet" not in inputs:
            # Sharded weights need the same calls of the encoder everywhere. This triplet has no share in the loss.
            views = {name: values[:1, :1].expand(-1, 3, -1) for name, values in inputs["pair"].items()}
            inputs = inputs | {"triplet": views}

        start_cosines = None if self._start is None else self._start.cosines(inputs["pair"], self._gather_keys)
        left_out = same_texts(inputs["pair"], self._gather_keys)
        if self.args.false_negative_threshold is not None:
            alike = start_cosines > self.args.false_negative_threshold
            left_out = alike if left_out is None else left_out | alike
        weights = {"anchor_loss": self.args.anchor_weight, "triplet_loss": self.args.triplet_weight, "arccon_loss": 1.0}

        def terms(outputs: ArcCSEOutput) -> dict[str, Tensor]:
            losses = {"arccon_loss": arccon_share * outputs.arccon_loss}
            if self.args.anchor_weight > 0:
                losses["anchor_loss"] = arccon_share * anchor_loss(outputs.cosines, start_cosines)
            if outputs.triplet_loss is not None:
                losses["triplet_loss"] = triplet_share * outputs.triplet_loss
            return losses

        outputs = self._outputs(model, inputs, left_out)
        losses = terms(outputs)
        loss = sum(weights[name] * value for name, value in losses.items())
        self._objective_log.add(outputs, losses, triplets=counts[1])
        if self._is_step_to_log():

            def shares_of_the_step(**embeddings: Tensor) -> dict[str, Tensor]:
                outputs = self.model.losses(**embeddings, gather_keys=self._gather_keys, left_out=left_out)
                batches = world_size() * self.current_gradient_accumulation_steps
                return {name: weights[name] * value / batches for name, value in terms(outputs).items()}

            views = inputs["pair"]["input_ids"].shape[1]
            self._objective_log.add_gradients(gradients_at_embeddings(shares_of_the_step, outputs, views))
        return (loss, outputs) if return_outputs else loss

    def training_step(
        self, model: nn.Module, inputs: dict[str, dict[str, Tensor]], num_items_in_batch: Tensor | None = None
    ) -> Tensor:
        """Returns the loss of a batch, whose gradient the weights then have; see `compute_loss`."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self._grad_cache is not None:
            # The gradient that it takes on is already that of the scaled loss, divided by the accumulation steps.
            self._grad_cache.backward()
            self._grad_cache = None
        return loss

    def _outputs(self, model: nn.Module, inputs: dict[str, dict[str, Tensor]], left_out: Tensor | None) -> ArcCSEOutput:
        # The model handed in is the wrapped one (DDP, FSDP, compiled): exactly one call of it per step; or two per
        # chunk.
        if self.args.grad_cache_chunk_size is None:
            return model(
                **inputs,
                triplet_dropout=self.args.triplet_dropout,
                gather_keys=self._gather_keys,
                sharded=self.sharded,
                left_out=left_out,
            )
        self._grad_cache = GradCache(model, self.args.grad_cache_chunk_size, partial(self.accelerator.no_sync, model))
        embeddings = {
            kind: self._grad_cache.embed(sentences, dropout=kind == "pair" or self.args.triplet_dropout)
            for kind, sentences in inputs.items()
        }
        return self.model.losses(**embeddings, gather_keys=self._gather_keys, left_out=left_out)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs a line; one of training gets the means of the objective's parts since the line before."""
        if "loss" in logs:  # a line of training, not of evaluation
            logs.update(self._objective_log.means())
        super().log(logs, start_time)

    def get_train_dataloader(self) -> DataLoader:
        """Returns batches of this process: all rows of an epoch, or full batches only with `dataloader_drop_last`."""
        rows, batch_size = self.train_dataset, train_batch_size(self)
        if isinstance(rows, TextStream | PairDataset):  # which know how processes share them
            if self.args.train_sampling_strategy == "sequential":
                raise UserError("--train_sampling_strategy sequential: streams and documents have their own order")
            return rows.dataloader(batch_size, self.data_collator, self.args, self.accelerator.device)
        sampler = None if self.args.dataloader_drop_last or world_size() == 1 else train_sampler(self)
        # Without a sampler there is a stream; a batch sampler of Trainer's own knows the processes already.
        if sampler is None or isinstance(sampler, BatchSampler):
            return super().get_train_dataloader()
        # accelerate would fill up the last batch with rows from the start of the epoch.
        global_batch_size = batch_size * world_size()
        batches = EvenlySplitBatchSampler(sampler, global_batch_size, world_size())
        return prepare_data_loader(
            DataLoader(rows, batch_sampler=batches, collate_fn=self.data_collator, **loader_options(self.args)),
            device=self.accelerator.device,
            num_processes=world_size(),
            process_index=self.args.process_index,
            put_on_device=True,
            rng_types=self.accelerator.rng_types.copy(),
            dispatch_batches=False,
            use_seedable_sampler=self.accelerator.use_seedable_sampler,
            data_seed=self.args.data_seed,
            non_blocking=self.accelerator.non_blocking,
        )

    def train(self, *args, **kwargs) -> TrainOutput:
        """Trains; see `transformers.Trainer`. The terminal is as it was, also where training ends with an error."""
        seed = torch.initial_seed()
        try:
            return super().train(*args, **kwargs)
        finally:
            if self.args.process_index > 0:
                torch.manual_seed(seed)  # that of all processes: another call draws the order of rows from it
            self._console.close()

    def end(self) -> None:
        """Ends the process group in order; all processes must call."""
        # Threads of gloo may hold tensors of the last collective: where its group is destroyed meanwhile, both can wait
        # for ever. They are done with them when all processes have met once more.
        self.accelerator.wait_for_everyone()
        super().end()

    def save_model(self, output_dir: str | None = None, *args, **kwargs) -> None:
        """Saves the whole model, also where FSDP's checkpoints hold shards: Trainer would save nothing there."""
        super().save_model(output_dir, *args, **kwargs)
        state_dict_type = str(self.accelerator.state.fsdp_plugin.state_dict_type) if self.is_fsdp_enabled else "FULL"
        if "FULL" not in state_dict_type and not self.is_in_train:  # while training, it is a checkpoint
            output_dir = output_dir or self.args.output_dir
            weights = self.accelerator.get_state_dict(self.model)
            self.model.save_pretrained(output_dir, state_dict=weights, is_main_process=self.args.should_save)
            if self.args.should_save:
                self.processing_class.save_pretrained(output_dir)

    def evaluate(
        self,
        eval_dataset: datasets.Dataset | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Scores the suite, on every process, and logs its metrics as Trainer does.

        Args:
            eval_dataset: Scored pairs, as for the trainer; they are measured instead of the suite.
            ignore_keys: Not used.
            metric_key_prefix: What the name of each metric begins with.

        Raises:
            UserError: There is neither, or `eval_dataset` holds no scored pairs.
        """
        start = time.time()
        suite = self.eval_suite if eval_dataset is None else choose_suite(eval_dataset, None, self.model)
        if suite is None:
            raise UserError("eval_dataset: is missing, and the trainer has no eval_suite; give one of them")
        scores = suite.flatten(suite.score(self.embed(suite.sentences)))
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        texts, batch_size = len(suite.sentences), self.args.eval_batch_size * self.args.world_size
        metrics |= speed_metrics(metric_key_prefix, start, num_samples=texts, num_steps=math.ceil(texts / batch_size))
        self.log(metrics)
        self._console.measures_others = eval_dataset is not None
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def predict(self, *args, **kwargs) -> NoReturn:
        """Raises UserError: there is nothing to predict but embeddings, which `embed` returns."""
        raise UserError("predict: there is nothing to predict; embed(texts) returns embeddings")

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the embeddings `[len(texts), dim]` that inference will have, in float32.

        Every process must call, and gets them all.
        """

        def after_batch(count: int) -> None:
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)

        self._encoder.model = self.model.eval()
        if callable(getattr(self.optimizer, "eval", None)):  # of optimizers that train other weights than they use
            self.optimizer.eval()
        with self.accelerator.autocast():  # before `train` too, which wraps the model in it
            return embed(self._encoder, texts, batch_size=self.args.eval_batch_size, after_batch=after_batch)

    def floating_point_ops(self, inputs: dict[str, dict[str, Tensor]]) -> int:
        """Estimates the operations of a step: 6 per token and weight, as `transformers` does for other models."""
        tokens = sum(batch["input_ids"].numel() for batch in inputs.values())
        return 6 * tokens * self.model.num_parameters(exclude_embeddings=True)

    def _hp_search_setup(self, trial: object) -> None:
        before = vars(self.args).copy()
        super()._hp_search_setup(trial)
        refuse_trial(before, vars(self.args))

    def _is_step_to_log(self) -> bool:
        """Returns whether a log line follows the step that is being computed; the end of an epoch is not foreseen."""
        step, args = self.state.global_step + 1, self.args
        by_steps = args.logging_strategy == IntervalStrategy.STEPS and step % self.state.logging_steps == 0
        return self.model.training and (by_steps or (step == 1 and args.logging_first_step))


class SeedPerProcessCallback(TrainerCallback):
    """Gives each process its own dropout masks; Trainer seeds all alike, and row i would have one mask everywhere."""

    def on_train_begin(self, args, state, control, **kwargs):
        """Seeds anew, after the samplers: processes must agree on the order of rows, and not on dropout."""
        if args.process_index > 0:
            torch.manual_seed(args.seed + args.process_index)


class SetCollatorEpochCallback(TrainerCallback):
    """Tells the collator which epoch it is, so that every epoch draws new spans and a resumed run the same ones."""

    def __init__(self, collator: ArcCSECollator):
        self.collator = collator

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Sets the epoch, counted from 0; a resumed run starts within one."""
        self.collator.set_epoch(int(state.epoch or 0))


def _open(
    model: ArcCSEForContrastiveLearning | str | None, tokenizer: PreTrainedTokenizerBase | None, seed: int
) -> tuple[ArcCSEForContrastiveLearning | None, PreTrainedTokenizerBase]:
    """Returns a model, opened where it is a name, and its tokenizer; no model where `model_init` makes it."""
    if isinstance(model, str):
        set_seed(seed)  # a projection starts at random
        model, own_tokenizer = load_backbone(ModelArguments(model_name_or_path=model))
        tokenizer = own_tokenizer if tokenizer is None else tokenizer
    if tokenizer is None:
        raise UserError("processing_class: is missing; give the tokenizer that belongs to the model")
    return model, tokenizer
