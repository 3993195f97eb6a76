"""The cut of a set of texts into sub-batches changes nothing of the mathematics."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from backbones import BACKBONES
from tiny import gradients, padded, trainable

from arccse_hf.model import length_batching
from arccse_hf.model.length_batching import embed_by_length, split_by_length


@pytest.mark.parametrize("family", BACKBONES)
def test_embeddings_and_gradients_are_those_of_one_padded_batch(family, monkeypatch):
    """Token embeddings are looked up once for all sub-batches."""
    monkeypatch.setattr(length_batching, "_ON_A_CPU", (40, 0))
    cut, whole = (trainable(family, pooling="mean", projection="mlp_train_only").double().eval() for _ in range(2))
    cut(**padded(2))  # it has found out that this encoder takes token embeddings
    tables, look_up = [], torch.embedding
    monkeypatch.setattr(torch, "embedding", lambda weight, *args: tables.append(weight) or look_up(weight, *args))
    calls = []
    cut.arccse.register_forward_pre_hook(lambda _, args, named: calls.append(named), with_kwargs=True)
    embeddings = cut(**padded()).training_embedding
    assert len(calls) > 5
    assert [table is cut.get_input_embeddings().weight for table in tables].count(True) == 1
    expected = whole.projection(whole.arccse(**padded()).pooler_output)
    torch.testing.assert_close(embeddings, expected)
    expected_gradients = gradients(whole, expected)
    for name, gradient in gradients(cut, embeddings).items():
        torch.testing.assert_close(gradient, expected_gradients[name], msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("lengths", [[3], [700], [5] * 300, sorted(7 + 13 * n % 90 for n in range(128))])
def test_sub_batches_keep_to_the_limit(lengths):
    counts, longest = split_by_length(lengths, 640, 50)
    assert sum(counts) == len(lengths)
    assert longest == [lengths[end - 1] for end in itertools.accumulate(counts)]
    assert all(count == 1 or count * length <= 640 for count, length in zip(counts, longest, strict=True))
    assert len(counts) <= 2 * sum(lengths) / 640 + 1


@pytest.mark.parametrize("overhead", [0, 5, 20, 1000])
@pytest.mark.parametrize("lengths", [[4, 4, 4], [2, 3, 9, 9, 10], [1, 2, 3, 5, 8, 13, 21, 34, 34], [3, 3, 30, 31, 90]])
def test_no_cut_costs_less(lengths, overhead):
    def cost(sizes):
        ends = list(itertools.accumulate(sizes))
        return sum(size * lengths[end - 1] + overhead for size, end in zip(sizes, ends, strict=True))

    cuts = itertools.product([False, True], repeat=len(lengths) - 1)
    starts = [[0, *(place for place, cut in enumerate(places, 1) if cut), len(lengths)] for places in cuts]
    all_sizes = [[end - start for start, end in itertools.pairwise(places)] for places in starts]
    sizes, _ = split_by_length(lengths, 10_000, overhead)
    assert cost(sizes) == min(map(cost, all_sizes))


def test_each_piece_of_a_large_group_has_its_overhead():
    """The first text among the others makes three pieces too, and a token of padding."""
    assert split_by_length([3, 4, 4, 4, 4], 8, 5) == ([1, 2, 2], [3, 4, 4])


class Elsewhere:
    """A model on a GPU, as far as the cut can tell, that embeds a text as its first token."""

    device, is_activation_checkpointing = torch.device("cuda"), False

    def __init__(self):
        self.calls = []

    def __call__(self, input_ids, attention_mask):
        self.calls.append(attention_mask)
        return SimpleNamespace(pooler_output=input_ids[:, :1].float())


def test_a_gpu_gets_large_sub_batches():
    lengths = torch.tensor([128, 12] * 1024)
    attention_mask = (torch.arange(128) < lengths[:, None]).long()
    input_ids = torch.arange(2048)[:, None].expand(-1, 128)
    model = Elsewhere()
    assert torch.equal(embed_by_length(model, input_ids, attention_mask)[:, 0], torch.arange(2048.0))
    assert [tuple(mask.shape) for mask in model.calls] == [(1024, 12)] + [(128, 128)] * 8
    assert all(mask.all() for mask in model.calls)
