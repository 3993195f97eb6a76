"""Pairs of documents in training: no document twice in a batch, over processes, and the same after a resume."""

from types import SimpleNamespace

import pytest
import torch
from tiny import make_trainer, tiny_model

from arccse_hf.data.pair_dataset import PairDataset
from arccse_hf.data.pairs import PairRow

WORDS = "the a cat dog bird house river road man woman child sees hears finds likes builds".split()


def pair_rows(documents=20, per_document=3):
    """Windows whose first word tells the document."""
    return [
        PairRow(document, "crops", tuple(f"{WORDS[document % 16]} {WORDS[document // 16]} {word}" for word in WORDS))
        for document in range(documents)
        for _ in range(per_document)
    ]


@pytest.fixture
def dataset(tokenizer):
    return PairDataset(pair_rows(), tokenizer, 16, crop_deletion=0.0)


class Recorder:
    """A collator that notes what it gives on."""

    def __init__(self, collator):
        self.collator = collator
        self.batches = []

    def __call__(self, rows):
        self.batches.append(rows)
        return self.collator(rows)


def train(folder, dataset, tokenizer, resume=None, **settings):
    trainer = make_trainer(folder, dataset, tokenizer, model=tiny_model(), max_steps=12, **settings)
    trainer.data_collator = recorder = Recorder(trainer.data_collator)
    trainer.train(resume_from_checkpoint=resume)
    return trainer, recorder.batches


def test_an_epoch_has_each_document_once_per_batch_and_a_resumed_one_goes_on_alike(tmp_path, dataset, tokenizer):
    settings = {"save_strategy": "steps", "save_steps": 4, "save_total_limit": None}
    whole, batches = train(tmp_path / "whole", dataset, tokenizer, **settings)
    assert len(batches) == 13  # one is read ahead; an epoch has 7 batches of 8: all but 4 of the 60 rows
    for batch in batches:
        assert len({tuple(row["anchor"][1:3]) for row in batch}) == len(batch) == 8
    assert batches[0] != batches[7]
    again = PairDataset(pair_rows(), tokenizer, 16, crop_deletion=0.0)
    for checkpoint in (4, 8):  # in the first epoch, and in the second
        folder = tmp_path / "whole" / f"checkpoint-{checkpoint}"
        resumed, rest = train(tmp_path / f"from-{checkpoint}", again, tokenizer, resume=str(folder), **settings)
        assert rest == batches[checkpoint:]
        for name, weight in resumed.model.state_dict().items():
            assert torch.equal(weight, whole.model.state_dict()[name]), name


def test_processes_and_workers_share_each_batch_without_meeting_a_document_twice(dataset, tokenizer):
    def batches(process_index, workers=0, world_size=2):
        args = SimpleNamespace(
            world_size=world_size, process_index=process_index, dataloader_drop_last=True,
            dataloader_num_workers=workers, dataloader_pin_memory=False, dataloader_persistent_workers=False,
            dataloader_multiprocessing_context=None, dataloader_prefetch_factor=None, dataloader_in_order=True,
            accelerator_config=SimpleNamespace(non_blocking=False),
        )  # fmt: skip
        return list(dataset.dataloader(8 // world_size, list, args, torch.device("cpu")))

    first, second, alone = batches(0), batches(1), batches(0, world_size=1)
    assert [[*one, *two] for one, two in zip(first, second, strict=True)] == alone
    for batch in alone:
        assert len({tuple(row["anchor"][1:3]) for row in batch}) == 8
    assert batches(1, workers=2) == second


def test_the_fingerprint_tells_other_rows_and_settings(dataset, tokenizer):
    assert PairDataset(pair_rows(), tokenizer, 16, crop_deletion=0.0).fingerprint == dataset.fingerprint
    assert PairDataset(pair_rows(21), tokenizer, 16, crop_deletion=0.0).fingerprint != dataset.fingerprint
    assert PairDataset(pair_rows(), tokenizer, 16, crop_deletion=0.1).fingerprint != dataset.fingerprint
    assert dataset.head(3).column_names == ["anchor", "positive"]
