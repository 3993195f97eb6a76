"""What trackers are told: the lines of training, the verdict and the final scores, in one run."""

import json
import sqlite3
import subprocess
import sys
from types import SimpleNamespace

import loopback_only
import pytest
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from arccse_hf.errors import UserError
from arccse_hf.training import script, unsupported
from arccse_hf.training.trackers import final_line, trackers_open
from arccse_hf.training.verdict import Verdict

TRAINING = {"loss", "arccon_loss", "positive_cosine", "negative_cosine", "rows_with_loss", "grad_norm", "learning_rate"}
VERDICT = {f"verdict{name}" for name in ("", "_difference", "_low", "_high", "_share", "_mrr_at_10")}
VERDICT |= {"verdict_start_mrr_at_10", "verdict_trained_mrr_at_10"}


@pytest.fixture
def command(encoder, tmp_path, sentences):
    """The arguments of a run with scored pairs and a verdict."""
    text, scored, own = tmp_path / "text.txt", tmp_path / "scored.csv", tmp_path / "own.csv"
    text.write_text("\n".join(sentences[20:]))
    pairs = zip(sentences[:10], sentences[5:15], range(10), strict=True)
    scored.write_text("sentence1,sentence2,score\n" + "".join(f"{a},{b},{c}\n" for a, b, c in pairs))
    own.write_text("query,document\n" + "\n".join(f"query {number},the text {number}" for number in range(160)))
    return [
        "--model_name_or_path", str(encoder), "--train_file", str(text), "--output_dir", str(tmp_path / "out"),
        "--per_device_train_batch_size", "8", "--max_steps", "2", "--use_cpu", "True", "--logging_steps", "1",
        "--eval_data", str(scored), "--eval_steps", "1", "--eval_pairs", str(own), "--save_strategy", "no",
        "--load_best_model_at_end", "False", "--max_seq_length", "24", "--disable_tqdm", "True",
        "--triplet_weight", "0",
    ]  # fmt: skip


class Recorder(TrainerCallback):
    """A tracker that keeps what it is told."""

    heard: list = []  # noqa: RUF012

    def on_train_begin(self, args, state, control, **kwargs):
        self.heard.append("begin")

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.heard.append((state.global_step, dict(logs)))

    def on_train_end(self, args, state, control, **kwargs):
        self.heard.append("end")


def test_a_tracker_hears_the_verdict_and_the_final_scores_before_its_run_ends(command, tmp_path, monkeypatch):
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "tensorboard", Recorder)
    monkeypatch.setattr(unsupported, "get_available_reporting_integrations", lambda: ["tensorboard"])
    monkeypatch.setattr(Recorder, "heard", [])
    script.main([*command, "--report_to", "tensorboard"])
    begin, *lines, end = Recorder.heard
    assert (begin, end) == ("begin", "end")
    step, last = lines[-1]
    results = json.loads((tmp_path / "out" / "all_results.json").read_text())
    verdict = results["verdict"]
    assert step == 2 and last.keys() >= VERDICT
    assert last["final_scored_spearman"] == results["eval_scored_spearman"]
    assert last["verdict_difference"] == verdict["difference"] and last["verdict_share"] == verdict["share"]
    assert last["verdict_start_mrr_at_10"] == verdict["scores"]["start encoder"]["mrr_at_10"]
    assert last["verdict_trained_mrr_at_10"] == verdict["scores"]["trained encoder"]["mrr_at_10"]
    assert last["verdict_mrr_at_10"] == results["eval_verdict_mrr_at_10"]
    assert all(isinstance(value, int | float) for _, line in lines for value in line.values())
    state = json.loads((tmp_path / "out" / "training" / "trainer_state.json").read_text())
    assert state["log_history"] == [line | {"step": step} for step, line in lines]
    assert lines[1][1].keys() >= TRAINING


