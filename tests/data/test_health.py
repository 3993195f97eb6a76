"""The line of data health: what it counts is counted here with a plain loop."""

import pytest
from datasets import Dataset

from arccse_hf.data import health
from arccse_hf.data.health import text_health


def rows_of(texts, **columns):
    return Dataset.from_dict({"anchor": texts} | columns)


def test_the_line_says_what_a_plain_loop_counts(tokenizer):
    texts = ["the cat sees a bird", "a dog " * 20, "qwerty house zxcvb", "the river"]
    tokens = [text.split() for text in texts]
    lengths = [len(words) + 2 for words in tokens]  # [CLS] and [SEP]
    lost = sum(max(0, length - 12) for length in lengths) / sum(lengths)
    found = text_health(rows_of(texts), tokenizer, 12, triplet_min_tokens=5, duplicates=3)
    assert str(found) == (
        f"4 rows · 25.0% cut at 12 tokens ({lost:.1%} of tokens lost) · {2 / sum(map(len, tokens)):.1%} unknown tokens"
        " · median 6 tokens · 50% long enough for a triplet · 3 duplicates"
    )
    warnings = found.warnings()
    assert len(warnings) == 2
    assert "--max_seq_length 40" in warnings[0]  # 48 tokens hold all, 40 all but 2 of 60, 32 all but 10
    assert "unknown to this tokenizer" in warnings[1]


def test_a_healthy_text_gets_no_warning_and_one_without_triplets_does(tokenizer):
    texts = ["the cat sees a bird", "a dog near the river"]
    assert text_health(rows_of(texts), tokenizer, 12).warnings() == []
    assert "--triplet_min_tokens" in text_health(rows_of(texts), tokenizer, 12, triplet_min_tokens=25).warnings()[0]


def test_no_length_is_proposed_that_the_encoder_does_not_read(tokenizer):
    found = text_health(rows_of(["a dog " * 200]), tokenizer, 64)
    assert "split the texts into sentences" in found.warnings(longest=64)[0]
    assert "--max_seq_length 128," in found.warnings(longest=128)[0]


@pytest.mark.parametrize("rows", [50, 150])
def test_large_texts_are_sampled_and_the_line_says_so(tokenizer, monkeypatch, rows):
    monkeypatch.setattr(health, "SAMPLE_ROWS", 100)
    found = text_health(rows_of(["the cat"] * rows), tokenizer, 12)
    assert found.sampled == min(rows, 100)
    assert ("(100 rows looked at)" in str(found)) == (rows > 100)


def test_every_column_counts_and_triplets_come_from_the_first(tokenizer):
    found = text_health(rows_of(["the cat sees a bird"], positive=["a dog " * 20]), tokenizer, 12, triplet_min_tokens=6)
    assert (found.rows, found.cut, found.triplets) == (1, 0.5, 0.0)  # the long one is no anchor
