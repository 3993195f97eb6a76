"""The verdict at the end of a run: measured with the trained model, shown on screen and in the model card."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..evaluation.suite import TaskSuite
from ..evaluation.tables import label
from ..inference.embed import TrainingEncoder, embed_here
from ..model.modeling_arccse import ArcCSEForContrastiveLearning
from .arguments import ArcCSETrainingArguments, DataArguments
from .trainer_inputs import input_length
from .verdict import Embed, Verdict, VerdictTasks, judge

logger = logging.getLogger("arccse_hf")

COLUMNS = ("mrr_at_10", "recall_at_1", "recall_at_10", "ndcg_at_10")
EXAMPLE_CHARS = 100


def judge_trained(
    model: ArcCSEForContrastiveLearning,
    start: Mapping[str, Tensor],
    tokenizer: PreTrainedTokenizerBase,
    tasks: VerdictTasks,
    data_args: DataArguments,
    args: ArcCSETrainingArguments,
) -> Verdict:
    """Returns the verdict on a trained model, and leaves in it the weights that are to be exported.

    Args:
        model: As it was trained.
        start: Its weights before training.
        tokenizer: Its tokenizer.
        tasks: What to measure.
        data_args: What it was trained on, for the advice.
        args: How it was trained, and the device.
    """
    chosen_by = f" and mixtures on {tasks.validation.num_queries:,}" if tasks.validation else ""
    logger.info(f"judging on {tasks.test.num_queries:,} {tasks.queries}{chosen_by}")
    verdict = judge(model, start, _embedder(model, tokenizer, args), tasks, seed=args.seed)
    model.cpu()
    if verdict.keeps_start:
        verdict.notes.append(f"to try: {advice(data_args, args)}")
    return verdict


def measure_exported(
    model: ArcCSEForContrastiveLearning,
    tokenizer: PreTrainedTokenizerBase,
    suite: TaskSuite,
    args: ArcCSETrainingArguments,
    autocast: Callable[[], AbstractContextManager],
) -> dict[str, float]:
    """Returns the metrics of a model with other weights than those that training measured last, by name.

    Args:
        model: As it is exported.
        tokenizer: Its tokenizer.
        suite: What to measure.
        args: How it was trained, and the device.
        autocast: The precision that training measured in.
    """
    with autocast():  # for the encoder alone: it would round the products of the scores, too
        embeddings = _embedder(model, tokenizer, args)(suite.sentences)
    model.cpu()
    return suite.flatten(suite.score(embeddings))


def _embedder(
    model: ArcCSEForContrastiveLearning, tokenizer: PreTrainedTokenizerBase, args: ArcCSETrainingArguments
) -> Embed:
    model.eval().to(args.device)
    encoder = TrainingEncoder(model, tokenizer, input_length(model, tokenizer, args.max_seq_length))

    def embed(texts: Sequence[str]) -> np.ndarray:
        batch_size = args.per_device_eval_batch_size
        return embed_here(encoder, texts, batch_size=batch_size, after_batch=lambda _: None).cpu().numpy()

    return embed


def advice(data_args: DataArguments, args: ArcCSETrainingArguments) -> str:
    """Returns what may do better than a run that made nothing better."""
    ways = []
    if data_args.pairs in ("crops", "dropout", "adjacent"):
        ways.append("--pairs title, where the documents have titles")
    if args.anchor_weight == 0:
        ways.append("--anchor_weight 1")
    if args.train_last_layers is None and args.lora_r is None and not args.activation_checkpointing:
        ways.append("--train_last_layers 2")
    return ", ".join([*ways, f"a --learning_rate below {args.learning_rate:g}", "fewer steps"])


def show_verdict(verdict: Verdict, console: Console) -> None:
    """Prints the scores, an example, and last the verdict in one line."""
    table = Table(title=f"retrieval, {verdict.pairs:,} {verdict.queries} that training has not seen")
    for number, name in enumerate(("", *map(label, COLUMNS))):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in _rows(verdict):
        table.add_row(*row)
    console.print(table)
    if verdict.example is not None:
        console.print(
            f"the query {_short(verdict.example.query)!r} finds", markup=False, highlight=False, soft_wrap=True
        )
        for when, texts in (("before", verdict.example.before), ("after", verdict.example.after)):
            for place, text in enumerate(texts, start=1):
                own = "*" if text == verdict.example.own else " "
                line = f"  {when if place == 1 else '':<6} {place}{own} {_short(text)}"
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print("  * is the query's own text\n", markup=False, highlight=False)
    for note in verdict.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    console.print(verdict.line, style="bold", markup=False, highlight=False, soft_wrap=True)


def verdict_section(verdict: Verdict) -> str:
    """Returns the verdict as Markdown for the model card."""
    lines = [
        verdict.line,
        "",
        f"Measured on {verdict.pairs:,} {verdict.queries} that training has not seen"
        + ("; the mixture (a = weight of the trained model) was chosen on others." if verdict.validation else "."),
        "",
        f"| | {' | '.join(map(label, COLUMNS))} |",
        f"|---|{'---:|' * len(COLUMNS)}",
        *(f"| {' | '.join(row)} |" for row in _rows(verdict)),
    ]
    if verdict.validation:
        tried = ", ".join(f"{share:g}: {score:.3f}" for share, score in verdict.validation.items())
        lines += ["", f"MRR@10 on the validation part by a: {tried}."]
    return "\n".join(lines)


def _rows(verdict: Verdict) -> list[list[str]]:
    mixture = f"mixture (a = {verdict.share:g})"
    return [
        [name.replace("mixture", mixture), *(f"{scores[metric]:.3f}" for metric in COLUMNS)]
        for name, scores in verdict.scores.items()
    ]


def _short(text: str) -> str:
    return text if len(text) <= EXAMPLE_CHARS else f"{text[: EXAMPLE_CHARS - 3]}..."
