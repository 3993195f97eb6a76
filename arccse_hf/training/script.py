"""The training script, from arguments to the exported model: what `run_arccse.py` and `arccse train` run."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedTokenizerBase, set_seed

from ..compat import without_zero3_init
from ..data.cleaning import CleaningCounts, held_out_texts
from ..data.health import text_health
from ..data.streaming import TextStream
from ..data.tokenization import tokenize_texts
from ..data.training_texts import load_training_texts
from ..errors import UserError
from ..evaluation import TaskSuite, load_tasks
from ..inference.export import export
from ..inference.loading import max_input_length
from ..model.modeling_arccse import ArcCSEForContrastiveLearning
from ..run_folder import (
    COSINES,
    FINAL_CHECKPOINT,
    RESULTS,
    SETTINGS,
    begin_run,
    check_output_dir,
    finish_run,
    kept_step,
    metrics_of,
    no_empty_folder,
    write_json,
)
from .arguments import ArcCSETrainingArguments, DataArguments, ModelArguments
from .backbone import load_backbone
from .checkpoints import check_checkpoint, find_checkpoint, is_complete
from .config import parse_arguments
from .console import quiet_libraries
from .cosine_samples import save_cosine_sample
from .distributed import on_first_process
from .model_card import model_card
from .provenance import hardware, package_versions
from .rows import input_length
from .trainer import ArcCSETrainer

logger = logging.getLogger("arccse_hf")

STREAM_SAMPLE = 1_000
"""Number of rows of a stream that are looked at before training."""


@dataclass
class TrainResult:
    """What a run leaves.

    Args:
        output_dir: The folder of the trained model, which `SentenceTransformer` and `AutoModel` open.
        before: Metrics of the untrained encoder by name; empty where nothing was measured.
        after: The same of the trained one.
    """

    output_dir: str
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)


def main(argv: Sequence[str]) -> None:
    """Trains, measures and exports as `argv` says; see `parse_arguments`."""
    model_args, data_args, args = parse_arguments(argv)
    result = run(model_args, data_args, args)
    if args.process_index == 0:
        show_results(result)


@dataclass
class Setup:
    """All that a run needs once every check has passed.

    Attributes:
        trainer: Ready to train.
        tokenizer: Of the encoder.
        rows: What is trained on.
        sample: Rows of it that can be looked at.
        counts: What became of the rows that were read.
        suite: What is measured, if anything.
    """

    trainer: ArcCSETrainer
    tokenizer: PreTrainedTokenizerBase
    rows: Dataset | TextStream
    sample: Dataset
    counts: CleaningCounts
    suite: TaskSuite | None


def run(
    model_args: ModelArguments, data_args: DataArguments, args: ArcCSETrainingArguments, texts: Dataset | None = None
) -> TrainResult:
    """Trains, measures and exports; all processes must call.

    Args:
        model_args: What to start from.
        data_args: What to train on and what to measure.
        args: How to train.
        texts: Rows of text to train on, instead of `data_args`' source.

    Raises:
        UserError: A setting or an input is wrong; the message names it.
    """
    logging.basicConfig(format="%(message)s")
    logger.setLevel(logging.INFO if args.should_log else logging.WARNING)
    with quiet_libraries(args.log_level):
        with no_empty_folder(args.output_dir):
            resume = check_start(data_args, args)
            set_seed(args.seed)
            model, tokenizer = load_backbone(model_args)
            # What was left open is settled now: the card and the settings say what it became.
            model_args = replace(model_args, pooling=model.config.pooling, projection=model.config.projection)
            setup = prepare(model, tokenizer, data_args, args, texts)
            args = setup.trainer.args  # a copy, in which the evaluation settings fit to what is measured
            trained = fit(setup, resume)
        before, after = measure(setup)
        write_records(setup, trained, before, after, model_args, data_args)
        card = model_card(model_args, data_args, args, counts=setup.counts, before=before, after=after)
        export_trained(setup, card)
        setup.trainer.end()
        return TrainResult(args.output_dir, before, after)


def check_start(data_args: DataArguments, args: ArcCSETrainingArguments) -> str | bool | None:
    """Returns what `Trainer.train` is to resume from; checks what can be checked before anything is loaded."""
    resuming = (args.resume_from_checkpoint or "false").lower() != "false"
    check_output_dir(args.output_dir, overwrite=args.overwrite_output_dir, resume=resuming)
    if data_args.streaming and args.max_steps <= 0:
        raise UserError("--streaming True: a stream has no end to count epochs by; say how long with --max_steps N")
    return resume_argument(args)


def prepare(
    model: ArcCSEForContrastiveLearning,
    tokenizer: PreTrainedTokenizerBase,
    data_args: DataArguments,
    args: ArcCSETrainingArguments,
    texts: Dataset | None,
) -> Setup:
    """Reads what is trained on and measured, and makes the trainer; see `run`."""
    input_length(model, tokenizer, args.max_seq_length)  # wrong settings are told before the data is read
    with args.main_process_first(desc="data"):
        suite, held_out = load_evaluation(data_args)
        rows, texts, counts = load_rows(data_args, args, tokenizer, held_out, texts)
    log_health(texts, tokenizer, args, max_input_length(model, tokenizer), counts)
    sample = rows if isinstance(rows, Dataset) else tokenize_texts(texts, tokenizer, args.max_seq_length)
    trainer = ArcCSETrainer(
        model=model,
        args=args,
        train_dataset=rows,
        processing_class=tokenizer,
        eval_suite=suite,
    )
    return Setup(trainer, tokenizer, rows, sample, counts, suite)


def fit(setup: Setup, resume: str | bool | None) -> dict[str, float]:
    """Trains, with cosines of a sample before and after it.

    Returns:
        Trainer's metrics of training; its speed is that of the steps alone.
    """
    trainer, args = setup.trainer, setup.trainer.args
    folder = Path(args.output_dir)
    if trainer.is_world_process_zero():
        facts = {"versions": package_versions(), "hardware": hardware(args)}
        begin_run(folder, resume=bool(resume), overwrite=args.overwrite_output_dir, facts=facts)
    clock = trainer.clock
    if args.cosine_samples:
        save_cosine_sample(trainer, setup.sample, setup.suite, folder / COSINES["before"])
    metrics = trainer.train(resume_from_checkpoint=resume).metrics
    if isinstance(setup.rows, TextStream):
        setup.counts = setup.rows.report_counts(trainer.accelerator)
    if args.cosine_samples:
        save_cosine_sample(trainer, setup.sample, setup.suite, folder / COSINES["after"])
    metrics |= clock.metrics(args, setup.rows)
    if clock.seconds:
        logger.info(
            "%s steps in %s s, %s rows per second; evaluations and checkpoints not counted",
            f"{clock.steps:,}",
            f"{clock.seconds:,.1f}",
            f"{metrics['train_samples_per_second']:,.1f}",
        )
    return metrics


def measure(setup: Setup) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the metrics of the untrained encoder and of the trained one; empty where nothing is measured.

    They stand in the log, which a resumed run has from its beginning; only weights that were not measured yet are
    measured here.
    """
    trainer, suite = setup.trainer, setup.suite
    if suite is None:
        return {}, {}

    def measured(step: int) -> dict[str, float]:
        lines = [metrics_of(line) for line in trainer.state.log_history if line["step"] == step]
        complete = [metrics for metrics in lines if metrics.keys() >= set(suite.metric_names())]
        return complete[-1] if complete else {}

    kept = kept_step(asdict(trainer.state), trainer.args.load_best_model_at_end)
    return measured(0), measured(kept) or metrics_of(trainer.evaluate())


