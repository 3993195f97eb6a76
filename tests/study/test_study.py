"""Studies: which runs a file stands for, that they are done once and survive, and what the numbers say."""

import json
import re
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import processes
import pytest
import yaml
from scipy.stats import ttest_1samp

from arccse_hf.errors import UserError
from arccse_hf.evaluation.bootstrap import PerItemScores
from arccse_hf.inference.evaluate import evaluate_and_print as evaluate
from arccse_hf.study import command, execute
from arccse_hf.study.plan import read_study
from arccse_hf.study.summary import seed_and_pair_interval
from arccse_hf.training import script

ROOT = Path(__file__).parents[2]


OBJECTIVES = {"SimCSE": {"angular_margin": 0, "triplet_weight": 0}, "Arc / CSE": {"angular_margin": 20}}
TUNING = {"grid": {"temperature": ["0.05", "0.5"]}, "settings": {"max_steps": 1, "eval_strategy": "no"}}


def test_a_grid_and_seeds_and_trials_become_runs(study_file):
    path = study_file(
        grid={"angular_margin": [0, 10], "temperature": [0.05, 0.1, 0.2]}, seeds=[3, 4], untrained=True,
        tuning={"grid": {"learning_rate": ["1e-5", "3e-5"]}},
    )  # fmt: skip
    study = read_study(path)
    runs = study.runs()
    assert [sum(run.kind == kind for run in runs) for kind in ("untrained", "trial", "run")] == [1, 6 * 2, 6 * 2]
    assert len({run.name for run in runs}) == len(runs)
    last = runs[-1]
    assert (last.variant, last.seed) == ("angular_margin=10, temperature=0.2", 4)
    config = study.run_settings(last, {"learning_rate": "1e-5"})
    assert (config["angular_margin"], config["temperature"], config["seed"]) == ("10", "0.2", "4")
    assert config["learning_rate"] == "1e-5"
    assert study.baseline == "angular_margin=0, temperature=0.05"


def test_what_is_nearer_to_the_run_wins(study_file, base):
    path = study_file(settings={"max_steps": 5, "temperature": 0.1, "max_grad_norm": 2}, variants=OBJECTIVES)
    given = {"max_steps": "7", "angular_margin": "5", "dataset_name": "installed-docs"}
    study = read_study(path, overrides=given)
    config = study.run_settings(study.runs()[0])
    assert config["max_steps"] == "7"  # command line over settings
    assert config["angular_margin"] == "0"  # variant over command line
    assert config["temperature"] == "0.1" and config["max_grad_norm"] == "2"  # settings over the recipe
    assert config["learning_rate"] == "1e-3"  # the recipe's
    assert config["dataset_name"] == "installed-docs" and "train_file" not in config


def test_a_study_trains_scores_and_compares(study_file, base, capsys):
    path = study_file(variants=OBJECTIVES, seeds=[1, 2], untrained=True, tuning=TUNING, keep_models=True)
    assert command.run_study(path) == 0
    out = base.parent / "out"
    content = json.loads((out / "results.json").read_text())
    rows = {row["variant"]: row for row in content["variants"]}
    assert list(rows) == ["untrained", *OBJECTIVES]

    # The scores are those that `evaluate` gives for the kept models.
    models = {(name, seed): out / "runs" / folder / f"seed-{seed}"
              for name, folder in (("SimCSE", "SimCSE"), ("Arc / CSE", "Arc___CSE")) for seed in (1, 2)}  # fmt: skip
    report = base.parent / "report"
    evaluate([*map(str, models.values())], ["sts"], data=str(base.parent / "scored.csv"), output=report)
    found = [
        model["scores"]["scored"]["spearman"]
        for model in json.loads((report / "evaluation.json").read_text())["models"]
    ]
    scores = dict(zip(models, found, strict=True))
    for name in OBJECTIVES:
        values = [scores[name, seed] for seed in (1, 2)]
        assert rows[name]["scores"]["average"]["mean"] == pytest.approx(statistics.mean(values))
        assert rows[name]["scores"]["scored"]["deviation"] == pytest.approx(statistics.stdev(values))
    difference = statistics.mean(scores["Arc / CSE", seed] - scores["SimCSE", seed] for seed in (1, 2))
    assert rows["Arc / CSE"]["difference"] == pytest.approx(difference)
    low, high = rows["Arc / CSE"]["interval"]
    assert low <= difference <= high
    assert rows["SimCSE"]["difference"] is None

    # What chose the checkpoints is there too, as the log of the run has it.
    assert rows["untrained"]["validation"] == {}
    log = json.loads((models["SimCSE", 1] / "training" / "trainer_state.json").read_text())
    assert rows["SimCSE"]["validation"]["1"] == log["best_metric"]

    # Each variant ran with the temperature of its best trial.
    for name, folder in (("SimCSE", "SimCSE"), ("Arc / CSE", "Arc___CSE")):
        tried = {t: content["trials"][f"trials/{folder}/temperature={t}"] for t in ("0.05", "0.5")}
        best = max(tried, key=tried.get)
        assert rows[name]["chosen"] == {"temperature": best}
        settings = json.loads((models[name, 1] / "training" / "run_settings.json").read_text())
        assert settings["model"]["temperature"] == float(best)
        assert settings["training"]["max_steps"] == 3 and settings["training"]["seed"] == 1

    table = (out / "results.md").read_text()
    assert f"{100 * rows['SimCSE']['scores']['average']['mean']:.2f} ± " in table
    assert {"steps-scored_spearman.png", "scores.png", "geometry-dark.png"} <= {p.name for p in out.iterdir()}
    assert "Arc / CSE, seed 2" in capsys.readouterr().out


