"""Training on documents: the pairs that they give, and the test that is held out of them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..data.cleaning import held_out_texts
from ..data.documents import Document, Section, are_documents, columns_of, read_documents
from ..data.installed_docs import docstring_corpus
from ..data.pair_dataset import PairDataset
from ..data.pairs import PairCounts, make_pairs, parse_weights, resolve_kind
from ..data.sentences import split_sentences
from ..data.training_texts import INSTALLED_DOCS
from ..errors import UserError, one_line
from ..evaluation.held_out import (
    MIN_TEST_DOCUMENTS,
    MIN_TEST_PAIRS,
    MIN_VALIDATION_PAIRS,
    choose_query_kind,
    divide_documents,
    divide_pairs,
    neighbour_pairs,
    passages,
    query_pairs,
    without_answers,
)
from ..evaluation.retrieval import RetrievalTask, linked_pairs
from ..evaluation.sts import ScoredPairs, STSTask, read_sts
from ..evaluation.suite import Task
from ..evaluation.tasks import docstring_pairs, read_own_pairs
from .arguments import ArcCSETrainingArguments, DataArguments
from .verdict import VerdictTasks

logger = logging.getLogger("arccse_hf")

TRAINED_SHARE = 0.1
"""A kind of queries counts as trained on where it has this share of the pairs."""

Pairs = list[tuple[str, str]]


class PreparedDocuments(NamedTuple):
    """What documents give to a run.

    Attributes:
        rows: Pairs to train on.
        counts: What became of the pairs.
        tasks: What the verdict is measured on; None where there is too little for one.
    """

    rows: PairDataset
    counts: PairCounts
    tasks: VerdictTasks | None


def trains_on_documents(data_args: DataArguments) -> bool:
    """Returns whether the text to train on is read as documents.

    It is where `--pairs` or `--title_column` asks for it, and where the files are documents by themselves.
    """
    return (data_args.pairs or data_args.title_column) is not None or (
        not data_args.text_columns
        and bool(data_args.train_file)
        and are_documents(data_args.train_file, data_args.one_document_per_file)
    )


def refuse_settings_of_documents(data_args: DataArguments) -> None:
    """Raises UserError where rows are trained on, and a setting is given that would have no effect on them."""
    for name in ("pairs", "title_column", "pair_weights", "crop_unit", "crop_deletion", "one_document_per_file"):
        value = getattr(data_args, name)
        if value not in (None, [], getattr(DataArguments, name, None)):
            shown = " ".join(value) if isinstance(value, list) else value
            raise UserError(
                f"--{name} {shown}: is for documents, and rows are trained on here; give .md, .html or .rst files, or "
                "a file with --pairs"
            )
    if data_args.eval_corpus and not data_args.eval_pairs:
        raise UserError(
            f"--eval_corpus {' '.join(data_args.eval_corpus)}: is searched with --eval_pairs; give these too"
        )


def prepare_documents(
    data_args: DataArguments,
    args: ArcCSETrainingArguments,
    tokenizer: PreTrainedTokenizerBase,
    held_out: Collection[str] = (),
) -> PreparedDocuments:
    """Reads documents, holds a test out of them, and makes pairs of the rest.

    Args:
        data_args: What to read and which pairs to make.
        args: The seed, and the length that texts are cut to.
        tokenizer: The encoder's.
        held_out: Further texts that training must not see.

    Raises:
        UserError: The documents cannot be read, or do not have such pairs.
    """
    if data_args.streaming:
        raise UserError("--streaming True: documents are read whole, because a part of them is held out; leave it out")
    if data_args.max_train_samples is not None:
        raise UserError(
            f"--max_train_samples {data_args.max_train_samples}: chooses rows, and these are documents; --max_steps "
            "bounds the run"
        )
    weights = parse_weights(data_args.pairs or "auto", data_args.pair_weights)
    own = _own_pairs(data_args)
    documents = load_documents(data_args, exclude=held_out_texts(text for pair in own for text in pair))
    parts = divide_documents(documents, args.seed)
    if own:
        parts = parts._replace(train=parts.train + parts.test, test=[])
    # Once, or titles that are held out for the test would turn `auto` into another kind.
    kind = resolve_kind(data_args.pairs or "auto", parts.train, data_args.min_chars)
    for name in ("crop_unit", "crop_deletion"):
        value = getattr(data_args, name)
        if value != getattr(DataArguments, name) and "crops" not in (kind, *weights):
            raise UserError(f"--{name} {value}: shapes crops, and the pairs are {kind}; leave it out")
    pairs_of = partial(make_pairs, kind=kind, weights=weights, min_chars=data_args.min_chars, seed=args.seed)
    batch = args.per_device_train_batch_size * args.world_size if args.dataloader_drop_last else 1
    made = pairs_of(parts.train)[1].made
    trained = {name for name, number in made.items() if number >= TRAINED_SHARE * made.total()}
    query_kind = choose_query_kind(parts.test or parts.validation, trained)
    queried = query_pairs(parts.test, query_kind)
    test = own or queried.pairs
    validation = query_pairs(parts.validation, query_kind).pairs
    groups = None if own else queried.documents
    control = neighbour_pairs(parts.test or parts.validation)
    asked = len(validation)
    if asked < MIN_VALIDATION_PAIRS:
        chosen_by, left = divide_pairs(own, args.seed)
        validation = []
        if not _why_too_small(left):
            validation, test = chosen_by, left
            asked = len(validation)
        if parts.test or not _measures(control, data_args):  # nothing is measured on these documents
            parts = parts._replace(train=parts.train + parts.validation, validation=[])
            control = control if parts.test else []
    if _too_small(test, groups):
        rows, counts = pairs_of(documents, exclude=held_out, fewest=batch)
        tasks = None
    else:
        unseen = held_out_texts(text for pair in (*test, *validation, *control) for text in pair)
        rows, counts = pairs_of(parts.train, exclude=unseen | set(held_out), fewest=batch)
        queries = "own queries" if own else f"{query_kind.replace('_', ' ')}s"
        logger.info(
            f"held out with seed {args.seed}: {len(parts.test):,} documents for the verdict ({len(test):,} {queries}), "
            f"{len(parts.validation):,} to choose a mixture by ({len(validation):,} queries)"
        )
        tasks = _verdict_tasks(data_args, test, validation, control, queries, groups)
        _warn_without_choice(tasks, asked)
    logger.info("%s", counts)
    seed = args.data_seed if args.data_seed is not None else args.seed
    dataset = PairDataset(
        rows,
        tokenizer,
        args.max_seq_length,
        crop_unit=data_args.crop_unit,
        crop_deletion=data_args.crop_deletion,
        seed=seed,
    )
    return PreparedDocuments(dataset, counts, tasks)


def prepare_own_pairs(data_args: DataArguments, seed: int) -> VerdictTasks | None:
    """Returns what the verdict of a run on sentences is measured on: the user's own pairs, if there are any.

    Args:
        data_args: Names them.
        seed: Of their division.
    """
    own = _own_pairs(data_args)
    if not own:
        return None
    validation, test = divide_pairs(own, seed)
    if _too_small(test):
        return None
    tasks = _verdict_tasks(data_args, test, validation, [], "own queries")
    _warn_without_choice(tasks, len(validation))
    return tasks


def _own_pairs(data_args: DataArguments) -> Pairs:
    """Returns the (query, document) texts of `--eval_pairs`; none where it is not given.

    Raises:
        UserError: The file is missing or holds no such pairs.
    """
    if data_args.eval_pairs is None:
        return []
    if data_args.eval_pairs == INSTALLED_DOCS:
        return docstring_pairs()
    pairs = read_own_pairs(Path(data_args.eval_pairs).expanduser())
    if isinstance(pairs, ScoredPairs):
        raise UserError(f"--eval_pairs {data_args.eval_pairs}: has scores; a verdict takes columns query and document")
    return pairs


def load_documents(data_args: DataArguments, exclude: Collection[str] = ()) -> list[Document]:
    """Returns the documents that a run trains on or holds out.

    Args:
        data_args: What to read.
        exclude: Of the docstrings, those with one of these texts are left out.

    Raises:
        UserError: They cannot be read, or the settings do not go with documents.
    """
    if data_args.dataset_name == INSTALLED_DOCS:
        return [
            Document(None, (Section(None, ((query,), tuple(split_sentences(text)))),), INSTALLED_DOCS)
            for query, text in docstring_corpus().pairs
            if query not in exclude and text not in exclude
        ]
    if data_args.dataset_name:
        raise UserError(
            f"--dataset_name {data_args.dataset_name}: documents are read from --train_file, or from {INSTALLED_DOCS}; "
            "leave --pairs out to train on its rows"
        )
    if len(data_args.text_columns) > 1:
        raise UserError(f"--text_columns {' '.join(data_args.text_columns)}: a document's text is one column")
    documents, counts = read_documents(
        data_args.train_file,
        title_column=data_args.title_column,
        text_column=next(iter(data_args.text_columns), None),
        one_document_per_file=data_args.one_document_per_file,
        elsewhere=columns_of(data_args.eval_corpus, "--eval_corpus") if data_args.eval_corpus else (),
    )
    logger.info("%s", counts)
    return documents


def _read_corpus(data_args: DataArguments) -> list[str]:
    """Returns the passages of `--eval_corpus`, and logs what became of it; none where it is not given.

    The columns of the documents are its own too, where it has them; else they are found by their names.

    Raises:
        UserError: It cannot be read.
    """
    if not data_args.eval_corpus:
        return []
    columns = columns_of(data_args.eval_corpus, "--eval_corpus")
    text_column = next(iter(data_args.text_columns), None)
    documents, counts = read_documents(
        data_args.eval_corpus,
        title_column=data_args.title_column if data_args.title_column in columns else None,
        text_column=text_column if text_column in columns else None,
        one_document_per_file=data_args.one_document_per_file,
        option="--eval_corpus",
    )
    logger.info("--eval_corpus: %s", counts)
    return list(map(one_line, passages(documents)))


def _on_one_line(pairs: Pairs) -> Pairs:
    """Returns the pairs with documents as a corpus has them."""
    return [(query, one_line(text)) for query, text in pairs]


def _verdict_tasks(
    data_args: DataArguments,
    test: Pairs,
    validation: Pairs,
    control: Pairs,
    queries: str,
    groups: Sequence[int] | None = None,
) -> VerdictTasks:
    test, validation = _on_one_line(test), _on_one_line(validation)
    whole = _read_corpus(data_args)
    corpus = without_answers(whole, [document for _, document in (*test, *validation)])
    if len(corpus) < len(whole):
        left_out = len(whole) - len(corpus)
        logger.info(f"--eval_corpus: {left_out:,} of {len(whole):,} passages left out, which hold a right document")
    other: Task | None = None
    if "stsb_dev" in data_args.eval_tasks:
        other = STSTask("stsb_dev", read_sts("stsb_dev", data_args.eval_data))
    elif _measures(control, data_args):
        other = RetrievalTask("neighbouring_sentences", control)
    else:
        logger.info("what training forgets is not measured: give --eval_tasks stsb_dev --eval_data, or more documents")
    return VerdictTasks(
        RetrievalTask("validation", validation, corpus) if len(validation) >= MIN_VALIDATION_PAIRS else None,
        RetrievalTask("test", test, corpus, groups),
        other,
        queries,
    )


def _warn_without_choice(tasks: VerdictTasks, queries: int) -> None:
    if tasks.validation is None:
        logger.warning(
            "no mixture with the start encoder is tried: %d queries are too few to choose one by, it takes %d",
            queries,
            MIN_VALIDATION_PAIRS,
        )


def _measures(control: Pairs, data_args: DataArguments) -> bool:
    """Returns whether neighbouring sentences show what training forgets: enough of them, and STS-B dev is not there."""
    return len(control) >= MIN_VALIDATION_PAIRS and "stsb_dev" not in data_args.eval_tasks


def _too_small(test: Pairs, groups: Sequence[int] | None = None) -> bool:
    """Returns whether a test is too small for a verdict, and logs what it takes; see `_why_too_small`."""
    if why := _why_too_small(test, groups):
        logger.warning("NO VERDICT: %s", why)
    return bool(why)


def _why_too_small(test: Pairs, groups: Sequence[int] | None = None) -> str | None:
    """Returns why a test is too small for a verdict, and what it takes; None where it is not.

    Args:
        test: Its pairs.
        groups: The number of the document that each comes from; None: they are the user's own, (query, document).
    """
    sizes = [(len(set(test)), MIN_TEST_PAIRS, "test pairs", "")]
    if groups is None:
        dependent = " (those that share a query or a document are no independent draws)"
        sizes.append((len(np.unique(linked_pairs(test))), MIN_TEST_DOCUMENTS, "independent test pairs", dependent))
    else:
        dependent = " (queries of one document are no independent draws)"
        sizes.append((len(set(groups)), MIN_TEST_DOCUMENTS, "test documents", dependent))
    for number, least, what, why in sizes:
        if number < least:
            more = f"{least / number:.1f} times as many" if number else "more"
            way_out = "pairs in --eval_pairs" if groups is None else "documents, or pairs of your own (--eval_pairs)"
            return f"{number} {what} are too few, it takes {least}; bring {more} {way_out}{why}"
    return None
