#!/usr/bin/env python
"""Training throughput beside sentence-transformers' trainer, as ratios measured in one run.

    python benchmarks/train_throughput.py --text sentences.txt --models tiny MINILM --batches 64 256 --output out.json

Both train the same encoder on the same sentences with the same batch, length and optimiser, pairs only: here ArcCon
through `ArcCSETrainer`, there MultipleNegativesRankingLoss on (sentence, sentence) through SentenceTransformerTrainer.
What is timed is a step within `Trainer.train()`: loading, forward, backward, optimiser; the first step of each run is
not. Texts are tokenised beforehand here and in the collator there, as each does by default. All sides take turns
within each repeat, and the median over the repeats counts.

Comparisons: `fp32` and `bf16` with both in that precision; `everything` with all that makes ours fast (bfloat16
autocast; on a CPU sub-batches of like length are always on) against their default, float32.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from tempfile import TemporaryDirectory

from measuring import alternate, write_report
from trainers import MINILM, Run, open_model, read_sentences, time_ours, time_theirs

# Name of a comparison to our side and theirs; name of a side to what trains, in bfloat16 or not.
COMPARISONS = {
    "fp32": ("arccse_hf fp32", "sentence-transformers fp32"),
    "bf16": ("arccse_hf bf16", "sentence-transformers bf16"),
    "everything": ("arccse_hf bf16", "sentence-transformers fp32"),
}
SIDES = {
    "arccse_hf fp32": (time_ours, False),
    "sentence-transformers fp32": (time_theirs, False),
    "arccse_hf bf16": (time_ours, True),
    "sentence-transformers bf16": (time_theirs, True),
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", required=True, help="a file of sentences, one per line, may end in .gz")
    parser.add_argument("--models", nargs="+", default=[MINILM], help="encoders; tiny is a small random BERT")
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--batches", type=int, nargs="+", default=[64])
    parser.add_argument("--comparisons", nargs="+", choices=COMPARISONS, default=["fp32"])
    parser.add_argument("--steps", type=int, default=3, help="training steps of one measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", help="where the JSON goes")
    options = parser.parse_args(argv)
    sentences = read_sentences(options.text, (options.steps + 1) * max(options.batches))
    results = []
    for model in options.models:
        with TemporaryDirectory() as folder:
            path = open_model(model, sentences, folder)
            for length in options.lengths:
                for batch in options.batches:
                    run = Run(path, sentences, length, batch, options.steps)
                    results.append({"model": model, "length": length, "batch": batch} | compare(run, options))
    write_report(options, results=results)


def compare(run: Run, options: argparse.Namespace) -> dict:
    """Returns the sentences per second of each side, and the ratio of each comparison."""
    needed = [side for side in SIDES if any(side in COMPARISONS[name] for name in options.comparisons)]
    sides = {side: partial(SIDES[side][0], replace(run, bf16=SIDES[side][1])) for side in needed}
    seconds = alternate(sides, options.repeats)
    rate = {side: run.batch / statistics.median(values) for side, values in seconds.items()}
    ratios = {name: rate[COMPARISONS[name][0]] / rate[COMPARISONS[name][1]] for name in options.comparisons}
    shown = [f"{side} {value:.1f}" for side, value in rate.items()]
    shown += [f"{name} {value:.2f} times" for name, value in ratios.items()]
    print(f"length {run.length}, batch {run.batch}: sentences/s {', '.join(shown)}", flush=True)
    return {"sentences_per_second": rate, "ratios": ratios, "seconds_per_step": seconds}


if __name__ == "__main__":
    main()
