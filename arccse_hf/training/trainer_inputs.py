"""What a trainer is given, as it needs it: text as token ids, scored pairs as a suite."""

import logging
from collections.abc import Mapping
from dataclasses import fields

import datasets
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase, TrainingArguments
from transformers.trainer_utils import has_length

from ..data.collator import ArcCSECollator
from ..data.columns import (
    CANONICAL_COLUMNS,
    FIRST_COLUMNS,
    SCORE_COLUMNS,
    SECOND_COLUMNS,
    choose_columns,
    find_column,
)
from ..data.pair_dataset import PairDataset
from ..data.tokenization import tokenize_texts
from ..data.training_texts import kinds_of, texts_as_dataset
from ..errors import UserError
from ..evaluation.sts import ScoredPairs, STSTask
from ..evaluation.suite import TaskSuite
from ..inference.loading import max_input_length
from ..model.modeling_arccse import ArcCSEForContrastiveLearning
from .arguments import ArcCSETrainingArguments

logger = logging.getLogger(__name__)

_READ_EACH_STEP = {"grad_cache_chunk_size", "on_nonfinite", "triplet_dropout"}


def train_rows(
    rows: Dataset | list | None, tokenizer: PreTrainedTokenizerBase, args: ArcCSETrainingArguments
) -> Dataset | None:
    """Returns rows of token ids in `anchor` [, `positive` [, `negative`]].

    Args:
        rows: Text, which is tokenised: a list of sentences, pairs or triples, or a `datasets.Dataset` of text columns.
            Anything else (token ids, a stream, None) is returned as it is.
        tokenizer: The encoder's.
        args: `max_seq_length` is in tokens, special ones included.

    Raises:
        UserError: There is no text, no telling which columns to use, or too few rows for a batch.
    """
    if isinstance(rows, list | tuple):
        rows = texts_as_dataset(rows)
    if isinstance(rows, datasets.Dataset):
        rows = rows.with_format(None)  # of tensors, every token would be another one
    if isinstance(rows, datasets.Dataset) and not isinstance(rows.features.get("anchor"), datasets.List):
        columns = choose_columns(kinds_of(rows.features), source="train_dataset")
        names = zip(columns, CANONICAL_COLUMNS, strict=False)
        texts = rows.select_columns(columns).rename_columns({old: new for old, new in names if old != new})
        rows = tokenize_texts(texts, tokenizer, args.max_seq_length)
    if rows is not None:
        check_batches(rows, args)
    return rows


def check_batches(rows: Dataset, args: ArcCSETrainingArguments) -> None:
    """Raises UserError unless the rows fill a batch in which a sentence has negatives."""
    batch = args.per_device_train_batch_size
    if batch < 2:
        raise UserError(
            f"--per_device_train_batch_size {batch}: the negatives of a sentence are the others of its batch; 2 or more"
        )
    if isinstance(rows, PairDataset):
        rows.batch_sampler(batch, args)  # raises where the documents do not fill a batch
    fewest = batch * args.world_size if args.dataloader_drop_last else max(2, args.world_size)
    if has_length(rows) and len(rows) < fewest:  # A stream sees that when it has read them.
        if len(rows) < 2:
            raise UserError(f"{len(rows)} row of text is left; a sentence learns from others: bring more text")
        raise UserError(
            f"--per_device_train_batch_size {batch}: {len(rows)} rows do not fill one batch"
            f"{f' on each of {args.world_size} processes' if args.world_size > 1 else ''}; bring more text, lower it, "
            "or keep smaller ones (--dataloader_drop_last False)"
        )


def input_length(model: ArcCSEForContrastiveLearning, tokenizer: PreTrainedTokenizerBase, max_seq_length: int) -> int:
    """Returns the tokens that evaluation and the exported folder cut a text to.

    Where the encoder came with a limit of its own, that is it, unless training goes beyond it.

    Args:
        model: Its configuration gets a limit that training goes beyond.
        tokenizer: Its tokenizer.
        max_seq_length: Tokens that training cuts a text to.

    Raises:
        UserError: The encoder has fewer positions than that.
    """
    positions = max_input_length(model, tokenizer)
    if max_seq_length > positions:
        raise UserError(f"--max_seq_length {max_seq_length}: the encoder reads {positions} tokens at most")
    limit = model.config.max_seq_length
    if limit is not None and max_seq_length > limit:
        logger.warning("--max_seq_length %d: the encoder itself cuts at %d tokens", max_seq_length, limit)
        model.config.max_seq_length = max_seq_length
    return min(positions, model.config.max_seq_length or positions)


