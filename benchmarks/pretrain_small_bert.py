#!/usr/bin/env python
"""Pretrain a small BERT by masked language modelling: a base for studies that has never seen sentence supervision.

    python benchmarks/pretrain_small_bert.py --text sentences.txt --output runs/small-bert --minutes 10
    arccse study objectives --model_name_or_path runs/small-bert \
        --train_file sentences.txt --eval_data SENTEVAL --output_dir runs/studies/objectives-small-bert

Its WordPiece vocabulary is learned from the text too. Training ends after --minutes, or one pass over the text.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from datasets import load_dataset
from tokenizers import BertWordPieceTokenizer
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


class StopAfter(TrainerCallback):
    """Ends training after a number of minutes."""

    def __init__(self, minutes: float):
        self.seconds = 60 * minutes

    def on_train_begin(self, args, state, control, **kwargs):
        self.end = time.monotonic() + self.seconds

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = time.monotonic() > self.end


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", required=True, help="a file of sentences, one per line, may end in .gz")
    parser.add_argument("--output", required=True, help="folder of the encoder and its tokenizer")
    parser.add_argument("--minutes", type=float, default=10, help="how long it trains at most")
    parser.add_argument("--vocabulary", type=int, default=16_000, help="words and pieces of words")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--max_length", type=int, default=64, help="tokens that a sentence is cut to")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning_rate", type=float, default=5e-4)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--use_cpu", action="store_true")
    options = parser.parse_args(argv)
    if Path(options.output).is_dir() and any(Path(options.output).iterdir()):
        parser.error(f"--output {options.output}: is not empty; choose another folder")

    rows = load_dataset("text", data_files=options.text, split="train")
    words = BertWordPieceTokenizer(lowercase=True)
    words.train_from_iterator(rows["text"], vocab_size=options.vocabulary, show_progress=True)
    tokenizer = BertTokenizer(vocab=words.get_vocab(), do_lower_case=True, model_max_length=options.max_length)
    rows = rows.map(
        lambda batch: {"input_ids": tokenizer(batch["text"], truncation=True)["input_ids"]},
        batched=True, remove_columns="text", desc="Tokenizing",
    )  # fmt: skip

    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=options.width // 64,
        intermediate_size=4 * options.width,
        max_position_embeddings=max(128, options.max_length),
    )
    args = TrainingArguments(
        options.output,
        per_device_train_batch_size=options.batch,
        learning_rate=options.learning_rate,
        num_train_epochs=1,
        lr_scheduler_type="constant_with_warmup",  # where it will end is not known beforehand
        warmup_steps=100,
        logging_steps=50,
        save_strategy="no",
        bf16=options.bf16,
        use_cpu=options.use_cpu,
    )
    trainer = Trainer(
        BertForMaskedLM(config), args, DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15), rows,
        callbacks=[StopAfter(options.minutes)],
    )  # fmt: skip
    result = trainer.train()
    trainer.model.bert.save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)
    print(f"{options.output}: {trainer.state.global_step} steps, masked language model loss {result.training_loss:.3f}")


if __name__ == "__main__":
    main()
