"""Matryoshka: both losses at each number of dimensions, and what is measured and told of them."""

import json
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from backbones import save_encoder
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from tiny import batch, tiny_model

from arccse_hf.errors import UserError
from arccse_hf.evaluation.sts import ScoredPairs, STSTask
from arccse_hf.evaluation.suite import TaskSuite, greater_is_better
from arccse_hf.evaluation.tables import dims_table
from arccse_hf.inference.evaluate import evaluate
from arccse_hf.model.configuration_arccse import ArcCSEConfig
from arccse_hf.model.losses import arccon_loss, triplet_loss
from arccse_hf.training import script
from arccse_hf.training.model_arguments import ModelArguments

DIMS, WEIGHTS = [16, 6, 3], [3.0, 2.0, 5.0]


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_the_losses_are_the_mean_of_those_of_slices(weights):
    model = tiny_model(matryoshka_dims=DIMS, matryoshka_weights=weights, triplet_margin=0.2)
    generator = torch.Generator().manual_seed(0)
    pair, triplet = torch.randn(7, 3, 16, generator=generator), torch.randn(5, 3, 16, generator=generator)
    output = model.losses(pair, triplet)
    expected = {"arccon_loss": 0.0, "triplet_loss": 0.0}
    for dim, weight in zip(DIMS, weights or [1.0] * 3, strict=True):
        share = weight / sum(weights or [1.0] * 3)
        anchors, positives, negatives = pair[..., :dim].unbind(1)
        settings = {"negatives": negatives, "angular_margin": 10.0, "temperature": 0.05}
        expected["arccon_loss"] += share * arccon_loss(anchors, positives, **settings)
        expected["triplet_loss"] += share * triplet_loss(*triplet[..., :dim].unbind(1), triplet_margin=0.2)
    for name, value in expected.items():
        torch.testing.assert_close(getattr(output, name), value)
    torch.testing.assert_close(output.arccon_losses.mean(), expected["arccon_loss"])
    torch.testing.assert_close(output.closer_cosine, torch.cosine_similarity(triplet[:, 0], triplet[:, 1]))


def test_a_triplet_costs_something_where_it_does_at_any_number_of_dimensions():
    head = tiny_model(matryoshka_dims=DIMS).triplet_head
    triplets = torch.randn(200, 3, 16, generator=torch.Generator().manual_seed(0))
    violated = [
        torch.cosine_similarity(triplets[:, 0, :dim], triplets[:, 2, :dim])
        > torch.cosine_similarity(triplets[:, 0, :dim], triplets[:, 1, :dim])
        for dim in DIMS
    ]
    assert torch.equal(head.may_cost(triplets), violated[0] | violated[1] | violated[2])
    assert (violated[1] & ~violated[0]).any()


def test_the_gradient_is_that_of_all_triplets_with_a_graph():
    """Only triplets that cost something get a backward pass; here that is judged at each number of dimensions."""
    gradients = []
    for triplet_dropout in (False, True):  # with it, all get a graph; there is no dropout that could differ
        model = tiny_model(dropout=0.0, matryoshka_dims=DIMS)
        output = model.train()(pair=batch(), triplet=batch(views=3, seed=1), triplet_dropout=triplet_dropout)
        (output.arccon_loss + output.triplet_loss).backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-6, rtol=1e-4, msg=name)


def test_a_suite_scores_the_first_dimensions():
    task = STSTask("sts", ScoredPairs(["a", "b", "c"], ["d", "e", "f"], [1.0, 3.0, 2.0]))
    suite = TaskSuite([task], dims=[2])
    embeddings = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    flat = suite.flatten(suite.score(embeddings))
    cut = TaskSuite([task]).flatten(TaskSuite([task]).score(embeddings[:, :2]))
    whole = TaskSuite([task]).flatten(TaskSuite([task]).score(embeddings))
    assert flat == whole | {f"{name}_dim2": value for name, value in cut.items()}
    assert suite.metric_names() == list(flat) and greater_is_better("sts_spearman_dim2")
    assert not greater_is_better("eval_geometry_alignment_dim2")
    assert dims_table(whole) == []
    name, value = next(iter(whole.items()))
    assert dims_table(flat)[:2] == [["metric", "all", "2"], [name, f"{value:.4f}", f"{cut[name]:.4f}"]]


