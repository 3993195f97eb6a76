#!/usr/bin/env python
"""`encode` beside a plain `SentenceTransformer.encode`, as a ratio measured in one run, and its peak memory.

    python benchmarks/encode_throughput.py --text sentences.txt.gz --output encode_throughput.json

Both embed the same sentences with the same model, loaded once, and the same batch size. Here the sentences are rows of
a .txt file: what is timed goes from the file's name to the finished Parquet shards, so hashing, counting, reading and
writing are included. There they are in memory, and so are the embeddings. The two alternate, after some unmeasured
batches of each, and the median over the repeats counts. An embedding that differs by more than 1e-4 in float32, 0.1 in
other types, ends the run.

Memory: the most that a process of its own, embedding a file, ever had resident, for a tenth of the rows and for all of
them (VmHWM of Linux). The model there is a one-layer BERT of random weights, so that a million rows take minutes: what
is measured is everything around the model.
"""

import argparse
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pyarrow.dataset as ds
import torch
from measuring import alternate, synchronize, write_report
from trainers import MINILM, open_model, read_sentences
from transformers import BertConfig, BertModel

from arccse_hf.inference.encode_files.command import encode_files
from arccse_hf.inference.encode_files.reading import Columns
from arccse_hf.inference.encode_files.windows import EncodeOptions
from arccse_hf.inference.loading import silence_load_report
from arccse_hf.inference.open import Encoder, load_encoder

PEAK = """
import re, sys
from pathlib import Path
from arccse_hf.encoding.batches import EncodeOptions
from arccse_hf.encoding.command import run
from arccse_hf.encoding.reading import Columns

model, file, output, batch_size = sys.argv[1:]
options = EncodeOptions(Columns("text"), batch_size=int(batch_size))
status = run(model, [file], Path(output), options, max_seq_length=32)
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
sys.exit(status)
"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", required=True, help="a file of sentences, one per line, may end in .gz")
    parser.add_argument("--model", default=MINILM, help="any encoder, or tiny")
    parser.add_argument("--sentences", type=int, default=2_000, help="how many are embedded in one measurement")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--length", type=int, help="tokens a sentence is cut to; the model's own limit by default")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory_rows", type=int, default=1_000_000, help="0: only the throughput")
    parser.add_argument("--output", help="where the JSON goes")
    options = parser.parse_args(argv)
    sentences = read_sentences(options.text, options.sentences)
    with TemporaryDirectory() as folder:
        report = throughput(sentences, Path(folder), options)
        if options.memory_rows:
            report |= memory(sentences, Path(folder), options)
    write_report(options, **report)


def throughput(sentences: list[str], folder: Path, options: argparse.Namespace) -> dict:
    with silence_load_report():
        model = open_model(options.model, sentences, folder / "model")
        encoder = load_encoder(model, dtype=options.dtype, max_seq_length=options.length)
    few = write_lines(folder / "few.txt", sentences[: 2 * options.batch])
    file = write_lines(folder / "sentences.txt", sentences)
    time_ours(encoder, few, options.batch)
    time_theirs(encoder, sentences[: 2 * options.batch], options.batch)
    differences = []

    def ours() -> float:
        seconds, embeddings = time_ours(encoder, file, options.batch)
        differences.append(embeddings)
        return seconds

    def theirs() -> float:
        seconds, embeddings = time_theirs(encoder, sentences, options.batch)
        differences[-1] = float(np.abs(differences[-1] - embeddings).max())
        return seconds

    seconds = alternate({"arccse_hf": ours, "sentence-transformers": theirs}, options.repeats)
    if max(differences) > (1e-4 if options.dtype == "float32" else 0.1):
        raise SystemExit(f"embeddings differ by up to {max(differences)}")
    rates = {name: len(sentences) / statistics.median(values) for name, values in seconds.items()}
    ratio = rates["arccse_hf"] / rates["sentence-transformers"]
    shown = ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
    print(f"sentences/s: {shown}; ratio {ratio:.2f}; embeddings differ by at most {max(differences):.1e}", flush=True)
    device = str(encoder.model.device)
    return {"device": device, "seconds": seconds, "sentences_per_second": rates, "ratio": ratio} | {
        "largest_difference": max(differences)
    }


def write_lines(path: Path, sentences: Sequence[str]) -> Path:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{sentence}\n" for sentence in sentences)
    return path


def time_ours(encoder: Encoder, file: Path, batch: int) -> tuple[float, np.ndarray]:
    with TemporaryDirectory() as output, open(os.devnull, "w") as nowhere:
        start = time.perf_counter()
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            status = encode_files(encoder, [str(file)], Path(output), EncodeOptions(Columns("text"), batch_size=batch))
        seconds = time.perf_counter() - start
        if status:
            raise SystemExit(f"{file} could not be embedded")
        lists = ds.dataset(output).to_table()["embedding"].combine_chunks()
        return seconds, lists.flatten().to_numpy().reshape(len(lists), -1)


def time_theirs(encoder: Encoder, sentences: list[str], batch: int) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    embeddings = encoder.model.encode(sentences, batch_size=batch, show_progress_bar=False, convert_to_tensor=True)
    synchronize()
    seconds = time.perf_counter() - start
    return seconds, embeddings.float().cpu().numpy()


def memory(sentences: list[str], folder: Path, options: argparse.Namespace) -> dict:
    model = open_model("tiny", sentences, folder / "small")
    config = BertConfig.from_pretrained(model, num_hidden_layers=1, hidden_size=64, intermediate_size=64)
    torch.manual_seed(0)
    BertModel(config).save_pretrained(model)  # over the other one's weights: its tokenizer stays
    points = []
    for rows in (options.memory_rows // 10, options.memory_rows):
        file = write_lines(folder / f"{rows}.txt", itertools.islice(itertools.cycle(sentences), rows))
        command = [sys.executable, "-c", PEAK, model, str(file), str(folder / f"{rows}"), str(options.batch)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        points.append({"rows": rows, "peak_mib": int(done.stdout.split()[-1]) / 1024})
        print(f"{rows:,} rows: peak {points[-1]['peak_mib']:.0f} MiB", flush=True)
    return {"memory": points, "memory_ratio": points[1]["peak_mib"] / points[0]["peak_mib"]}


if __name__ == "__main__":
    main()
