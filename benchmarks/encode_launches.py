#!/usr/bin/env python
"""Encodes on two processes, many times, and counts how they end: a process group must never be left to the interpreter.

    python benchmarks/encode_launches.py --launches 200 --output benchmarks/results/encode_launches.json

The processes of a launch are forked from this one, which has imported everything, so that a launch takes a second. Each
then ends as a program does: by the interpreter's own end. `--burners` further processes keep the cores busy.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from backbones import WORDS, save_encoder, tiny_tokenizer
from sentence_transformers import SentenceTransformer
from transformers import BertForPreTraining

from arccse_hf.__main__ import main as arccse
from arccse_hf.inference.encode_files import command

IMPORTED_ONCE = (SentenceTransformer, command)
PROCESSES = 2
ROWS_PER_FILE = 40
FILES = 4


def main(argv: Sequence[str] | None = None) -> None:
    """Launches, and writes how the processes ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--launches", type=int, default=200)
    parser.add_argument("--burners", type=int, default=2)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(argv)
    parent = os.getpid()
    statuses: Counter[int] = Counter()
    folder = Path(tempfile.mkdtemp())
    burners = [_fork(_burn) for _ in range(options.burners)]
    try:
        model = save_encoder(folder, tiny_tokenizer(), BertForPreTraining)
        for number in range(FILES):
            lines = [" ".join(WORDS[: 1 + (row + number) % len(WORDS)]) for row in range(ROWS_PER_FILE)]
            (folder / f"{number}.txt").write_text("\n".join(lines), encoding="utf-8")
        for launch in range(options.launches):
            words = ["--model", str(model), "--input", f"{folder}/*.txt", "--output_dir", f"{folder}/out{launch}"]
            statuses.update(_launch(["encode", *words, "--shard_rows", "20"]))
            print(f"{launch + 1} of {options.launches}: {dict(statuses)}", file=sys.stderr, flush=True)
    finally:
        if os.getpid() == parent:  # a launched process passes here too, on its way to its end
            for burner in burners:
                os.kill(burner, signal.SIGKILL)
            shutil.rmtree(folder)
    report = {
        "command": "python benchmarks/encode_launches.py " + shlex.join(sys.argv[1:] if argv is None else argv),
        "date": date.today().isoformat(),
        "launches": options.launches,
        "processes": PROCESSES,
        "burners": options.burners,
        "load_average": os.getloadavg()[2],
        "exit_statuses": {str(status): number for status, number in statuses.items()},
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _launch(line: Sequence[str]) -> list[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [_fork(_run, line, rank, port) for rank in range(PROCESSES)]
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


def _fork(work: Callable[..., NoReturn], *arguments: object) -> int:
    process = os.fork()
    if process == 0:
        work(*arguments)
    return process


def _run(line: Sequence[str], rank: int, port: int) -> NoReturn:
    os.environ |= {"ACCELERATE_USE_CPU": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {name: str(rank) for name in ("RANK", "LOCAL_RANK")}
    os.environ |= {name: str(PROCESSES) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
    arccse(line)


def _burn() -> NoReturn:
    while True:
        pass


if __name__ == "__main__":
    main()