def test_a_run_measures_and_tells_each_number_of_dimensions(encoder, sentences, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sentences.txt").write_text("".join(f"{sentence}.\n" for sentence in sentences))
    rows = [f"{a},{b},{number}\n" for number, (a, b) in enumerate(pairwise(sentences[:9]))]
    (tmp_path / "pairs.csv").write_text("sentence1,sentence2,score\n" + "".join(rows))
    argv = f"--model_name_or_path {encoder} --train_file sentences.txt --output_dir out --eval_data pairs.csv"
    argv += " --per_device_train_batch_size 8 --max_steps 2 --use_cpu True --matryoshka_dims 16 8 4"
    assert script.main([*argv.split(), "--eval_tasks", "sts", "--matryoshka_weights", "1", "1", "2"]) == 0
    results = json.loads((tmp_path / "out" / "all_results.json").read_text())
    names = [f"{when}_pairs_spearman{dim}" for when in ("before", "eval") for dim in ("", "_dim8", "_dim4")]
    assert set(names) <= results.keys() and "eval_pairs_spearman_dim16" not in results
    folder = str(tmp_path / "out")
    whole = SentenceTransformer(folder, device="cpu").encode(sentences)
    cut = SentenceTransformer(folder, device="cpu", truncate_dim=4).encode(sentences)
    np.testing.assert_allclose(cut, whole[:, :4], atol=1e-6)
    card = (tmp_path / "out" / "README.md").read_text()
    scores = [f"{results[name]:.4f}" for name in names[3:]]
    assert 'SentenceTransformer("out", truncate_dim=4)' in card and "| dimensions trained | 16, 8, 4 |" in card
    assert f"| metric | all | 8 | 4 |\n|---|---|---|---|\n| pairs_spearman | {' | '.join(scores)} |\n" in card
    out = capsys.readouterr().out
    table = out[out.index("what is exported, by number of dimensions") :]
    line = next(line for line in table.splitlines() if "pairs_spearman" in line)
    assert [cell.strip() for cell in line.strip("│").split("│")] == ["pairs_spearman", *scores]
    assert "_dim8" not in out


def test_scores_of_many_dimensions_are_printed_whole(capsys):
    """Without a terminal, as in a log file."""
    after = {"a_long_name_spearman": 0.9, **{f"a_long_name_spearman_dim{8 * n}": 0.1 + n / 100 for n in range(1, 13)}}
    script.show_results(SimpleNamespace(before={}, after=after, output_dir="out", verdict=None))
    out = capsys.readouterr().out
    assert all(f" {value:.4f} " in out for value in after.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"matryoshka_dims": [8, 8]}, "--matryoshka_dims must be different whole numbers"),
        ({"matryoshka_dims": [8, 4], "matryoshka_weights": [1.0]}, "--matryoshka_weights must be one number above 0"),
        ({"matryoshka_weights": [1.0]}, "--matryoshka_weights must be one number above 0 for each of []"),
        ({"matryoshka_dims": [0]}, "--matryoshka_dims 0: must be a number from 1 to"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(UserError) as raised:
        ModelArguments("x", **settings)
    assert str(raised.value).startswith(message)


def test_more_dimensions_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="matryoshka_dims 17: the embeddings have 16 dimensions"):
        tiny_model(matryoshka_dims=[17])
    assert ArcCSEConfig(matryoshka_dims=[9]).prefixes == [(9, 1.0)]


def test_evaluate_scores_the_first_dimensions_as_models_of_their_own(
    encoder, sentences, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    rows = [f"{a},{b},{number}\n" for number, (a, b) in enumerate(pairwise(sentences[:9]))]
    (tmp_path / "pairs.csv").write_text("sentence1,sentence2,score\n" + "".join(rows))
    scores = evaluate(encoder, "sts", data="pairs.csv", truncate_dims=[4]).scores
    vectors = SentenceTransformer(encoder, device="cpu", truncate_dim=4).encode(sentences[:9])
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = spearmanr((units[:-1] * units[1:]).sum(axis=1), range(8)).statistic
    assert list(scores) == [encoder, f"{encoder} [:4]"]
    assert scores[f"{encoder} [:4]"]["pairs_spearman"] == pytest.approx(expected) != scores[encoder]["pairs_spearman"]
    with pytest.raises(UserError, match="--truncate_dims 17: .*encoder.* has 16 dimensions"):
        evaluate(encoder, "sts", data="pairs.csv", truncate_dims=[4, 17])
    wide = save_encoder(tmp_path / "wide", tokenizer, hidden_size=32)
    found = evaluate([wide, encoder], "sts", data="pairs.csv", truncate_dims=[17])
    assert list(found.scores) == [wide, f"{wide} [:17]"] and list(found.failed_models) == [encoder]
