"""What a run leaves: the mark that it is done, what the next run removes, and models that stay as they were."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from arccse_hf import run_folder
from arccse_hf.errors import UserError
from arccse_hf.run_folder import (
    begin_run,
    check_output_dir,
    checkpoints,
    finish_run,
    is_done,
    kept_step,
    metrics_of,
    read_cosines,
)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")


def begin(folder, resume=False, overwrite=False):
    begin_run(folder, resume=resume, overwrite=overwrite, facts={"hardware": "CPU"})


def test_a_run_is_done_when_its_mark_says_so(tmp_path):
    begin(tmp_path)
    touch(tmp_path, "modules.json", "all_results.json")
    assert not is_done(tmp_path)
    finish_run(tmp_path)
    assert is_done(tmp_path)
    mark = json.loads((tmp_path / "training" / "run_status.json").read_text())
    assert mark["hardware"] == "CPU" and mark["started"] <= mark["finished"]
    begin(tmp_path, overwrite=True)
    assert not is_done(tmp_path)


@pytest.mark.parametrize(
    ("files", "done"),
    [
        (["modules.json", "all_results.json"], True),
        (["modules.json", "all_results.json", "final-checkpoint/config.json"], False),
        (["all_results.json"], False),
        (["modules.json"], False),
    ],
)
def test_runs_from_before_the_mark_are_known_by_what_they_left(tmp_path, files, done):
    touch(tmp_path, *files)
    assert is_done(tmp_path) == done


def test_a_killed_runs_leftovers_go_and_what_the_user_has_there_stays(tmp_path):
    mine = ["notes.txt", "modules.json", "model.safetensors", "checkpoint-best/config.json"]
    touch(tmp_path, *mine, "final-checkpoint/config.json", ".export-x1/config.json", "checkpoint-4/config.json")
    touch(tmp_path, "all_results.json", "cosines_before.json", "run_status.json", "training/final-checkpoint/x")
    touch(tmp_path, "training/checkpoint-8/config.json", "snapshot_after.json")
    begin(tmp_path, resume=True)
    assert not list(tmp_path.rglob("final-checkpoint")) and not list(tmp_path.glob(".export-*"))
    # What an earlier version has left beside the model goes on where this one keeps it; its checkpoints stay.
    assert checkpoints(tmp_path) == [tmp_path / "training" / "checkpoint-8", tmp_path / "checkpoint-4"]
    assert (tmp_path / "training" / "cosines_before.json").exists() and not list(tmp_path.glob("*s_*.json"))
    assert (tmp_path / "all_results.json").exists()
    begin(tmp_path, overwrite=True)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*mine, "training/run_status.json"}


def test_the_results_of_another_program_stay(tmp_path):
    touch(tmp_path, "all_results.json")
    begin(tmp_path)
    assert (tmp_path / "all_results.json").exists()


def test_a_model_is_replaced_only_by_its_own_run_that_goes_on(tmp_path):
    touch(tmp_path, "modules.json", "checkpoint-2/trainer_state.json")
    for resume in (False, True):
        with pytest.raises(UserError, match="holds a finished model"):
            check_output_dir(tmp_path, overwrite=False, resume=resume)
    begin(tmp_path, overwrite=True)  # and it is killed, while the old model is still there
    check_output_dir(tmp_path, overwrite=False, resume=True)
    check_output_dir(tmp_path, overwrite=True, resume=False)


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors", "tokenizer.json"])
def test_files_that_no_run_has_left_are_not_replaced(tmp_path, name):
    touch(tmp_path, name, "notes.txt")
    for resume in (False, True):
        with pytest.raises(UserError, match=f"the model would replace its {name}; choose another folder"):
            check_output_dir(tmp_path, overwrite=False, resume=resume)
    check_output_dir(tmp_path, overwrite=True, resume=False)
    begin(tmp_path)
    check_output_dir(tmp_path, overwrite=False, resume=False)  # now it is a run's folder


def test_scores_in_a_line_of_the_log():
    line = {"eval_dev_spearman": 0.5, "eval_runtime": 2.0, "eval_samples_per_second": 3, "step": 4, "epoch": 1.0}
    assert metrics_of(line) == {"dev_spearman": 0.5}
    assert metrics_of({"before_x": 1, "eval_x": 2}, "before_") == {"x": 1}


def test_the_weights_that_are_kept():
    state = {"global_step": 9, "best_global_step": 7, "best_model_checkpoint": "runs/a-1/training/checkpoint-6"}
    assert (kept_step(state, True), kept_step(state, False)) == (6, 9)
    assert kept_step(state | {"best_model_checkpoint": None}, True) == 9


def test_cosines_of_older_runs_are_read(tmp_path):
    (tmp_path / "snapshot_before.json").write_text('{"positives": [1]}')
    assert read_cosines(tmp_path, "before") == {"positives": [1]}
    (tmp_path / "cosines_before.json").write_text('{"positives": [2]}')
    assert read_cosines(tmp_path, "before") == {"positives": [2]}
    assert read_cosines(tmp_path, "after") == {}


@pytest.mark.parametrize(
    ("module", "needless"),
    [("run_folder", ("torch", "transformers", "numpy")), ("report.page", ("torch", "transformers"))],
)
def test_looking_at_runs_needs_no_torch(module, needless):
    code = """
import importlib, sys, types
package = sys.modules["arccse_hf"] = types.ModuleType("arccse_hf")
package.__path__ = [sys.argv[1]]
importlib.import_module(f"arccse_hf.{sys.argv[2]}")
print([name for name in sys.argv[3:] if name in sys.modules])
"""
    folder = str(Path(run_folder.__file__).parent)
    loaded = subprocess.run([sys.executable, "-c", code, folder, module, *needless], capture_output=True, text=True)
    assert loaded.stdout.strip() == "[]", loaded.stderr
