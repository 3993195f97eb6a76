"""Processes for tests that need some of their own.

To import torch and transformers takes seconds. These processes are forked from a server that has imported them.
A start of the interpreter itself, and what it does at its end, are not seen here.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path
from time import monotonic
from typing import Any
from unittest import mock

from torch.distributed import TCPStore

ROOT = Path(__file__).parents[1]
# Not this package: some tests are about the order of imports, or hide it.
LIBRARIES = [
    *("torch", "datasets", "peft", "sentence_transformers", "transformers.trainer"),
    *("transformers.models.auto.modeling_auto", "transformers.models.bert.modeling_bert"),
]


def python(*command: str | Path, processes: int = 1, timeout: float = 300, **environment: str):
    """Does what the interpreter does with a command line, in each of some processes.

    Args:
        command: `-m MODULE`, `-c CODE` or the path of a script, and its arguments.
        processes: How many run it. More than one are a process group on the CPU, as `torchrun` starts it.
        timeout: Seconds until they are killed, and the test fails.
        environment: What they have beside this process's variables. Libraries have read theirs before.

    Returns:
        The finished process, with its output as text; for several processes, the first one that failed, or the first.
    """
    return call(partial(_interpret, list(map(str, command))), processes=processes, timeout=timeout, **environment)


def call(
    function: Callable[[], Any], processes: int = 1, timeout: float = 300, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Calls a function of a module in each of some processes; the rest as in `python`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with mock.patch.dict(os.environ, {"PYTHONPATH": paths}):
        forkserver.ensure_running()
        variables = os.environ | {"CUDA_VISIBLE_DEVICES": ""} | environment
    if processes > 1:
        # The store is here, as it is in torchrun's own process: no port has to be chosen before it is taken.
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        variables |= {
            "ACCELERATE_USE_CPU": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True", "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
        }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for rank in range(processes):
            here = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
            outputs = [str(Path(folder) / f"{rank}.{name}") for name in ("stdout", "stderr")]
            process = context.Process(target=_run, args=(function, os.getcwd(), variables | here, *outputs))
            process.start()
            started.append(process)
        _wait(started, timeout)
        worst = max(range(processes), key=lambda rank: started[rank].exitcode != 0)
        texts = [(Path(folder) / f"{worst}.{name}").read_text() for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess(function, started[worst].exitcode, *texts)


def _wait(processes: list[Any], timeout: float) -> None:
    """Waits for all; once one has failed, or time is up, nobody waits for the others."""
    end = monotonic() + timeout
    while running := [process for process in processes if process.exitcode is None]:
        if any(process.exitcode for process in processes) or monotonic() > end:
            for process in running:
                process.kill()
                process.join()
            return
        wait([process.sentinel for process in running], max(0, end - monotonic()))


def _run(function: Callable[[], Any], folder: str, variables: dict[str, str], *outputs: str) -> None:
    multiprocessing.set_start_method(None, force=True)  # that of a new interpreter, for the dataloader's workers
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    for descriptor, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    function()


def _interpret(command: list[str]) -> None:
    if command[0] in ("-c", "-m"):
        option, what, *arguments = command
        sys.argv = [what, *arguments]
        if option == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(what, {"__name__": "__main__"})
    else:
        sys.argv = command
        sys.path.insert(0, os.path.dirname(os.path.abspath(command[0])))
        runpy.run_path(command[0], run_name="__main__")
