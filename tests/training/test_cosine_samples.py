"""Snapshots: the right cosines, of the same sample each time, and training that does not notice them."""

import json

import numpy as np
import pytest
import torch
from backbones import tiny_config
from datasets import Dataset

from arccse_hf import ArcCSEConfig, ArcCSEForContrastiveLearning
from arccse_hf.evaluation.geometry import GeometryTask
from arccse_hf.evaluation.sts import ScoredPairs, STSTask
from arccse_hf.evaluation.suite import TaskSuite
from arccse_hf.report import runs as report
from arccse_hf.training import cosine_samples as snapshots
from arccse_hf.training.arguments import ArcCSETrainingArguments
from arccse_hf.training.cosine_samples import save_cosine_sample
from arccse_hf.training.trainer import ArcCSETrainer


@pytest.fixture
def rows(tokenizer, sentences):
    return Dataset.from_dict({"anchor": tokenizer(sentences)["input_ids"]})


@pytest.fixture
def suite(sentences):
    """An STS task whose sentences neither are all the suite's nor stand in its order."""
    geometry = GeometryTask(sentences[:4], sentences[4:8], [5, 4, 3, 2])
    pairs = ScoredPairs(sentences[10:20], sentences[2:12], [float(index % 6) for index in range(10)])
    return TaskSuite([geometry, STSTask("pairs", pairs)])


def make_trainer(folder, rows, tokenizer, suite=None, dropout=0.3, **settings):
    torch.manual_seed(0)
    backbone = tiny_config("bert")
    backbone.hidden_dropout_prob = backbone.attention_probs_dropout_prob = dropout
    backbone.initializer_range = 1.0  # with the usual one, all sentences of an untrained model look alike
    model = ArcCSEForContrastiveLearning(ArcCSEConfig(backbone_config=backbone))
    defaults = {
        "output_dir": str(folder), "per_device_train_batch_size": 8, "triplet_min_tokens": 15, "learning_rate": 1e-2,
        "max_steps": 3, "eval_strategy": "no", "eval_on_start": False, "save_strategy": "no", "use_cpu": True,
        "disable_tqdm": True, "logging_steps": 1,
    }  # fmt: skip
    args = ArcCSETrainingArguments(**{**defaults, **settings})
    return ArcCSETrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer, eval_suite=suite)


def snapshot_of(trainer, rows, suite, path):
    save_cosine_sample(trainer, rows, suite, path)
    return json.loads(path.read_text())


def test_training_is_the_same_bit_for_bit_with_snapshots(tmp_path, rows, tokenizer, suite):
    plain = make_trainer(tmp_path, rows, tokenizer, suite)
    plain.train()
    watched = make_trainer(tmp_path, rows, tokenizer, suite)
    watched.model.arccse.encoder.embeddings.eval()  # a mode that neither train() nor eval() of the model would restore
    watched.model.projection.train()
    modes = {name: module.training for name, module in watched.model.named_modules()}
    random_state = torch.get_rng_state()
    watched.data_collator.set_epoch(2)
    save_cosine_sample(watched, rows, suite, tmp_path / "before.json")
    assert torch.equal(torch.get_rng_state(), random_state)
    assert {name: module.training for name, module in watched.model.named_modules()} == modes
    assert int(watched.data_collator._epoch) == 2
    watched.train()
    for (name, expected), found in zip(
        plain.model.state_dict().items(), watched.model.state_dict().values(), strict=True
    ):
        assert torch.equal(expected, found), name
    logged = [[line.get("loss") for line in trainer.state.log_history] for trainer in (plain, watched)]
    assert logged[0] == logged[1]


def test_the_cosines_are_those_of_the_projected_embeddings(tmp_path, rows, tokenizer):
    trainer = make_trainer(tmp_path, rows, tokenizer, dropout=0.0)
    found = snapshot_of(trainer, rows, None, tmp_path / "snapshot.json")
    assert "sts" not in found and found["num_rows"] == 48
    np.testing.assert_allclose(found["positives"], np.ones(48), atol=1e-5)  # no dropout: the same sentence twice

    model = trainer.model.eval()

    def embed(token_ids):
        with torch.no_grad():
            pooled = model.arccse(input_ids=torch.tensor([token_ids])).pooler_output
            return torch.nn.functional.normalize(model.projection(pooled), dim=-1)[0].numpy()

    units = [embed(row["anchor"]) for row in rows]
    batches = [range(start, start + 8) for start in range(0, 48, 8)]
    negatives = [float(units[i] @ units[j]) for batch in batches for i in batch for j in batch if i != j]
    assert np.std(negatives) > 0.1
    np.testing.assert_allclose(sorted(found["negatives"]), sorted(negatives), atol=2e-5)

    collator = trainer.data_collator
    triplets = [views for row in rows if (views := collator._triplet(row["anchor"])) is not None]
    assert 0 < len(triplets) < 48
    for name, view in (("closer", 1), ("farther", 2)):
        expected = [float(embed(views[0]) @ embed(views[view])) for views in triplets]
        np.testing.assert_allclose(found[name], expected, atol=2e-5)