def write_records(
    setup: Setup,
    trained: dict[str, float],
    before: dict[str, float],
    after: dict[str, float],
    model_args: ModelArguments,
    data_args: DataArguments,
) -> None:
    """Writes the log, the scores and the settings of a run."""
    trainer = setup.trainer
    trainer.save_state()
    if trainer.is_world_process_zero():
        folder = Path(trainer.args.output_dir)
        scores = {f"before_{name}": value for name, value in before.items()}
        scores |= {f"eval_{name}": value for name, value in after.items()}
        write_json(folder / RESULTS, trained | scores)
        settings = {"model": asdict(model_args), "data": asdict(data_args), "training": trainer.args.to_dict()}
        write_json(folder / SETTINGS, settings)


def export_trained(setup: Setup, card: str) -> None:
    """Exports what was trained, and marks the run as done."""
    trainer, folder = setup.trainer, Path(setup.trainer.args.output_dir)
    # Through a checkpoint, because the weights may be sharded over processes.
    final = folder / FINAL_CHECKPOINT
    trainer.save_model(str(final))
    if trainer.is_world_process_zero():
        with without_zero3_init():
            trained = ArcCSEForContrastiveLearning.from_pretrained(final, dtype=torch.float32)
            export(trained, setup.tokenizer, folder, card)
        shutil.rmtree(final)
        finish_run(folder)


