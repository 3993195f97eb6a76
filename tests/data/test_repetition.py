"""Token repetition doubles tokens in place, as often as it may, and follows seed, epoch and sentence."""

import itertools

import torch

from arccse_hf.data.collator import ArcCSECollator
from arccse_hf.data.repetition import repeat_tokens

ROW = {"anchor": [2, *range(5, 45), 3]}


def test_tokens_are_doubled_in_place_and_none_is_lost():
    counts = []
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        view = repeat_tokens(ROW["anchor"], range(1, 41), 0.1, 100, generator)
        assert [token for token, _ in itertools.groupby(view)] == ROW["anchor"]
        assert view[:2] == [2, 5] and view.count(2) == view.count(3) == 1
        counts.append(len(view) - len(ROW["anchor"]))
    assert set(counts) == set(range(5))  # a tenth of forty, at most


def test_the_second_view_follows_the_epoch_and_stays_within_the_encoder(tokenizer):
    collator = ArcCSECollator(tokenizer, triplets=False, token_repetition=1.0, max_length=45)
    views = []
    for epoch in range(30):
        collator.set_epoch(epoch)
        views.append(collator([ROW])["pair"]["attention_mask"].sum(-1)[0].tolist())
    assert {first for first, _ in views} == {42} and {second for _, second in views} == {42, 43, 44, 45}
    collator.set_epoch(0)
    assert collator([ROW])["pair"]["attention_mask"].sum(-1)[0].tolist() == views[0]
    assert ArcCSECollator(tokenizer, triplets=False)([ROW])["pair"]["input_ids"][0].diff(dim=0).any().item() is False
