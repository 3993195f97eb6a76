"""The processes of an `accelerate launch`, from the first meeting to an end in order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from ..errors import UserError

Result = TypeVar("Result")

# Processes differ in how much they have to do: the first one to end may wait for hours.
LONGEST_WAIT = timedelta(days=30)


def process_state(timeout: timedelta | None = None) -> PartialState:
    """Returns the processes of an `accelerate launch`, or this one alone.

    Left to itself PartialState takes several processes on a machine without an accelerator for as many single ones.

    Args:
        timeout: How long a process waits for the others where they meet; the first call decides it. None: minutes.
    """
    use_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=use_cpu, **({} if timeout is None else {"timeout": timeout}))


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


def world_size() -> int:
    """Number of processes that train together; 1 where there is no process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def on_first_process(function: Callable[[], Result]) -> Result:
    """Returns on all processes what `function` returns on the first one, or raises its `UserError`; all must call."""
    if world_size() == 1:
        return function()
    outcome: list = [None, None]
    if dist.get_rank() == 0:
        try:
            outcome[0] = function()
        except UserError as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]