@pytest.mark.parametrize(("outcome", "number"), [("better", 1), ("no clear difference", 0), ("worse", -1)])
def test_the_outcome_is_a_number_and_what_is_exported_has_the_score(outcome, number):
    rows = {"start encoder": 0.5, "trained encoder": 0.3, "mixture": 0.4}
    verdict = Verdict(outcome, "titles", 9, {row: {"mrr_at_10": score} for row, score in rows.items()}, -0.1, -0.2, 0.0)
    line = final_line({"sts": 0.7}, verdict)
    assert (line["verdict"], line["final_sts"]) == (number, 0.7)
    assert (line["verdict_start_mrr_at_10"], line["verdict_trained_mrr_at_10"]) == (0.5, 0.3)
    assert line["verdict_mrr_at_10"] == (0.5 if outcome == "worse" else 0.4)


def test_trackers_end_where_the_verdict_fails_too_and_those_that_never_began_do_not(monkeypatch):
    monkeypatch.setattr(Recorder, "heard", [])
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "tensorboard", Recorder)
    for begins in (True, False):
        tracker, other = Recorder(), TrainerCallback()
        trainer = SimpleNamespace(callback_handler=SimpleNamespace(callbacks=[tracker, other]))
        with pytest.raises(RuntimeError), trackers_open(trainer):
            if begins:
                tracker.on_train_end(None, None, None, model=None)
            assert Recorder.heard == ([] if begins else ["end"])
            raise RuntimeError
        assert Recorder.heard == ["end"]


def test_a_tracker_that_cannot_begin_is_one_line(monkeypatch):
    class Broken(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            raise ValueError("no account,\n  log in first")

    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "wandb", Broken)
    trainer = SimpleNamespace(callback_handler=SimpleNamespace(callbacks=[Broken()]))
    with trackers_open(trainer), pytest.raises(UserError, match="^--report_to wandb: cannot begin .* log in first$"):
        trainer.callback_handler.callbacks[0].on_train_begin(None, None, None)


def tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (log,) = (folder / "out" / "training" / "runs").iterdir()
    events = EventAccumulator(str(log)).Reload()
    return {name: {event.step: event.value for event in events.Scalars(name)} for name in events.Tags()["scalars"]}


def trackio(folder):
    with sqlite3.connect(folder / "trackio" / "huggingface.db") as database:
        rows = database.execute("select run_id, metrics from metrics order by id").fetchall()
    assert len({run for run, _ in rows}) == 1
    found: dict = {}
    for line in (json.loads(line) for _, line in rows):
        for name, value in line.items():
            found.setdefault(name, {})[line["train/global_step"]] = value
    return found


def mlflow(folder):
    from mlflow import MlflowClient

    client = MlflowClient(str(folder / "mlruns"))
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FINISHED"
    return {
        name: {point.step: point.value for point in client.get_metric_history(run.info.run_id, name)}
        for name in run.data.metrics
    }


@pytest.mark.extras
@pytest.mark.parametrize("read", [tensorboard, trackio, mlflow])
def test_trackers_keep_a_whole_run_without_a_network(read, command, tmp_path, monkeypatch):
    """What stands in their own files is what the log has, under its names."""
    name = read.__name__
    pytest.importorskip(name, reason=f"{name} is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    environment = loopback_only.environment(tmp_path / "offline") | {
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "MLFLOW_TRACKING_URI": str(tmp_path / "mlruns"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "arccse_hf", "train", *command, "--report_to", name],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert loopback_only.tried(tmp_path / "offline") == ""
    expected: dict = {}
    state = json.loads((tmp_path / "out" / "training" / "trainer_state.json").read_text())
    for line in state["log_history"]:
        for key, value in line.items():
            expected.setdefault(key, {})[line["step"]] = value
    assert expected.keys() >= TRAINING | VERDICT | {"eval_scored_spearman", "final_scored_spearman"}
    found = read(tmp_path)
    for key, values in expected.items():
        shown = key if name == "mlflow" else f"eval/{key[5:]}" if key.startswith("eval_") else f"train/{key}"
        if key not in ("step", "epoch", "total_flos") and not key.startswith("train_"):  # which trackio leaves out
            assert found[shown] == pytest.approx(values, rel=1e-6), key
