"""The verdict on hand-made embeddings, of which it is known whether they are better."""

import numpy as np
import torch
from torch import nn

from arccse_hf.evaluation.bootstrap import PerItemScores
from arccse_hf.evaluation.retrieval import RetrievalTask
from arccse_hf.training import verdict as verdict_module
from arccse_hf.training.verdict import VerdictTasks, compare, judge

DIM = 24


def task(name, pairs):
    return RetrievalTask(name, [(f"{name} query {number}", f"{name} text {number}") for number in range(pairs)])


def noisy(retrieval, noise, seed):
    """Documents in random directions, and each query its document and some noise."""
    rng = np.random.default_rng(seed)
    documents = np.random.default_rng(retrieval.num_queries).normal(size=(retrieval.num_queries, DIM))
    return np.r_[documents + noise * rng.normal(size=documents.shape), documents].astype(np.float32)


def outcome(before, after, seed, pairs=300):
    retrieval = task("t", pairs)
    samples = [
        retrieval.score_with_samples(noisy(retrieval, noise, (seed, number)))[1]
        for number, noise in enumerate((before, after))
    ]
    return compare(*samples, seed=seed)


def test_better_and_worse_embeddings_are_told_from_each_other():
    for seed in range(5):
        assert outcome(2.0, 1.4, seed)[0] == "better"
        kind, difference, low, high = outcome(1.4, 2.0, seed)
        assert kind == "worse"
        assert low < difference < high < 0


def test_equal_embeddings_are_called_better_in_5_of_100_seeds_at_most(monkeypatch):
    monkeypatch.setattr(verdict_module, "RESAMPLES", 1_000)
    kinds = [outcome(1.7, 1.7, seed, pairs=120)[0] for seed in range(100)]
    assert kinds.count("better") <= 5
    assert kinds.count("no clear difference") >= 90
    assert outcome(1.7, 1.7, 0)[1] != 0


def test_queries_that_repeat_each_other_make_nothing_surer():
    once = [task("t", 60).score_with_samples(noisy(task("t", 60), noise, 1))[1] for noise in (1.7, 1.6)]
    groups = np.repeat(np.arange(60), 6)
    repeated = [PerItemScores("mrr_at_10", np.repeat(sample.values, 6), groups=groups) for sample in once]
    alone = [PerItemScores("mrr_at_10", sample.values) for sample in repeated]
    np.testing.assert_allclose(compare(*repeated)[1:], compare(*once)[1:], atol=1e-12)
    assert np.diff(compare(*alone)[2:]) < 0.5 * np.diff(compare(*repeated)[2:])


class Dial(nn.Module):
    """A model with one weight, which says how noisy its embeddings are."""

    def __init__(self, noise):
        super().__init__()
        self.noise = nn.Parameter(torch.tensor(float(noise)))


def run(start, trained, *, pairs=300, validation=100, best=None, control=True):
    """A verdict where the embeddings are the better, the nearer the weight is to `best`, or to 0 without it."""
    model = Dial(trained)
    tasks = {
        "test": task("test", pairs),
        "validation": task("validation", validation or 2),
        "control": task("control", 40),
    }

    def embed(sentences):
        retrieval = tasks[sentences[0].split()[0]]
        noise = model.noise.item()
        return noisy(retrieval, noise if best is None else 1 + 2 * abs(noise - best), 1)

    given = VerdictTasks(
        tasks["validation"] if validation else None, tasks["test"], tasks["control"] if control else None, "titles"
    )
    return judge(model, {"noise": torch.tensor(float(start))}, embed, given), model


def test_a_better_encoder_is_exported():
    verdict, model = run(2.0, 1.0)
    assert (verdict.outcome, verdict.share, model.noise.item()) == ("better", 1, 1)
    assert verdict.line.startswith("VERDICT: better · retrieval MRR@10 0.")
    assert verdict.scores["start encoder"]["mrr_at_10"] < verdict.scores["mixture"]["mrr_at_10"]
    before, after = verdict.control[1:]
    assert f"control {100 * before:.1f} -> {100 * after:.1f}" in verdict.line
    assert f"BM25 {verdict.scores['BM25']['mrr_at_10']:.3f}" in verdict.line
    assert verdict.example.before != verdict.example.after


def test_the_mixture_that_validation_likes_best_is_exported():
    verdict, model = run(3.0, 1.0, best=1.6)
    assert (verdict.share, model.noise.item()) == (0.75, 1.5)
    assert verdict.validation[0.75] == max(verdict.validation.values())
    assert verdict.scores["mixture"]["mrr_at_10"] > verdict.scores["trained encoder"]["mrr_at_10"]


def test_a_worse_encoder_leaves_the_original_where_validation_sees_it():
    verdict, model = run(1.0, 2.0)
    assert (verdict.outcome, verdict.share, model.noise.item()) == ("no clear difference", 0, 1)
    assert (verdict.difference, verdict.low, verdict.high) == (0, 0, 0)
    assert verdict.line.endswith("the start encoder is kept")
    assert verdict.scores["trained encoder"]["mrr_at_10"] < verdict.scores["mixture"]["mrr_at_10"]


def test_a_worse_encoder_leaves_the_original_where_nothing_was_chosen():
    verdict, model = run(1.0, 2.0, validation=0, control=False)
    assert (verdict.outcome, verdict.validation, verdict.control) == ("worse", {}, None)
    assert model.noise.item() == 1
    assert verdict.line.endswith("the start encoder is kept")
    assert verdict.as_dict()["keeps_start"]


def test_without_bm25_the_line_goes_on_without_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bm25s", None)
    verdict, _ = run(2.0, 1.0)
    assert "BM25" not in verdict.line
    assert verdict.notes == ["BM25 needs bm25s: pip install 'arccse-hf[documents]'"]
