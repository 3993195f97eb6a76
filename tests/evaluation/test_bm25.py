"""BM25 against a plain loop over its formula, and the sum of two rankings."""

import logging
import math
import re
from collections import Counter

import numpy as np
import pytest

from arccse_hf.evaluation.bm25 import BM25Index, baseline_ranks
from arccse_hf.evaluation.retrieval import RetrievalTask

TEXTS = [
    "The paper jams in the rear. Open the rear cover.",
    "An empty cartridge: replace the cartridge!",
    "The printer prints no paper at all.",
    "Wi-Fi 7.",
    "",
]


def plain_scores(query, texts):
    """Robertson & Zaragoza, "The Probabilistic Relevance Framework", 2009, without the constant factor k1 + 1."""
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    average = sum(map(len, words)) / len(words)
    scores = [0.0] * len(texts)
    for word in re.findall(r"\w+", query.lower()):
        having = sum(word in document for document in words)
        weight = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
        for number, document in enumerate(words):
            count = Counter(document)[word]
            scores[number] += weight * count / (count + 1.5 * (0.25 + 0.75 * len(document) / average))
    return scores


@pytest.mark.parametrize("query", ["paper in the REAR cover", "the the cartridge", "nothing known", "", "a wi fi", "7"])
def test_scores_equal_a_plain_loop(query):
    assert BM25Index(TEXTS).scores(query) == pytest.approx(plain_scores(query, TEXTS), abs=1e-5)


def test_ranks_of_words_and_of_both_rankings():
    pairs = [("empty cartridge", TEXTS[1]), ("paper rear", TEXTS[2]), ("unknown", TEXTS[3])]
    task = RetrievalTask("t", pairs, corpus=TEXTS[:4])
    assert task.documents == [TEXTS[1], TEXTS[2], TEXTS[3], TEXTS[0]]
    cosines = np.array([[0.1, 0.9, 0.5, 0.4], [0.3, 0.8, 0.1, 0.7], [0.1, 0.2, 0.9, 0.3]])
    # One dimension per document, so that a query's embedding is its row of cosines, up to its length.
    by_words, by_both = baseline_ranks(task, np.r_[cosines, np.eye(4)])
    assert by_words.tolist() == [1, 2, 4]  # the last has no known word: all tie, and ties count against it
    # Ranks of the four documents by words + by the encoder: 1+4 4+1 4+2 4+3; 4+3 2+1 4+4 1+2; 4+4 4+3 4+1 4+2.
    assert by_both.tolist() == [2, 2, 1]


def test_documents_without_a_word_are_all_equally_bad():
    assert BM25Index(["!!!", "?"]).scores("a cat").tolist() == [0, 0]
    task = RetrievalTask("t", [("a cat", "!!!")], corpus=["!!!", "?"])
    by_words, by_both = baseline_ranks(task, np.array([[0.6, 0.8], [1, 0], [0, 1]]))
    assert by_words.tolist() == [2] and by_both.tolist() == [2]  # the encoder prefers the other


def test_the_library_says_nothing_of_its_work(caplog):
    with caplog.at_level(logging.DEBUG):
        BM25Index(["a paper jam", "an empty cartridge"])
    assert caplog.text == ""
