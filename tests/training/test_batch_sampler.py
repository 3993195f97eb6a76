"""How several processes share the rows of an epoch, the last ones too."""

import pytest
from torch.utils.data import SequentialSampler

from arccse_hf.training.distributed import EvenlySplitBatchSampler


def pieces(rows, together, processes):
    batches = EvenlySplitBatchSampler(SequentialSampler(range(rows)), together, processes)
    every = list(batches)
    assert len(batches) == len(every)
    return [every[start : start + processes] for start in range(0, len(every), processes)], batches.left_out


@pytest.mark.parametrize("processes", [2, 3, 8])
@pytest.mark.parametrize("rows", [0, 1, 5, 24, 25, 31, 47, 48, 100])
def test_a_batch_of_all_processes_is_that_of_one(rows, processes, caplog):
    steps, left_out = pieces(rows, 24, processes)
    rest = rows % 24
    assert left_out == (rest if rest < processes else 0)
    assert [record.args for record in caplog.records] == [(left_out, processes)] * (left_out > 0)
    alone = [list(range(start, min(start + 24, rows))) for start in range(0, rows - left_out, 24)]
    assert [[row for piece in step for row in piece] for step in steps] == alone
    for step in steps:
        sizes = [len(piece) for piece in step]
        assert len(sizes) == processes and min(sizes) >= 1 and max(sizes) - min(sizes) <= 1