def load_evaluation(data_args: DataArguments) -> tuple[TaskSuite | None, set[str]]:
    """What is measured, and the texts that training must not see because of it."""
    if not data_args.eval_tasks:
        return None, set()
    try:
        suite = TaskSuite(load_tasks(data_args.eval_tasks, data_args.eval_data))
    except UserError as error:  # which knows nothing of this script's arguments
        source = f" --eval_data {data_args.eval_data}" if data_args.eval_data else ""
        raise UserError(f"--eval_tasks {' '.join(data_args.eval_tasks)}{source}: {error}") from error
    # Not only whole texts: a paragraph that is to be found must not be trained on sentence by sentence either.
    return suite, held_out_texts(suite.sentences)


def load_rows(
    data_args: DataArguments,
    args: ArcCSETrainingArguments,
    tokenizer: PreTrainedTokenizerBase,
    held_out: set[str],
    texts: Dataset | None = None,
) -> tuple[Dataset | TextStream, Dataset, CleaningCounts]:
    """Returns what to train on, texts of it that can be looked at, and what became of the rows that were read."""
    if texts is not None and data_args.streaming:
        raise UserError("--streaming True: reads files; texts that are in memory already are trained on as they are")
    given = {
        "train_file": data_args.train_file,
        "dataset_name": data_args.dataset_name,
        "dataset_config": data_args.dataset_config,
        "dataset_split": data_args.dataset_split,
        "text_columns": data_args.text_columns,
        "min_chars": data_args.min_chars,
        "exclude": held_out,
    }
    if not data_args.streaming:
        cleaned, counts = load_training_texts(
            **given, texts=texts, max_samples=data_args.max_train_samples, seed=args.seed
        )
        rows = tokenize_texts(cleaned, tokenizer, args.max_seq_length, data_args.preprocessing_num_workers)
        return rows, cleaned, counts
    stream = TextStream(
        tokenizer,
        args.max_seq_length,
        **given,
        shuffle_buffer=data_args.streaming_shuffle_buffer,
        seed=args.seed,
        process_index=args.process_index,
        num_processes=args.world_size,
    )
    sample, counts = stream.head(STREAM_SAMPLE)
    logger.info("first rows of the stream: %s", counts)
    logger.info("duplicates farther apart, or read by another process or dataloader worker, are not found")
    return stream, sample, counts


def log_health(
    texts: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    args: ArcCSETrainingArguments,
    longest: int,
    counts: CleaningCounts,
) -> None:
    """Says in one line what the encoder will see of the texts, and warns where that is much less than there is.

    Args:
        texts: All rows, or the first ones of a stream.
        tokenizer: Of the encoder.
        args: The run's.
        longest: Tokens that the encoder reads at most.
        counts: What became of the rows that were read.
    """
    if not args.should_log:
        return
    health = text_health(
        texts,
        tokenizer,
        args.max_seq_length,
        triplet_min_tokens=args.triplet_min_tokens if args.triplet_weight > 0 else None,
        duplicates=counts.duplicate,
        seed=args.seed,
    )
    logger.info("%s%s", "the first rows: " if counts.duplicate_window else "", health)
    for warning in health.warnings(longest):
        logger.warning("%s", warning)


def resume_argument(args: ArcCSETrainingArguments) -> str | bool | None:
    """Returns a checkpoint's folder, True for the newest one of output_dir, or None; those who are short of a file are
    named before anything is loaded."""
    given = args.resume_from_checkpoint
    if given is None or given.lower() == "false":
        return None
    newest = given.lower() == "true"
    checkpoint = on_first_process(lambda: find_checkpoint(args.output_dir)) if newest else Path(given)
    if not newest and not is_complete(checkpoint):
        raise UserError(
            f"--resume_from_checkpoint {given}: is no checkpoint folder (it has no readable trainer_state.json)"
        )
    if checkpoint is not None:
        check_checkpoint(checkpoint, checksums=False)
    return newest or given


def show_results(result: TrainResult) -> None:
    """Prints the table at the end, and how to use what was trained."""
    before, after, output_dir = result.before, result.after, result.output_dir
    console = Console()
    if after:
        table = Table("metric", *(["before"] if before else []), "after", title="before and after training")
        for column in table.columns[1:]:
            column.justify = "right"
        for name, value in after.items():
            table.add_row(name, *([f"{before[name]:.4f}"] if before else []), f"{value:.4f}")
        console.print(table)
    # Not wrapped, so that it can be copied at any width; no markup, since a folder may be called [red].
    plain = {"highlight": False, "markup": False, "soft_wrap": True}
    console.print(f"The model is in {output_dir}. To use it:\n", **plain)
    console.print("    from sentence_transformers import SentenceTransformer", **plain)
    console.print(f'    embeddings = SentenceTransformer("{output_dir}").encode(["your text"])\n', **plain)
