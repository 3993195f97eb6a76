#!/usr/bin/env python
"""Where the time of a training step goes, and how much of the machine's matrix-product peak it uses.

    python benchmarks/step_profile.py --text sentences.txt --output step_profile.json

Runs of the same steps of `ArcCSETrainer`: some that are only timed, of which the median counts, one that counts the
tokens, one under torch.profiler. An operation belongs to the innermost group that its name or a name around it stands
for; an operation of the backward pass belongs to the group of the operation whose gradient it computes. Shares are of
the profiled steps' time, which the profiler makes longer; what is outside of operations is Python's, or the device's
waiting.

Model FLOP utilisation is the operations that the formula of `measuring.training_flops` gives for the real tokens
(padding is waste, not work), over the time of a step that is only timed, over the best of some large square matrix
products in the same precision, measured before each of these runs and after the last.
"""

import argparse
import re
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from measuring import matmul_peak, synchronize, training_flops, write_report
from torch import nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function
from trainers import Run, add_run_options, count_tokens, metered, open_model, our_trainer, read_sentences
from transformers import AttentionInterface, TrainerCallback

from arccse_hf.model import cpu_ops

# An operation anywhere within one of these ranges belongs to it. Norms outside the loss belong to gradient clipping.
RANGES = {
    "loss": r"measured loss",
    "optimiser": r"Optimizer\.|_foreach_|linalg_vector_norm",
    "data loading": r"DataLoader",
}
# Of these the innermost decides.
GROUPS = {
    "dropout": r"dropout|bernoulli",
    "attention": r"scaled_dot_product|softmax|\bbmm\b|baddbmm|flash_attn",
    "matmul": r"::(linear|mm|addmm|mkldnn_\w*linear\w*|_addmm_activation)$",
    "layer norm": r"layer_norm",
    "gelu": r"gelu",
    "embedding": r"embedding|index_select",
    "casts and copies": r"::(to|_to_copy|copy_|contiguous|clone)$",
    "gradient sums": r"AccumulateGrad",
}
_BACKWARD = "autograd::engine::evaluate_function: "


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_run_options(parser)
    parser.add_argument("--triplets", action="store_true", help="with the triplet objective")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak_sizes", type=int, nargs="+", default=[1024, 2048, 4096], help="of the matrix products")
    options = parser.parse_args(argv)
    settings = {"triplet_weight": 0.1 if options.triplets else 0.0}
    sentences = read_sentences(options.text, options.batch * (options.steps + 1))
    with TemporaryDirectory() as folder:
        path = open_model(options.model, sentences, folder)
        run = Run(path, sentences, options.length, options.batch, options.steps, options.bf16)
        dtype = torch.bfloat16 if options.bf16 else torch.float32
        timed, peaks = [], [matmul_peak(dtype, options.peak_sizes)]
        for _ in range(options.repeats):
            with our_trainer(run, **settings) as trainer:
                timed.append(metered(trainer))
            peaks.append(matmul_peak(dtype, options.peak_sizes))
        tokens = count_tokens(run, **settings)
        with our_trainer(run, **settings) as trainer:
            flops = training_flops(trainer.model.arccse.encoder, trainer.model.config.backbone_config, tokens)
            profiled = profile_steps(trainer, options.steps)
    each = [meter.seconds_per_step for meter in timed]
    seconds, cores_used = statistics.median(each), min(meter.cores_used for meter in timed)
    rate = flops / seconds
    padding = 1 - tokens.real / tokens.computed
    print(f"{seconds:.3f} s per step: {options.batch / seconds:.1f} sentences/s, {tokens.real / seconds:.0f} tokens/s")
    print(f"{cores_used:.2f} cores used by {torch.get_num_threads()} threads")
    print(f"{tokens.real} tokens per step, and {padding:.1%} padding")
    print(f"{rate / 1e9:.1f} GFLOP/s of {max(peaks) / 1e9:.1f}: utilisation {rate / max(peaks):.1%}")
    for group, share in profiled["shares"].items():
        print(f"{share:7.1%}  {group}")
    write_report(
        options,
        seconds_per_step=each,
        cores_used=cores_used,
        tokens_per_step=asdict(tokens) | {"padding": padding},
        flops_per_step=flops,
        peak_flops_per_second=peaks,
        utilisation=rate / max(peaks),
        **profiled,
    )


