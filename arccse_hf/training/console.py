"""What training says: a header, one row per log step, one line per evaluation, and a live line in a terminal."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator, Mapping

import datasets
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState

from ..evaluation.suite import split_dim
from ..inference.loading import silence_load_report, without_loading_bar
from ..model.modeling_arccse import ArcCSEForContrastiveLearning
from ..run_folder import metrics_of
from .arguments import ArcCSETrainingArguments
from .throughput import TrainingClock

COLUMNS = {
    "loss": "loss",
    "arccon_loss": "arccon",
    "anchor_loss": "anchor",
    "triplet_loss": "triplet",
    "positive_cosine": "pos cos",
    "negative_cosine": "neg cos",
    "triplets_violated": "violated",
}
"""Names in the log and their headings; a column that the first row of a run does not have is left out."""

COLLAPSED = 0.999
"""Mean cosine of different sentences above which all embeddings are said to point one way."""
_COLLAPSE = (
    f"all embeddings point one way (the mean cosine of different sentences is above {COLLAPSED}): lower --learning_rate"
)

_WIDTH = 9
_LIBRARIES = r"(torch|transformers|accelerate|datasets|sentence_transformers|huggingface_hub)(\.|$)"


class ConsoleCallback(TrainerCallback):
    """Prints a run for people: aligned rows, and in a terminal a live line with the time that is left.

    It takes the place of transformers' callbacks, which print dicts. Where the output is no terminal, the same rows
    come without control characters.

    Args:
        clock: The time of training alone; the trainer calls it before this.
        rows: Number of training rows; None where a stream does not know it.
    """

    def __init__(self, clock: TrainingClock, rows: int | None = None):
        self.clock, self.rows = clock, rows
        self._console: Console | None = None
        self._progress: Progress | None = None
        self._columns: list[str] = []
        self._collapsed = False
        self.measures_others = False  # than training does, for a while
        self._last_scores: dict[str, float] = {}
        self._seconds, self._rows = 0.0, 0.0  # of the clock, at the last row

    def on_train_begin(
        self,
        args: ArcCSETrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: ArcCSEForContrastiveLearning | None = None,
        **kwargs,
    ) -> None:
        """Prints the header and starts the live line."""
        if not state.is_world_process_zero:
            return
        self._console = Console(highlight=False, markup=False, soft_wrap=True)
        self._columns, self._last_scores, self._collapsed = [], {}, False
        self._print(" · ".join(header(args, state, model, self.rows)))
        if self._console.is_terminal and not args.disable_tqdm:
            self._progress = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                console=self._console, transient=True,
            )  # fmt: skip
            self._progress.add_task("training", total=state.max_steps, completed=state.global_step)
            self._progress.start()

    def on_step_end(self, args, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        """Moves the live line on."""
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=state.global_step)

    def on_log(
        self,
        args: ArcCSETrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs,
    ) -> None:
        """Prints the row of a log step."""
        if self._console is None or not logs or "loss" not in logs:
            return
        if not self._columns:
            self._columns = [name for name in COLUMNS if name in logs]
            headings = [COLUMNS[name] for name in self._columns]
            self._print("".join(f"{text:>{_WIDTH}}" for text in ["step", *headings, "rows/s"]))
        cells = [str(state.global_step)]
        cells += [f"{logs[name]:.4f}" if name in logs else "-" for name in self._columns]
        seconds, rows = self.clock.elapsed() - self._seconds, float(self.clock.rows) - self._rows
        cells.append(f"{rows / seconds:,.0f}" if seconds else "-")
        self._print("".join(f"{cell:>{_WIDTH}}" for cell in cells))
        self._seconds, self._rows = self._seconds + seconds, self._rows + rows
        collapsed = logs.get("negative_cosine", 0) > COLLAPSED
        if collapsed and not self._collapsed:
            self._print(f"step {state.global_step}: {_COLLAPSE}")
        self._collapsed = collapsed

    def on_evaluate(
        self,
        args: ArcCSETrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs,
    ) -> None:
        """Prints the line of an evaluation: each metric, its change, and whether it is the best so far."""
        if self._console is None or not metrics:
            return
        scores = {name: score for name, score in metrics_of(metrics).items() if split_dim(name)[1] is None}
        if not scores:  # under another prefix than that of training
            return
        if self.measures_others:
            shown = " · ".join(f"{name} {score:.4f}" for name, score in scores.items())
            self._print(f"evaluation of other pairs: {shown}")
            return
        chosen = args.metric_for_best_model
        words = []
        for name in sorted(scores, key=lambda name: name != chosen):
            notes = [f"{scores[name] - self._last_scores[name]:+.4f}"] if name in self._last_scores else []
            if name == chosen and args.chooses_by(control) and self._is_best(scores[name], args, state):
                notes.append("best")
            words.append(f"{name} {scores[name]:.4f}" + (f" ({', '.join(notes)})" if notes else ""))
        self._print(f"evaluation at step {state.global_step}: " + " · ".join(words))
        self._last_scores = scores

    def on_train_end(self, args, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        """Takes the live line away, and says once more that training has collapsed where it has."""
        self.close()
        if self._collapsed:
            self._print(f"end of training: {_COLLAPSE}")

    def close(self) -> None:
        """Ends the live line, so that the terminal is as it was; also where training ends with an error."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _is_best(self, score: float, args: ArcCSETrainingArguments, state: TrainerState) -> bool:
        if state.global_step == 0:
            return False  # The untrained encoder is no checkpoint.
        if state.best_metric is None:  # Trainer records the best metric only after this call.
            return score == score  # NaN is never the best.
        return score > state.best_metric if args.greater_is_better else score < state.best_metric

    def _print(self, line: str) -> None:
        assert self._console is not None
        self._console.print(line)


