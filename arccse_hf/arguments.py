"""Every setting of a run, as dataclass fields, filled from a YAML or JSON file and the command line."""

import argparse
import dataclasses
import difflib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_type_hints

import yaml
from transformers import HfArgumentParser, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from .errors import UserError, one_line
from .masking import SpanCorruption


@dataclass
class ModelArguments:
    """Which encoder to start from, and what the heads on it are set to."""

    model_name_or_path: str = field(
        metadata={
            "help": "Encoder to start from: a hub id, a folder, or package:NAME/PATH[#sha256=HEX] for a folder inside "
            "an installed Python package, with the checksum of its model.safetensors."
        }
    )
    model_revision: str = field(default="main", metadata={"help": "Branch, tag or commit of the hub id."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Allow an encoder that brings its own code."})
    attn_implementation: str | None = field(
        default=None, metadata={"help": "eager, sdpa, flash_attention_2 ...; transformers chooses by default."}
    )
    pooling: Literal["cls", "mean", "mean_first_last", "mean_top2"] = field(
        default="cls", metadata={"help": "How token states become a sentence embedding."}
    )
    projection: Literal["none", "mlp", "mlp_train_only"] | None = field(
        default=None,
        metadata={"help": "SimCSE's MLP on the pooled vector. By default mlp_train_only for cls, none otherwise."},
    )
    temperature: float = field(default=0.05, metadata={"help": "Divides the cosines in ArcCon."})
    angular_margin: float = field(
        default=10.0, metadata={"help": "ArcCon's margin in degrees; 0 gives NT-Xent (SimCSE)."}
    )
    triplet_margin: float = field(default=0.0, metadata={"help": "Cosine by which the less masked version must win."})


@dataclass
class DataArguments:
    """What to train on, and what to measure."""

    train_file: list[str] = field(
        default_factory=list,
        metadata={"help": "Paths or globs of .txt .csv .tsv .json .jsonl .parquet files, also with .gz."},
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
    max_seq_length: int = field(
        default=32, metadata={"help": "Tokens a training text is cut to, special ones included."}
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
            "help": "Rows of a stream that are mixed with each other; and how many rows back a process (or dataloader "
            "worker) looks for a duplicate: those farther apart are not found."
        },
    )
    min_chars: int = field(
        default=5, metadata={"help": "Rows with a text of fewer characters are dropped (and counted)."}
    )
    preprocessing_num_workers: int | None = field(default=None, metadata={"help": "Processes that tokenise."})
    eval_tasks: list[str] = field(
        default_factory=list,
        metadata={
            "help": "What is measured while training: stsb_dev, sickr, sts12 ..., geometry, retrieval. By default "
            "stsb_dev and geometry where --eval_data is given, nothing otherwise."
        },
    )
    eval_data: str | None = field(
        default=None,
        metadata={
            "help": "Where the STS sets are: a SentEval folder, a csv/tsv/jsonl of scored pairs, or the word hub."
        },
    )

    def __post_init__(self):
        if bool(self.train_file) == bool(self.dataset_name):
            raise UserError("give what to train on: either --train_file FILE ... or --dataset_name NAME (and not both)")
        if self.max_seq_length < 3:
            raise UserError(f"--max_seq_length {self.max_seq_length}: a text needs room for 3 tokens or more")
        if self.streaming and self.max_train_samples is not None:
            raise UserError(
                f"--max_train_samples {self.max_train_samples}: a stream cannot be sampled; --max_steps bounds the run"
            )
        if self.streaming_shuffle_buffer < 1:
            raise UserError(f"--streaming_shuffle_buffer {self.streaming_shuffle_buffer}: must be 1 or more")
        if not self.eval_tasks and self.eval_data:
            own_file = Path(self.eval_data).suffix != ""
            self.eval_tasks = ["sts" if own_file else "stsb_dev", "geometry"]


@dataclass
class ArcCSETrainingArguments(TrainingArguments):
    """`TrainingArguments` with the triplet objective's settings, and defaults that suit contrastive training."""

    triplet_weight: float = field(
        default=0.1, metadata={"help": "Weight of the triplet loss beside ArcCon. 0 leaves triplets out altogether."}
    )
    small_span_ratio: float = field(default=0.2, metadata={"help": "Share of a sentence's tokens in the small span."})
    large_span_ratio: float = field(default=0.4, metadata={"help": "The same for the large span around it."})
    span_corruption: SpanCorruption = field(default="mask", metadata={"help": "Mask or delete the tokens of a span."})
    triplet_min_tokens: int = field(
        default=25, metadata={"help": "Sentences with fewer tokens (special ones not counted) get no triplet."}
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
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Replace the model or the checkpoints that output_dir holds."}
    )

    snapshots: bool = field(
        default=True, metadata={"help": "Keep cosines of a fixed sample before and after training, for the report."}
    )

    # In-batch negatives make the loss depend on the batch size, so a smaller last batch would be another task.
    dataloader_drop_last: bool = field(
        default=True,
        metadata={
            "help": "Drop the last, smaller batch of an epoch. Kept, it is one process's smaller batch; where several "
            "train, it is filled up with rows from the start of the epoch."
        },
    )
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
        if self.save_steps is None:
            self.save_steps = self.eval_steps if self.eval_steps is not None else 500
        # What decides the best checkpoint is settled later, when it is known what is measured.
        load_best, greater_is_better = self.load_best_model_at_end, self.greater_is_better
        self.load_best_model_at_end = False
        super().__post_init__()
        self.load_best_model_at_end, self.greater_is_better = load_best, greater_is_better
        if self.grad_cache_chunk_size is not None and self.grad_cache_chunk_size < 1:
            raise UserError(f"--grad_cache_chunk_size {self.grad_cache_chunk_size}: must be 1 or more")
        if self.triplet_weight < 0:
            raise UserError(f"--triplet_weight {self.triplet_weight}: must not be negative")
        if not 0 < self.small_span_ratio < self.large_span_ratio < 1:
            raise UserError(
                f"--small_span_ratio {self.small_span_ratio} --large_span_ratio {self.large_span_ratio}: must satisfy "
                "0 < small < large < 1"
            )

    def settle_evaluation(self, metrics: Sequence[str], greater_is_better: Callable[[str], bool]) -> None:
        """Fits the evaluation settings to what is measured, now that it is known.

        Args:
            metrics: names of the metrics, the most important first; none where nothing is measured.
            greater_is_better: whether a larger value of a metric is the better one.

        Raises:
            UserError: `metric_for_best_model` is not measured.
        """
        if not metrics or self.eval_strategy == IntervalStrategy.NO:
            self.load_best_model_at_end = False
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
        if self.save_strategy == SaveStrategy.NO:
            self.load_best_model_at_end = False
        if self.load_best_model_at_end and self.save_strategy != SaveStrategy.BEST:
            saves, measures = (self.save_strategy, self.save_steps), (self.eval_strategy, self.eval_steps)
            by_steps = self.eval_strategy == IntervalStrategy.STEPS
            if saves[0] != measures[0] or (by_steps and saves[1] % measures[1]):
                raise UserError(
                    f"--save_strategy {saves[0].value} --save_steps {saves[1]:g}: the best checkpoint can only be kept "
                    f"where it is measured, --eval_strategy {measures[0].value} --eval_steps {measures[1]:g}; make the "
                    "one a multiple of the other, or --load_best_model_at_end False"
                )


Fields = dict[str, "str | list[str] | Fields"]
"""Fields of the arguments by name, their values as text: what a config file or a command line gives."""

TEXT_SOURCES = {"train_file", "dataset_name"}

ARGUMENT_CLASSES = (ModelArguments, DataArguments, ArcCSETrainingArguments)

COMMON_TRAINER_ARGUMENTS = (
    "output_dir learning_rate num_train_epochs max_steps per_device_train_batch_size gradient_accumulation_steps "
    "warmup_steps lr_scheduler_type weight_decay max_grad_norm bf16 fp16 torch_compile seed logging_steps "
    "eval_strategy eval_steps save_strategy save_steps save_total_limit metric_for_best_model load_best_model_at_end "
    "resume_from_checkpoint report_to dataloader_num_workers use_cpu"
).split()


def parse_arguments(argv: Sequence[str]) -> tuple[ModelArguments, DataArguments, ArcCSETrainingArguments]:
    """Reads `[CONFIG.yaml] [--field value ...]`; the command line goes over the file.

    Raises:
        UserError: an unreadable file, an unknown name, a value of the wrong type or outside the choices.
    """
    argv = list(argv)
    if argv and not argv[0].startswith("-"):
        given = {_field_name(argument) for argument in argv[1:] if argument.startswith("--")}
        # The two sources of text exclude each other, so one on the command line replaces either one in the file.
        replaced = TEXT_SOURCES if given & TEXT_SOURCES else set()
        fields = read_fields(Path(argv[0]))
        argv = as_command_line({name: fields[name] for name in fields if name not in replaced}) + argv[1:]
    try:
        return _ArgumentParser().parse_args_into_dataclasses(argv, look_for_args_file=False)
    except UserError:
        raise
    except (ValueError, TypeError) as error:  # from the checks of TrainingArguments itself
        raise UserError(one_line(error)) from error


GROUPS = ("model", "data and evaluation", "triplets and run", "training (transformers.TrainingArguments)")


class _ArgumentParser(HfArgumentParser):
    """HfArgumentParser with groups that can be read, and with errors that are raised instead of printed."""

    def __init__(self):
        super().__init__(
            prog="run_arccse.py",
            usage="run_arccse.py [CONFIG.yaml] [--field value ...]",
            description="Train a sentence encoder with ArcCSE. CONFIG.yaml (or .json) holds fields as `name: value`; "
            "the command line goes over it.",
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )
        self.groups = {title: self.add_argument_group(title) for title in GROUPS}
        self.dataclass_types = list(ARGUMENT_CLASSES)
        for dtype in ARGUMENT_CLASSES:
            self._add_dataclass_arguments(dtype)
        # In force but not listed: the `--no_field` twins, and the hundred Trainer fields that few runs touch.
        listed = {action.dest for group in self.groups.values() for action in group._group_actions} | {"help"}
        others = [action for action in self._actions if action.dest not in listed]
        for action in others + [action for action in self._actions if action.option_strings[0].startswith("--no_")]:
            action.help = argparse.SUPPRESS
        names = ", ".join(sorted({action.dest for action in others}))
        self.epilog = f"Every other field of transformers.TrainingArguments works too: {names}"

    def _add_dataclass_arguments(self, dtype: type) -> None:
        hints = get_type_hints(dtype)
        inherited = {item.name for item in dataclasses.fields(TrainingArguments)}
        model, data, triplets, training = self.groups.values()
        for item in dataclasses.fields(dtype):
            if not item.init:
                continue
            if dtype is ArcCSETrainingArguments:
                parser = triplets if item.name not in inherited else training
                parser = self if parser is training and item.name not in COMMON_TRAINER_ARGUMENTS else parser
            else:
                parser = model if dtype is ModelArguments else data
            item.type = hints[item.name]
            self._parse_dataclass_field(parser, item)

    def parse_known_args(self, args=None, namespace=None):
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self._fail_on(unknown[0])
        return namespace, []

    def _fail_on(self, unknown: str) -> None:
        if not unknown.startswith("--"):
            raise UserError(f"{unknown!r} does not follow a --field name; the config file must come first")
        name = _field_name(unknown)
        close = difflib.get_close_matches(name, [action.dest for action in self._actions], n=1, cutoff=0.5)
        raise UserError(
            f"--{name}: there is no such field{f'; did you mean --{close[0]}?' if close else ' (see --help)'}"
        )

    def error(self, message: str):
        raise UserError(re.sub(r"argument (--\w+)\S*:", r"\1:", message) + " (see --help)")


class _HelpFormatter(argparse.HelpFormatter):
    """One short line a field: its name, its choices or type, its help and its default."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=34, width=120)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.dest == "help":
            return super()._format_action_invocation(action)
        if action.choices:
            value = "{" + ",".join(str(choice) for choice in action.choices if choice is not None) + "}"
        else:
            value = getattr(action.type, "__name__", "value").replace("string_to_bool", "bool")
        return f"--{action.dest} {value}{' ...' if action.nargs == '+' else ''}"

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default in (None, argparse.SUPPRESS, []):
            return action.help
        return f"{action.help} (default: %(default)s)"


def _field_name(argument: str) -> str:
    return argument.lstrip("-").split("=")[0].replace("-", "_")


def read_fields(path: Path) -> Fields:
    """The fields of a YAML or JSON file, every scalar as the text that stands there; one without a value is left out.

    Raises:
        UserError: an unreadable file, or one that does not hold `field: value`.
    """
    try:
        # BaseLoader leaves every scalar the text that it is: the parser knows the types, YAML would read 1e-5 as a
        # string and `no` as a boolean.
        text = path.read_text(encoding="utf-8")
        values, typed = yaml.load(text, Loader=yaml.BaseLoader), yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the config file ({error})") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML or JSON: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: a config file holds lines of `field: value`")
    return _given(values, typed)


def _given(values: dict, typed: dict) -> Fields:
    fields: Fields = {}
    for (name, value), as_typed in zip(values.items(), typed.values(), strict=True):
        if as_typed is None:
            continue  # nothing given: the default stays
        if isinstance(value, dict):
            fields[name] = _given(value, as_typed)
        elif isinstance(as_typed, bool):
            fields[name] = {"on": "true", "off": "false"}.get(value.lower(), value)
        else:
            fields[name] = value
    return fields


def as_command_line(fields: Fields) -> list[str]:
    """`--name=value` for each field, so that one parser checks what comes from files and from the command line."""
    arguments: list[str] = []
    for name, value in fields.items():
        if isinstance(value, list):
            arguments += [f"--{name}", *value] if value else []
        elif isinstance(value, dict):
            arguments.append(f"--{name}={json.dumps({key: yaml.safe_load(item) for key, item in value.items()})}")
        else:
            arguments.append(f"--{name}={value}")
    return arguments
