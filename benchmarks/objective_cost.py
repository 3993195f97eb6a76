#!/usr/bin/env python
"""What ArcCSE costs over SimCSE: tokens and time of a training step, measured in one run.

    python benchmarks/objective_cost.py --text sentences.txt --output objective_cost.json

The same encoder on the same sentences in the same order, with SimCSE's objective (pairs, no margin), with ArcCon
(pairs, angular margin), with ArcCSE (ArcCon and triplets), and with ArcCSE in the plain way, where every triplet gets a
backward pass; further with ArcCSE at four numbers of dimensions at once (`--matryoshka_dims`), and with ArcCon where
only the last two layers are trained. So that the cost does not depend on luck with a few batches, a twentieth of the
triplets (`--costly`) is embedded again in every step, those nearest to a violation, whether they are violated or not.
The objectives take turns within each repeat; the first step of each run is not timed. A ratio is the median over the
repeats of the ratio to SimCSE within the repeat: of seconds, and of processor seconds, which other work on the machine
disturbs less.

Runs of their own count tokens (those that are not padding), the shares of triplets that are violated and that are
embedded again, and the processor seconds of each stage of a step; all without the first step.
"""

import argparse
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from tempfile import TemporaryDirectory

import torch
from measuring import StepMeter, alternate, write_report
from torch import Tensor
from trainers import Run, add_run_options, metered, open_model, our_trainer, read_sentences

from arccse_hf.training.trainer import ArcCSETrainer

