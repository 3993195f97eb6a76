"""The settings of a run's data and training, as dataclass fields with their help texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from ..data.collator import TRIPLET_MIN_TOKENS
from ..data.files import KINDS, file_kind
from ..data.pairs import CropUnit, PairKind
from ..data.sentences import MIN_CHARS
from ..data.span_masking import LARGE_SPAN_RATIO, SMALL_SPAN_RATIO, SpanCorruption, check_span_ratios
from ..data.tokenization import MAX_SEQ_LENGTH
from ..errors import UserError
from .field_rules import check_rules
from .unsupported import refuse_unsupported, require_deepspeed


@dataclass
class DataArguments:
    """What to train on, and what to measure."""

    train_file: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Paths or globs of .txt .csv .tsv .json .jsonl .parquet files, also with .gz; or of documents: "
            ".md .rst .html files, or a folder of them."
        },
    )
    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "Hub dataset instead of files; or installed-docs: docstrings of the packages on this machine."
        },
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of the hub dataset."})
    dataset_split: str = field(default="train", metadata={"help": "Split of the hub dataset."})
    text_columns: list[str] = field(
        default_factory=list,
        metadata={
            "help": "One column (sentences), two (anchor, positive) or three (and a hard negative). Found by name by "
            "default: text, sentence, anchor/positive/negative, sent0/sent1/hard_neg."
        },
    )
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Train on a random sample of this many rows."}
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Read, clean and tokenise the text while training goes on (in the --dataloader_num_workers), in "
            "flat memory however long it is. Needs --max_steps; where the text ends, it starts again in another order."
        },
    )
    streaming_shuffle_buffer: int = field(
        default=50_000,
        metadata={
            "help": "Rows that each process (or dataloader worker) of a stream reads at once, as a block: they are "
            "mixed with each other, and compared for duplicates. Those in different blocks are not found."
        },
    )
    min_chars: int = field(
        default=MIN_CHARS, metadata={"help": "Rows with a text of fewer characters are dropped (and counted)."}
    )
    preprocessing_num_workers: int | None = field(default=None, metadata={"help": "Processes that tokenise."})
    pairs: PairKind | None = field(
        default=None,
        metadata={
            "help": "Read the text as documents, and train on pairs of this kind: a title with its text, neighbouring "
            "sentences, two crops, a sentence with itself, or several kinds. By default auto for files that are "
            "documents, which takes what they allow; otherwise rows are trained on as they are."
        },
    )
    pair_weights: list[str] = field(
        default_factory=list, metadata={"help": "With --pairs mixed: how much of each kind, such as title=2 crops=1."}
    )
    crop_unit: CropUnit = field(
        default="sentences", metadata={"help": "What crops are made of: one or two sentences, or a run of tokens."}
    )
    crop_deletion: float = field(default=0.1, metadata={"help": "Probability that a crop loses a token."})
    title_column: str | None = field(
        default=None, metadata={"help": "Column of the documents' titles. By default title, where there is one."}
    )
    one_document_per_file: bool = field(
        default=False, metadata={"help": "A .txt file is one document, not a sentence per line."}
    )
    eval_pairs: str | None = field(
        default=None,
        metadata={
            "help": "Your own queries and their documents, for the verdict: a file with columns query and document. "
            "Without it queries are made of held-out documents."
        },
    )
    eval_corpus: list[str] = field(
        default_factory=list,
        metadata={"help": "More documents that the queries are searched among, so that it is as hard as your search."},
    )
    eval_tasks: list[str] = field(
        default_factory=list,
        metadata={
            "help": "What is measured while training: stsb_dev, sickr, sts12 ..., geometry, retrieval. By default "
            "stsb_dev (of your own --eval_data file: sts) and geometry where --eval_data is given, nothing otherwise."
        },
    )
    eval_data: str | None = field(
        default=None,
        metadata={
            "help": "Where the STS sets are: a SentEval folder, a csv/tsv/jsonl of scored pairs, or the word hub."
        },
    )

    def __post_init__(self):
        check_rules(self)
        if self.streaming and self.max_train_samples is not None:
            raise UserError(
                f"--max_train_samples {self.max_train_samples}: a stream cannot be sampled; --max_steps bounds the run"
            )
        if not self.eval_tasks and self.eval_data:
            own_file = file_kind(self.eval_data) in KINDS
            self.eval_tasks = ["sts" if own_file else "stsb_dev", "geometry"]


_SHARES = 1_000_000  # shares of all steps are compared as so many parts: in binary numbers 0.3 is no multiple of 0.1


@dataclass
class ArcCSETrainingArguments(TrainingArguments):
    """`TrainingArguments` with the settings of tokens, triplets and batches, and defaults for contrastive training.

    Args:
        dataloader_drop_last: True. In-batch negatives make the loss depend on the batch size, so a smaller last batch
            would be another task.
        ddp_find_unused_parameters: False. Every parameter gets a gradient.
        do_train: True. It is what the command does.
        eval_on_start: True, so that a run says what the encoder scored before training.
        eval_steps: 125.
        eval_strategy: "steps". What is measured is the trainer's `eval_suite`; without one nothing is.
        learning_rate: 3e-5.
        load_best_model_at_end: True, by `metric_for_best_model`, which is the first metric by default.
        logging_steps: 50.
        num_train_epochs: 1.0.
        per_device_eval_batch_size: 128.
        per_device_train_batch_size: 64.
        remove_unused_columns: False. The collator reads columns that `forward` has not.
        save_steps: None: as often as `eval_steps`.
        save_total_limit: 2.

    These are the defaults that differ from those of `TrainingArguments`. The margins and the temperature belong to the
    model: see `ModelArguments` and `ArcCSEConfig`.

    Raises:
        UserError: Settings that do not go together.

    Example:
        >>> args = ArcCSETrainingArguments("out", learning_rate=1e-4, triplet_weight=0, bf16=True)
    """

    max_seq_length: int = field(
        default=MAX_SEQ_LENGTH, metadata={"help": "Tokens a training text is cut to, special ones included."}
    )
    triplet_weight: float = field(
        default=0.1, metadata={"help": "Weight of the triplet loss beside ArcCon. 0 leaves triplets out altogether."}
    )
    small_span_ratio: float = field(
        default=SMALL_SPAN_RATIO, metadata={"help": "Share of a sentence's tokens in the small span."}
    )
    large_span_ratio: float = field(
        default=LARGE_SPAN_RATIO, metadata={"help": "The same for the large span around it."}
    )
    span_corruption: SpanCorruption = field(default="mask", metadata={"help": "Mask or delete the tokens of a span."})
    triplet_min_tokens: int = field(
        default=TRIPLET_MIN_TOKENS,
        metadata={"help": "Sentences with fewer tokens (special ones not counted) get no triplet."},
    )
    triplet_dropout: bool = field(default=False, metadata={"help": "Keep dropout on when the triplets are embedded."})
    gather_negatives: bool = field(
        default=True, metadata={"help": "Contrast with the sentences of all processes, not just this one's."}
    )
    grad_cache_chunk_size: int | None = field(
        default=None,
        metadata={
            "help": "Embed a batch of any size in the memory of so many texts at a time, each view of a row being one; "
            "same gradient, a third more work. By default all at once."
        },
    )
    train_last_layers: int | None = field(
        default=None,
        metadata={
            "help": "Train so many of the encoder's last layers only: less is forgotten, and the others cost no "
            "backward pass. By default all."
        },
    )
    lora_r: int | None = field(
        default=None,
        metadata={
            "help": "Train adapters of this rank in place of the encoder's weights (LoRA; needs peft). They are merged "
            "into what is exported. By default none."
        },
    )
    lora_alpha: int | None = field(
        default=None, metadata={"help": "With --lora_r: adapters count alpha / r times. By default alpha is 2 r."}
    )
    lora_dropout: float = field(default=0.0, metadata={"help": "With --lora_r: dropout before the adapters."})
    lora_target_modules: list[str] = field(
        default_factory=list,
        metadata={
            "help": "With --lora_r: the modules that get an adapter, such as query value. By default all linear layers."
        },
    )
    anchor_weight: float = field(
        default=0.0,
        metadata={
            "help": "Weight of the anchor: each batch is ranked as the encoder ranked it before training. Keeps a "
            "tuned encoder from forgetting."
        },
    )
    false_negative_threshold: float | None = field(
        default=None,
        metadata={
            "help": "Leave a negative out where the encoder before training finds it closer than this cosine, such as "
            "0.9. By default none."
        },
    )
    require_better: bool = field(
        default=False, metadata={"help": "End with exit status 3 unless the verdict is that the encoder became better."}
    )
    on_nonfinite: Literal["stop", "skip"] = field(
        default="stop",
        metadata={
            "help": "What to do where the loss or the gradient is not finite: stop, or skip that batch and count it."
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={
            "help": "Stop after so many measurements in a row in which --metric_for_best_model did not get better. By "
            "default training runs to its end."
        },
    )
    keep_checkpoints: bool = field(
        default=True,
        metadata={"help": "Keep the checkpoints, with the optimizer's state, once the model is exported."},
    )
    # None until `TrainingArguments.__post_init__` has filled it in, and a folder for everyone who reads it.
    output_dir: str = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Folder of the model. By default runs/NAME, of the recipe or the encoder."}
    )
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Replace the model or the checkpoints that output_dir holds."}
    )

    cosine_samples: bool = field(
        default=True, metadata={"help": "Keep cosines of a fixed sample before and after training, for the report."}
    )

    dataloader_drop_last: bool = field(
        default=True,
        metadata={
            "help": "Drop the last, smaller batch of an epoch. Kept, it is shared out evenly where several processes "
            "train."
        },
    )
    do_train: bool = field(default=True, metadata={"help": "What this command does."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "The collator reads columns that forward has not."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Every parameter gets a gradient."}
    )
    per_device_train_batch_size: int = field(default=64, metadata={"help": "Rows a process trains on at once."})
    per_device_eval_batch_size: int = field(default=128, metadata={"help": "Sentences a process embeds at once."})
    learning_rate: float = field(default=3e-5, metadata={"help": "Peak learning rate."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the training rows."})
    logging_steps: float = field(default=50, metadata={"help": "Steps between two log lines; below 1 a share of all."})
    eval_strategy: IntervalStrategy | str = field(
        default="steps", metadata={"help": "When to measure: no, steps or epoch."}
    )
    eval_steps: float | None = field(default=125, metadata={"help": "Steps between two measurements; below 1 a share."})
    eval_on_start: bool = field(default=True, metadata={"help": "Measure before the first step too."})
    save_steps: float | None = field(
        default=None, metadata={"help": "Steps between two checkpoints. By default as --eval_steps."}
    )
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints to keep, the best one among them."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "End with the best checkpoint, not the last."})
    metric_for_best_model: str | None = field(
        default=None,
        metadata={"help": "What decides which checkpoint is the best. By default the first metric of --eval_tasks."},
    )

    def __post_init__(self):
        check_rules(self)
        _complete_lora(self)
        if self.save_steps is None:
            self.save_steps = self.eval_steps if self.eval_steps is not None else 500
        # transformers would check and complete these two now. They depend on what is measured, which only the trainer
        # knows, so `resolve_eval_settings` does both.
        load_best_model_at_end, greater_is_better = self.load_best_model_at_end, self.greater_is_better
        self.load_best_model_at_end = False
        if self.use_cpu or parse_flag_from_env("ACCELERATE_USE_CPU"):
            # transformers starts the process group, and leaves the timeout out where it trains on the CPU.
            PartialState(cpu=True, backend=self.ddp_backend, timeout=timedelta(seconds=self.ddp_timeout))
        require_deepspeed(self)
        super().__post_init__()
        refuse_unsupported(self)
        self.load_best_model_at_end, self.greater_is_better = load_best_model_at_end, greater_is_better
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # torch would warn that there is nothing to pin for
        if self.deepspeed_plugin is not None:
            # DeepSpeed took its precision from the launch configuration; Trainer requires these two to match it.
            self.bf16, self.fp16 = self.mixed_precision == "bf16", self.mixed_precision == "fp16"
        check_span_ratios(self.small_span_ratio, self.large_span_ratio)

    def resolve_eval_settings(self, metrics: Sequence[str], greater_is_better: Callable[[str], bool]) -> None:
        """Fits the evaluation settings to what is measured, now that it is known.

        Args:
            metrics: names of the metrics, the most important first; none where nothing is measured.
            greater_is_better: whether a larger value of a metric is the better one.

        Raises:
            UserError: `metric_for_best_model` is not measured, or there is nothing to stop early by.
        """
        if not metrics or self.eval_strategy == IntervalStrategy.NO or self.save_strategy == SaveStrategy.NO:
            self.load_best_model_at_end = False
        if self.early_stopping_patience is not None and not self.load_best_model_at_end:
            raise UserError(
                f"--early_stopping_patience {self.early_stopping_patience}: needs something to measure on the way "
                "(--eval_tasks, --eval_strategy steps), --save_strategy steps and --load_best_model_at_end True"
            )
        if not metrics:
            self.eval_strategy, self.eval_on_start = IntervalStrategy.NO, False
            self.metric_for_best_model = None
            if self.save_strategy == SaveStrategy.BEST:
                raise UserError("--save_strategy best: nothing is measured; give --eval_data or --eval_tasks")
            return
        metric = (self.metric_for_best_model or metrics[0]).removeprefix("eval_")
        if metric not in metrics:
            raise UserError(f"--metric_for_best_model {metric}: is not measured; choose from {', '.join(metrics)}")
        self.metric_for_best_model = metric
        if self.greater_is_better is None:
            self.greater_is_better = greater_is_better(metric)
        eval_steps = self.logging_steps if self.eval_steps is None else self.eval_steps  # as Trainer has it
        save_steps = eval_steps if self.save_steps is None else self.save_steps
        if not self.load_best_model_at_end or self.save_strategy == SaveStrategy.BEST:
            return
        save_strategy, eval_strategy = SaveStrategy(self.save_strategy), IntervalStrategy(self.eval_strategy)
        if (save_steps < 1) != (eval_steps < 1):
            multiple = False  # of which one is a share is not known before the steps are counted
        elif save_steps < 1:
            multiple = round(_SHARES * save_steps) % round(_SHARES * eval_steps) == 0
        else:
            multiple = save_steps % eval_steps == 0
        if save_strategy != eval_strategy or (eval_strategy == IntervalStrategy.STEPS and not multiple):
            raise UserError(
                f"--save_strategy {save_strategy.value} --save_steps {save_steps:g}: the best checkpoint can only be "
                f"kept where it is measured, --eval_strategy {eval_strategy.value} --eval_steps {eval_steps:g}; make "
                "the first a multiple of the second, or --load_best_model_at_end False"
            )

    def fit_save_steps(self, state: TrainerState) -> None:
        """Saves where it is measured, where both are shares of all steps, which were rounded one by one."""
        if self.load_best_model_at_end and self.eval_steps and self.save_steps and self.save_steps < 1:
            state.save_steps = state.eval_steps * round(self.save_steps / self.eval_steps)

    def chooses_by(self, control: TrainerControl) -> bool:
        """Returns whether an evaluation may choose the best checkpoint: where one is loaded, it has to be saved."""
        return control.should_save or not self.load_best_model_at_end or self.save_strategy == SaveStrategy.BEST


def _complete_lora(args: ArcCSETrainingArguments) -> None:
    """Completes the settings of LoRA's adapters.

    Raises:
        UserError: There are settings of adapters and no adapters, or the encoder's last layers are to be trained too.
    """
    if args.lora_target_modules in (None, "all-linear", ["all-linear"]):  # peft's word for the default
        args.lora_target_modules = []
    if args.lora_r is None:
        for name in ("lora_alpha", "lora_dropout", "lora_target_modules"):
            if getattr(args, name):
                raise UserError(f"--{name}: goes with --lora_r; give that too")
        return
    if args.train_last_layers is not None:
        raise UserError(
            f"--train_last_layers {args.train_last_layers}: does not go with --lora_r, which freezes all of the "
            "encoder's own weights; leave one of them out"
        )
    if args.lora_alpha is None:
        args.lora_alpha = 2 * args.lora_r
