"""Training pairs from documents: what in a document says the same as what."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from ..errors import UserError, one_line
from .documents import Document, Section
from .sentences import MIN_CHARS, is_held_out, join_sentences

logger = logging.getLogger(__name__)

PairKind = Literal["auto", "title", "adjacent", "crops", "dropout", "mixed"]
CropUnit = Literal["sentences", "tokens"]
SINGLE_KINDS = ("title", "adjacent", "crops", "dropout")
QUERY_KINDS = ("title", "heading", "first_sentence")
"""What can stand for a text, the most like what a user types first."""

OPENING_CHARS = 200
"""Paragraphs of a section are joined up to this length, to be what its heading stands for."""
WINDOW_CHARS = 1_200
"""Crops come from as many sentences in a row as fit: some 256 tokens, the chunk that Contriever crops from."""


class PairRow(NamedTuple):
    """What a pair is drawn from.

    Attributes:
        document: The number of the document.
        kind: `dropout`, `crops` or `adjacent`; or what a title pair begins with: one of `QUERY_KINDS`.
        texts: Anchor and positive; the sentence alone for `dropout`; the sentences of a window for `crops`.
    """

    document: int
    kind: str
    texts: tuple[str, ...]


_TOO_SHORT, _SHARED, _REPEATED = "too short", "with a text of another document", "repeated"
_HELD_OUT, _OVER_WEIGHT, _ALONE = "held out for evaluation", "over the weights", "alone in its passage"


@dataclass
class PairCounts:
    """How many pairs were made, and why others were not.

    Attributes:
        documents: All of them.
        used: Those that at least one pair comes from.
        made: Pairs by kind.
        dropped: By reason: sentences that are too short, pairs (of crops: sentences) for the other reasons.
    """

    documents: int = 0
    used: int = 0
    made: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def repeated(self) -> int:
        """Number of pairs that were left out because they stood there before."""
        return self.dropped[_REPEATED]

    def __str__(self) -> str:
        made = ", ".join(f"{number:,} {kind}" for kind, number in self.made.items())
        dropped = ", ".join(f"{number:,} {reason}" for reason, number in self.dropped.items() if number)
        return (
            f"{self.made.total():,} pairs ({made or 'none'}) from {self.used:,} of {self.documents:,} documents; "
            f"left out: {dropped or 'none'}"
        )


def make_pairs(
    documents: Sequence[Document],
    kind: PairKind = "auto",
    *,
    weights: dict[str, float] | None = None,
    min_chars: int = MIN_CHARS,
    exclude: Collection[str] = (),
    seed: int = 0,
    fewest: int = 1,
) -> tuple[list[PairRow], PairCounts]:
    """Makes the rows that pairs of one kind, or of several, are drawn from.

    - `title`: a title or heading with the text below it; where a document has neither, its first sentence with the
      rest of its first section.
    - `adjacent`: two sentences that follow each other in a section.
    - `crops`: two independent crops of up to `WINDOW_CHARS` of sentences; drawn anew each epoch.
    - `dropout`: a sentence with itself, as ArcCSE has it.
    - `mixed`: several of these, their numbers as `weights` say.
    - `auto`: as `resolve_kind` says.

    A text belongs to the first document that has it. A pair of a later document with the same text is left out: in a
    batch the two would be each other's negatives.

    Args:
        documents: Where the pairs come from.
        kind: As above.
        weights: For `mixed`: a weight per kind.
        min_chars: Shorter sentences are left out; titles may be shorter.
        exclude: Texts held out for evaluation, as `cleaning.held_out_texts` gives them.
        seed: Of the choice of what `mixed` leaves out.
        fewest: Documents that must have a pair, where there are as many: a batch takes one pair of each.

    Raises:
        UserError: Too few documents have such pairs; the message says which pairs more of them have.

    Example:
        >>> rows, counts = make_pairs(documents, "title")  # doctest: +SKIP
        >>> rows[0]  # doctest: +SKIP
        PairRow(document=0, kind='title', texts=('Paper jam', 'Open the rear cover and pull the sheet out.'))
    """
    excluded = {one_line(text) for text in exclude}

    def rows_of(single: str, counts: PairCounts, owners: dict[bytes, int] | None = None) -> list[PairRow]:
        return list(_rows(documents, single, min_chars, excluded, counts, {} if owners is None else owners))

    kind = resolve_kind(kind, documents, min_chars)
    counts = PairCounts(documents=len(documents))
    if kind == "mixed":
        weights = weights or {}
        owners: dict[bytes, int] = {}
        by_kind = {single: rows_of(single, counts, owners) for single in weights}
        rows = _weighted(by_kind, weights, counts, seed)
    else:
        rows = rows_of(kind, counts)
    counts.made = Counter(row.kind for row in rows)
    counts.used = len({row.document for row in rows})
    needed = min(fewest, len(documents))
    if counts.used < needed:
        others = {single: rows_of(single, PairCounts()) for single in SINGLE_KINDS}
        used = {single: len({row.document for row in made}) for single, made in others.items()}
        enough = [f"{single} ({number:,} documents)" for single, number in used.items() if number >= needed]
        have = f"{len(documents):,} documents have no such pair"
        if rows:
            have = f"{counts.used:,} of {len(documents):,} documents have such a pair, and a batch takes {fewest:,}"
        raise UserError(
            f"--pairs {kind}: {have} ({counts}); "
            + (f"possible are {', '.join(enough)}" if enough else "no other kind of pairs is possible either")
        )
    return rows, counts


def resolve_kind(kind: PairKind, documents: Sequence[Document], min_chars: int = MIN_CHARS) -> PairKind:
    """Returns what `auto` stands for: `title` where at least half of the documents give such a pair, else `dropout`.

    Args:
        kind: Another kind is returned as it is.
        documents: Whose pairs are counted, whatever evaluation holds out of them.
        min_chars: As for `make_pairs`.
    """
    if kind != "auto":
        return kind
    titled = len({row.document for row in _rows(documents, "title", min_chars, set(), PairCounts(), {})})
    if 2 * titled >= len(documents):
        return "title"
    logger.info(
        f"--pairs auto: takes dropout, since {titled:,} of {len(documents):,} documents have a pair of title and text, "
        "fewer than half"
    )
    return "dropout"


def parse_weights(pairs: str, weights: Sequence[str]) -> dict[str, float]:
    """The weights that `--pair_weights title=2 crops=1` gives.

    Raises:
        UserError: An unknown kind, a weight that is no number above 0, or weights for pairs that are not `mixed`.
    """
    given = f"--pair_weights {' '.join(weights)}"
    if (pairs == "mixed") != bool(weights):
        raise UserError(
            f"{given}: only --pairs mixed has weights"
            if weights
            else "--pairs mixed: say how much of each, such as --pair_weights title=2 crops=1"
        )
    parsed = {}
    for weight in weights:
        name, _, number = weight.partition("=")
        if name not in SINGLE_KINDS:
            raise UserError(f"{given}: {name} is no kind of pairs; choose from {', '.join(SINGLE_KINDS)}")
        try:
            parsed[name] = float(number)
        except ValueError:
            parsed[name] = 0.0
        if not 0 < parsed[name] < math.inf:
            raise UserError(f"{given}: {weight} must be KIND=NUMBER with a number above 0")
    return parsed


def opening(section: Section) -> str:
    """The beginning of a section: paragraphs, whole and a line each, until `OPENING_CHARS` are there."""
    text = ""
    for paragraph in map(join_sentences, section.paragraphs):
        text += f"\n{paragraph}" if text else paragraph
        if len(text) >= OPENING_CHARS:
            break
    return text


def draw_texts(row: PairRow, rng: np.random.Generator, crop_unit: CropUnit = "sentences") -> tuple[str, str]:
    """Returns the two texts of a row, before what happens to their tokens.

    Crops of tokens are made later: both texts are the whole window.
    """
    if row.kind != "crops":
        return row.texts[0], row.texts[-1]
    if crop_unit == "tokens":
        window = join_sentences(row.texts)
        return window, window
    return _sentence_crop(row.texts, rng), _sentence_crop(row.texts, rng)


def _sentence_crop(sentences: Sequence[str], rng: np.random.Generator) -> str:
    """One or two sentences that follow each other."""
    length = int(rng.integers(1, 3))
    start = int(rng.integers(len(sentences) - length + 1))
    return join_sentences(sentences[start : start + length])


def query_texts(document: Document, kind: str) -> list[tuple[str, str]]:
    """Returns what can stand for a text, with that text, of which each paragraph is a line.

    Args:
        document: Where both come from.
        kind: One of `QUERY_KINDS`: the title with the text below it; each heading with its text; or the first sentence
            with the rest of the opening (with the rest of the section, where the opening is that sentence alone).
    """
    first_section = document.sections[0]
    if kind == "title":
        return [(document.title, opening(first_section))] if document.title else []
    if kind == "heading":
        return [(section.heading, opening(section)) for section in document.sections if section.heading]
    first = first_section.sentences[0]
    rest = opening(first_section)[len(first) :].strip() or first_section.text[len(first) :].strip()
    return [(first, rest)] if rest else []


def _rows(
    documents: Sequence[Document],
    kind: str,
    min_chars: int,
    excluded: set[str],
    counts: PairCounts,
    owners: dict[bytes, int],
) -> Iterator[PairRow]:
    for number, document in enumerate(documents):
        seen: set[tuple[str, ...]] = set()

        def stays(*texts: str, number: int = number, seen: set[tuple[str, ...]] = seen) -> bool:
            reason = _reason_against(texts, number, owners, excluded, seen)
            if reason:
                counts.dropped[reason] += 1
            return reason is None

        def take(*texts: str, number: int = number, seen: set[tuple[str, ...]] = seen) -> None:
            texts = tuple(map(one_line, texts))
            owners.update(dict.fromkeys(map(_key, texts), number))
            seen.add(texts)

        for row_kind, texts in _CANDIDATES[kind](document, min_chars, counts):
            if row_kind == "crops":
                different = tuple(dict.fromkeys(texts))
                window = tuple(sentence for sentence in different if stays(sentence))
                counts.dropped[_REPEATED] += len(texts) - len(different)
                if len(window) < 2:
                    counts.dropped[_ALONE] += len(window)
                    continue
                for sentence in window:
                    take(sentence)
                yield PairRow(number, row_kind, window)
            elif stays(*texts):
                take(*texts)
                yield PairRow(number, row_kind, tuple(map(one_line, texts)))


def _reason_against(
    texts: tuple[str, ...], document: int, owners: dict[bytes, int], excluded: set[str], seen: set[tuple[str, ...]]
) -> str | None:
    """Why these texts are left out; None: they stay."""
    lines = tuple(map(one_line, texts))
    if lines in seen or len(set(lines)) < len(lines):
        return _REPEATED
    if any(is_held_out(text, excluded) for text in texts):
        return _HELD_OUT
    return _SHARED if any(owners.get(_key(line), document) != document for line in lines) else None


def _key(line: str) -> bytes:
    return blake2b(line.encode(), digest_size=16).digest()


def _long_sentences(document: Document, min_chars: int, counts: PairCounts) -> list[list[str]]:
    """The sentences of each section, without the short ones."""
    kept = [[text for text in section.sentences if len(text) >= min_chars] for section in document.sections]
    counts.dropped[_TOO_SHORT] += len(document.sentences) - sum(map(len, kept))
    return kept


def _dropout(document: Document, min_chars: int, counts: PairCounts) -> Iterator[_Candidate]:
    for sentences in _long_sentences(document, min_chars, counts):
        yield from (("dropout", (sentence,)) for sentence in sentences)


def _adjacent(document: Document, min_chars: int, counts: PairCounts) -> Iterator[_Candidate]:
    for sentences in _long_sentences(document, min_chars, counts):
        yield from (("adjacent", pair) for pair in pairwise(sentences))


def _windows(document: Document, min_chars: int, counts: PairCounts) -> Iterator[_Candidate]:
    for sentences in _long_sentences(document, min_chars, counts):
        window: list[str] = []
        for sentence in sentences:
            if window and sum(map(len, window)) + len(sentence) > WINDOW_CHARS:
                yield "crops", tuple(window)
                window = []
            window.append(sentence)
        yield "crops", tuple(window)


def _titles(document: Document, min_chars: int, counts: PairCounts) -> Iterator[_Candidate]:
    pairs = [(kind, pair) for kind in ("title", "heading") for pair in query_texts(document, kind)]
    for kind, pair in pairs or [("first_sentence", pair) for pair in query_texts(document, "first_sentence")]:
        if len(pair[1]) < min_chars:
            counts.dropped[_TOO_SHORT] += 1
        else:
            yield kind, pair


_Candidate = tuple[str, tuple[str, ...]]
"""The kind of a row, and its texts."""

_CANDIDATES: dict[str, Callable[[Document, int, PairCounts], Iterator[_Candidate]]] = {
    "title": _titles,
    "adjacent": _adjacent,
    "crops": _windows,
    "dropout": _dropout,
}


def _weighted(
    by_kind: dict[str, list[PairRow]], weights: dict[str, float], counts: PairCounts, seed: int
) -> list[PairRow]:
    """As many rows of each kind as the weights want, without repeating any."""
    scale = min(len(rows) / weights[kind] for kind, rows in by_kind.items())
    rng = np.random.default_rng(seed)
    chosen = []
    for kind, rows in by_kind.items():
        number = round(scale * weights[kind])
        counts.dropped[_OVER_WEIGHT] += len(rows) - number
        chosen += [rows[index] for index in np.sort(rng.choice(len(rows), number, replace=False))]
    return chosen