STS = {"eval_tasks": ["sts"], "load_best_model_at_end": False}
AVERAGE = STS | {"metric_for_best_model": "sts_avg_spearman"}


@pytest.mark.parametrize(
    ("settings", "tuning", "metrics"),
    [
        ({"load_best_model_at_end": True}, {}, ["sts12_spearman"]),
        ({"load_best_model_at_end": True, "metric_for_best_model": "geometry_alignment"}, {}, []),
        (STS, {}, []),
        ({"eval_strategy": "no"}, {}, []),
        (STS, TUNING, ["sts12_spearman"]),
        (AVERAGE, TUNING, ["sts_avg_spearman"]),
        (AVERAGE, {**TUNING, "settings": {"metric_for_best_model": "stsb_dev_spearman_dim8"}}, []),
    ],
)
def test_a_test_set_that_chooses_is_warned_about_once(study_file, base, monkeypatch, capsys, settings, tuning, metrics):
    scored = (base.parent / "scored.csv").rename(base.parent / "sts12.csv")
    monkeypatch.setattr(command, "run_all", lambda study, **_: 0)
    settings = {"eval_data": str(scored)} | settings
    path = study_file(variants=OBJECTIVES, seeds=[1, 2], settings=settings, untrained=True, tuning=tuning)
    assert command.run_study(path) == 0
    lines = [line.partition(": a test set chooses")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines == [f"warning: --metric_for_best_model {metric}" for metric in metrics]


def test_a_run_has_one_line_on_the_terminal_and_a_log_of_its_own(study_file, base):
    path = study_file(
        variants={"x": {"max_steps": 1}, "broken": {"learning_rate": "1e6", "max_steps": 3}}, untrained=True
    )
    out = base.parent / "out"
    done = processes.python("-m", "arccse_hf", "study", path)
    assert done.returncode == 1
    first, *lines = done.stdout.splitlines()
    assert first == f"what a run prints: {out}/RUN/run.log"
    assert lines[0] == "[1/3] the untrained encoder: scored"
    assert re.fullmatch(r"\[2/3\] x, seed 42: scored_spearman -?\d\.\d{4}, trained for \d+ s", lines[1])
    assert lines[2] == "[3/3] broken, seed 42: failed"
    warning, error = done.stderr.splitlines()
    assert warning.startswith("warning: scored chooses checkpoints or trials")  # the base measures on its test
    assert error.startswith("error: runs/broken/seed-42: ")
    log = (out / "runs" / "x" / "seed-42" / "run.log").read_text()
    assert "ArcCon 10 degrees" in log and "31 of 48 rows kept" in log  # of both streams
    assert "ArcCon 10 degrees" not in done.stdout


def test_what_is_done_is_not_done_again_and_a_failure_loses_nothing(study_file, base, capsys, monkeypatch):
    path = study_file(variants=OBJECTIVES, seeds=[1])
    out = base.parent / "out"
    train = execute._train

    def stopped(study, folder):
        train(study, folder)
        if "SimCSE" in str(folder):
            raise RuntimeError("the machine is on fire")

    monkeypatch.setattr(execute, "_train", stopped)
    assert command.run_study(path) == 1
    assert "runs/SimCSE/seed-1: RuntimeError: the machine is on fire" in capsys.readouterr().err
    partial = json.loads((out / "results.json").read_text())
    assert [row["variant"] for row in partial["variants"]] == ["Arc / CSE"]
    assert list(partial["failed"]) == ["runs/SimCSE/seed-1"]
    with pytest.raises(UserError, match="--resume goes on with it"):
        command.run_study(path)

    # The model was there when it failed: only the scoring is left to do, and nothing at all of the other run.
    monkeypatch.setattr(execute, "_train", lambda study, folder: pytest.fail(f"{folder} is trained again"))
    before = (out / "runs" / "Arc___CSE" / "seed-1" / "study_scores.json").stat().st_mtime_ns
    assert command.run_study(path, resume=True) == 0
    assert (out / "runs" / "Arc___CSE" / "seed-1" / "study_scores.json").stat().st_mtime_ns == before
    assert [row["variant"] for row in json.loads((out / "results.json").read_text())["variants"]] == list(OBJECTIVES)
    assert not list(out.glob("runs/*/*/model.safetensors")) and not list(out.glob("runs/*/*/training/checkpoint-*"))

    with pytest.raises(UserError, match=r"other fields than the study has now \(max_steps 3 -> 9\)"):
        command.run_study(path, resume=True, overrides={"max_steps": "9"})
    with pytest.raises(UserError, match=r"scored on other tests than the study has \(test_dtype\)"):
        command.run_study(study_file(variants=OBJECTIVES, seeds=[1], test_dtype="bfloat16"), resume=True)
    scored = (base.parent / "scored.csv").read_text()
    (base.parent / "scored.csv").write_text(scored.replace(",1\n", ",2\n"))
    with pytest.raises(UserError, match=r"scored on other tests than the study has \(scored\)"):
        command.run_study(study_file(variants=OBJECTIVES, seeds=[1]), resume=True)


def test_a_killed_run_goes_on_from_its_checkpoint(study_file, base, monkeypatch):
    whole = study_file(variants={"ArcCSE": {}}, seeds=[1])
    assert command.run_study(whole, output=base.parent / "whole") == 0
    train = execute._train

    def killed(study, folder):
        """What a run that was killed after its second checkpoint leaves."""
        train(study, folder)
        for path in (*folder.iterdir(), *(folder / "training").iterdir()):
            if path.name not in ("config.yaml", "training", "checkpoint-2"):
                execute.shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise KeyboardInterrupt

    path = study_file(variants={"ArcCSE": {}}, seeds=[1], settings={"save_total_limit": 5})
    monkeypatch.setattr(execute, "_train", killed)
    with pytest.raises(KeyboardInterrupt):
        command.run_study(path)
    monkeypatch.setattr(execute, "_train", train)
    given = []
    real = script.main
    monkeypatch.setattr(script, "main", lambda argv: (given.extend(argv), real(argv)))
    assert command.run_study(path, resume=True) == 0
    assert given[1:] == ["--resume_from_checkpoint", "True"]
    scores = [json.loads((base.parent / name / "results.json").read_text())["variants"][0]["scores"]
              for name in ("whole", "out")]  # fmt: skip
    assert scores[0] == scores[1]


def test_what_was_stopped_halfway_with_other_fields_is_not_taken_up(study_file, base, capsys):
    checkpoint = base.parent / "out" / "runs" / "ArcCSE" / "seed-1" / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text("{}")  # to go on from it would fail
    (checkpoint.parent / "config.yaml").write_text("max_steps: 7\n")
    assert command.run_study(study_file(variants={"ArcCSE": {}}, seeds=[1]), resume=True) == 0
    assert "seed-1: was stopped halfway with other fields; it starts anew" in capsys.readouterr().out


def test_runs_go_through_the_launcher_that_the_study_names(study_file, base, capfd):
    launcher = f"accelerate launch --config_file {ROOT / 'configs' / 'accelerate' / 'cpu.yaml'}"
    assert command.run_study(study_file(variants={"ArcCSE": {}}, seeds=[1], launcher=launcher)) == 0
    scores = [json.loads((base.parent / "out" / "results.json").read_text())["variants"][0]["scores"]]
    assert command.run_study(study_file(variants={"ArcCSE": {}}, seeds=[1]), output=base.parent / "here") == 0
    scores.append(json.loads((base.parent / "here" / "results.json").read_text())["variants"][0]["scores"])
    assert scores[0] == scores[1]

    failing = study_file(variants={"ArcCSE": {}}, seeds=[1], launcher="python -c exit(3)")
    assert command.run_study(failing, output=base.parent / "failed") == 1
    assert "arccse_hf train" in (message := capfd.readouterr().err) and "ended with status 3" in message
    with pytest.raises(UserError, match="launcher: nowhere: there is no such program"):
        command.run_study(study_file(variants={"ArcCSE": {}}, launcher="nowhere run"), output=base.parent / "none")


@pytest.mark.parametrize("metric", ["eval_scored_spearman", "eval_geometry_alignment"])
def test_the_best_trial_is_chosen_and_one_without_a_score_never(study_file, metric):
    """By whether the metric is the better the larger; the trial that has no number is not done where it is missing."""
    study = read_study(study_file(variants={"x": {}}, tuning={"grid": {"temperature": [1, 2, 3, 4]}}))
    trials = [run for run in study.runs() if run.kind == "trial"]
    for trial, value in zip(trials, [float("nan"), 0.2, 0.7, 0.5], strict=True):
        assert execute.chosen_fields(study, "x") is None
        (study.output_dir / trial.name).mkdir(parents=True)
        execute._write(study.output_dir / trial.name, execute.RunResult(study.run_settings(trial), metric, value), {})
    assert execute.chosen_fields(study, "x") == {"temperature": "3" if "spearman" in metric else "2"}


def test_without_matplotlib_nothing_is_trained(study_file, base, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"] + ["arccse_hf.study.figures"]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delitem(sys.modules, "arccse_hf.report.figures", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match="study: the pictures need matplotlib: pip install"):
        command.run_study(study_file(variants=OBJECTIVES))
    assert not (base.parent / "out").exists()


def test_one_run_alone_for_array_jobs(study_file, base, capsys):
    path = study_file(variants=OBJECTIVES, seeds=[1], tuning=TUNING)
    assert command.run_study(path, list_runs=True) == 0
    assert "5  -     runs/Arc___CSE/seed-1" in capsys.readouterr().out
    assert command.run_study(path, only=5) == 1
    assert "2 of its 2 trials are not done" in capsys.readouterr().err
    assert command.run_study(path, only=1) == command.run_study(path, only=3) == command.run_study(path, only=5) == 0
    done = sorted(
        str(p.parent.relative_to(base.parent / "out")) for p in (base.parent / "out").rglob("study_scores.json")
    )
    assert done == ["runs/Arc___CSE/seed-1", "trials/Arc___CSE/temperature=0.05", "trials/Arc___CSE/temperature=0.5"]
    with pytest.raises(UserError, match="--run 6: the study has runs 0 to 5"):
        command.run_study(path, only=6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"variants": OBJECTIVES, "sedes": [1]}, "sedes: there is no such key"),
        ({"variants": OBJECTIVES, "grid": {"seed": [1]}}, "either variants .* or a grid"),
        ({}, "either variants .* or a grid"),
        ({"variants": {"a b": {}, "a_b": {}}}, "need different names"),
        ({"variants": OBJECTIVES, "baseline": "BERT"}, "baseline BERT: is no variant; choose from SimCSE"),
        ({"variants": OBJECTIVES, "seeds": [1, 1]}, "give one or more, each once"),
        ({"variants": OBJECTIVES, "seeds": ["one"]}, "one is not a whole number"),
        ({"variants": OBJECTIVES, "test_dtype": "int8"}, "test_dtype: int8: choose from float32, bfloat16, float16"),
        ({"variants": OBJECTIVES, "test_tasks": ["geometry"]}, "geometry: its alignment is the better the smaller"),
        ({"variants": OBJECTIVES, "tuning": {"seed": 1}}, "tuning: needs a grid"),
        ({"variants": OBJECTIVES, "tuning": {"seeds": 1}}, "yaml: tuning: seeds: there is no such key; .* grid, seed"),
        ({"variants": OBJECTIVES, "untrained": "maybe"}, "yaml: untrained: maybe is neither true nor false"),
        ({"variants": OBJECTIVES, "baseline": ["SimCSE"]}, "yaml: baseline: takes one value"),
        ({"variants": {"untrained": {}}}, "yaml: the variants need different names, and none may be untrained"),
        ({"variants": {"x": {"angular_margn": 1}}}, "seed-42: --angular_margn: .* did you mean"),
        ({"variants": {"x": {"temperature": "warm"}}}, "runs/x/seed-42: --temperature"),
        ({"variants": {"x": 5}}, "x: must hold its fields"),
        ({"variants": {"x": {"train_file": "nowhere.txt"}}}, "--train_file nowhere.txt: does not exist"),
        ({"base": "nowhere.yaml", "variants": OBJECTIVES}, "nowhere.yaml: cannot read"),
    ],
)  # fmt: skip
def test_mistakes_are_found_before_anything_is_trained(study_file, base, content, message):
    with pytest.raises(UserError, match=message):
        command.run_study(study_file(**content))
    assert not (base.parent / "out").exists()


