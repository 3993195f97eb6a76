"""The verdict: is the trained encoder better than the one it started from, on texts that neither has seen?

Mixtures of both weights are compared on a validation part. The one that was chosen there is compared with the start
encoder on a test part, which chose nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor, nn

from ..errors import UserError
from ..evaluation.bm25 import baseline_ranks
from ..evaluation.bootstrap import PerItemScores, bootstrap_differences, interval
from ..evaluation.retrieval import RetrievalTask, normalize, score_ranks
from ..evaluation.suite import Task, fingerprint
from ..evaluation.tables import label
from .mixtures import choose_mixture

Outcome = Literal["better", "no clear difference", "worse"]
Embed = Callable[[Sequence[str]], np.ndarray]

START, TRAINED, EXPORTED, WORDS, BOTH = "start encoder", "trained encoder", "mixture", "BM25", "mixture + BM25"
RESAMPLES = 10_000
EXAMPLE_TEXTS = 3
EXAMPLES_TRIED = 100


class VerdictTasks(NamedTuple):
    """What the verdict is measured on.

    Attributes:
        validation: Chooses the mixture; None where there is too little for it: the trained weights are judged.
        test: Gives the verdict.
        control: A task of another kind, which shows what was forgotten.
        queries: What the test's queries are: "titles", "own queries".
    """

    validation: RetrievalTask | None
    test: RetrievalTask
    control: Task | None = None
    queries: str = "queries"

    @property
    def texts(self) -> list[str]:
        """What training may not see: all but the further documents of the corpus, which are only searched."""
        pairs = [text for task in (self.validation, self.test) if task is not None for text in task.pair_texts]
        return [*pairs, *(self.control.sentences if self.control is not None else ())]


@dataclass
class Example:
    """A query, its own text, and the texts that are nearest to it before and after training."""

    query: str
    own: str
    before: list[str]
    after: list[str]


@dataclass
class Verdict:
    """What became of the start encoder.

    Attributes:
        outcome: Of the mixture against the start encoder.
        queries: What the test's queries are.
        pairs: Number of them.
        scores: By row (start encoder, trained encoder, mixture, BM25, mixture + BM25) and metric.
        difference: MRR@10 of the mixture minus that of the start encoder.
        low: The lower end of its 95 % interval.
        high: The upper end.
        share: Of the trained weights in the mixture.
        validation: MRR@10 on the validation part by share; empty where it was too small to choose by.
        control: Its name, and its main metric before and after; None where there is none.
        notes: What could not be measured, and what to do about it.
        example: The first query whose nearest texts have changed.
        test: Hash of the test's texts: verdicts can be compared where it is the same.
    """

    outcome: Outcome
    queries: str
    pairs: int
    scores: dict[str, dict[str, float]]
    difference: float
    low: float
    high: float
    share: float = 1.0
    validation: dict[float, float] = field(default_factory=dict)
    control: tuple[str, float, float] | None = None
    notes: list[str] = field(default_factory=list)
    example: Example | None = None
    test: str = ""

    @property
    def keeps_start(self) -> bool:
        """Whether the start encoder is what is exported."""
        return self.outcome == "worse" or self.share == 0

    @property
    def line(self) -> str:
        """The verdict in one line."""
        before, after = (self.scores[row]["mrr_at_10"] for row in (START, EXPORTED))
        parts = [
            f"VERDICT: {self.outcome}",
            f"retrieval MRR@10 {before:.3f} -> {after:.3f} "
            f"({self.difference:+.3f}, 95 % {self.low:+.3f} to {self.high:+.3f})",
        ]
        if WORDS in self.scores:
            parts.append(f"BM25 {self.scores[WORDS]['mrr_at_10']:.3f}")
        if self.control:
            parts.append("{} {:.1f} -> {:.1f}".format(self.control[0], *(100 * value for value in self.control[1:])))
        if self.keeps_start:
            parts.append("the start encoder is kept")
        return " · ".join(parts)

    def metrics(self) -> dict[str, float]:
        """Returns MRR@10 on the test part as a run's results name it: of the start, of what is exported, as trained."""
        start, trained, mixture = (self.scores[row]["mrr_at_10"] for row in (START, TRAINED, EXPORTED))
        return {
            "before_verdict_mrr_at_10": start,
            "eval_verdict_mrr_at_10": start if self.keeps_start else mixture,
            "eval_verdict_trained_mrr_at_10": trained,
        }

    def as_dict(self) -> dict[str, object]:
        """For a JSON file."""
        validation = {f"{share:g}": score for share, score in self.validation.items()}
        return asdict(self) | {"validation": validation, "line": self.line, "keeps_start": self.keeps_start}


