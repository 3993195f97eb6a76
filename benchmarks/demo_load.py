#!/usr/bin/env python
"""Asks the page of `arccse demo` as many users do, over the loopback alone: errors, and how long an answer takes.

    python benchmarks/demo_load.py --model out --base BASE --corpus docs --output benchmarks/results/demo_load.json

Each user opens the page, asks, reads for some seconds, and asks again. The users run on the processors of the page.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shlex
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from measuring import write_report

if TYPE_CHECKING:
    import httpx

WORDS = "how to read write open close sort list file string number class function error print loop import test".split()
TIMEOUT = 120
"""Seconds after which an answer that has not come is an error."""


def main(argv: Sequence[str] | None = None) -> None:
    """Starts the page, lets the users ask, and writes what they saw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--base")
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--pause", type=float, default=5, help="Mean seconds that a user reads an answer.")
    parser.add_argument("--output", required=True)
    options = parser.parse_args(argv)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "arccse_hf", "demo", "--model", options.model, "--corpus", options.corpus]
    command += ["--base", options.base] if options.base else []
    with subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.PIPE, text=True) as server:
        try:
            line = server.stdout.readline()
            if "the page is at" not in line:
                sys.exit(f"{shlex.join(command)}: did not start")
            before = memory(server.pid)
            ends, seconds = asyncio.run(ask_as_users(f"http://127.0.0.1:{port}", options))
            after = memory(server.pid)
        finally:
            server.terminate()
    if not seconds:
        sys.exit(f"no answer: {dict(ends)}")
    p50, p99 = np.percentile(seconds, [50, 99]).tolist()
    write_report(
        options,
        texts=int(line.split()[0].replace(",", "")),
        answers=len(seconds),
        ends=ends,
        answers_per_second=len(seconds) / options.seconds,
        seconds={"p50": p50, "p99": p99, "max": max(seconds)},
        memory_mb={"before": before, "after": after},
        load_average=os.getloadavg()[0],
    )


async def ask_as_users(address: str, options: argparse.Namespace) -> tuple[Counter[str], list[float]]:
    """Returns how requests ended, and the seconds that each answer took."""
    import httpx  # which gradio brings

    ends: Counter[str] = Counter()
    seconds: list[float] = []
    end = time.monotonic() + options.seconds

    async def use(number: int) -> None:
        draw = random.Random(number)
        async with httpx.AsyncClient(base_url=address, timeout=TIMEOUT, trust_env=False) as client:
            await asyncio.sleep(draw.uniform(0, options.pause))
            try:
                (await client.get("/")).raise_for_status()
            except httpx.HTTPError as error:
                ends[f"the page: {error!r}"] += 1
            while time.monotonic() < end:
                start = time.monotonic()
                try:
                    answer = await ask(client, " ".join(draw.choices(WORDS, k=draw.randint(2, 8))))
                except httpx.HTTPError as error:
                    answer = repr(error)
                ends[answer] += 1
                if answer == "answered":
                    seconds.append(time.monotonic() - start)
                await asyncio.sleep(draw.uniform(0.5, 1.5) * options.pause)

    await asyncio.gather(*(use(number) for number in range(options.users)))
    return ends, seconds


async def ask(client: httpx.AsyncClient, query: str) -> str:
    """Returns how one query ended: "answered", or what was wrong."""
    posted = await client.post("/gradio_api/call/search", json={"data": [query]})
    if posted.status_code != 200:
        return f"status {posted.status_code}"
    events = (await client.get(f"/gradio_api/call/search/{posted.json()['event_id']}")).text
    return "answered" if "event: complete" in events and "ad-hits" in events else events[:200]


def memory(process: int) -> int:
    """Returns the resident megabytes of a process."""
    (line,) = (line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) // 1024


if __name__ == "__main__":
    main()
