"""What the collator puts into a batch, and that its spans depend on seed, epoch and sentence alone."""

import copy
import logging
import pickle

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from arccse_hf.data.collator import ArcCSECollator

PAD, UNK, CLS, SEP, MASK = range(5)


def rows(*lengths, columns=("anchor",)):
    return [{name: [CLS, *range(5, 5 + length), SEP] for name in columns} for length in lengths]


def test_an_unsupervised_pair_is_the_sentence_twice(tokenizer):
    pair = ArcCSECollator(tokenizer, triplets=False)(rows(3, 5))["pair"]
    assert pair["input_ids"].tolist() == [
        [[CLS, 5, 6, 7, SEP, PAD, PAD]] * 2,
        [[CLS, 5, 6, 7, 8, 9, SEP]] * 2,
    ]
    assert pair["attention_mask"].sum(-1).tolist() == [[5, 5], [7, 7]]


def test_batches_are_padded_to_a_multiple_where_shapes_must_be_few(tokenizer):
    collator = ArcCSECollator(tokenizer, triplet_min_tokens=9, pad_to_multiple_of=8)
    for lengths, padded in (((3, 5), 8), ((6,), 8), ((7, 9), 16)):
        batch = collator(rows(*lengths))
        assert {values.shape[-1] for part in batch.values() for values in part.values()} == {padded}
        assert batch["pair"]["attention_mask"].sum(-1)[:, 0].tolist() == [length + 2 for length in lengths]
        assert (batch["pair"]["input_ids"][0, 0, lengths[0] + 2 :] == PAD).all()


@pytest.mark.parametrize("columns", [("anchor", "positive"), ("anchor", "positive", "negative")])
def test_given_pairs_and_hard_negatives_become_views_in_order(tokenizer, columns):
    row = {name: [CLS, 10 + index, SEP] for index, name in enumerate(columns)}
    ids = ArcCSECollator(tokenizer, triplets=False)([row, row])["pair"]["input_ids"]
    assert ids.shape == (2, len(columns), 3)
    assert ids[0, :, 1].tolist() == [10 + index for index in range(len(columns))]


def test_only_sentences_that_are_long_enough_get_a_triplet(tokenizer):
    batch = ArcCSECollator(tokenizer, triplet_min_tokens=10)(rows(9, 10, 30))
    assert batch["pair"]["input_ids"].shape[0] == 3
    assert batch["triplet"]["attention_mask"][:, 0].sum(-1).tolist() == [12, 32]


def test_a_batch_without_a_triplet_has_none(tokenizer):
    assert set(ArcCSECollator(tokenizer, triplet_min_tokens=10)(rows(3, 4))) == {"pair"}
    assert set(ArcCSECollator(tokenizer, triplets=False)(rows(30, 30))) == {"pair"}


@pytest.mark.parametrize("length", range(1, 40, 3))
def test_versions_lose_nested_spans_and_never_a_special_token(tokenizer, length):
    collator = ArcCSECollator(tokenizer, triplet_min_tokens=1)
    for epoch in range(20):
        collator.set_epoch(epoch)
        sentence, small, large = collator(rows(length))["triplet"]["input_ids"][0].tolist()
        assert sentence == rows(length)[0]["anchor"]
        assert small[0] == large[0] == CLS and small[-1] == large[-1] == SEP
        lost_small = {i for i, token in enumerate(small) if token == MASK}
        lost_large = {i for i, token in enumerate(large) if token == MASK}
        assert lost_small <= lost_large
        assert len(lost_small) == max(1, round(0.2 * length))
        for version, lost in ((small, lost_small), (large, lost_large)):
            assert [token for i, token in enumerate(version) if i not in lost] == [
                token for i, token in enumerate(sentence) if i not in lost
            ]


def test_an_unknown_word_can_be_masked_like_any_other(tokenizer):
    collator = ArcCSECollator(tokenizer, triplet_min_tokens=1)
    seen = set()
    for epoch in range(60):
        collator.set_epoch(epoch)
        versions = collator([{"anchor": [CLS, UNK, UNK, UNK, UNK, SEP]}])["triplet"]["input_ids"][0]
        seen.update((versions[1] == MASK).nonzero().flatten().tolist())
    assert seen == {1, 2, 3, 4}


def test_deletion_shortens(tokenizer):
    triplet = ArcCSECollator(tokenizer, triplet_min_tokens=1, span_corruption="delete")(rows(20))["triplet"]
    assert triplet["attention_mask"].sum(-1).tolist() == [[22, 18, 14]]
    assert MASK not in triplet["input_ids"]


def test_a_tokenizer_without_a_mask_token_deletes_and_says_so_once(tokenizer, caplog):
    no_mask = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    with caplog.at_level(logging.WARNING):
        collator = ArcCSECollator(no_mask, triplet_min_tokens=1)
        lengths = [collator(rows(20))["triplet"]["attention_mask"].sum(-1).tolist() for _ in range(3)]
    assert lengths == [[[22, 18, 14]]] * 3
    assert [record.message for record in caplog.records if "no mask token" in record.message].__len__() == 1


def test_a_tokenizer_without_a_padding_token_is_refused(tokenizer):
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.no_padding()  # a tokenizer that has padded before would bring its padding token along
    with pytest.raises(ValueError, match="padding token"):
        ArcCSECollator(PreTrainedTokenizerFast(tokenizer_object=backend))


def test_spans_follow_seed_epoch_and_sentence_alone(tokenizer):
    def spans(seed, epoch, batch):
        collator = ArcCSECollator(tokenizer, seed=seed)
        collator.set_epoch(epoch)
        return [triplet[1:] for triplet in collator(batch)["triplet"]["input_ids"].tolist()]

    batch = [*rows(30, 30), {"anchor": [CLS, *range(6, 36), SEP]}]
    assert spans(1, 0, batch) == spans(1, 0, batch)
    assert spans(1, 0, batch)[2:] == spans(1, 0, batch[2:])  # whatever else is in the batch
    assert spans(1, 0, batch) != spans(1, 1, batch)
    assert spans(1, 0, batch) != spans(2, 0, batch)
    torch.manual_seed(5)  # torch's own generator plays no part
    again = spans(1, 0, batch)
    torch.manual_seed(6)
    assert spans(1, 0, batch) == again


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_epoch_reaches_copies_in_worker_processes(method, tokenizer):
    collator = ArcCSECollator(tokenizer, triplet_min_tokens=1)
    loader = torch.utils.data.DataLoader(
        rows(*[30] * 4), batch_size=2, collate_fn=collator, num_workers=1, persistent_workers=True,
        multiprocessing_context=method,
    )  # fmt: skip
    first = [batch["triplet"]["input_ids"] for batch in loader]
    collator.set_epoch(1)
    second = [batch["triplet"]["input_ids"] for batch in loader]
    collator.set_epoch(0)
    assert not torch.equal(first[0], second[0])
    assert torch.equal(first[0], collator(rows(30, 30))["triplet"]["input_ids"])


def test_the_collator_can_be_sent_to_another_process(tokenizer):
    collator = ArcCSECollator(tokenizer)
    copy = pickle.loads(pickle.dumps(collator))
    assert torch.equal(copy(rows(30))["triplet"]["input_ids"], collator(rows(30))["triplet"]["input_ids"])