def compare(before: PerItemScores, after: PerItemScores, seed: int = 0) -> tuple[Outcome, float, float, float]:
    """Says whether `after` is better than `before` on the same units, by a paired bootstrap.

    Returns:
        The outcome, the difference of the means, and its 95 % interval, which decides: "better" above 0, "worse" below.
    """
    difference = float(after.values.mean() - before.values.mean())
    low, high = interval(bootstrap_differences(after, before, resamples=RESAMPLES, seed=seed))
    outcome: Outcome = "better" if low > 0 else "worse" if high < 0 else "no clear difference"
    return outcome, difference, low, high


def judge(
    model: nn.Module, start: Mapping[str, Tensor], embed: Embed, tasks: VerdictTasks, *, seed: int = 0
) -> Verdict:
    """Chooses a mixture, measures it, and leaves in `model` what is to be exported.

    Args:
        model: The trained model.
        start: The weights that it started from.
        embed: Embeds texts with `model` as it is at the time: `[texts, dim]`.
        tasks: What to measure.
        seed: Of the bootstrap.
    """
    test = tasks.test
    trained = embed(test.sentences)
    share, validation = 1.0, dict[float, float]()
    if tasks.validation is not None:
        chosen_by = tasks.validation
        share, validation = choose_mixture(
            model, start, lambda: chosen_by.score(embed(chosen_by.sentences))["mrr_at_10"]
        )
    mixture = trained if share == 1 else embed(test.sentences)
    control_after = _control_score(tasks.control, embed)
    mixed = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
    model.load_state_dict(start)
    untrained = embed(test.sentences)
    control_before = _control_score(tasks.control, embed)

    rows, samples = {}, {}
    for name, embeddings in ((START, untrained), (TRAINED, trained), (EXPORTED, mixture)):
        rows[name], samples[name] = test.score_with_samples(embeddings)
    notes = []
    try:
        for name, ranks in zip((WORDS, BOTH), baseline_ranks(test, mixture), strict=True):
            rows[name] = score_ranks(ranks)[0]
    except UserError as error:
        notes.append(str(error))
    outcome, difference, low, high = compare(samples[START], samples[EXPORTED], seed)
    verdict = Verdict(
        outcome=outcome,
        queries=tasks.queries,
        pairs=test.num_queries,
        scores=rows,
        difference=difference,
        low=low,
        high=high,
        share=share,
        validation=validation,
        control=None if tasks.control is None else (label(tasks.control.name), control_before, control_after),
        notes=notes,
        example=_example(test, untrained, mixture),
        test=fingerprint(test),
    )
    if WORDS in rows and rows[WORDS]["mrr_at_10"] > rows[START if verdict.keeps_start else EXPORTED]["mrr_at_10"]:
        notes.append("BM25, which needs no model, ranks these queries' texts higher")
    if not verdict.keeps_start:
        model.load_state_dict(mixed)
    return verdict


def _control_score(control: Task | None, embed: Embed) -> float:
    return control.score(embed(list(control.sentences)))[control.main_metrics[0]] if control is not None else 0.0


def _example(test: RetrievalTask, before: np.ndarray, after: np.ndarray) -> Example | None:
    nearest = []
    for embeddings in (before, after):
        queries, documents = np.split(normalize(embeddings), [test.num_queries])
        cosines = queries[:EXAMPLES_TRIED] @ documents.T
        nearest.append(np.argsort(-cosines, axis=1, kind="stable")[:, :EXAMPLE_TEXTS])
    changed = np.flatnonzero((nearest[0] != nearest[1]).any(axis=1))
    if not len(changed):
        return None
    first = changed[0]
    texts = [[test.documents[index] for index in places[first]] for places in nearest]
    return Example(test.queries[first], test.documents[test.own[first]], *texts)
