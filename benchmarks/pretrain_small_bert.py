#!/usr/bin/env python
"""Trains a BERT on masked words: a base for studies that has never seen sentence supervision, or has lost it.

    python benchmarks/pretrain_small_bert.py --text sentences.txt --output runs/small-bert --minutes 150 --bf16
    python benchmarks/pretrain_small_bert.py --text sentences.txt --output runs/minilm-mlm --steps 960 --bf16 \
        --from_model sentence-transformers/all-MiniLM-L6-v2 --learning_rate 3e-4
    arccse study objectives --model_name_or_path runs/small-bert \
        --train_file sentences.txt --eval_data SENTEVAL --output_dir runs/studies/objectives-small-bert

Without `--from_model` the encoder and its WordPiece vocabulary are made of the text alone. Training ends after
`--minutes` or `--steps`; without `--steps` at the end of the text, with it the text is read again where it is too
short. Started again, it goes on from its last checkpoint: the minutes count anew, the steps do not.
`torchrun --nproc_per_node 2 --standalone` before the script uses both cores of a small machine.

Only masked positions go through the language model's head, which is by far the largest matrix of a small BERT; a batch
holds sentences of like length; dropout and attention are those that training on a CPU uses (`model/cpu_ops.py`).
"""

import argparse
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate.utils import broadcast
from datasets import load_dataset
from tokenizers import BertWordPieceTokenizer
from torch import Tensor
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.modeling_outputs import MaskedLMOutput
from transformers.trainer_utils import get_last_checkpoint

from arccse_hf.inference.loading import resolve_model_path
from arccse_hf.model.cpu_ops import UNFUSED_ATTENTION, FastCpuOps

NO_LABEL = -100


class MaskedPositions(BertForMaskedLM):
    """A BERT whose language model's head is computed at the masked positions only."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **_: object) -> MaskedLMOutput:
        """Returns the mean cross-entropy of the masked words; all tensors are `[batch, length]`."""
        with FastCpuOps() if input_ids.device.type == "cpu" else nullcontext():
            states = self.bert(input_ids, attention_mask=attention_mask).last_hidden_state
            masked = labels != NO_LABEL
            scores = self.cls(states[masked])
        return MaskedLMOutput(loss=F.cross_entropy(scores.float(), labels[masked], reduction="sum") / masked.sum())


class StopAfter(TrainerCallback):
    """Ends training, with a checkpoint, after a number of minutes."""

    def __init__(self, minutes: float):
        self.seconds = 60 * minutes

    def on_train_begin(self, args, state, control, **kwargs):
        self.end = time.monotonic() + self.seconds

    def on_step_end(self, args, state, control, **kwargs):
        # The first process decides: one that stopped alone would leave the others waiting for its gradients.
        if broadcast(torch.tensor(time.monotonic() > self.end, device=args.device)):
            control.should_training_stop = control.should_save = True


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", required=True, help="a file of sentences, one per line, may end in .gz")
    parser.add_argument("--output", type=Path, required=True, help="folder of the encoder and its tokenizer")
    parser.add_argument("--from_model", help="a BERT to go on from, instead of a new one")
    parser.add_argument("--minutes", type=float, default=math.inf, help="how long it trains; no limit by default")
    parser.add_argument("--steps", type=int, default=-1, help="how many steps it trains; else all text once")
    parser.add_argument("--vocabulary", type=int, default=16_000, help="words and pieces of words")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--max_length", type=int, default=64, help="tokens that a sentence is cut to")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning_rate", type=float, default=5e-4)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--use_cpu", action="store_true")
    parser.add_argument("--half", action="store_true", help="write the finished weights in float16, at half the size")
    options = parser.parse_args(argv)
    if (options.output / "config.json").exists():
        parser.error(f"--output {options.output}: is finished; choose another folder")

    checkpoints = options.output / "checkpoints"
    args = TrainingArguments(
        str(checkpoints),
        per_device_train_batch_size=options.batch,
        learning_rate=options.learning_rate,
        num_train_epochs=1,
        max_steps=options.steps,
        lr_scheduler_type="constant_with_warmup",  # where it will end is not known beforehand
        warmup_steps=100,
        logging_steps=50,
        save_steps=500,
        save_total_limit=2,
        train_sampling_strategy="group_by_length",
        bf16=options.bf16,
        use_cpu=options.use_cpu,
    )
    rows = load_dataset("text", data_files=options.text, split="train")
    with args.main_process_first(local=False):
        tokenizer = make_tokenizer(options, rows["text"])
        rows = rows.map(
            lambda batch: tokenizer(batch["text"], truncation=True, max_length=options.max_length),
            batched=True, remove_columns="text", desc="Tokenizing",
        )  # fmt: skip
    trainer = Trainer(
        make_model(options, len(tokenizer)),
        args,
        DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15),
        # A list: the sampler asks for the lengths one by one, which takes a dataset of a million rows ten minutes.
        [{"input_ids": row} for row in rows["input_ids"]],
        callbacks=[StopAfter(options.minutes)],
    )
    result = trainer.train(resume_from_checkpoint=get_last_checkpoint(checkpoints) if checkpoints.is_dir() else None)
    if trainer.is_world_process_zero():
        (trainer.model.bert.half() if options.half else trainer.model.bert).save_pretrained(options.output)
        tokenizer.save_pretrained(options.output)
        loss = result.training_loss
        print(f"{options.output}: {trainer.state.global_step} steps, masked language model loss {loss:.3f}")


def make_tokenizer(options: argparse.Namespace, texts: Sequence[str]) -> PreTrainedTokenizerBase:
    """Returns the tokenizer of the model to go on from, or a new one, which is kept beside the checkpoints."""
    kept = options.output / "checkpoints" / "tokenizer"
    if options.from_model or kept.is_dir():
        return AutoTokenizer.from_pretrained(resolve_model_path(options.from_model) if options.from_model else kept)
    words = BertWordPieceTokenizer(lowercase=True)
    words.train_from_iterator(texts, vocab_size=options.vocabulary, show_progress=True)
    tokenizer = BertTokenizer(vocab=words.get_vocab(), do_lower_case=True, model_max_length=options.max_length)
    tokenizer.save_pretrained(kept)
    return tokenizer


def make_model(options: argparse.Namespace, vocab_size: int) -> MaskedPositions:
    """Returns a new model, or one with a new head (its word vectors apart) on the encoder to go on from."""
    if options.from_model:
        path = resolve_model_path(options.from_model)
        return MaskedPositions.from_pretrained(path, dtype=torch.float32, attn_implementation=UNFUSED_ATTENTION)
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=options.width // 64,
        intermediate_size=4 * options.width,
        max_position_embeddings=max(128, options.max_length),
        attn_implementation=UNFUSED_ATTENTION,
    )
    return MaskedPositions(config)


if __name__ == "__main__":
    main()
