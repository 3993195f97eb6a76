"""What a run needs before its first step: the text to train on, what is measured, and the trainer."""

import logging
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..data.cleaning import CleaningCounts, held_out_texts
from ..data.health import SAMPLE_ROWS, text_health
from ..data.pair_dataset import PairDataset
from ..data.pairs import PairCounts
from ..data.streaming import TextStream
from ..data.tokenization import tokenize_texts
from ..data.training_texts import load_training_texts
from ..errors import UserError
from ..evaluation.held_out import MIN_TEST_DOCUMENTS, MIN_TEST_PAIRS
from ..evaluation.suite import TaskSuite, measures_test_sets
from ..evaluation.tasks import load_tasks
from ..inference.loading import max_input_length
from ..model.adapters import plain_state_dict
from ..model.modeling_arccse import ArcCSEForContrastiveLearning
from .arguments import ArcCSETrainingArguments, DataArguments
from .backbone import has_new_projection
from .own_documents import (
    prepare_documents,
    prepare_own_pairs,
    refuse_settings_of_documents,
    trains_on_documents,
)
from .trainer import ArcCSETrainer
from .trainer_inputs import input_length
from .verdict import VerdictTasks

logger = logging.getLogger("arccse_hf")

STREAM_SAMPLE = 1_000
"""Number of rows of a stream, or pairs of documents, that are looked at before training."""


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
        verdict_tasks: What the verdict is measured on, if there is to be one.
        start: The weights before training, on the main process, where the verdict needs them.
    """

    trainer: ArcCSETrainer
    tokenizer: PreTrainedTokenizerBase
    rows: Dataset | TextStream | PairDataset
    sample: Dataset
    counts: CleaningCounts | PairCounts
    suite: TaskSuite | None
    verdict_tasks: VerdictTasks | None = None
    start: dict[str, Tensor] = field(default_factory=dict)


def prepare(
    model: ArcCSEForContrastiveLearning,
    tokenizer: PreTrainedTokenizerBase,
    data_args: DataArguments,
    args: ArcCSETrainingArguments,
    texts: Dataset | None,
) -> Setup:
    """Reads what is trained on and measured, and makes the trainer.

    Args:
        model: To be trained.
        tokenizer: Of the encoder.
        data_args: What to train on and what to measure.
        args: How to train.
        texts: Rows of text to train on, instead of `data_args`' source.

    Raises:
        UserError: A setting or an input is wrong; the message names it.
    """
    input_length(model, tokenizer, args.max_seq_length)  # wrong settings are told before the data is read
    rows: Dataset | TextStream | PairDataset
    counts: CleaningCounts | PairCounts
    with args.main_process_first(desc="data"):
        suite, held_out = load_evaluation(data_args)
        if texts is None and trains_on_documents(data_args):
            rows, counts, verdict_tasks = prepare_documents(data_args, args, tokenizer, held_out)
            looked_at = rows.texts(SAMPLE_ROWS)
            sample = rows.head(STREAM_SAMPLE)
        else:
            refuse_settings_of_documents(data_args)
            verdict_tasks = prepare_own_pairs(data_args, args.seed)
            held_out |= held_out_texts(verdict_tasks.texts) if verdict_tasks else set()
            rows, looked_at, counts = load_rows(data_args, args, tokenizer, held_out, texts)
            sample = rows if isinstance(rows, Dataset) else tokenize_texts(looked_at, tokenizer, args.max_seq_length)
    if args.require_better and verdict_tasks is None:
        raise UserError(
            f"--require_better True: there is nothing to judge by; give --eval_pairs with at least {MIN_TEST_PAIRS} "
            f"test pairs of {MIN_TEST_DOCUMENTS} documents, or more documents"
        )
    if verdict_tasks and has_new_projection(model):
        raise UserError(
            "--projection mlp: is new and becomes part of the embeddings: there is no start encoder to judge by; "
            f"give --projection mlp_train_only or none{', or no --eval_pairs' if data_args.eval_pairs else ''}"
        )
    log_health(looked_at, tokenizer, args, max_input_length(model, tokenizer), counts)
    trainer = ArcCSETrainer(
        model=model,
        args=args,
        train_dataset=rows,
        processing_class=tokenizer,
        eval_suite=suite,
    )
    if trainer.args.load_best_model_at_end and (warning := warning_of_test_sets(trainer.args.metric_for_best_model)):
        logger.warning("%s, or --load_best_model_at_end False", warning)
    start = {}
    if verdict_tasks and trainer.is_world_process_zero():
        start = {name: weight.detach().cpu().clone() for name, weight in plain_state_dict(model).items()}
    return Setup(trainer, tokenizer, rows, sample, counts, trainer.eval_suite, verdict_tasks, start)


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


def warning_of_test_sets(metric: str | None) -> str | None:
    """Returns what to say where a published test set chooses, whose score is then no test any more; None elsewhere."""
    if metric is None or not measures_test_sets(metric):
        return None
    return (
        f"--metric_for_best_model {metric}: a test set chooses the best checkpoint or trial, so its score flatters the "
        "result; choose by --metric_for_best_model stsb_dev_spearman"
    )


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
    given: dict[str, Any] = {
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
        seed=args.seed if args.data_seed is None else args.data_seed,
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
    counts: CleaningCounts | PairCounts,
) -> None:
    """Says in one line what the encoder will see of the texts, and warns where that is much less than there is.

    Args:
        texts: All rows, the first ones of a stream, or a sample of pairs; nothing is said of none.
        tokenizer: Of the encoder.
        args: The run's.
        longest: Tokens that the encoder reads at most.
        counts: What became of the rows that were read.
    """
    if not args.should_log or not len(texts):
        return
    health = text_health(
        texts,
        tokenizer,
        args.max_seq_length,
        rows=counts.made.total() if isinstance(counts, PairCounts) else len(texts),
        triplet_min_tokens=args.triplet_min_tokens if args.triplet_weight > 0 else None,
        duplicates=counts.duplicate if isinstance(counts, CleaningCounts) else counts.repeated,
        seed=args.seed,
    )
    logger.info(
        "%s%s", "the first rows: " if isinstance(counts, CleaningCounts) and counts.duplicate_window else "", health
    )
    for warning in health.warnings(longest):
        logger.warning("%s", warning)
