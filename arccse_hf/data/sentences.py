"""Where the sentences of a paragraph end, and which of them keep a text out of training."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Set

from ..errors import one_line

MIN_CHARS = 5
"""Shorter texts are not trained on, where nothing else is said."""
DISTINCTIVE_WORDS, DISTINCTIVE_CHARS = 4, 10
MOST_TEXTS, MOST_SHARE = 2, 0.01

_END_MARK = re.compile(r"[.!?。！？]")  # noqa: RUF001
# Possessive (*+): a mark that closes a sentence must not open the next one where the text ends behind it.
_SENTENCE_BREAK = re.compile(
    r"[.!?][\"')”’»」』）]*+(\s++)(?=[\"'(“‘«¿¡\[]*+(\w))|[。！？][)”’»」』）]*+(\s*+)(?=([^。！？]))"  # noqa: RUF001
)
_WIDE_END = re.compile(r"[。！？][)”’»」』）]*$")  # noqa: RUF001
_WIDE_END_CHARS = 4
"""A mark, and as many quotes and brackets as may follow it."""
# "ms" in small letters are milliseconds.
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|vs|cf|fig|figs|eq|eqs|sec|ch|vol|pp|ref|refs|no|nos|approx|dr|mr|mrs|(?-i:Ms)|prof|st|jr|sr|al)"
    r"|\b[A-Z])\.$",
    re.I,
)
_ABBREVIATION_CHARS = len("approx.")
"""Those of the longest. To search the whole sentence at each of its abbreviations would take quadratic time."""
# Thai, Lao, Tibetan and Burmese; Khmer; kana; Chinese characters.
_UNSPACED = re.compile(r"[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


def split_sentences(text: str) -> list[str]:
    """Cuts a paragraph of prose at the ends of its sentences, but not after "e.g." or an initial.

    A sentence begins with a capital letter, a digit, or a letter of a script without capitals. Quotes and brackets that
    close it belong to it.

    Example:
        >>> split_sentences("It works, e.g. Here. So does this.")
        ['It works, e.g. Here.', 'So does this.']
    """
    # Most rows are one sentence: this finds it in a quarter of the time.
    if not _END_MARK.search(text, 0, len(text) - 1):
        return [text] if text else []
    sentences = []
    start = 0
    for match in _SENTENCE_BREAK.finditer(text):
        gap, first = (1, match[2]) if match[2] else (3, match[4])
        end = match.start() + 1
        if first.islower() or first == "_" or _ABBREVIATION.search(text, max(start, end - _ABBREVIATION_CHARS), end):
            continue
        sentences.append(text[start : match.start(gap)])
        start = match.end()
    return [*sentences, text[start:]] if text[start:] else sentences


def join_sentences(sentences: Iterable[str]) -> str:
    """Returns sentences as the paragraph that they were cut from: behind an ideographic full stop there is no blank.

    Example:
        >>> join_sentences(["It works.", "So does this."]), join_sentences(["打开后盖。", "取出卡纸。"])
        ('It works. So does this.', '打开后盖。取出卡纸。')
    """
    text = ""
    for sentence in filter(None, sentences):
        text += sentence if not text or _WIDE_END.search(text[-_WIDE_END_CHARS:]) else f" {sentence}"
    return text


def full_stop(text: str) -> str:
    """Returns what ends a text as a sentence, by the script of its last character: nothing where it has an end mark."""
    return "" if not text or _END_MARK.match(text[-1]) else "。" if _UNSPACED.match(text[-1]) else "."


def pieces(text: str) -> list[str]:
    """Returns the sentences of a text and those of each of its lines, of which some end without a full stop."""
    lines = text.splitlines()
    whole = split_sentences(one_line(text))
    return whole if len(lines) < 2 else [*whole, *(part for line in lines for part in split_sentences(one_line(line)))]


def is_distinctive(sentence: str) -> bool:
    """Returns whether a sentence is long enough to be of one text: "Hello." and "See below." are of any.

    It needs `DISTINCTIVE_WORDS` words with a letter, or `DISTINCTIVE_CHARS` characters of a script without spaces.
    """
    words = sum(any(map(str.isalpha, word)) for word in sentence.split())
    return words >= DISTINCTIVE_WORDS or len(_UNSPACED.findall(sentence)) >= DISTINCTIVE_CHARS


def boilerplate(texts: Collection[Collection[str]]) -> set[str]:
    """Returns the sentences that more than `MOST_TEXTS` of the texts have, and more than `MOST_SHARE` of them.

    Args:
        texts: The sentences of each.
    """
    having = Counter(sentence for sentences in texts for sentence in set(sentences))
    most = max(MOST_TEXTS, MOST_SHARE * len(texts))
    return {sentence for sentence, number in having.items() if number > most}


def is_held_out(text: str, held_out: Set[str]) -> bool:
    """Returns whether a text to train on is one of `held_out`, or has a sentence or a line that is.

    Args:
        text: Its line ends are the ends of sentences too.
        held_out: What `held_out_texts` gives, each on one line.
    """
    if not held_out:
        return False
    if one_line(text) in held_out:
        return True
    # The number of a list item is cut off as a sentence, and tells nothing of the text that it stands in.
    return any(piece in held_out and any(map(str.isalpha, piece)) for piece in pieces(text))
