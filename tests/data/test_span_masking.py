"""Properties that spans must have for every length, ratio and seed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from arccse_hf.data.span_masking import corrupt, nested_spans

RATIOS = st.tuples(st.floats(0.01, 0.98), st.floats(0.01, 0.98)).filter(lambda pair: pair[1] - pair[0] > 0.005)


@given(st.integers(1, 300), RATIOS, st.integers(0, 2**32))
@settings(deadline=None, max_examples=300)
def test_the_small_span_lies_inside_the_large_one_inside_the_sentence(num_tokens, ratios, seed):
    small, large = nested_spans(num_tokens, *ratios, generator=torch.Generator().manual_seed(seed))
    assert set(small) <= set(large) <= set(range(num_tokens))
    assert len(small) >= 1
    if num_tokens > 1:
        assert len(small) < len(large)
    # A span covers its rounded share, but for short sentences: at least one token, and the large one one more.
    assert len(small) == min(max(1, round(ratios[0] * num_tokens)), max(1, num_tokens - 1))
    assert len(large) == min(max(len(small) + 1, round(ratios[1] * num_tokens)), num_tokens)


@pytest.mark.parametrize("num_tokens", [1, 2, 3, 10, 25])
def test_every_position_can_be_hit_by_both_spans(num_tokens):
    generator = torch.Generator().manual_seed(0)
    draws = [nested_spans(num_tokens, generator=generator) for _ in range(60 * num_tokens)]
    assert {position for spans in draws for position in spans.small} == set(range(num_tokens))
    assert {position for spans in draws for position in spans.large} == set(range(num_tokens))


def test_the_small_span_is_not_tied_to_a_place_in_the_large_one():
    generator = torch.Generator().manual_seed(0)
    offsets = [
        spans.small.start - spans.large.start for spans in (nested_spans(50, generator=generator) for _ in range(500))
    ]
    assert set(offsets) == set(range(11))  # 10 tokens inside 20


def test_the_same_seed_draws_the_same_spans():
    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return [nested_spans(40, generator=generator) for _ in range(20)]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


@pytest.mark.parametrize("ratios", [(0, 0.4), (0.4, 0.2), (0.3, 0.3), (0.2, 1)])
def test_ratios_outside_what_is_allowed_are_refused(ratios):
    with pytest.raises(ValueError, match="0 < small < large < 1"):
        nested_spans(10, *ratios)


def test_no_token_is_refused():
    with pytest.raises(ValueError, match="num_tokens"):
        nested_spans(0)


def test_corruption_by_hand():
    sentence, content = [2, 10, 11, 12, 13, 3], [1, 2, 3, 4]
    assert corrupt(sentence, content, range(1, 3), "mask", mask_token_id=4) == [2, 10, 4, 4, 13, 3]
    assert corrupt(sentence, content, range(1, 3), "delete") == [2, 10, 13, 3]
