"""`arccse tune`: a real search with Optuna over fields of the model, the data and the training; and its space."""

import csv
import json
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from arccse_hf.commands.runs import tune
from arccse_hf.errors import UserError
from arccse_hf.study.search_space import Dimension, read_space
from arccse_hf.study.tune import Search, _require_same_search
from arccse_hf.training.config import parse_arguments
from arccse_hf.training.config_file import read_config

SPACE = """
learning_rate: {low: 1e-5, high: 1e-1, log: true}
angular_margin: [0, 10]
triplet_min_tokens: {low: 5, high: 9, step: 2}
pooling: [cls, mean]
"""


@pytest.fixture
def argv(encoder, sentences, tmp_path, monkeypatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("sentences.txt").write_text("".join(f"{sentence}.\n" for sentence in sentences))
    rows = [f"{a},{b},{number}\n" for number, (a, b) in enumerate(pairwise(sentences[:9]))]
    Path("pairs.csv").write_text("sentence1,sentence2,score\n" + "".join(rows))
    Path("recipe.yaml").write_text(f"model_name_or_path: {encoder}\nmax_steps: 2\nprojection: none\nuse_cpu: true\n")
    Path("space.yaml").write_text(SPACE)
    return ["recipe.yaml", "--space", "space.yaml", "--output_dir", "search", "--train_file", "sentences.txt"]


MEASURED = ["--eval_data", "pairs.csv", "--eval_tasks", "sts", "--per_device_train_batch_size", "8"]


@pytest.mark.extras
def test_the_best_of_the_trials_becomes_a_recipe_and_a_search_goes_on(argv, capsys):
    pytest.importorskip("optuna")
    assert tune([*argv, *MEASURED, "--n_trials", "2", "--sampler_seed", "0"]) == 0
    with pytest.raises(UserError, match="--output_dir search: holds a search; --resume goes on with it"):
        tune([*argv, *MEASURED])
    with pytest.raises(UserError, match="has another max_steps .its fields., and trials are compared"):
        tune([*argv, *MEASURED, "--n_trials", "4", "--resume", "--max_steps", "3"])
    Path("other.yaml").write_text(SPACE + "temperature: [0.05, 0.1]\n")
    with pytest.raises(UserError, match="has another temperature .--space."):
        tune([argv[0], "--space", "other.yaml", *argv[3:], *MEASURED, "--n_trials", "4", "--resume"])
    assert tune([*argv, *MEASURED, "--n_trials", "4", "--sampler_seed", "0", "--resume"]) == 0
    with open("search/trials.csv", encoding="utf-8", newline="") as file:
        trials = list(csv.DictReader(file))
    assert [trial["number"] for trial in trials] == ["0", "1", "2", "3"]
    assert len({trial["learning_rate"] for trial in trials}) == 4  # the same seed draws on, and not once more
    done = [trial for trial in trials if trial["state"] == "complete"]
    for trial in done:
        folder = Path("search", f"trial-{trial['number']}", "training")
        settings = json.loads((folder / "run_settings.json").read_text())
        assert float(trial["learning_rate"]) == settings["training"]["learning_rate"]
        assert float(trial["angular_margin"]) == settings["model"]["angular_margin"]
        assert trial["pooling"] == settings["model"]["pooling"]
        assert float(trial["triplet_min_tokens"]) == settings["training"]["triplet_min_tokens"] in (5, 7, 9)
        results = json.loads((folder.parent / "all_results.json").read_text())
        assert float(trial["value"]) == results["eval_pairs_spearman"]
        assert not list(folder.parent.rglob("*.safetensors"))
    best = max(done, key=lambda trial: float(trial["value"]))
    model, data, args = parse_arguments(["search/best.yaml"])
    assert args.learning_rate == float(best["learning_rate"]) and model.pooling == best["pooling"]
    assert data.train_file == ["sentences.txt"] and args.max_steps == 2 and args.output_dir == "search/best"
    assert Path("search/history.png").stat().st_size > 1000
    out = capsys.readouterr().out
    assert f"best: trial {best['number']} of 4" in out and "trial 3: " in out


@pytest.mark.extras
def test_a_search_without_anything_to_look_for_is_an_error(argv):
    pytest.importorskip("optuna")
    with pytest.raises(UserError, match="nothing is measured while a trial trains; .*--eval_tasks"):
        tune([*argv, "--per_device_train_batch_size", "8", "--n_trials", "1"])


@pytest.mark.parametrize(
    ("tasks", "settings", "direction"),
    [
        ("sts", {}, "maximize"), ("geometry", {}, "minimize"),
        ("sts geometry", {"metric_for_best_model": "geometry_uniformity"}, "minimize"),
        ("geometry sts", {"metric_for_best_model": "eval_pairs_spearman"}, "maximize"),
    ],
)  # fmt: skip
def test_the_better_metric_is_the_larger_or_the_smaller(argv, tasks, settings, direction):
    from arccse_hf.study.tune import searched_metric

    measured = {"eval_tasks": tasks.split(), "eval_data": "pairs.csv", "train_file": ["sentences.txt"]}
    metric, found = searched_metric(read_config(Path("recipe.yaml")) | measured | settings)
    first = {"sts": "pairs_spearman", "geometry": "geometry_alignment"}[tasks.split()[0]]
    assert (metric, found) == (settings.get("metric_for_best_model", first), direction)


@pytest.mark.parametrize(("name", "lines"), [("sts12", 1), ("pairs", 0)])
def test_a_test_set_that_chooses_trials_is_warned_about_before_the_first(argv, name, lines, monkeypatch, capsys):
    """Though no trial would load its best checkpoint."""

    def unreachable(**_):
        raise OSError("no such storage")

    optuna = SimpleNamespace(
        logging=SimpleNamespace(set_verbosity=print, WARNING=""),
        samplers=SimpleNamespace(TPESampler=dict),
        create_study=unreachable,
    )
    monkeypatch.setitem(sys.modules, "optuna", optuna)
    Path("pairs.csv").rename(f"{name}.csv")
    with pytest.raises(UserError, match="no such storage"):
        tune([*argv, "--eval_data", f"{name}.csv", "--load_best_model_at_end", "False"])
    warning = "warning: --metric_for_best_model sts12_spearman: a test set chooses the best checkpoint or trial"
    assert capsys.readouterr().err.count(warning) == lines


@pytest.mark.extras
def test_a_trial_that_falls_behind_is_pruned(monkeypatch):
    optuna = pytest.importorskip("optuna")
    from transformers import TrainerState

    from arccse_hf.study.tune import ReportToTrial

    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.ThresholdPruner(lower=0.5))
    callback = ReportToTrial(study.ask(), "sts_spearman")
    callback.on_evaluate(None, TrainerState(global_step=0), None, {"eval_sts_spearman": 0.1})
    callback.on_evaluate(None, TrainerState(global_step=1), None, {"eval_sts_spearman": 0.6})
    with pytest.raises(optuna.TrialPruned):
        callback.on_evaluate(None, TrainerState(global_step=2), None, {"eval_sts_spearman": 0.4})