def choose_suite(
    eval_dataset: datasets.Dataset | None, eval_suite: TaskSuite | None, model: ArcCSEForContrastiveLearning | None
) -> TaskSuite | None:
    """Returns what a trainer measures, at all numbers of dimensions that are trained; None where it is given neither.

    Raises:
        UserError: It is given both, or the dataset holds no scored pairs.
    """
    if eval_dataset is not None and eval_suite is not None:
        raise UserError("eval_dataset and eval_suite: give one of the two")
    suite = eval_suite if eval_dataset is None else suite_of_pairs(eval_dataset)
    if suite is None or model is None or not model.config.matryoshka_dims:
        return suite
    return TaskSuite(suite.tasks, [dim for dim in model.config.matryoshka_dims if dim < model.config.hidden_size])


def refuse_functions(arguments: Mapping[str, object]) -> None:
    """Raises UserError for arguments of Trainer that this one would never call; a loss of one's own also scales it."""
    for name in ("compute_loss_func", "compute_metrics", "preprocess_logits_for_metrics"):
        if arguments.get(name) is not None:
            instead = "override compute_loss" if name == "compute_loss_func" else "measure with an eval_suite"
            raise UserError(f"{name}: is not supported; {instead}")


def refuse_trial(before: Mapping[str, object], after: Mapping[str, object]) -> None:
    """Makes sure that a trial of `hyperparameter_search` changes nothing that was read when the trainer was made.

    Args:
        before: The arguments before the trial's values were set.
        after: The same with them.

    Raises:
        UserError: It does: trials would differ in name only.
    """
    own = {item.name for item in fields(ArcCSETrainingArguments)} - {item.name for item in fields(TrainingArguments)}
    for name in sorted(own - _READ_EACH_STEP):
        if before[name] != after[name]:
            raise UserError(f"hp_space: {name} is read once, when the trainer is made; arccse tune tries it")


def suite_of_pairs(pairs: datasets.Dataset) -> TaskSuite:
    """Returns the suite of one task, `sts`, that correlates cosines with the scores of `pairs`.

    Args:
        pairs: Columns `sentence1`, `sentence2` and `score`, or their like.

    Raises:
        UserError: Not such a dataset.
    """
    names = pairs.column_names if isinstance(pairs, datasets.Dataset) else []
    columns = [find_column(names, known) for known in (FIRST_COLUMNS, SECOND_COLUMNS, SCORE_COLUMNS)]
    if None in columns:
        raise UserError(
            "eval_dataset: must be a datasets.Dataset of sentence1, sentence2 and score; anything else is measured by "
            "an eval_suite (arccse_hf.evaluation.suite.TaskSuite)"
        )
    first, second, scores = (list(pairs[name]) for name in columns)
    return TaskSuite([STSTask("sts", ScoredPairs(first, second, [float(score) for score in scores]))])


def default_collator(
    args: ArcCSETrainingArguments, model: ArcCSEForContrastiveLearning, tokenizer: PreTrainedTokenizerBase
) -> ArcCSECollator:
    """Returns what makes batches of token ids, with triplets where they have a weight."""
    # Every shape may be compiled on its own: let there be few.
    few_shapes = args.torch_compile and max_input_length(model, tokenizer) % 8 == 0
    return ArcCSECollator(
        tokenizer,
        triplets=args.triplet_weight > 0,
        small_span_ratio=args.small_span_ratio,
        large_span_ratio=args.large_span_ratio,
        triplet_min_tokens=args.triplet_min_tokens,
        span_corruption=args.span_corruption,
        seed=args.seed if args.data_seed is None else args.data_seed,
        pad_to_multiple_of=8 if few_shapes else 1,
    )
