#!/usr/bin/env python
"""Training on one GPU: throughput, utilisation and memory by size, batch and mode, as JSON from one call.

    PYTHONPATH=. python benchmarks/gpu.py --output gpu.json
    PYTHONPATH=. python benchmarks/gpu.py --tiny --output gpu.json      # the same on a CPU, in a minute

Encoders have random weights. Each part is measured for itself; one that fails leaves its error in the JSON.

steps     a bare training step (ArcCon on pairs, AdamW) for BERT-base and BERT-large, in bfloat16 autocast and in
          float32: eager, in sub-batches of like length as training has it; padded, each batch in one piece; compiled,
          which is padded too. Batches of random tokens, whose lengths are log-normal as those of English Wikipedia
          sentences are (median 28 tokens), cut to --lengths. Batches above --plain_limit go through the gradient cache,
          in chunks of --chunk texts. Utilisation is that of `measuring.training_flops` on tokens that are not padding,
          over the best of some large square products in the same precision.
triplets  the eager step in bfloat16 with triplets, of which none is violated: exact, as training has it, where those
          alone that cost something are embedded again with a graph; plain, all of them with a graph; and without any.
trainers  `ArcCSETrainer` beside sentence-transformers' trainer on the same sentences, both in bfloat16, taking turns.

`steps` needs torch and transformers 5, and nothing of the package beyond its models and losses; `trainers` also
accelerate, datasets, sentence-transformers 6 and what else the package's trainer needs.
"""

import argparse
import gc
import random
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import product
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from measuring import Tokens, alternate, matmul_peak, synchronize, training_flops, write_report
from transformers import BertConfig

from arccse_hf import ArcCSEConfig, ArcCSEForContrastiveLearning
from arccse_hf.model import length_batching
from arccse_hf.training.grad_cache import GradCache