def test_optuna_is_named_where_it_is_missing(argv, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match="arccse tune: needs optuna: pip install 'arccse-hf.tune.'"):
        tune([*argv, *MEASURED])


def test_a_space_has_intervals_and_lists(argv):
    assert read_space(Path("space.yaml")) == {
        "learning_rate": Dimension("learning_rate", low=1e-5, high=1e-1, log=True),
        "angular_margin": Dimension("angular_margin", choices=["0", "10"]),
        "triplet_min_tokens": Dimension("triplet_min_tokens", is_whole=True, low=5, high=9, step=2),
        "pooling": Dimension("pooling", choices=["cls", "mean"]),
    }


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("", "--space space.yaml: is empty"),
        ("learning_rat: [1]", "--learning_rat: there is no such field; did you mean --learning_rate"),
        ("temperature: [0.05, 0]", "--temperature 0: must be a number from 0.001 to 100"),
        ("temperature: 0.05", "--temperature: a space has a list of values, or low and high"),
        ("temperature: {low: 0.1, high: 0.05}", "--temperature: low must be below high"),
        ("temperature: {low: 0.1, high: 0.2, step: 0}", "--temperature: step must be above 0, not 0"),
        ("temperature: {low: 0.1, high: 0.2, hi: 1}", "--temperature: a space has a list of values"),
        (
            "triplet_weight: {low: 0, high: 1, log: true}",
            "--triplet_weight: low must be below high, and with log above 0",
        ),
        ("pooling: {low: 0, high: 1}", "--pooling: is no number; list the values"),
    ],
)
def test_mistakes_in_a_space_are_named(argv, space, message):
    Path("space.yaml").write_text(space)
    with pytest.raises(UserError) as raised:
        tune([*argv, *MEASURED])
    assert str(raised.value).startswith(message)


def test_a_search_goes_on_with_the_files_that_it_was_begun_with(argv, encoder):
    """What Optuna's study keeps, without Optuna."""
    settings = {"model_name_or_path": encoder, "train_file": ["sentences.txt"], "use_cpu": "true"}
    search = Search("recipe", settings, {}, Path("search"), n_trials=1, storage=None, seed=0)
    kept: dict = {}
    study = SimpleNamespace(user_attrs=kept, set_user_attr=kept.__setitem__)
    for _ in range(2):
        _require_same_search(search, study)
    Path("sentences.txt").write_text("another text\n")
    with pytest.raises(UserError, match="has another train_file .it has changed since., and trials are compared"):
        _require_same_search(search, study)
