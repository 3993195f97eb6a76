"""A retrieval test out of the user's own documents: which are held out, and what is asked about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..data.documents import Document
from ..data.pairs import QUERY_KINDS, query_texts
from ..data.sentences import boilerplate, is_distinctive
from .bootstrap import MIN_GROUPS
from .retrieval import linked_pairs

TEST_SHARE, MOST_TEST_DOCUMENTS = 1 / 3, 1_000
VALIDATION_SHARE, MOST_VALIDATION_DOCUMENTS = 1 / 6, 500
MIN_SENTENCE_CHARS = 20
MIN_TEST_PAIRS = 100
"""With fewer, an interval is too wide, and too unsure itself, to say anything."""
MIN_TEST_DOCUMENTS = MIN_GROUPS
"""Queries out of one document are no independent draws: with fewer documents, an interval is too narrow."""
MIN_VALIDATION_PAIRS = 50
ENOUGH_PAIRS = 500
"""Several headings of a document are asked about only where there are not so many documents."""


class DividedDocuments(NamedTuple):
    """Documents for training, for choosing among its results, and for the verdict."""

    train: list[Document]
    validation: list[Document]
    test: list[Document]


class HeldOutQueries(NamedTuple):
    """(query, text) pairs, and for each the number of the document that it comes from."""

    pairs: list[tuple[str, str]]
    documents: list[int]


def divide_documents(documents: Sequence[Document], seed: int) -> DividedDocuments:
    """Holds out a third of the documents for the test, at most 1,000, and half as many for validation.

    Args:
        documents: In any order.
        seed: The same seed divides the same documents alike.
    """
    order = np.random.default_rng(seed).permutation(len(documents))
    test = min(round(TEST_SHARE * len(documents)), MOST_TEST_DOCUMENTS)
    validation = min(round(VALIDATION_SHARE * len(documents)), MOST_VALIDATION_DOCUMENTS)
    parts = np.split(order, [test, test + validation])
    held_out, chosen_by, rest = ([documents[index] for index in np.sort(part)] for part in parts)
    return DividedDocuments(train=rest, validation=chosen_by, test=held_out)


def choose_query_kind(documents: Sequence[Document], trained: Collection[str] = ()) -> str:
    """The kind of queries to hold out: titles before headings before first sentences, and best one not trained on.

    Args:
        documents: The test's.
        trained: Kinds (of `QUERY_KINDS`) that the training pairs begin with.

    Returns:
        One of `QUERY_KINDS`: the first that gives `MIN_TEST_PAIRS`; where none does, that which gives most.
    """
    kinds = sorted(QUERY_KINDS, key=lambda kind: kind in trained)
    numbers = {kind: len(query_pairs(documents, kind).pairs) for kind in kinds}
    enough = (kind for kind in kinds if numbers[kind] >= MIN_TEST_PAIRS)
    return next(enough, max(kinds, key=numbers.__getitem__))


def query_pairs(documents: Sequence[Document], kind: str) -> HeldOutQueries:
    """(query, text) pairs, in which no query and no text occurs twice; of a text each paragraph is a line.

    One pair per document, so that the pairs are independent of each other, unless that gives fewer than
    `ENOUGH_PAIRS`: then more of its headings, the same number from each.
    """
    most = -(-ENOUGH_PAIRS // max(1, len(documents)))
    found = HeldOutQueries([], [])
    queries: set[str] = set()
    texts: set[str] = set()
    for number, document in enumerate(documents):
        for query, text in query_texts(document, kind)[:most]:
            key = query.casefold()
            if key not in queries and text not in texts and key != text.casefold():
                queries.add(key)
                texts.add(text)
                found.pairs.append((query, text))
                found.documents.append(number)
    return found


def neighbour_pairs(documents: Sequence[Document]) -> list[tuple[str, str]]:
    """Two sentences that follow each other, one such pair per document: a control of another kind than queries.

    A sentence that many documents have is left out: it would be held out of all others.
    """
    common = boilerplate([document.sentences for document in documents])
    seen: set[str] = set()
    pairs: list[tuple[str, str]] = []
    for document in documents:
        # At the end, because queries ask for the beginning. The very last section may be a page's breadcrumb.
        ends = (
            [text for text in section.sentences if len(text) >= MIN_SENTENCE_CHARS and text not in common][-2:]
            for section in reversed(document.sections)
        )
        pair = next((end for end in ends if len(set(end)) == 2), [])
        if pair and seen.isdisjoint(pair):
            seen.update(pair)
            pairs.append((pair[0], pair[1]))
    return pairs


def passages(documents: Sequence[Document]) -> list[str]:
    """One text per section, of which each paragraph is a line, to be searched among the others."""
    return [section.text for document in documents for section in document.sections]


def without_answers(passages: Sequence[str], answers: Iterable[str]) -> list[str]:
    """Returns the passages that hold none of the right documents: as wrong ones they would be better than the right.

    Args:
        passages: Each on one line.
        answers: The right documents, each on one line; only those that are `is_distinctive` are looked for.
    """
    lines = "\n".join(passages)
    ends = np.cumsum([len(passage) + 1 for passage in passages])
    holding = set()
    for answer in filter(is_distinctive, set(answers)):
        place = lines.find(answer)
        while place >= 0:
            holding.add(number := int(np.searchsorted(ends, place, side="right")))
            place = lines.find(answer, int(ends[number]))
    return [passage for number, passage in enumerate(passages) if number not in holding]


def divide_pairs(pairs: Sequence[tuple[str, str]], seed: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """At most a third of the user's own pairs for validation, the rest for the test; `linked_pairs` stay together.

    The test keeps half of their groups at least.

    Args:
        pairs: (query, document) texts.
        seed: The same seed divides the same pairs alike.
    """
    group_of = linked_pairs(pairs).tolist()
    sizes = Counter(group_of)
    groups, taken = list(sizes), 0
    validation: set[int] = set()
    for index in np.random.default_rng(seed).permutation(len(groups)):
        group = groups[index]
        if taken + sizes[group] <= len(pairs) // 3 and len(validation) < len(groups) // 2:
            validation.add(group)
            taken += sizes[group]
    parts: tuple[list[tuple[str, str]], list[tuple[str, str]]] = [], []
    for pair, group in zip(pairs, group_of, strict=True):
        parts[group not in validation].append(pair)
    return parts