def test_the_same_rows_dropout_and_spans_each_time_so_that_only_the_weights_differ(tmp_path, rows, tokenizer):
    trainer = make_trainer(tmp_path, rows, tokenizer, num_train_epochs=3, max_steps=-1)
    before = snapshot_of(trainer, rows, None, tmp_path / "before.json")
    assert max(before["positives"]) < 0.9999  # dropout is on
    torch.randn(5)
    trainer.data_collator.set_epoch(1)
    assert snapshot_of(trainer, rows, None, tmp_path / "again.json") == before
    start = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    trainer.train()
    after = snapshot_of(trainer, rows, None, tmp_path / "after.json")
    assert {name: len(values) for name, values in after.items() if name != "num_rows"} == {
        name: len(values) for name, values in before.items() if name != "num_rows"
    }
    assert after["positives"] != before["positives"]
    trainer.model.load_state_dict(start)
    assert snapshot_of(trainer, rows, None, tmp_path / "back.json") == before


def test_the_sts_pairs_get_the_cosines_of_inference(tmp_path, rows, tokenizer, suite):
    trainer = make_trainer(tmp_path, rows, tokenizer, suite)
    found = snapshot_of(trainer, rows, suite, tmp_path / "snapshot.json")["sts"]
    pairs = suite.tasks[1].pairs
    assert (found["task"], found["num_pairs"], found["scores"]) == ("pairs", 10, pairs.scores)
    model = trainer.model.eval()

    def embed(sentence):
        with torch.no_grad():
            return model.arccse(**tokenizer(sentence, return_tensors="pt")).pooler_output[0]

    expected = [
        float(torch.cosine_similarity(embed(first), embed(second), dim=0))
        for first, second in zip(pairs.first, pairs.second, strict=True)
    ]
    assert np.std(expected) > 0.05
    np.testing.assert_allclose(found["cosines"], expected, atol=2e-5)


def test_the_report_reads_what_a_snapshot_writes(tmp_path, rows, tokenizer, suite):
    found = snapshot_of(make_trainer(tmp_path, rows, tokenizer, suite), rows, suite, tmp_path / "snapshot.json")
    run = report.Run("run", {}, cosine_samples={"after": found})
    assert report.sts_points(run, "after") == (suite.tasks[1].pairs.scores, found["sts"]["cosines"])
    assert [len(report.cosines(run, "after", kind)) for kind in ("positives", "negatives")] == [48, 6 * 8 * 7]
    assert report.cosines(run, "after", "farther") == found["farther"] != []


def test_samples_are_bounded_and_of_what_they_say(tmp_path, rows, tokenizer, suite, monkeypatch):
    trainer = make_trainer(tmp_path, rows, tokenizer, suite, triplet_weight=0.0)
    whole = snapshot_of(trainer, rows, suite, tmp_path / "whole.json")
    monkeypatch.setattr(snapshots, "_ROWS", 17)
    monkeypatch.setattr(snapshots, "_NEGATIVES", 30)
    monkeypatch.setattr(snapshots, "_PAIRS", 4)
    part = snapshot_of(trainer, rows, suite, tmp_path / "part.json")
    assert [len(part[name]) for name in ("positives", "negatives", "closer", "farther")] == [17, 30, 0, 0]
    assert (part["num_rows"], part["sts"]["num_pairs"]) == (48, 10)
    together = list(zip(whole["sts"]["cosines"], whole["sts"]["scores"], strict=True))
    sampled = list(zip(part["sts"]["cosines"], part["sts"]["scores"], strict=True))
    assert len(sampled) == 4
    # Padding differs with the batch, and with it the last digit.
    assert all(any(abs(c - a) < 3e-5 and s == b for a, b in together) for c, s in sampled)


def test_hard_negatives_are_negatives(tmp_path, tokenizer, sentences):
    token_ids = tokenizer(sentences)["input_ids"]
    # The hard negative is the anchor itself: without dropout its cosine is 1, and it belongs to the negatives.
    columns = {"anchor": token_ids[:8], "positive": token_ids[8:16], "negative": token_ids[:8]}
    rows = Dataset.from_dict(columns)
    trainer = make_trainer(tmp_path, rows, tokenizer, dropout=0.0)
    found = snapshot_of(trainer, rows, None, tmp_path / "snapshot.json")
    assert len(found["negatives"]) == 8 * 15 and sum(value > 0.9999 for value in found["negatives"]) >= 8
    assert len(found["positives"]) == 8 and max(found["positives"]) < 0.9999


def test_only_the_main_process_writes(tmp_path, rows, tokenizer, monkeypatch):
    trainer = make_trainer(tmp_path, rows, tokenizer)
    monkeypatch.setattr(trainer, "is_world_process_zero", lambda: False)
    save_cosine_sample(trainer, rows, None, tmp_path / "snapshot.json")
    assert not (tmp_path / "snapshot.json").exists()


def test_sharding_that_cannot_run_outside_training_is_said_not_crashed_on(
    tmp_path, rows, tokenizer, monkeypatch, caplog
):
    trainer = make_trainer(tmp_path, rows, tokenizer)
    monkeypatch.setattr(snapshots, "is_deepspeed_zero3_enabled", lambda: True)
    save_cosine_sample(trainer, rows, None, tmp_path / "cosines_before.json")
    assert not (tmp_path / "cosines_before.json").exists()
    assert "No cosines_before.json: DeepSpeed ZeRO-3" in caplog.text
