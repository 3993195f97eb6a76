"""Early stopping and the choice of a checkpoint: a run that goes on ends as one that was never interrupted."""

import shutil

import pytest
from datasets import Dataset
from tiny import make_trainer

from arccse_hf.evaluation.suite import TaskSuite

EVERY_TWO_STEPS = {
    "max_steps": 12, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2,
    "eval_on_start": True, "load_best_model_at_end": True, "save_total_limit": None,
}  # fmt: skip


class ByStep:
    """A task whose score is given for each step."""

    name, main_metrics = "scripted", ("mean",)

    def __init__(self, sentences, scores):
        self.sentences, self.scores, self.trainer = sentences, scores, None

    def score(self, embeddings):
        return {"mean": self.scores[self.trainer.state.global_step // 2]}


@pytest.fixture
def train(tmp_path, tokenizer, sentences):
    """Trains in a folder with given scores at steps 0, 2, 4, ... and returns the trainer."""
    rows = Dataset.from_dict({"anchor": tokenizer(sentences)["input_ids"]})

    def run(name, scores, resume=None, **settings):
        task = ByStep(sentences[:3], scores)
        trainer = make_trainer(tmp_path / name, rows, tokenizer, suite=TaskSuite([task]), **EVERY_TWO_STEPS | settings)
        task.trainer = trainer
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return run


RISING = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
FALLING_FROM_STEP_4 = [0.1, 0.2, 0.5, 0.4, 0.3, 0.2, 0.1]


@pytest.mark.parametrize(
    ("scores", "patience", "end"), [(RISING, 1, 12), (FALLING_FROM_STEP_4, 3, 10), (FALLING_FROM_STEP_4, 1, 6)]
)
@pytest.mark.parametrize("interrupted", [2, 4, 6])
def test_a_resumed_run_stops_where_it_would_have_stopped(scores, patience, end, interrupted, train, tmp_path):
    whole = train("whole", scores, early_stopping_patience=patience)
    assert whole.state.global_step == end
    (tmp_path / "cut").mkdir()
    shutil.copytree(tmp_path / "whole" / f"checkpoint-{interrupted}", tmp_path / "cut" / f"checkpoint-{interrupted}")
    resumed = train("cut", scores, resume=True, early_stopping_patience=patience)
    assert resumed.state.global_step == end
    measured = [
        [line["step"] for line in each.state.log_history if "eval_scripted_mean" in line] for each in (whole, resumed)
    ]
    assert measured[0] == measured[1] == list(range(0, end + 1, 2))


def test_more_patience_goes_on(train):
    train("run", FALLING_FROM_STEP_4, early_stopping_patience=1)
    assert train("run", FALLING_FROM_STEP_4, resume=True, early_stopping_patience=2).state.global_step == 8


def test_a_run_that_had_ended_finds_its_best_checkpoint_in_a_folder_of_another_name(train, tmp_path, caplog):
    best = train("run", FALLING_FROM_STEP_4).model.state_dict()
    (tmp_path / "run").rename(tmp_path / "moved")
    moved = train("moved", FALLING_FROM_STEP_4, resume=True)
    assert moved.state.best_model_checkpoint == str(tmp_path / "moved" / "checkpoint-4")
    assert all((weight == best[name]).all() for name, weight in moved.model.state_dict().items())
    assert "no measurement chose a checkpoint" not in caplog.text


@pytest.mark.parametrize("written_by", ["a run without patience", "an earlier version"])
def test_patience_may_be_new_to_a_resumed_run(written_by, train, tmp_path):
    train("run", FALLING_FROM_STEP_4, max_steps=6, early_stopping_patience=None if "without" in written_by else 9)
    state = tmp_path / "run" / "checkpoint-6" / "trainer_state.json"
    state.write_text(state.read_text().replace('"EarlyStopping"', '"EarlyStoppingCallback"'))
    (tmp_path / "run" / "checkpoint-6" / "manifest.json").unlink()
    resumed = train("run", FALLING_FROM_STEP_4, resume=True, early_stopping_patience=2)
    assert resumed.state.global_step == (10 if "without" in written_by else 8)


def test_a_resumed_run_measures_saves_and_logs_at_its_own_steps(train, tmp_path):
    train("run", RISING, max_steps=4)
    resumed = train("run", RISING, resume=True, eval_steps=4, save_steps=4, logging_steps=3)
    after = [line for line in resumed.state.log_history if line["step"] > 4]
    assert [line["step"] for line in after if "eval_scripted_mean" in line] == [8, 12]
    assert [line["step"] for line in after if "loss" in line] == [6, 9, 12]
    assert not (tmp_path / "run" / "checkpoint-6").exists() and (tmp_path / "run" / "checkpoint-8").exists()


def test_another_call_of_train_has_its_own_patience(tmp_path, tokenizer, sentences):
    """As a search for hyper-parameters makes them; the second one had trained nothing."""
    task = ByStep(sentences[:3], FALLING_FROM_STEP_4)
    rows = Dataset.from_dict({"anchor": tokenizer(sentences)["input_ids"]})
    settings = EVERY_TWO_STEPS | {"early_stopping_patience": 1}
    trainer = make_trainer(tmp_path / "out", rows, tokenizer, suite=TaskSuite([task]), **settings)
    task.trainer = trainer
    assert [trainer.train().global_step for _ in range(3)] == [6, 6, 6]


def test_shares_of_all_steps_that_are_rounded_one_by_one_still_meet(tmp_path, tokenizer, sentences):
    """0.1 and 0.3 of 25 steps would be 3 and 8."""
    task = ByStep(sentences[:3], [0.1] * 20)
    rows = Dataset.from_dict({"anchor": tokenizer(sentences)["input_ids"]})
    settings = EVERY_TWO_STEPS | {"max_steps": 25, "eval_steps": 0.1, "save_steps": 0.3}
    trainer = make_trainer(tmp_path / "out", rows, tokenizer, suite=TaskSuite([task]), **settings)
    task.trainer = trainer
    trainer.train()
    saved = sorted(int(path.name.split("-")[1]) for path in (tmp_path / "out").glob("checkpoint-*"))
    assert saved == [9, 18, 25] and trainer.state.eval_steps == 3