def header(
    args: ArcCSETrainingArguments, state: TrainerState, model: ArcCSEForContrastiveLearning | None, rows: int | None
) -> list[str]:
    """Returns what a run is, in a few words each: encoder, rows, batch, steps, device, precision, objective."""
    words = []
    if model is not None:
        config = model.base_model.encoder.config
        name = config.name_or_path or config.model_type
        # The last two parts: "model" alone, as some packages call the folder, says nothing.
        words.append(f"{'/'.join(name.rstrip('/').split('/')[-2:])} ({model.config.pooling})")
    words.append("a stream of rows" if rows is None else f"{rows:,} rows")
    factors = [f"{args.train_batch_size}"]
    factors += [f"{args.world_size} processes"] if args.world_size > 1 else []
    factors += [f"{args.gradient_accumulation_steps} accumulated"] if args.gradient_accumulation_steps > 1 else []
    words.append("batch " + " x ".join(factors))
    words.append(f"{state.max_steps:,} steps" + (f" from {state.global_step:,}" if state.global_step else ""))
    precision = "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32"
    words.append(f"{args.device.type}, {precision}")
    if model is not None:
        margin = model.config.angular_margin
        objective = f"ArcCon {margin:g} degrees" if margin else "NT-Xent"
        words.append(objective + (f" + {args.triplet_weight:g} x triplet" if args.triplet_weight else ""))
    return words


@contextlib.contextmanager
def quiet_libraries(log_level: str) -> Iterator[None]:
    """Silences what the libraries underneath say of loading and writing weights, and their warnings.

    Deprecations stay, and in a terminal the bars of long work on text.

    Args:
        log_level: Of the run: "passive", "error" and "critical" silence, any other leaves everything as it is.
    """
    if log_level not in ("passive", "error", "critical"):
        yield
        return
    dataset_bars = datasets.are_progress_bars_disabled()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()  # in a file each of their steps is a line
    try:
        with silence_load_report(), without_loading_bar(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module=_LIBRARIES)
            yield
    finally:
        if not dataset_bars:
            datasets.enable_progress_bars()