SHAPES = {
    "base": {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    "large": {"num_hidden_layers": 24, "hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096},
    "tiny": {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64},
}
TINY = {
    "shapes": ["tiny"], "batches": [4, 8], "plain_limit": 4, "chunk": 8, "steps": 1, "repeats": 2,
    "lengths": [32], "peak_sizes": [64], "trainer_batches": [4], "trainer_shape": "tiny",
}  # fmt: skip
MODES = ["eager", "padded", "compiled"]
PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
# Logarithm of the lengths of sentences of the English Wikipedia in BERT's tokens: mean and standard deviation.
LENGTHS = (3.34, 0.45)
VOCABULARY = 30_522
PARTS = ["steps", "triplets", "trainers"]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["base", "large"])
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 512, 4096])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--plain_limit", type=int, default=512, help="largest batch that goes without gradient cache")
    parser.add_argument("--chunk", type=int, default=1024, help="texts in a chunk of the gradient cache")
    parser.add_argument("--trainer_shape", choices=SHAPES, default="base")
    parser.add_argument("--trainer_batches", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--steps", type=int, default=5, help="training steps of one measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak_sizes", type=int, nargs="+", default=[4096, 8192, 16384], help="of the matrix products")
    parser.add_argument("--tiny", action="store_true", help="sizes that a CPU does in a minute")
    parser.add_argument("--output", help="where the JSON goes")
    options = parser.parse_args(argv)
    if options.tiny:
        vars(options).update(TINY)
    peaks = {name: matmul_peak(PRECISIONS[name], options.peak_sizes) for name in options.precisions}
    print({name: f"peak {peak / 1e12:.2f} TFLOP/s" for name, peak in peaks.items()}, flush=True)
    report = {"peak_flops_per_second": peaks}
    if "steps" in options.parts:
        report["steps"] = [
            {"shape": shape, "precision": precision, "length": length, "batch": batch, "mode": mode}
            | attempt(partial(measure_steps, shape, precision, length, batch, mode, options, peaks[precision]))
            for shape, precision, length, batch, mode in product(
                options.shapes, options.precisions, options.lengths, options.batches, options.modes
            )
        ]
    if "triplets" in options.parts:
        report["triplets"] = [
            {"shape": options.trainer_shape, "length": length, "batch": batch}
            | attempt(partial(compare_triplets, length, batch, options))
            for length, batch in product(options.lengths, options.trainer_batches)
        ]
    if "trainers" in options.parts:
        report["trainers"] = [
            {"shape": options.trainer_shape, "length": length, "batch": batch}
            | attempt(partial(compare_trainers, length, batch, options))
            for length, batch in product(options.lengths, options.trainer_batches)
        ]
    write_report(options, **report)


def attempt(measure: Callable[[], dict]) -> dict:
    """Returns what `measure` does, or the error that it ended with, so that the next part can go on."""
    try:
        result = measure()
    except Exception as error:  # whatever a size or a mode ends with (too little memory, a compiler) is its result
        result = {"error": f"{type(error).__name__}: {error}"[:1000]}
    print(result, flush=True)
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return result


def measure_steps(
    shape: str, precision: str, length: int, batch: int, mode: str, options: argparse.Namespace, peak: float
) -> dict:
    device, backbone, model, optimizer = random_model(shape)
    wrapped = torch.compile(model) if mode == "compiled" else model
    texts = random_texts(batch, length, device)
    autocast = partial(torch.autocast, device, torch.bfloat16, enabled=precision == "bf16")
    counted = Tokens()
    counted.add(texts["attention_mask"].flatten(0, 1))

    def step() -> None:
        if batch <= options.plain_limit:
            with autocast():
                loss = wrapped(pair=texts).arccon_loss
            loss.backward()
        else:
            cache = GradCache(wrapped, options.chunk, nullcontext)
            with autocast():
                embeddings = cache.embed(texts)
            model.losses(pair=embeddings).arccon_loss.backward()
            with autocast():
                cache.backward()
        optimizer.step()
        optimizer.zero_grad()

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    in_one_piece = dict.fromkeys(["_ON_A_CPU", "_ON_A_GPU"], (texts["input_ids"].numel(),) * 2)
    with patch.multiple(length_batching, **in_one_piece) if mode == "padded" else nullcontext():
        first = seconds(step, 2)
        values = [seconds(step, options.steps) / options.steps for _ in range(options.repeats)]
    median = statistics.median(values)
    flops = training_flops(model.arccse.encoder, backbone, counted)
    return {
        "grad_cache_chunk_size": options.chunk if batch > options.plain_limit else None,
        "real_tokens_per_step": counted.real,
        "padded_tokens_per_step": counted.computed,
        "first_two_steps_seconds": first,
        "seconds_per_step": values,
        "sentences_per_second": batch / median,
        "tokens_per_second": counted.real / median,
        "flops_per_step": flops,
        "utilisation": flops / median / peak,
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
    }


def compare_triplets(length: int, batch: int, options: argparse.Namespace) -> dict:
    device, _, model, optimizer = random_model(options.trainer_shape)
    pairs, others = random_texts(batch, length, device), random_texts(batch, length, device)
    # A text, itself, and another text: in the right order, whatever the weights are.
    triplets = {name: torch.cat([pairs[name], others[name][:, :1]], dim=1) for name in pairs}
    embed_costly = model._embed_costly_triplets

    def step(embed_triplets: Callable | None) -> None:
        model._embed_costly_triplets = embed_triplets
        with torch.autocast(device, torch.bfloat16):
            outputs = model(pair=pairs, triplet=triplets if embed_triplets else None)
        loss = outputs.arccon_loss if outputs.triplet_loss is None else outputs.arccon_loss + outputs.triplet_loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    ways = {"pairs alone": None, "exact": embed_costly, "plain": model._embed_views}
    for embed_triplets in ways.values():
        seconds(partial(step, embed_triplets), 2)
    sides = {name: partial(seconds, partial(step, way), options.steps) for name, way in ways.items()}
    values = alternate(sides, options.repeats)
    median = {name: statistics.median(taken) for name, taken in values.items()}
    return {
        "seconds": values,
        "exact_to_pairs_alone": median["exact"] / median["pairs alone"],
        "plain_to_pairs_alone": median["plain"] / median["pairs alone"],
    }


def random_model(shape: str) -> tuple[str, BertConfig, ArcCSEForContrastiveLearning, torch.optim.Optimizer]:
    """Returns the device, and on it a model with random weights that trains."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    backbone = BertConfig(vocab_size=VOCABULARY, **SHAPES[shape])
    model = ArcCSEForContrastiveLearning(ArcCSEConfig(backbone_config=backbone, pooling="mean")).to(device).train()
    return device, backbone, model, torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)


def seconds(step: Callable[[], None], steps: int) -> float:
    synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    synchronize()
    return time.perf_counter() - start


def random_texts(batch: int, length: int, device: str) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask` `[batch, 2, length]`: random tokens, each text twice."""
    lengths = torch.empty(batch).log_normal_(*LENGTHS).long().clamp(4, length)
    attention_mask = (torch.arange(length) < lengths[:, None]).long()
    input_ids = torch.randint(1000, VOCABULARY, (batch, length)) * attention_mask
    texts = {"input_ids": input_ids, "attention_mask": attention_mask}
    return {name: values[:, None].repeat(1, 2, 1).to(device) for name, values in texts.items()}


def compare_trainers(length: int, batch: int, options: argparse.Namespace) -> dict:
    from trainers import Run, random_bert, time_ours, time_theirs  # needs more packages than the other part

    generator = random.Random(0)
    words = [f"word{number}" for number in range(VOCABULARY - 5)]
    sentences = [
        " ".join(generator.choices(words, k=max(2, int(generator.lognormvariate(*LENGTHS)))))
        for _ in range(batch * (options.steps + 1))
    ]
    with TemporaryDirectory() as folder:
        random_bert(folder, words, **SHAPES[options.trainer_shape])
        run = Run(folder, sentences, length, batch, options.steps, bf16=True)
        sides = {"arccse_hf": partial(time_ours, run), "sentence-transformers": partial(time_theirs, run)}
        seconds = alternate(sides, options.repeats)
    rate = {name: batch / statistics.median(values) for name, values in seconds.items()}
    return {
        "seconds_per_step": seconds,
        "sentences_per_second": rate,
        "ratio": rate["arccse_hf"] / rate["sentence-transformers"],
    }


if __name__ == "__main__":
    main()
