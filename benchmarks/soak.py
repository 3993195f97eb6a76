#!/usr/bin/env python
"""Real faults done to real runs: kills, signals, full disks, a stopped process, too little memory, made-up input, load.

    make soak                                            # all of it; some fifteen minutes on two quiet cores
    python benchmarks/soak.py --only kills --kills 3     # a part

Each run is a process of its own that is forked from this one, so that it starts in moments. It trains a tiny encoder on
made-up text, with a checkpoint at every step, and is started again with the same command after each kill. The figures
of docs/reliability.md are those of `--output`.
"""

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
os.environ["ACCELERATE_USE_CPU"] = "1"

from measuring import write_report
from safetensors.torch import load_file
from soak_load import WORDS, bill_of_materials, encode_load, fuzzing, killed_encodes, not_better
from transformers import BertConfig, BertModel, BertTokenizer

from arccse_hf.__main__ import main as arccse
from arccse_hf.inference.encode_files import windows  # noqa: F401  (imported before the forks)
from arccse_hf.run_folder import FINAL_CHECKPOINT, TRAINING
from arccse_hf.training import script  # noqa: F401
from arccse_hf.training.checkpoints import STAGING, find_checkpoint

STEPS = 48
MODES = {
    "one process": [],
    "2 dataloader workers": ["--dataloader_num_workers", "2"],
    "streaming": ["--streaming", "True", "--streaming_shuffle_buffer", "200"],
    "gradient cache": ["--grad_cache_chunk_size", "3"],
    "accumulation": ["--gradient_accumulation_steps", "2"],
    "evaluation": ["--eval_data", "scored.csv", "--eval_steps", "1"],
}
"""Arguments of the runs that are killed; files are in the folder of the soak."""


