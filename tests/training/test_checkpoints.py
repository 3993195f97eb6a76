"""Checkpoints: whole however a process dies, found out where they are damaged, and exact where a run goes on."""

import json
import shutil
import threading
from pathlib import Path

import pytest
import torch
import transformers
from datasets import Dataset
from tiny import make_trainer, tiny_model

from arccse_hf.errors import UserError
from arccse_hf.training import checkpoints, fault_tolerance
from arccse_hf.training.checkpoints import MANIFEST, STAGING, check_checkpoint, find_checkpoint

FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture(scope="module")
def rows(tokenizer, sentences):
    return Dataset.from_dict({"anchor": tokenizer(sentences)["input_ids"]})


def train_in(folder, rows, tokenizer, resume=None, model=None, **settings):
    defaults = {"max_steps": 5, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 3}
    trainer = make_trainer(folder, rows, tokenizer, model, **{**defaults, **settings})
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.fixture
def train(tmp_path, rows, tokenizer):
    """Trains in a folder, with a checkpoint every 2 steps of 5, and returns the trainer."""
    return lambda name, rows=rows, **settings: train_in(tmp_path / name, rows, tokenizer, **settings)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, rows, tokenizer):
    """The trainer of a run that has ended, with checkpoints 2, 4 and 5. Tests read it alone."""
    return train_in(tmp_path_factory.mktemp("whole"), rows, tokenizer)


@pytest.fixture
def run(whole, tmp_path):
    """A copy of the folder of that run."""
    return shutil.copytree(whole.args.output_dir, tmp_path / "run")


def assert_equal_weights(one, other):
    expected = other.model.state_dict()
    for name, weight in one.model.state_dict().items():
        assert torch.equal(weight, expected[name]), name


def kill_at(monkeypatch, owner, name, calls, after):
    """Replaces a function by one that ends the process when it has been called so often since `after` is there."""
    function, count = getattr(owner, name), iter(range(calls))

    def killer(*args, **kwargs):
        if after.exists() and next(count, None) is None:
            raise Killed
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, killer)


WRITING = {
    "between the optimizer and the scheduler": (torch, "save", 2, 2),
    "before the state": (transformers.TrainerState, "save_to_json", 0, 2),
    "while checksums are computed": (checkpoints, "_checksum", 3, 2),
    "before the move": (Path, "replace", 0, 2),
    "before older ones are removed": (fault_tolerance, "rotate_checkpoints", 1, 4),
}


def test_a_process_that_dies_while_it_writes_a_checkpoint_goes_on_exactly(train, whole, tmp_path, monkeypatch):
    for number, (owner, name, calls, newest) in enumerate(WRITING.values()):
        folder = tmp_path / f"run-{number}"
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_at(patch, owner, name, calls, folder / "checkpoint-2")
            train(folder.name)
        assert max(path.name for path in folder.glob("checkpoint-*")) == f"checkpoint-{newest}"
        for path in folder.glob("checkpoint-*"):
            check_checkpoint(path, checksums=True)
        assert_equal_weights(train(folder.name, resume=True), whole)
        assert not list(folder.glob(".checkpoint*"))


def test_checkpoints_cut_short_by_a_process_without_manifest_are_skipped_and_removed(train, run, whole, caplog):
    """What Trainer leaves when it is killed while it writes in place."""
    for path in run.glob("checkpoint-*"):
        (path / MANIFEST).unlink()
    shutil.rmtree(run / "checkpoint-5")
    (run / "checkpoint-9").mkdir()
    for step, names in ((6, FILES[:1]), (7, FILES[:2]), (8, FILES)):
        (run / f"checkpoint-{step}").mkdir()
        for name in names:
            shutil.copy(run / "checkpoint-4" / name, run / f"checkpoint-{step}" / name)
    state = run / "checkpoint-8" / "trainer_state.json"
    state.write_text(state.read_text()[:200])
    assert_equal_weights(train("run", resume=True, save_total_limit=None), whole)
    assert "removed checkpoint-9, checkpoint-8, checkpoint-7, checkpoint-6, which" in caplog.text
    assert "checkpoint-4: has no manifest" in caplog.text
    assert not [step for step in range(6, 10) if (run / f"checkpoint-{step}").exists()]


DAMAGE = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * (path.stat().st_size // 256 + 1)),
    "one bit": lambda path: path.write_bytes(flip(path.read_bytes())),
}


def flip(content):
    position = len(content) // 2
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


@pytest.mark.parametrize("sealed", [True, False])
def test_every_damage_is_one_line_that_names_the_file_and_the_checkpoint_before(run, sealed):
    if not sealed:
        for path in run.glob("checkpoint-*"):
            (path / MANIFEST).unlink()
    for name in FILES:
        for damage, harm in DAMAGE.items():
            if not sealed and (name == "trainer_state.json" or damage == "one bit"):
                continue  # the one makes it incomplete, the other is what the manifest is for
            path = run / "checkpoint-5" / name
            before = path.read_bytes()
            harm(path)
            with pytest.raises(UserError, match=f"checkpoint-5: {name} is .*checkpoint-4 goes on from the one before"):
                check_checkpoint(run / "checkpoint-5", checksums=True)
            path.write_bytes(before)
    check_checkpoint(run / "checkpoint-5", checksums=True)
    (run / "checkpoint-4" / "optimizer.pt").unlink()  # what is no good either is not proposed
    (run / "checkpoint-5" / "optimizer.pt").unlink()
    with pytest.raises(UserError, match="--resume_from_checkpoint .*checkpoint-2 goes on"):
        check_checkpoint(run / "checkpoint-5", checksums=False)
    assert find_checkpoint(run).name == "checkpoint-5"  # damaged, and not removed


