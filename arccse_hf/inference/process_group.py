"""The processes of an `accelerate launch`, from the first meeting to an end in order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta

from accelerate import PartialState

from .open import process_state

# Processes differ in how much they have to do: the first one to end may wait for hours.
LONGEST_WAIT = timedelta(days=30)


@contextlib.contextmanager
def process_group() -> Iterator[PartialState]:
    """Around the work of a command: joins its processes, and ends their group when all are done.

    A group that is left to the interpreter's end can abort the process: a thread of gloo lets go of the last
    collective's tensors, for which it needs the interpreter, while that is finalising. After one more meeting, no
    thread holds any. An error leaves the group as it is, because the other processes may not come to that meeting.

    Example:
        >>> with process_group() as state:
        ...     print(state.process_index, state.num_processes)
    """
    state = process_state(timeout=LONGEST_WAIT)
    yield state
    state.wait_for_everyone()
    state.destroy_process_group()
