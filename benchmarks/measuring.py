"""What the measuring scripts share: the clock of a training run, floating point operations, the machine, the JSON."""

import gc
import json
import math
import os
import platform
import re
import shlex
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig, TrainerCallback


@dataclass
class Tokens:
    """The number of tokens that went through an encoder.

    Args:
        real: Tokens that are not padding.
        computed: Tokens with the padding that was computed.
        squares: The sum over sentences of the square of their real tokens, for the cost of attention.
    """

    real: float = 0
    computed: float = 0
    squares: float = 0

    def add(self, attention_mask: torch.Tensor) -> None:
        lengths = attention_mask.sum(-1)
        self.real += int(lengths.sum())
        self.computed += attention_mask.numel()
        self.squares += int(lengths.square().sum())

    def per(self, steps: int) -> "Tokens":
        return Tokens(self.real / steps, self.computed / steps, self.squares / steps)


class StepMeter(TrainerCallback):
    """A callback of any Trainer that times the steps after the first one, which includes the set-up.

    Args:
        encoder: A module that takes `attention_mask` by name, whose tokens are counted; None in a run that is timed.
    """

    def __init__(self, encoder: nn.Module | None = None):
        self.seconds, self.cpu_seconds, self.steps, self.tokens = 0.0, 0.0, 0, Tokens()
        if encoder is not None:
            encoder.register_forward_pre_hook(
                lambda module, inputs, named: self.tokens.add(named["attention_mask"]), with_kwargs=True
            )

    def on_step_end(self, args, state, control, **kwargs):
        synchronize()
        if state.global_step == 1:
            self._start, self._cpu_start, self.tokens = time.perf_counter(), time.process_time(), Tokens()
        self.steps = state.global_step - 1
        self.seconds, self.cpu_seconds = time.perf_counter() - self._start, time.process_time() - self._cpu_start

    @property
    def seconds_per_step(self) -> float:
        return self.seconds / self.steps

    @property
    def cores_used(self) -> float:
        """Processor seconds per second: on a CPU, fewer than the threads mean that other work had the cores."""
        return self.cpu_seconds / self.seconds


def synchronize() -> None:
    """Waits until the GPU, if there is one, has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def alternate(sides: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Returns what each side measures, `repeats` times.

    The sides take turns, so that a slow phase of the machine affects all of them. No side begins with memory that
    another one has left.
    """
    values: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, measure in sides.items():
            gc.collect()  # trainers hold themselves in cycles
            values[name].append(measure())
    return values


def training_flops(encoder: nn.Module, config: PreTrainedConfig, tokens: Tokens) -> float:
    """Returns the floating point operations of a training step (forward and backward) on real tokens.

    These are 6 N per token for the N weights that are not embeddings, and 12 * layers * hidden size * length per token
    for attention (Kaplan et al. 2020, section 2.1; Chowdhery et al. 2022, PaLM, appendix B). What is computed twice to
    save memory, as with a gradient cache, counts once.
    """
    embeddings = {id(weight) for module in encoder.modules() if isinstance(module, nn.Embedding)
                  for weight in module.parameters()}  # fmt: skip
    weights = sum(weight.numel() for weight in encoder.parameters() if id(weight) not in embeddings)
    return 6 * weights * tokens.real + 12 * config.num_hidden_layers * config.hidden_size * tokens.squares


def matmul_peak(dtype: torch.dtype, sizes: Sequence[int], repeats: int = 5) -> float:
    """Returns the FLOP/s of the fastest of some square matrix products (2 n^3 operations): the practical peak."""
    best, device = 0.0, "cuda" if torch.cuda.is_available() else "cpu"
    for size in sizes:
        left, right = torch.randn(2, size, size, device=device, dtype=dtype)
        for _ in range(repeats):
            synchronize()
            start = time.perf_counter()
            left @ right
            synchronize()
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def resident_bytes(peak: bool = False) -> int:
    """Returns the memory that is resident in this process now, or at its peak (Linux).

    Unlike getrusage's, this peak does not include that of the process that started this one.
    """
    field = "VmHWM" if peak else "VmRSS"
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Returns p of the power law seconds ~ sizes^p, by least squares on logarithms; 1 is linear."""
    return statistics.linear_regression(list(map(math.log, sizes)), list(map(math.log, seconds))).slope


def machine() -> dict[str, Any]:
    """Returns a description of the machine and the versions of the measurement."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def processor() -> str:
    """Returns the name of the processor and its wide units, which decide how much bfloat16 gains."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    fields = dict(map(str.strip, line.split(":", 1)) for line in reversed(lines) if ":" in line)
    units = [unit for unit in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if unit in fields.get("flags", "").split()]
    return f"{fields.get('model name', platform.processor())} ({' '.join(units)})"


def write_report(options: Namespace, **results: Any) -> None:
    """Writes the command, its options, the machine and the results to `--output`, if it is given."""
    if options.output:
        command = shlex.join(["python", *sys.argv])
        report = {"command": command, "date": date.today().isoformat(), "options": vars(options), "machine": machine()}
        Path(options.output).write_text(json.dumps(report | results, indent=2, default=vars) + "\n")