def test_a_manifest_that_is_damaged_is_named(run):
    (run / "checkpoint-5" / MANIFEST).write_text("{")
    with pytest.raises(UserError, match=f"checkpoint-5: {MANIFEST} is damaged; .*checkpoint-4"):
        check_checkpoint(run / "checkpoint-5", checksums=False)


def test_a_damaged_checkpoint_stops_a_resumed_run_and_the_end_with_the_best_one(train, run):
    weights = run / "checkpoint-5" / "model.safetensors"
    weights.write_bytes(flip(weights.read_bytes()))
    with pytest.raises(UserError, match="checkpoint-5: model.safetensors is damaged"):
        train("run", resume=True)
    with pytest.raises(UserError, match="checkpoint-5: model.safetensors is damaged"):
        train("other", resume=str(run / "checkpoint-5"))
    trainer = train("third", max_steps=1)
    trainer.state.best_model_checkpoint = str(run / "checkpoint-5")
    with pytest.raises(UserError, match="checkpoint-5: model.safetensors is damaged"):
        trainer._load_best_model()


def test_nothing_to_resume_from_is_a_beginning(train, whole, caplog):
    assert_equal_weights(train("early", resume=True), whole)
    assert "early: holds no checkpoint yet; training starts from the beginning" in caplog.text


def test_a_run_that_is_resumed_at_its_end_trains_nothing(train, run, monkeypatch):
    before = {name: weight.clone() for name, weight in train("run", resume=True).model.state_dict().items()}
    monkeypatch.setattr(fault_tolerance.FaultTolerantTrainer, "training_step", lambda *_: pytest.fail("trained"))
    trainer = train("run", resume=True)
    assert trainer.state.global_step == 5
    assert not [line for line in trainer.state.log_history if line.get("train_loss") == 0]
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(weight, before[name])


def test_what_is_different_is_said_or_refused(train, run, rows, tokenizer, caplog):
    train(
        "run", resume=True, rows=rows.select(range(40)), seed=7, learning_rate=0.5, triplet_weight=0.3, max_steps=6,
        model=tiny_model(temperature=0.1),
    )  # fmt: skip
    for line in (
        "checkpoint-5: the text is not the one that the checkpoint was trained on",
        "--seed 7: was 42 until this checkpoint",
        "--learning_rate 0.5: has no effect, the checkpoint goes on with 0.001",
        "--triplet_weight 0.3: was 0.1 until",
        "--temperature 0.1: was 0.05 until",
        "--max_steps 6: was 5 until",
    ):
        assert line in caplog.text
    caplog.clear()
    train("run", resume=True, max_steps=6, seed=7, learning_rate=0.5, triplet_weight=0.3, rows=rows.select(range(40)),
          model=tiny_model(temperature=0.1))  # fmt: skip
    assert "checkpoint-6" not in caplog.text  # nothing is different from the last one
    with pytest.raises(UserError, match="--pooling mean: .* --pooling cls; give that, or --overwrite_output_dir"):
        train("run", resume=True, model=tiny_model(pooling="mean"))
    other = tiny_model()
    torch.nn.init.normal_(other.arccse.encoder.embeddings.word_embeddings.weight)
    with pytest.raises(UserError, match="--model_name_or_path: the checkpoint was trained from another encoder"):
        train("run", resume=True, model=other)


def test_the_learning_rate_of_the_checkpoint_stays_in_force(train, run, whole):
    """What the message above says."""
    resumed = train("other", resume=str(run / "checkpoint-2"), learning_rate=0.5)
    assert_equal_weights(resumed, whole)


def test_a_checkpoint_of_the_model_alone_brings_no_learning_rate_along(train, caplog):
    train("run", save_only_model=True)
    caplog.clear()
    train("run", resume=True, save_only_model=True, learning_rate=0.5, max_steps=6)
    assert "--learning_rate 0.5: was 0.001 until this checkpoint" in caplog.text
    assert "has no effect" not in caplog.text and "the optimizer starts anew" in caplog.text


def test_the_newest_and_the_best_are_kept_and_the_best_is_named_by_its_place(train, tmp_path):
    trainer = train("run", save_total_limit=1, max_steps=2)
    trainer.args.save_total_limit = 2
    for step, best in ((4, 4), (6, 4), (8, 4)):
        trainer.state.global_step, trainer.state.best_global_step = step, best
        trainer._save_checkpoint(trainer.model, None)
    assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-8"]
    for step in (4, 8):
        state = json.loads((tmp_path / "run" / f"checkpoint-{step}" / "trainer_state.json").read_text())
        assert state["best_model_checkpoint"] == str(tmp_path / "run" / "checkpoint-4")
    assert not (tmp_path / "run" / STAGING).exists()


def test_a_checkpoint_is_sealed_and_checked_without_a_new_thread(tmp_path, monkeypatch):
    """Which a full address space, or a limit of processes, does not allow."""

    def refuse(self):
        raise RuntimeError("can't start new thread")

    staged = tmp_path / "staged"
    staged.mkdir()
    for name in ("trainer_state.json", "optimizer.pt"):
        (staged / name).write_text("{}")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    checkpoints.publish_checkpoint(staged, tmp_path / "checkpoint-1", {})
    check_checkpoint(tmp_path / "checkpoint-1", checksums=True)