OBJECTIVES = {
    "SimCSE": {"angular_margin": 0.0, "triplet_weight": 0.0},
    "ArcCon": {"triplet_weight": 0.0},
    "ArcCSE": {"triplet_weight": 0.1},
    "ArcCSE, plain": {"triplet_weight": 0.1},
    "ArcCSE, Matryoshka": {"triplet_weight": 0.1, "prefixes": 4},
    "ArcCon, last 2 layers": {"triplet_weight": 0.0, "train_last_layers": 2},
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_run_options(parser)
    parser.add_argument("--triplet_min_tokens", type=int, default=25, help="shorter sentences get no triplet")
    parser.add_argument("--costly", type=float, default=0.05, help="share of triplets that are embedded again at least")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(argv)
    sentences = read_sentences(options.text, options.batch * (options.steps + 1))
    common = {"train_sampling_strategy": "sequential", "triplet_min_tokens": options.triplet_min_tokens}
    with TemporaryDirectory() as folder:
        path = open_model(options.model, sentences, folder)
        run = Run(path, sentences, options.length, options.batch, options.steps, options.bf16)

        @contextmanager
        def open_trainer(name: str) -> Iterator[ArcCSETrainer]:
            with our_trainer(run, **common, **OBJECTIVES[name]) as trainer:
                if name == "ArcCSE, plain":
                    trainer.model._embed_costly_triplets = trainer.model._embed_views
                embed_again(trainer, options.costly)
                yield trainer

        def meter_of(name: str) -> StepMeter:
            with open_trainer(name) as trainer:
                return metered(trainer)

        tokens, stages = {}, {}
        for name in OBJECTIVES:
            with open_trainer(name) as trainer:
                triplets = count_triplets(trainer)
                tokens[name] = metered(trainer, trainer.model.arccse).tokens.per(options.steps)
            if name == "ArcCSE":
                shares = {kind: triplets[kind] / max(triplets["all"], 1) for kind in ("violated", "embedded again")}
            with open_trainer(name) as trainer:
                stages[name] = stage_seconds(trainer, options.steps)
        meters = alternate({name: lambda name=name: meter_of(name) for name in OBJECTIVES}, options.repeats)

    wall = {name: [meter.seconds_per_step for meter in each] for name, each in meters.items()}
    processor = {name: [meter.cpu_seconds / meter.steps for meter in each] for name, each in meters.items()}
    over_simcse = {}
    for name in list(OBJECTIVES)[1:]:
        over_simcse[name] = {
            "time": median_ratio(wall[name], wall["SimCSE"]),
            "processor_time": median_ratio(processor[name], processor["SimCSE"]),
            "tokens": tokens[name].real / tokens["SimCSE"].real,
        }
        print(f"{name} over SimCSE: " + ", ".join(f"{key} {value:.3f}" for key, value in over_simcse[name].items()))
    print("triplets: " + ", ".join(f"{share:.1%} {kind}" for kind, share in shares.items()))
    for name, seconds in stages.items():
        print(f"{name}: " + ", ".join(f"{stage} {value:.3f} s" for stage, value in seconds.items()))
    write_report(
        options,
        tokens_per_step={name: asdict(counted) for name, counted in tokens.items()},
        triplets=shares,
        seconds_per_step=wall,
        processor_seconds_per_step=processor,
        over_simcse=over_simcse,
        stages=stages,
    )


def median_ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """Returns the median of the ratios of values that were measured beside each other."""
    return statistics.median(value / other for value, other in zip(values, others, strict=True))


def embed_again(trainer: ArcCSETrainer, share: float) -> None:
    """Has `trainer` embed at least this share of a batch's triplets again, those with the smallest gap."""
    head = trainer.model.triplet_head
    may_cost = head.may_cost

    def may_cost_or_nearest(embeddings: Tensor) -> Tensor:
        found = may_cost(embeddings)
        with torch.no_grad():
            _, closer, farther = head(embeddings)
        found[(closer - farther).argsort()[: math.ceil(share * len(found))]] = True
        return found

    head.may_cost = may_cost_or_nearest


def count_triplets(trainer: ArcCSETrainer) -> Counter:
    """Returns a counter of triplets, and of those that are violated or embedded again, which training fills."""
    counts, head = Counter(), trainer.model.triplet_head
    may_cost = head.may_cost

    def count_again(embeddings: Tensor) -> Tensor:
        found = may_cost(embeddings)
        if trainer.state.global_step > 0:
            _, closer, farther = head(embeddings)
            violated = int((farther > closer).sum())
            counts.update({"all": len(found), "violated": violated, "embedded again": int(found.sum())})
        return found

    head.may_cost = count_again
    return counts


def stage_seconds(trainer: ArcCSETrainer, steps: int) -> dict[str, float]:
    """Returns the processor seconds per step of each stage; what belongs to none of them is `rest`."""
    seconds, model = Counter(), trainer.model

    def timed(function: Callable, stage_of: Callable[..., str]) -> Callable:
        def call(*args, **kwargs):
            stage, start = stage_of(*args, **kwargs), time.process_time()
            result = function(*args, **kwargs)
            if trainer.state.global_step > 0:  # the first step sets up
                seconds[stage] += time.process_time() - start
            return result

        return call

    def views_or_triplets(*args, **kwargs) -> str:
        if model.arccse.training:
            return "views' forward"
        return "triplets' forward" if torch.is_grad_enabled() else "triplets' look"

    model._embed_views = timed(model._embed_views, views_or_triplets)
    if "_embed_costly_triplets" in vars(model):  # the plain way
        model._embed_costly_triplets = model._embed_views
    model.losses = timed(model.losses, lambda *_, **__: "losses")
    trainer.accelerator.backward = timed(trainer.accelerator.backward, lambda *_, **__: "backward")
    create = trainer.create_optimizer

    def create_timed(*args, **kwargs):
        optimizer = create(*args, **kwargs)
        optimizer.step = timed(optimizer.step, lambda *_, **__: "optimizer")
        return optimizer

    trainer.create_optimizer = create_timed
    meter = metered(trainer)
    stages = {stage: value / steps for stage, value in seconds.items()}
    return stages | {"rest": meter.cpu_seconds / steps - sum(stages.values())}


if __name__ == "__main__":
    main()
