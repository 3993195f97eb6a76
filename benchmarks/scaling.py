#!/usr/bin/env python
"""How time grows with the text, with the batch and over processes, and memory with a cached batch.

    python benchmarks/scaling.py --text sentences.txt --output scaling.json

Parts, each with numbers of its own run only:

preparation  seconds to read, clean and tokenise so many sentences, from a file to rows of token ids
training     seconds to train on so many sentences, one epoch
batch        seconds a sentence takes to train on, by batch size
processes    seconds per step of 1 process and of 2 that train together on the CPU, with one thread and a batch each
             (weak scaling); an efficiency of 1 means that 2 take no longer. Negatives are gathered over both.
memory       the most a process of its own had resident in a step: of the smallest batch and of the largest, with a
             gradient cache whose chunks are as large as the smallest batch; and of the smallest without a cache

Of the first three the exponent p of seconds ~ sentences^p (or of batches) is fitted: 1 is linear in the sentences,
0 is a cost that does not depend on the batch.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import datasets
from measuring import alternate, exponent, resident_bytes, write_report
from trainers import Run, metered, open_model, our_trainer, read_sentences, time_ours
from transformers import AutoTokenizer

from arccse_hf.data.tokenization import tokenize_texts
from arccse_hf.data.training_texts import load_training_texts

MILLION = 1_000_000


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--text", help="a file of sentences, one per line, may end in .gz")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--model", default="tiny", help="an encoder; tiny is a small BERT of random weights")
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64, help="of training, and of each of the processes")
    parser.add_argument("--prepared", type=int, nargs="+", default=[10_000, 30_000, 100_000, 300_000, MILLION])
    parser.add_argument("--trained", type=int, nargs="+", default=[2_000, 8_000, 32_000])
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64, 256, 1024])
    parser.add_argument("--cached", type=int, nargs=2, default=[64, 4096], help="smallest and largest batch of memory")
    parser.add_argument("--steps", type=int, default=4, help="training steps of one measurement, but for memory")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", help="where the JSON goes")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        return child(**json.loads(options.child))
    if not options.text:
        parser.error("--text is needed")
    largest = max(
        max(options.prepared) if "preparation" in options.parts else 0,
        max(options.trained) + options.batch if "training" in options.parts else 0,
        max(options.batches) * (options.steps + 1),
        2 * options.cached[1] if "memory" in options.parts else 0,
        2 * options.batch * (options.steps + 1),  # of the two processes
    )
    sentences = read_sentences(options.text, largest)
    results = {}
    with TemporaryDirectory() as folder:
        path = open_model(options.model, sentences[: 10 * options.batch], Path(folder) / "model")
        for name in options.parts:
            results[name] = PARTS[name](path, sentences, Path(folder), options)
            print(f"{name}: {json.dumps(results[name])}", flush=True)
    write_report(options, **results)


def preparation(path: str, sentences: list[str], folder: Path, options: argparse.Namespace) -> dict:
    tokenizer = AutoTokenizer.from_pretrained(path)
    seconds = []
    for count in options.prepared:
        file = folder / f"{count}.txt"
        file.write_text("\n".join(sentences[:count]), encoding="utf-8")
        with patch.object(datasets.config, "HF_DATASETS_CACHE", folder / f"cache-{count}"):
            start = time.perf_counter()
            texts, _ = load_training_texts(train_file=[str(file)])
            tokenize_texts(texts, tokenizer, options.length)
            seconds.append(time.perf_counter() - start)
    return growth(options.prepared, seconds)


def training(path: str, sentences: list[str], folder: Path, options: argparse.Namespace) -> dict:
    seconds = []
    for count in options.trained:
        run = Run(path, sentences, options.length, options.batch, steps=count // options.batch)
        seconds.append(time_ours(run) * run.steps)
    return growth(options.trained, seconds)


def batch(path: str, sentences: list[str], folder: Path, options: argparse.Namespace) -> dict:
    runs = {size: Run(path, sentences, options.length, size, options.steps) for size in options.batches}
    seconds = alternate({size: partial(time_ours, run) for size, run in runs.items()}, options.repeats)
    per_sentence = [statistics.median(seconds[size]) / size for size in options.batches]
    return {
        "batches": options.batches,
        "seconds_per_sentence": per_sentence,
        "exponent": exponent(options.batches, per_sentence),
    }


def processes(path: str, sentences: list[str], folder: Path, options: argparse.Namespace) -> dict:
    on_cpu = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": ""}

    def step(count: int) -> float:
        run = {"steps": options.steps, "batch": options.batch, "length": options.length, "path": path}
        result = launch(run, sentences, folder, count, **on_cpu)
        # Some launchers start one process only, and say nothing.
        assert result["processes"] == count, f"{result['processes']} processes train together, not {count}"
        return result["seconds_per_step"]

    seconds = alternate({count: partial(step, count) for count in (1, 2)}, options.repeats)
    one, two = (statistics.median(seconds[count]) for count in (1, 2))
    return {"seconds_per_step": seconds, "weak_scaling_efficiency": one / two}


def memory(path: str, sentences: list[str], folder: Path, options: argparse.Namespace) -> dict:
    small, large = options.cached
    run = {"steps": 1, "length": options.length, "path": path}
    peaks = {
        name: launch(run | settings, sentences, folder)
        for name, settings in {
            f"batch {small}": {"batch": small},
            f"batch {small}, chunks of {small}": {"batch": small, "grad_cache_chunk_size": small},
            f"batch {large}, chunks of {small}": {"batch": large, "grad_cache_chunk_size": small},
        }.items()
    }
    plain, cached, largest = (result["peak_resident"] for result in peaks.values())
    return peaks | {"peak_ratio": largest / cached, "peak_ratio_to_no_cache": largest / plain}


PARTS = {
    "preparation": preparation,
    "training": training,
    "batch": batch,
    "processes": processes,
    "memory": memory,
}


def growth(sentences: list[int], seconds: list[float]) -> dict:
    return {"sentences": sentences, "seconds": seconds, "exponent": exponent(sentences, seconds)}


def launch(run: dict, sentences: list[str], folder: Path, processes: int = 1, **environment: str) -> dict:
    """Returns what `child` prints in a separate process, or in the first of several that torchrun starts."""
    text = folder / "launched.txt"
    text.write_text("\n".join(sentences[: processes * run["batch"] * (run["steps"] + 1)]), encoding="utf-8")
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [sys.executable, *(torchrun if processes > 1 else []), __file__]
    command += ["--child", json.dumps(run | {"text": str(text)})]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def child(text: str, **settings) -> None:
    """Trains, and prints time and memory as a line of JSON."""
    fields = {name: settings.pop(name) for name in ("path", "length", "batch", "steps")}
    together = int(os.environ.get("WORLD_SIZE", "1"))
    with open(text, encoding="utf-8") as file:
        run = Run(sentences=file.read().split("\n"), processes=together, **fields)
    with our_trainer(run, **settings) as trainer:
        meter = metered(trainer)
        result = {
            "processes": trainer.args.world_size,
            "seconds_per_step": meter.seconds_per_step,
            "peak_resident": resident_bytes(peak=True),
        }
        if trainer.is_world_process_zero():
            print(json.dumps(result), flush=True)
        trainer.end()


if __name__ == "__main__":
    main()
