"""Which columns of a file or dataset are used: found by name, or named by the user."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence

from ..errors import UserError, did_you_mean

logger = logging.getLogger(__name__)

CANONICAL_COLUMNS = ("anchor", "positive", "negative")

# The first of these whose names are all there is trained on. Pairs that come with a score must be named.
COLUMN_LAYOUTS = (
    ("anchor", "positive", "negative"),
    ("anchor", "positive"),
    ("sent0", "sent1", "hard_neg"),
    ("sent0", "sent1"),
    ("query", "positive", "negative"),
    ("query", "positive"),
    ("text",),
    ("sentence",),
)

# The first of each that is there is evaluated on.
FIRST_COLUMNS = ("sentence1", "sentence_1", "sentence_a", "sent1", "text1", "text_a", "sentence", "first")
SECOND_COLUMNS = ("sentence2", "sentence_2", "sentence_b", "sent2", "text2", "text_b", "second")
SCORE_COLUMNS = ("score", "similarity", "similarity_score", "relatedness_score", "gold", "label")
QUERY_COLUMNS = ("query", "question", "anchor", "title", "sentence1")
DOCUMENT_COLUMNS = ("document", "passage", "answer", "positive", "text", "body", "sentence2")

# A first row that holds one of these, in lower case, names columns.
KNOWN_COLUMNS = frozenset(
    name
    for names in (*COLUMN_LAYOUTS, FIRST_COLUMNS, SECOND_COLUMNS, SCORE_COLUMNS, QUERY_COLUMNS, DOCUMENT_COLUMNS)
    for name in names
) | {"id", "index", "sentences", "texts"}

_READABLE = ("text", "nothing")


def find_column(columns: Collection[str], accepted: Sequence[str]) -> str | None:
    """Returns the first of `accepted` among `columns`, or None; case counts where names differ by it alone."""
    by_lower = {name.lower(): name for name in reversed(list(columns))} | {name: name for name in columns}
    return next((by_lower[name] for name in accepted if name in by_lower), None)


def require_column(name: str, columns: Collection[str], given: str, source: str) -> None:
    """Raises UserError if `name` is not among `columns`.

    Args:
        name: What the user asked for.
        columns: What is there.
        given: The option to blame, with its value.
        source: What has the columns, as errors name it. It may be `given` itself.
    """
    if name not in columns:
        hint = did_you_mean(name, columns) or "; name one of these"
        subject = "" if source == given else f"{source} "
        raise UserError(f"{given}: {subject}has no column {name}; it has {', '.join(columns) or 'none'}{hint}")


def require_text(name: str, columns: Mapping[str, str], given: str, source: str) -> None:
    """Raises UserError unless `columns` (name -> what it holds) has a column `name` that can be read as text."""
    require_column(name, columns, given, source)
    if columns[name] not in _READABLE:
        of_source = "" if source == given else f" of {source}"
        raise UserError(f"{given}: column {name}{of_source} holds {columns[name]}, not text; name a column of text")


def choose_columns(
    columns: Mapping[str, str], named: Sequence[str] = (), source: str = "texts", option: str = "--text_columns"
) -> list[str]:
    """Returns one to three columns to train on, in the order anchor, positive, negative.

    Args:
        columns: Name -> what it holds.
        named: What the user named with `--text_columns`; empty: they are found by name, or the only one with text.
        source: What has the columns, as errors name it.
        option: How the user would name them.

    Raises:
        UserError: A column is not there or holds no text, or it cannot be told which to use.
    """
    named = [named] if isinstance(named, str) else list(named)
    given = f"--text_columns {' '.join(named)}" if named else source
    if len(named) > len(CANONICAL_COLUMNS) or len(set(named)) < len(named):
        raise UserError(f"{given}: name one to three different columns: {', '.join(CANONICAL_COLUMNS)}")
    chosen = named or _layout(columns)
    if not chosen:
        chosen = [name for name, kind in columns.items() if kind == "text"]
        if len(chosen) != 1:
            listed = ", ".join(columns)
            raise UserError(f"{source}: cannot tell which of the columns {listed} to use; name them with {option}")
    for name in chosen:
        require_text(name, columns, given, source)
    unused = [name for name in columns if name not in chosen]
    logger.info("text columns: %s%s", ", ".join(chosen), f"; not used: {', '.join(unused)}" if unused else "")
    return chosen


def _layout(columns: Collection[str]) -> list[str]:
    """Returns the first of `COLUMN_LAYOUTS` whose names are all there, as they are spelled there, or nothing."""
    for layout in COLUMN_LAYOUTS:
        names = [column for name in layout if (column := find_column(columns, [name]))]
        if len(names) == len(layout):
            return names
    return []
