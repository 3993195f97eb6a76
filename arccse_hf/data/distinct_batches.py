"""Batches in which no document occurs twice: two of its pairs would be each other's negatives."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler

from ..errors import UserError


class DistinctDocumentBatchSampler(Sampler[list[int]]):
    """Gives one process its part of each batch; a whole batch, over all processes, has at most one row per document.

    A document can be in each batch once, so with B batches it gives at most B rows to an epoch. B is the largest number
    of batches that can be filled so. Then rows lie document by document in one line, in an order drawn anew each
    epoch, and the row at position p goes into batch p modulo B: a document's rows, B at most, all go into different
    ones. (This is McNaughton's wrap-around rule for schedules, 1959.)

    Args:
        documents: `[rows]`, the document of each row.
        batch_size: Rows per process and batch.
        num_processes: How many train together.
        process_index: Which of them this is.
        drop_last: Whether all batches are full. Otherwise there is one more where rows are left for it, and all are
            somewhat smaller, alike in size.
        seed: The same order for the same seed and epoch, whatever the number of processes.
        epoch: Gives the current epoch.

    Raises:
        UserError: There are fewer documents than rows in a batch.
    """

    def __init__(
        self,
        documents: np.ndarray,
        batch_size: int,
        *,
        num_processes: int = 1,
        process_index: int = 0,
        drop_last: bool = True,
        seed: int = 0,
        epoch: Callable[[], int] = lambda: 0,
    ):
        self.documents = np.asarray(documents)
        self.batch_size = batch_size
        self.num_processes = num_processes
        self.process_index = process_index
        self.seed = seed
        self.epoch = epoch
        global_batch_size = batch_size * num_processes
        sizes = np.unique(self.documents, return_counts=True)[1]
        self.num_batches = count_batches(sizes, global_batch_size, drop_last)
        if self.num_batches == 0 or (len(sizes) < max(2, num_processes)):
            needed = global_batch_size if drop_last else max(2, num_processes)
            raise UserError(
                f"--per_device_train_batch_size {batch_size}: {len(sizes):,} documents do not fill a batch of "
                f"{needed}: each may have one pair in it; bring more documents, lower it"
                + (", or keep smaller batches (--dataloader_drop_last False)" if drop_last else "")
            )
        self.rows_per_epoch = int(min(np.minimum(sizes, self.num_batches).sum(), self.num_batches * global_batch_size))

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng((self.seed, self.epoch()))
        rows = rng.permutation(len(self.documents))
        _, numbers = np.unique(self.documents[rows], return_inverse=True)
        places = rng.permutation(numbers.max() + 1)[numbers]
        rows = rows[np.argsort(places, kind="stable")]  # document by document
        documents = self.documents[rows]
        first = np.flatnonzero(np.r_[True, documents[1:] != documents[:-1]])
        rank = np.arange(len(rows)) - np.repeat(first, np.diff(np.r_[first, len(rows)]))
        rows = rows[rank < self.num_batches]
        chosen = np.sort(rng.choice(len(rows), self.rows_per_epoch, replace=False))
        rows = rows[chosen]
        for batch in range(self.num_batches):
            yield np.array_split(rows[batch :: self.num_batches], self.num_processes)[self.process_index].tolist()


def count_batches(sizes: np.ndarray, global_batch_size: int, drop_last: bool = True) -> int:
    """The largest number of batches that rows fill when each batch takes at most one of a document.

    Args:
        sizes: `[documents]`, rows per document.
        global_batch_size: Rows of a batch.
        drop_last: Whether the last batch must be full; otherwise one row of it is enough.
    """
    missing = 0 if drop_last else global_batch_size - 1
    numbers = range(1, int(sizes.sum()) // global_batch_size + 2)
    # What is left over after filling the batches rises with their number, and then only falls.
    return bisect_left(numbers, True, key=lambda n: np.minimum(sizes, n).sum() < n * global_batch_size - missing)
