"""More than two masked versions of a sentence: their spans, and the losses of their order."""

import itertools
import math

import pytest
import torch

from arccse_hf import ArcCSEConfig
from arccse_hf.data.span_masking import nested_spans, span_list
from arccse_hf.model.heads import TripletHead

RATIOS = [0.1, 0.2, 0.4]


def test_spans_are_nested_and_of_their_shares():
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        smallest, small, large = span_list(30, RATIOS, generator)
        assert [len(smallest), len(small), len(large)] == [3, 6, 12]
        assert set(smallest) < set(small) < set(large) <= set(range(30))


@pytest.mark.parametrize("num_tokens", [1, 2, 3, 25, 31])
def test_two_shares_give_the_spans_of_a_triplet(num_tokens):
    drawn, wanted = (
        draw(torch.Generator().manual_seed(5)) for draw in (
            lambda generator: span_list(num_tokens, [0.2, 0.4], generator),
            lambda generator: nested_spans(num_tokens, 0.2, 0.4, generator),
        )
    )  # fmt: skip
    assert drawn == list(wanted)


@pytest.mark.parametrize("settings", [{"triplet_share_margin": 0.5}, {"triplet_list_temperature": 0.1}])
def test_losses_by_a_plain_loop(settings):
    views = torch.randn(5, 4, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    losses, first, last = TripletHead(ArcCSEConfig(span_ratios=RATIOS, **settings))(views)
    for row, loss in enumerate(losses.tolist()):
        sentence, *versions = views[row]
        cosines = [float(sentence @ version / sentence.norm() / version.norm()) for version in versions]
        assert (first[row].item(), last[row].item()) == pytest.approx((cosines[0], cosines[-1]))
        if "triplet_share_margin" in settings:
            pairs = itertools.combinations(zip(cosines, RATIOS, strict=True), 2)
            terms = [max(0.0, far - near + 0.5 * (more - less)) for (near, less), (far, more) in pairs]
            assert loss == pytest.approx(sum(terms) / 3)
        else:
            scores = [math.exp(cosine / 0.1) for cosine in cosines]
            assert loss == pytest.approx(-sum(math.log(scores[i] / sum(scores[i:])) for i in range(2)))