def test_runs_are_listed_where_their_texts_are_not(study_file, capsys):
    path = study_file(variants={"x": {"train_file": "nowhere.txt"}})
    assert command.run_study(path, list_runs=True) == 0
    assert "runs/x/seed-42" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_studies_are_valid(path):
    study = read_study(path)
    study.check()
    assert len(study.seeds) == 5 and len(study.variants) >= 4


def samples(values):
    return {"task": PerItemScores("mean", np.array(values, float))}


def test_the_interval_of_seeds_is_that_of_students_t():
    """Where seeds differ and units do not; scipy's confidence interval is the other route."""
    differences = [0.1, 0.7, 0.4]
    ours, theirs = [samples([value] * 50) for value in differences], [samples([0.0] * 50)] * 3
    expected = ttest_1samp(differences, 0).confidence_interval()
    assert seed_and_pair_interval(differences, ours, theirs) == pytest.approx((expected.low, expected.high))
    assert seed_and_pair_interval([1.0] * 2, [samples([1.0] * 50)] * 2, theirs[:2]) == (1, 1)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_interval_leaves_out_no_difference_in_5_of_100_studies(seeds):
    generator, without = np.random.default_rng(0), 0
    theirs = [samples([0.0] * 9)] * seeds
    for _ in range(400):
        differences = generator.normal(size=seeds)
        ours = [samples([value] * 9) for value in differences]
        low, high = seed_and_pair_interval(differences, ours, theirs, resamples=2)
        without += low > 0 or high < 0
    assert without / 400 == pytest.approx(0.05, abs=0.03)


