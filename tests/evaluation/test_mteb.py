"""The scores of mteb's own tasks, on the pairs that ours are scored on."""

import json
from collections import Counter

import numpy as np
import pytest
from backbones import save_encoder, tiny_tokenizer
from datasets import Dataset, DatasetDict

from arccse_hf.errors import UserError
from arccse_hf.evaluation.sts import ScoredPairs, STSTask, read_sts
from arccse_hf.evaluation.suite import TaskSuite
from arccse_hf.inference.embed import embed
from arccse_hf.inference.evaluate import evaluate_and_print as run
from arccse_hf.inference.open import load_encoder

mteb = pytest.importorskip("mteb", reason="mteb is not installed: pip install 'arccse-hf[mteb]'")


def tiny_encoder(folder, pairs):
    """A random BERT that knows every word of `pairs`, as a plain encoder's folder."""
    words = Counter(" ".join([*pairs.first, *pairs.second]).lower().split())
    return save_encoder(folder, tiny_tokenizer(sorted(words)), hidden_size=64, initializer_range=0.1)


def give_mteb(monkeypatch, name, pairs):
    """Let mteb's task `name` find `pairs` where it would fetch its data from the hub."""

    def load_data(self, *_, **__):
        columns = {"sentence1": pairs.first, "sentence2": pairs.second, "score": pairs.scores}
        self.dataset = DatasetDict({"test": Dataset.from_dict(columns)})
        self.data_loaded = True

    monkeypatch.setattr(type(mteb.get_task(name)), "load_data", load_data)


@pytest.fixture
def made_up():
    """Pairs that share words, scored by how many, with a pair of equal sentences."""
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(40)]
    pairs = ScoredPairs([], [], [])
    for size in rng.integers(3, 9, size=60):
        first, second = rng.choice(words, size=size), rng.choice(words, size=size)
        kept = int(rng.integers(0, size + 1))
        pairs.first.append(" ".join(first))
        pairs.second.append(" ".join([*first[:kept], *second[kept:]]))
        pairs.scores.append(round(5 * kept / size, 1))
    return pairs


@pytest.mark.parametrize(("name", "theirs"), [("stsb_test", "STSBenchmark"), ("sts16", "STS16")])
def test_scores_on_the_official_pairs_are_those_of_mteb(name, theirs, shared_data, tmp_path, monkeypatch):
    pairs = read_sts(name, shared_data / "senteval")
    give_mteb(monkeypatch, theirs, pairs)
    encoder = load_encoder(tiny_encoder(tmp_path, pairs))
    model = encoder.model
    suite = TaskSuite([STSTask(name, pairs)])
    ours = suite.score(embed(encoder, suite.sentences))[name]

    found = mteb.evaluate(model, mteb.get_task(theirs), cache=None, show_progress_bar=False).task_results[0]
    (scores,) = found.scores["test"]
    for metric in ("spearman", "pearson"):
        assert ours[metric] == pytest.approx(scores[f"cosine_{metric}"], abs=1e-4)
    assert 0.1 < ours["spearman"] < 0.9, "a correlation near zero would agree by chance"
    assert found.get_score() == scores["cosine_spearman"]


def test_the_command_line_prints_the_score_of_mteb_beside_ours(made_up, tmp_path, monkeypatch, capsys):
    own = tmp_path / "own.jsonl"
    rows = zip(made_up.first, made_up.second, made_up.scores, strict=True)
    own.write_text("".join(json.dumps({"sentence1": a, "sentence2": b, "score": s}) + "\n" for a, b, s in rows))
    give_mteb(monkeypatch, "STS16", made_up)
    encoder = tiny_encoder(tmp_path / "encoder", made_up)

    assert run([encoder], ["sts", "mteb:STS16"], data=str(own), output=tmp_path / "report") == 0
    (model,) = json.loads((tmp_path / "report" / "evaluation.json").read_text())["models"]
    ours, theirs = model["scores"]["own"]["spearman"], model["scores"]["mteb:STS16"]["main_score"]
    assert theirs == pytest.approx(ours, abs=1e-4)
    printed = capsys.readouterr().out
    assert "STS16" in printed and f"{100 * theirs:.2f}" in printed


def test_an_unknown_task_is_refused_before_the_work(tmp_path):
    with pytest.raises(UserError, match="--eval_tasks mteb:STS-16: mteb has no such task, .*STS16"):
        run([str(tmp_path / "no_model")], ["mteb:STS-16"])


def test_data_that_cannot_be_fetched_do_not_lose_the_other_scores(made_up, tmp_path, monkeypatch, capsys):
    def load_data(self, *_, **__):
        raise ConnectionError("no network")

    give_mteb(monkeypatch, "STS16", made_up)
    monkeypatch.setattr(type(mteb.get_task("STS15")), "load_data", load_data)
    assert run([tiny_encoder(tmp_path, made_up)], ["mteb:STS15", "mteb:STS16"]) == 1
    printed = capsys.readouterr().out
    assert "mteb:STS15 failed: ConnectionError: no network" in printed and "STS16" in printed
