"""Where the sentences of a paragraph end."""

import re

_SENTENCE_BREAK = re.compile(r"[.!?][\"')]*(\s+)(?=[\"'(]?[A-Z0-9])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|vs|cf|fig|figs|eq|eqs|sec|ch|vol|pp|ref|refs|no|dr|mr|prof|al)|\b[A-Z])\.$", re.I
)


def split_sentences(text: str) -> list[str]:
    """Cut a paragraph of prose at the ends of its sentences, but not after "e.g." or an initial."""
    sentences = []
    start = 0
    for match in _SENTENCE_BREAK.finditer(text):
        if not _ABBREVIATION.search(text, start, match.start() + 1):
            sentences.append(text[start : match.start(1)])
            start = match.end()
    return [*sentences, text[start:]] if text[start:] else sentences
