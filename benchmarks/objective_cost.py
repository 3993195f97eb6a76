#!/usr/bin/env python
"""What ArcCSE costs over SimCSE: tokens and time of a training step, measured in one run.

    python benchmarks/objective_cost.py --text sentences.txt --output objective_cost.json

The same encoder on the same sentences in the same order, with SimCSE's objective (pairs, no margin), with ArcCon
(pairs, angular margin) and with ArcCSE (ArcCon and triplets). The three take turns within each repeat; the first step
of each run is not timed, and the median over the repeats counts. Tokens are counted in runs of their own: those that
are not padding, and those that were computed with padding. The triplets' extra cost is in proportion where the extra
time over the extra tokens, both as shares of SimCSE's, is at most 1.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from tempfile import TemporaryDirectory

from measuring import alternate, write_report
from trainers import Run, add_run_options, count_tokens, open_model, read_sentences, time_ours

OBJECTIVES = {
    "SimCSE": {"angular_margin": 0.0, "triplet_weight": 0.0},
    "ArcCon": {"triplet_weight": 0.0},
    "ArcCSE": {"triplet_weight": 0.1},
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_run_options(parser)
    parser.add_argument("--triplet_min_tokens", type=int, default=25, help="shorter sentences get no triplet")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(argv)
    sentences = read_sentences(options.text, options.batch * (options.steps + 1))
    common = {"train_sampling_strategy": "sequential", "triplet_min_tokens": options.triplet_min_tokens}
    with TemporaryDirectory() as folder:
        path = open_model(options.model, sentences, folder)
        run = Run(path, sentences, options.length, options.batch, options.steps, options.bf16)
        settings = {name: common | objective for name, objective in OBJECTIVES.items()}
        tokens = {name: count_tokens(run, **settings[name]) for name in OBJECTIVES}
        seconds = alternate({name: partial(time_ours, run, **settings[name]) for name in OBJECTIVES}, options.repeats)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    over_simcse = {}
    for name in ("ArcCon", "ArcCSE"):
        time_ratio, token_ratio = median[name] / median["SimCSE"], tokens[name].real / tokens["SimCSE"].real
        over_simcse[name] = {"time": time_ratio, "tokens": token_ratio}
        if token_ratio > 1:
            over_simcse[name]["extra_time_per_extra_tokens"] = (time_ratio - 1) / (token_ratio - 1)
        shown = ", ".join(f"{key} {value:.3f}" for key, value in over_simcse[name].items())
        print(f"{name} over SimCSE: {shown}")
    write_report(
        options,
        tokens_per_step={name: asdict(counted) for name, counted in tokens.items()},
        seconds_per_step=seconds,
        median_seconds_per_step=median,
        over_simcse=over_simcse,
    )


if __name__ == "__main__":
    main()