def test_the_interval_covers_pairs_and_is_paired():
    """One seed's unit differences of standard deviation 1: the mean of n has 1 / sqrt(n), whatever both share."""
    rng = np.random.default_rng(0)
    shared, noise = rng.normal(scale=100, size=400), rng.normal(size=400)
    ours, theirs = samples(shared + noise), samples(shared)
    low, high = seed_and_pair_interval([noise.mean()] * 3, [ours] * 3, [theirs] * 3, resamples=4000)
    assert high - low == pytest.approx(2 * 1.96 * noise.std() / 20, rel=0.1)
    assert (low + high) / 2 == pytest.approx(noise.mean(), abs=0.02)


def test_reproduce_shows_the_published_row_above_ours(base, tmp_path, capsys, monkeypatch):
    published = tmp_path / "published.yaml"
    published.write_text("base: {scored: 78.11, average: 78.11}\n")
    monkeypatch.setattr(command, "PUBLISHED", published)
    out = tmp_path / "reproduced"
    assert command.reproduce(base, overrides={"seed": "7"}, output=out) == 0
    lines = [line for line in (out / "results.md").read_text().splitlines() if line.startswith("|")]
    assert lines[2] == "| published | - | 78.11 | 78.11 |"
    value = json.loads((out / "results.json").read_text())["variants"][0]["scores"]["average"]["values"]["7"]
    assert lines[3] == f"| base | 1 | {100 * value:.2f} | {100 * value:.2f} |"
    assert (out / "runs" / "base" / "seed-7" / "modules.json").exists()
    study = SimpleNamespace(published="base")
    suite = SimpleNamespace(tasks=[SimpleNamespace(name="scored", main_metrics=["spearman"])])
    assert "SICK-R" not in capsys.readouterr().out
    assert command._published(study, suite, "hub") and "SICK-R has 9,927 pairs" in capsys.readouterr().out
    published.write_text("another: {}\n")
    assert command.reproduce(base, output=tmp_path / "again") == 0
    assert "base: no published scores of these test tasks are known" in capsys.readouterr().out


def test_the_published_averages_are_those_of_their_rows():
    for name, row in yaml.safe_load(command.PUBLISHED.read_text()).items():
        assert len(row) == 8, name
        assert (sum(row.values()) - row["average"]) / 7 == pytest.approx(row["average"], abs=0.0051), name
