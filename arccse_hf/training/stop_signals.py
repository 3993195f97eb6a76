"""SIGTERM and SIGINT: noted while a run trains, so that it can write a checkpoint before it ends; told behind that."""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.sharedctypes import RawValue
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)

_INSISTS = 2.0

_Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None  # as `signal` has it


class TrainingStopped(SystemExit):
    """A signal ended the run. The exit status is 128 + the signal's number."""


@contextlib.contextmanager
def stop_at_once(explain: Callable[[], str]) -> Iterator[None]:
    """Within its context, SIGTERM and SIGINT end the process as they do while it trains, without a checkpoint.

    Args:
        explain: Returns what the log says of it, behind the signal.

    Raises:
        TrainingStopped: One came.
    """
    process = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:
            raise TrainingStopped(128 + number)
        signal.signal(number, signal.SIG_DFL)  # a worker, which was forked meanwhile
        os.kill(os.getpid(), number)

    in_main_thread = threading.current_thread() is threading.main_thread()  # Python sets handlers in no other
    numbers = (signal.SIGTERM, signal.SIGINT) if in_main_thread else ()
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    except TrainingStopped as stopped:
        logger.warning("stopped by %s; %s", signal.Signals(int(str(stopped.code)) - 128).name, explain())
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StopSignals:
    """Within its context, SIGTERM and SIGINT (Ctrl-C) are noted in `received` instead of ending the process at once.

    Launchers send signals on, so one may come more than once. A second Ctrl-C some seconds after the first ends the
    process at once. Dataloader workers that are forked meanwhile do nothing on either signal, for they often get it
    together with the process that they work for, which needs them until its step is done.

    Attributes:
        received: Number of the first signal that came; 0 before.
    """

    def __init__(self):
        self.received = 0
        self._first_time = 0.0
        self._before: dict[int, _Handler] = {}

    def __enter__(self) -> "StopSignals":
        self._process = os.getpid()
        self._over = RawValue("b", 0)  # shared with the workers; it cannot be pickled, while a trainer can be
        if threading.current_thread() is threading.main_thread():  # Python sets handlers in no other
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.value = 1
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if os.getpid() != self._process:
            if self._over.value:  # the main process ends its workers so
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if self.received == signal.SIGINT == number and time.monotonic() - self._first_time > _INSISTS:
            raise KeyboardInterrupt
        if not self.received:
            self.received, self._first_time = number, time.monotonic()
