"""A study compares runs of one encoder on one text, judged by tests that chose nothing: anything else is said."""

import json
import shutil
import sys

import pytest

from arccse_hf.errors import UserError
from arccse_hf.study import command, execute
from arccse_hf.study.plan import read_study

OBJECTIVES = {"SimCSE": {"angular_margin": 0}}
QUICK = {"max_steps": 1, "eval_strategy": "no", "save_strategy": "no"}


def rewritten_text(folder):
    text = folder / "text.txt"
    text.write_text(text.read_text().replace("a", "o"))


def rewritten_vocabulary(folder):
    vocabulary = folder / "encoder" / "tokenizer.json"
    vocabulary.write_text(vocabulary.read_text().replace('"cat"', '"cats"'))


def rewritten_encoder(folder):
    """One number in the middle of the weights, and no other file."""
    path = folder / "encoder" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("rewrite", "name"),
    [
        (rewritten_text, "train_file"),
        (rewritten_encoder, "model_name_or_path"),
        (rewritten_vocabulary, "model_name_or_path"),
    ],
)
def test_what_was_done_from_other_files_of_the_same_name_is_refused(study_file, base, encoder, rewrite, name):
    folder = base.parent
    shutil.copytree(encoder, folder / "encoder")
    settings = QUICK | {"model_name_or_path": str(folder / "encoder")}
    path = study_file(variants=OBJECTIVES, seeds=[1], settings=settings)
    assert command.run_study(path) == command.run_study(path, resume=True) == 0
    rewrite(folder)
    with pytest.raises(UserError, match=rf"seed-1: was done from other files of the same name .*\({name} "):
        command.run_study(path, seeds=[1, 2], resume=True)
    assert not (folder / "out" / "runs" / "SimCSE" / "seed-2").exists()


def test_a_test_that_chooses_checkpoints_is_said_and_another_is_not(study_file, base, capsys, monkeypatch):
    monkeypatch.setattr(command, "run_all", lambda study, **_: 0)
    warning = "warning: scored chooses checkpoints or trials, and is a test too"
    assert command.run_study(study_file(variants=OBJECTIVES)) == 0
    assert capsys.readouterr().err.startswith(warning)
    other = base.parent / "other.csv"
    other.write_text((base.parent / "scored.csv").read_text().replace(",5\n", ",4\n"))
    assert command.run_study(study_file(variants=OBJECTIVES, test_tasks=[str(other)])) == 0
    assert capsys.readouterr().err == ""
    chosen = {"x": {"eval_data": str(other), "eval_tasks": "sts"}}  # and tested on the base's file
    assert command.run_study(study_file(variants=chosen, test_tasks=["sts"])) == 0
    assert capsys.readouterr().err == ""
    never = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    assert command.run_study(study_file(variants=OBJECTIVES, settings=never)) == 0
    assert capsys.readouterr().err == ""


def test_where_every_trial_is_useless_none_is_chosen(study_file, base):
    study = read_study(study_file(variants={"x": {}}, tuning={"grid": {"temperature": [1, 2]}}))
    for trial in study.runs()[:2]:
        (study.output_dir / trial.name).mkdir(parents=True)
        result = execute.RunResult(study.run_settings(trial), "eval_scored_spearman", 0.5, kept_start=True)
        execute._write(study.output_dir / trial.name, result, {})
    assert execute.chosen_fields(study, "x") is None
    with pytest.raises(
        UserError, match="x: each of its 2 trials kept the start encoder, .* other values of temperature"
    ):
        execute.execute(study, study.runs()[2], suite=None)


def test_pairs_that_all_hang_together_have_scores_and_no_interval(study_file, base):
    """Each query and each document is in two pairs: all are one independent draw."""
    rows = "".join(f"the printer number {i // 2} jams,document {(i + 1) // 2} about paper\n" for i in range(30))
    (base.parent / "faq.csv").write_text("query,document\n" + rows)
    variants = OBJECTIVES | {"ArcCon": {"angular_margin": 10}}
    path = study_file(variants=variants, seeds=[1], settings=QUICK, test_tasks=[str(base.parent / "faq.csv")])
    with pytest.warns(UserWarning, match="no interval: the 30 units hang together in 1 groups, and 20 are needed"):
        assert command.run_study(path) == 0
    simcse, arccon = json.loads((base.parent / "out" / "results.json").read_text())["variants"]
    assert simcse["scores"]["faq"]["values"] and arccon["difference"] is not None and arccon["interval"] is None


def test_the_traceback_of_a_defect_stands_in_the_log(study_file, base, monkeypatch):
    def broken(*_):
        raise KeyError("a defect of ours")

    monkeypatch.setattr(execute, "_train", broken)
    monkeypatch.setattr(sys, "stderr", open(2, "w", closefd=False))  # noqa: SIM115, in place of pytest's
    assert command.run_study(study_file(variants=OBJECTIVES, seeds=[1])) == 1
    log = (base.parent / "out" / "runs" / "SimCSE" / "seed-1" / "run.log").read_text()
    assert "Traceback" in log and "in broken" in log and "a defect of ours" in log
