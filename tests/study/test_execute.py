"""What the models of a study are scored on, and as what."""

import json

import numpy as np
import pytest
import yaml

from arccse_hf.errors import UserError
from arccse_hf.inference.evaluate import evaluate
from arccse_hf.study import command, execute
from arccse_hf.study.plan import read_study

ONE_STEP = {"x": {"max_steps": 1}}


def test_encoders_are_tested_in_the_type_that_the_study_names(study_file, monkeypatch):
    opened, score = [], execute._score
    monkeypatch.setattr(execute, "_score", lambda encoder, suite: opened.append(encoder) or score(encoder, suite))
    assert command.run_study(study_file(variants=ONE_STEP, untrained=True, test_dtype="bfloat16")) == 0
    assert [encoder.dtype for encoder in opened] == ["bfloat16"] * 2


@pytest.mark.parametrize("pooling", [None, "mean"])
def test_the_untrained_encoder_is_the_one_that_training_starts_from(pooling, study_file, base):
    """A plain one is read at its first token, unless the recipe says otherwise."""
    path = study_file(variants=ONE_STEP, untrained=True, settings={"pooling": pooling} if pooling else {})
    assert command.run_study(path) == 0
    untrained = json.loads((base.parent / "out" / "results.json").read_text())["variants"][0]
    encoder = yaml.safe_load(base.read_text())["model_name_or_path"]
    scores = {
        name: evaluate(encoder, "sts", data=base.parent / "scored.csv", pooling=name).scores[encoder]["scored_spearman"]
        for name in ("cls", "mean")
    }
    assert scores["cls"] != pytest.approx(scores["mean"], abs=0.01)
    assert untrained["scores"]["average"]["mean"] == pytest.approx(scores[pooling or "cls"])


def test_queries_of_one_document_are_redrawn_together(study_file, base, sentences):
    """As `evaluate` does; otherwise the interval would be that of many more documents."""
    rows = [f"{query},{sentences[number // 4]}" for number, query in enumerate(sentences[12:24])]
    (base.parent / "queries.csv").write_text("\n".join(["query,document", *rows]))
    path = study_file(variants=ONE_STEP, test_tasks=[str(base.parent / "queries.csv")])
    assert command.run_study(path) == 0
    study = read_study(path)
    (sample,) = execute.read_samples(study, study.runs()[0]).values()
    np.testing.assert_array_equal(sample.groups, np.arange(12) // 4)
    # Another assignment of the same texts is another test.
    rows[5] = f"{sentences[12 + 5]},{sentences[0]}"
    (base.parent / "queries.csv").write_text("\n".join(["query,document", *rows]))
    with pytest.raises(UserError, match="was scored on other tests than the study has"):
        command.run_study(path, resume=True)


def test_test_tasks_read_the_data_of_the_study_and_not_of_its_trials(study_file, base, monkeypatch):
    asked = []

    def test_suite(study, eval_data):
        asked.append(eval_data)
        raise UserError("enough")

    monkeypatch.setattr(command, "_test_suite", test_suite)
    dev = base.parent / "dev.csv"
    dev.write_text((base.parent / "scored.csv").read_text())
    tuning = {"grid": {"temperature": ["0.05", "0.5"]}, "settings": {"eval_data": str(dev)}}
    with pytest.raises(UserError, match="enough"):
        command.run_study(study_file(variants=ONE_STEP, tuning=tuning))
    assert asked == [str(base.parent / "scored.csv")]


def test_the_score_of_a_start_encoder_chooses_nothing_and_is_marked(study_file, base, monkeypatch):
    """A trial that ruined the encoder is given the start encoder's score by its verdict."""
    train = execute._train

    def keep_start(study, folder):
        train(study, folder)
        path = folder / "all_results.json"
        if "runs" in folder.parts or "temperature=0.5" in str(folder):
            kept = {"verdict": {"keeps_start": True}, "eval_scored_spearman": 0.99}
            path.write_text(json.dumps(json.loads(path.read_text()) | kept))

    monkeypatch.setattr(execute, "_train", keep_start)
    tuning = {"grid": {"temperature": ["0.5", "0.05"]}, "settings": {"max_steps": 1}}
    assert command.run_study(study_file(variants=ONE_STEP, tuning=tuning)) == 0
    (row,) = json.loads((base.parent / "out" / "results.json").read_text())["variants"]
    assert row["chosen"] == {"temperature": "0.05"} and row["kept_start"] == [42]
    assert "| x (start encoder kept: seed 42) | 1 |" in (base.parent / "out" / "results.md").read_text()