@dataclass
class Run:
    """Processes that train together.

    Args:
        output_dir: Where the model goes.
        processes: Their ids.
        log: File of what they print.
        statuses: How those that have ended did: the exit status, or minus the signal.
    """

    output_dir: Path
    processes: list[int]
    log: Path
    statuses: dict[int, int] = field(default_factory=dict)

    def poll(self) -> bool:
        """Returns whether all have ended."""
        for process in self.processes:
            if process not in self.statuses:
                ended, status = os.waitpid(process, os.WNOHANG)
                if ended:
                    self.statuses[process] = os.waitstatus_to_exitcode(status)
        return len(self.statuses) == len(self.processes)

    def wait(self, until: Callable[[], bool] = lambda: False, timeout: float = 300) -> bool:
        """Waits until the processes have ended (then True) or a condition holds (then False)."""
        end = time.monotonic() + timeout
        while not self.poll():
            if until():
                return False
            if time.monotonic() > end:
                self.kill()
                raise TimeoutError(f"no end after {timeout} s; {self.log} holds what it said")
            time.sleep(0.001)
        return True

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal to all of them and to their workers, and waits for the end."""
        for process in self.processes:
            if process not in self.statuses:
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.killpg(process, number)
        self.wait()

    @property
    def said(self) -> str:
        """What they printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Soak:
    """A folder with an encoder, text and scored pairs, and the runs in it."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.random = folder, random.Random(seed)
        # In a process of its own: a fork of one that has computed with threads can hang.
        if os.fork() == 0:
            config = BertConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                                intermediate_size=24, max_position_embeddings=40)  # fmt: skip
            BertModel(config).save_pretrained(folder / "encoder")
            names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
            BertTokenizer(vocab={name: number for number, name in enumerate(names)}).save_pretrained(folder / "encoder")
            os._exit(0)
        os.wait()
        rows = [" ".join(self.random.choices(WORDS, k=self.random.randint(6, 30))) for _ in range(1500)]
        (folder / "text.txt").write_text("\n".join(rows))
        pairs = zip(rows[:20], rows[20:40], range(20), strict=True)
        (folder / "scored.csv").write_text(
            "sentence1,sentence2,score\n" + "".join(f"{a},{b},{c}\n" for a, b, c in pairs)
        )

    def start(self, name: str, *more: str, processes: int = 1, prepare: Callable[[], None] = lambda: None) -> Run:
        """Starts a run whose folder is `name`, and goes on with what is there."""
        command = [
            "train", "--model_name_or_path", "encoder", "--train_file", "text.txt", "--output_dir", name,
            "--max_steps", str(STEPS), "--per_device_train_batch_size", "8", "--triplet_min_tokens", "12",
            "--save_strategy", "steps",
            "--save_steps", "1", "--save_total_limit", "3", "--logging_steps", "1", "--max_seq_length", "24",
            "--disable_tqdm", "True", "--cosine_samples", "False", "--resume_from_checkpoint", "True", *more,
        ]  # fmt: skip
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        run = Run(self.folder / name, [], self.folder / f"{name}.log")
        for rank in range(processes):
            environment = {
                "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            }  # fmt: skip
            run.processes.append(self._fork(command, environment if processes > 1 else {}, run.log, prepare))
        return run

    def _fork(self, command: Sequence[str], environment: Mapping[str, Any], log: Path, prepare: Callable) -> int:
        process = os.fork()
        if process:
            os.setpgid(process, process)
            return process
        status = 1
        try:
            os.setpgid(0, 0)
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.environ.update({name: str(value) for name, value in environment.items()})
            os.chdir(self.folder)
            prepare()
            arccse(command)
        except SystemExit as end:
            status = end.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)

    def finish(self, name: str, *more: str, **options) -> Run:
        """Starts a run and waits for its end, which has to be a good one."""
        run = self.start(name, *more, **options)
        run.wait()
        assert set(run.statuses.values()) == {0}, run.said[-3000:]
        return run

    def kills(self, count: int, mode: str, processes: int = 1) -> dict[str, Any]:
        """SIGKILL again and again, at random moments and inside the writing of checkpoints and of the model."""
        more = MODES.get(mode, [])
        name = mode.replace(" ", "-")
        self.finish(f"{name}-whole", *more, processes=processes)
        killed, inside = 0, {"checkpoint": 0, "export": 0}
        for number in range(count):
            run = self.start(name, *more, processes=processes)
            step = _step(run.output_dir)
            # On the average as far as the kills need to reach the last step, of which the last two are for the export.
            target = min(STEPS, step + self.random.randint(0, 2 * max(1, (STEPS - step) // (count - number))))
            if number >= count - 2:
                run.wait(until=lambda run=run: not _exporting(run.output_dir))  # leftovers of the one before
                ended = run.wait(until=lambda run=run: _exporting(run.output_dir))
            else:
                staging = run.output_dir / TRAINING / STAGING
                writing = number % 2 == 0
                ended = run.wait(
                    until=lambda run=run, target=target, staging=staging, writing=writing: (
                        _step(run.output_dir) >= min(target, STEPS - 4) and (not writing or staging.exists())
                    )
                )
                pause = time.monotonic() + self.random.uniform(0, 0.01 if writing else 0.3)
                # A quick machine would be done meanwhile.
                run.wait(
                    until=lambda run=run, pause=pause: time.monotonic() > pause or _step(run.output_dir) >= STEPS - 3
                )
            assert not ended, run.said[-3000:]
            run.kill()
            killed += set(run.statuses.values()) == {-signal.SIGKILL}
            inside["checkpoint"] += (run.output_dir / TRAINING / STAGING).exists()
            inside["export"] += _exporting(run.output_dir)
        if killed == count:  # else the last one came too late
            self.finish(name, *more, processes=processes)
        return {"kills": killed, "inside": inside, "difference": self.difference(name, f"{name}-whole")}

    def terminated(self, processes: int) -> dict[str, Any]:
        """SIGTERM five times to one of the processes, then to the end."""
        name = f"terminated-{processes}"
        self.finish(f"{name}-whole", "--save_steps", "1000", processes=processes)
        statuses = []
        for _ in range(5):
            run = self.start(name, "--save_steps", "1000", processes=processes)
            before = _step(run.output_dir)
            logged = run.said.count("rows/s")
            run.wait(until=lambda run=run, logged=logged: run.said.count("rows/s") > logged)
            time.sleep(self.random.uniform(0, 0.05))
            os.kill(run.processes[-1], signal.SIGTERM)
            run.wait()
            statuses += run.statuses.values()
            assert not _exporting(run.output_dir) and not (run.output_dir / "model.safetensors").exists()
            assert _step(run.output_dir) >= max(1, before)
        self.finish(name, "--save_steps", "1000", processes=processes)
        return {"statuses": sorted(set(statuses)), "difference": self.difference(name, f"{name}-whole")}

    def stopped(self) -> dict[str, Any]:
        """SIGSTOP to one of two processes: the other one ends by --ddp_timeout."""
        run = self.start("stopped", "--ddp_timeout", "8", processes=2)
        run.wait(until=lambda: _step(run.output_dir) >= 2)
        os.kill(run.processes[1], signal.SIGSTOP)
        start = time.monotonic()
        run.wait(until=lambda: run.processes[0] in run.statuses, timeout=120)
        seconds = time.monotonic() - start
        run.kill()
        line = next(line for line in run.said.splitlines() if "error: " in line)
        self.finish("stopped", processes=2)
        return {"seconds": round(seconds, 1), "status": run.statuses[run.processes[0]], "line": line}

    def full_disk(self) -> dict[str, Any]:
        """A small file system of its own that fills up, and is made larger."""
        disk = self.folder / "disk"
        disk.mkdir()
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)], capture_output=True
        ).returncode:
            return {"skipped": "only root can mount a file system"}
        try:
            self.finish("full-whole")
            run = self.start("disk/out")
            run.wait()
            kept = find_checkpoint(disk / "out" / TRAINING)
            subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
            self.finish("disk/out")
            line = next(line for line in run.said.splitlines() if "error: " in line)
            difference = self.difference("disk/out", "full-whole")
        finally:
            subprocess.run(["umount", str(disk)], check=True)
        return {
            "status": list(run.statuses.values()),
            "kept": kept and kept.name,
            "line": line,
            "difference": difference,
        }

    def out_of_memory(self) -> dict[str, Any]:
        """An address space that does not suffice for the batch, and what the message proposes."""

        def limit() -> None:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20, resource.RLIM_INFINITY))

        more = ["--per_device_train_batch_size", "1024", "--max_steps", "1", "--triplet_weight", "0"]
        run = self.start("memory", *more, prepare=limit)
        run.wait()
        line = next((line for line in run.said.splitlines() if "error: " in line), run.said[-2000:])
        proposed = self.start("memory", *more, "--grad_cache_chunk_size", "64", prepare=limit)
        proposed.wait()
        return {"line": line, "status": list(run.statuses.values()), "status with 64": list(proposed.statuses.values())}

    def encode(self, name: str, rows: int) -> Run:
        """Starts to embed a file of short texts into `name`, and goes on with what is there."""
        path = self.folder / f"{rows}.txt"
        if not path.exists():
            draw = random.Random(0)
            path.write_text("".join(" ".join(draw.choices(WORDS, k=4)) + "\n" for _ in range(rows)))
        arguments = ["--model", "encoder", "--input", path.name, "--output_dir", name, "--batch_size", "2048"]
        run = Run(self.folder / name, [], self.folder / f"{name}.log")
        line = ["encode", *arguments, "--shard_rows", str(rows // 20)]
        run.processes.append(self._fork(line, {}, run.log, lambda: None))
        return run

    def difference(self, name: str, other: str) -> float:
        """The largest difference between two finished models: 0 where they are equal to the bit."""
        files = [self.folder / folder / "model.safetensors" for folder in (name, other)]
        if files[0].read_bytes() == files[1].read_bytes():
            return 0.0
        one, two = map(load_file, files)
        return max((weight - two[key]).abs().max().item() for key, weight in one.items())


def _step(output_dir: Path) -> int:
    steps = (path.name.rpartition("-")[2] for path in output_dir.glob(f"{TRAINING}/checkpoint-*"))
    return max((int(step) for step in steps if step.isdecimal()), default=0)


def _exporting(output_dir: Path) -> bool:
    return (output_dir / TRAINING / FINAL_CHECKPOINT).exists() or any(output_dir.glob(".export-*"))


def main() -> None:
    """Does all faults, or those that are asked for, and prints what came of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="SIGKILLs per run")
    parser.add_argument("--only", nargs="+", default=[""], help="faults whose name begins so")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", help="where the JSON goes")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    soak = Soak(folder, options.seed)
    faults: dict[str, Callable[[], dict[str, Any]]] = {
        f"kills, {mode}": lambda mode=mode: soak.kills(options.kills, mode) for mode in MODES
    }
    faults |= {
        "kills, two processes": lambda: soak.kills(options.kills, "two processes", 2),
        "SIGTERM, one process": lambda: soak.terminated(1),
        "SIGTERM, two processes": lambda: soak.terminated(2),
        "SIGSTOP": soak.stopped,
        "full disk": soak.full_disk,
        "out of memory": soak.out_of_memory,
        "encode, kills": lambda: killed_encodes(soak),
        "encode, load": lambda: encode_load(soak),
        "not better": lambda: not_better(soak),
        "fuzzing": lambda: fuzzing(soak),
        "bill of materials": lambda: bill_of_materials(soak),
    }
    results = {}
    for name, fault in faults.items():
        if name.startswith(tuple(options.only)):
            start = time.monotonic()
            results[name] = fault() | {"took": round(time.monotonic() - start)}
            print(f"{name}: {results[name]}", flush=True)
    shutil.rmtree(folder)
    write_report(options, faults=results)


if __name__ == "__main__":
    main()
