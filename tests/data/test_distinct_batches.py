"""No document twice in a batch, over processes, epochs and a resume."""

from collections import Counter

import numpy as np
import pytest
from accelerate import skip_first_batches
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from arccse_hf.data.distinct_batches import DistinctDocumentBatchSampler, count_batches
from arccse_hf.errors import UserError

_sizes = st.lists(st.integers(1, 12), min_size=2, max_size=14)


def rows_of(sizes):
    return np.repeat(np.arange(len(sizes)), sizes)


def batches(documents, batch_size, processes=1, epoch=0, **options):
    """All processes' parts of each batch."""
    samplers = [
        DistinctDocumentBatchSampler(
            documents, batch_size, num_processes=processes, process_index=index, epoch=lambda: epoch, **options
        )
        for index in range(processes)
    ]
    assert all(len(list(sampler)) == len(sampler) for sampler in samplers)
    return list(zip(*samplers, strict=True))


@given(_sizes, st.integers(2, 5), st.integers(1, 3), st.booleans(), st.integers(0, 3))
def test_a_batch_of_all_processes_has_each_document_once_at_most(sizes, batch_size, processes, drop_last, epoch):
    documents = rows_of(sizes)
    together = batch_size * processes
    if len(sizes) < (together if drop_last else max(2, processes)):
        with pytest.raises(
            UserError, match=f"--per_device_train_batch_size {batch_size}: {len(sizes)} documents do not"
        ):
            batches(documents, batch_size, processes, drop_last=drop_last)
        return
    found = batches(documents, batch_size, processes, epoch, drop_last=drop_last)
    for parts in found:
        rows = [row for part in parts for row in part]
        assert len({documents[row] for row in rows}) == len(rows) <= together
        assert len(rows) == together or not drop_last
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert max(Counter(row for parts in found for part in parts for row in part).values()) == 1


@given(_sizes, st.integers(2, 6))
def test_no_other_way_fills_more_batches(sizes, batch_size):
    # By another route: fill each batch from the documents with most rows left, which is optimal.
    left, filled = sorted(sizes, reverse=True), 0
    while len(left) >= batch_size and left[batch_size - 1] > 0:
        left = sorted([*(rest - 1 for rest in left[:batch_size]), *left[batch_size:]], reverse=True)
        filled += 1
    assert count_batches(np.array(sizes), batch_size) == filled


def test_every_row_has_its_turn_and_single_rows_are_all_used():
    sampler = DistinctDocumentBatchSampler(np.arange(100), 10)
    assert sorted(row for batch in sampler for row in batch) == list(range(100))
    documents = rows_of([40, *[1] * 20])
    seen = {row for epoch in range(60) for (batch,) in batches(documents, 5, epoch=epoch) for row in batch}
    assert seen == set(range(60))


def test_order_follows_from_seed_and_epoch_alone():
    documents = rows_of([3] * 12)
    one = [sorted(part) for (part,) in batches(documents, 6)]
    two = [sorted([*first, *second]) for first, second in batches(documents, 3, processes=2)]
    assert one == two
    assert batches(documents, 6) == batches(documents, 6)
    assert batches(documents, 6) != batches(documents, 6, epoch=1)
    assert batches(documents, 6) != batches(documents, 6, seed=1)


def test_a_resumed_epoch_goes_on_where_it_stopped():
    sampler = DistinctDocumentBatchSampler(rows_of([2] * 9), 3)
    loader = DataLoader(list(range(18)), batch_sampler=sampler, collate_fn=list)
    assert list(skip_first_batches(loader, 2)) == list(loader)[2:]


def test_one_giant_document_leaves_most_of_its_rows_to_other_epochs():
    sampler = DistinctDocumentBatchSampler(rows_of([10_000, *[1] * 30]), 4)
    assert (len(sampler), sampler.rows_per_epoch) == (10, 40)