class _Profiled(TrainerCallback):
    """Profiles the steps after the first."""

    def __init__(self, last_step: int):
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
        self.profiler, self.last_step = profile(activities=activities), last_step

    def on_step_end(self, args, state, control, **kwargs):
        synchronize()
        if state.global_step == 1:
            self.profiler.start()
        if state.global_step == self.last_step:
            self.profiler.stop()


def profile_steps(trainer, steps: int) -> dict:
    """Returns the seconds per step of each group, and of the slowest operations, in a profiled run of `trainer`."""
    for head in (trainer.model.arccon_head, trainer.model.triplet_head):
        mark(head, "measured loss")
    profiled = _Profiled(steps + 1)
    trainer.add_callback(profiled)
    # These are made of many operations that others use too.
    dropout, attention = cpu_ops.fast_dropout, cpu_ops.unfused_attention
    AttentionInterface.register(cpu_ops.UNFUSED_ATTENTION, record_function("attention")(attention))
    with patch.object(cpu_ops, "fast_dropout", record_function("dropout")(dropout)):
        meter = metered(trainer)
    AttentionInterface.register(cpu_ops.UNFUSED_ATTENTION, attention)

    events = [event for event in profiled.profiler.events() if event.device_type == torch.autograd.DeviceType.CPU]
    forward = makers(events)
    device = torch.cuda.is_available()
    groups, operations, calls = defaultdict(float), defaultdict(float), defaultdict(int)
    for event in events:
        seconds = (event.self_device_time_total if device else event.self_cpu_time_total) / 1e6 / steps
        group = group_of(list(names_around(event, forward)))
        groups[group] += seconds
        operations[group, event.name] += seconds
        calls[group, event.name] += 1
    groups["outside operations"] = max(meter.seconds_per_step - sum(groups.values()), 0.0)
    by_time = sorted(groups.items(), key=lambda item: -item[1])
    slowest = sorted(operations.items(), key=lambda item: -item[1])[:40]
    return {
        "profiled_seconds_per_step": meter.seconds_per_step,
        "seconds": dict(by_time),
        "shares": {group: seconds / sum(groups.values()) for group, seconds in by_time},
        "operations": [
            {"group": key[0], "name": key[1], "seconds": seconds, "calls": calls[key] / steps}
            for key, seconds in slowest
        ],
    }


def mark(module: nn.Module, name: str) -> None:
    """Encloses the forward pass of `module` in a range of that name."""
    ranges = []

    def enter(*_):
        ranges.append(record_function(name))
        ranges[-1].__enter__()

    module.register_forward_pre_hook(enter)
    module.register_forward_hook(lambda *_: ranges.pop().__exit__(None, None, None))


def makers(events: Sequence[FunctionEvent]) -> dict[tuple[int, int], FunctionEvent]:
    """Returns the forward operation behind each node of the backward pass, by sequence number and thread.

    Several operations can start at one number. The last of them is the one: after it, the number increases.
    """
    forward = {}
    for event in sorted(events, key=lambda event: event.time_range.start):
        if event.sequence_nr >= 0 and not any(name.startswith(_BACKWARD) for name in names_around(event)):
            forward[event.sequence_nr, event.thread] = event
    return forward


def names_around(event: FunctionEvent, forward: dict[tuple[int, int], FunctionEvent] | None = None) -> Iterator[str]:
    """Yields the names of an operation and of those around it, from the inside out.

    With the result of `makers`, the names of a backward operation are followed by those of the operation whose gradient
    it computes.
    """
    while event is not None:
        yield event.name
        if forward and event.name.startswith(_BACKWARD):
            event, forward = forward.get((event.sequence_nr, event.fwd_thread)), None
        else:
            event = event.cpu_parent


def group_of(names: Sequence[str]) -> str:
    if names[0] in ("aten::add", "aten::add_") and names[1:] and names[1].startswith(_BACKWARD):
        return "gradient sums"  # autograd adds up what reaches one weight or state from several uses
    ranges = (first_match(name, "range") for name in names)
    groups = (first_match(name, "group") for name in names)
    return next(filter(None, ranges), None) or next(filter(None, groups), "other")


@cache
def first_match(name: str, kind: str) -> str | None:
    patterns = RANGES if kind == "range" else GROUPS
    return next((group for group, pattern in patterns.items() if re.search(pattern, name, re.IGNORECASE)), None)


if __name__ == "__main__":
    main()
