"""`arccse evaluate`: opening models, embedding once, comparing, and what a user reads."""

import csv
import io
import json
import math
import sys
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from backbones import save_encoder, tiny_tokenizer
from scipy import stats
from transformers import BertModel, BertTokenizer

from arccse_hf.errors import UserError
from arccse_hf.evaluation.bootstrap import PerItemScores, bootstrap_differences, interval
from arccse_hf.evaluation.compare import ModelResult, compare, score_suite
from arccse_hf.evaluation.retrieval import RetrievalTask
from arccse_hf.evaluation.sts import ScoredPairs, STSTask
from arccse_hf.evaluation.suite import TaskSuite
from arccse_hf.evaluation.tables import difference_table, score_tables, to_markdown, write_report
from arccse_hf.inference.embed import embed
from arccse_hf.inference.evaluate import evaluate, evaluate_and_print
from arccse_hf.inference.open import load_encoder

WORDS = "a cat dog sat ran on the mat far home".split()
SENTENCES = ["a cat sat", "the dog ran far", "a dog ran home on the mat", "cat", "the mat"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A tiny BERT with a tokenizer, as a plain encoder's folder."""
    tokenizer = tiny_tokenizer(WORDS, max_length=24)
    return save_encoder(tmp_path_factory.mktemp("models"), tokenizer, max_position_embeddings=24, initializer_range=0.5)


@pytest.fixture(scope="module")
def st_folder(plain, tmp_path_factory):
    """The same encoder in sentence-transformers layout, pooled by [CLS]."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    folder = tmp_path_factory.mktemp("models") / "st"
    SentenceTransformer(modules=[Transformer(plain), Pooling(16, "cls")], device="cpu").save(str(folder))
    return str(folder)


@pytest.fixture
def own_pairs(tmp_path):
    rng = np.random.default_rng(0)
    rows = [" ".join(rng.choice(WORDS, size=rng.integers(1, 7))) for _ in range(80)]
    path = tmp_path / "own.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence1", "sentence2", "score"])
        writer.writerows([rows[i], rows[i + 40], i % 6] for i in range(40))
    return str(path)


def states(folder, sentence):
    """The encoder's last states of one unpadded sentence, through transformers alone."""
    ids = BertTokenizer.from_pretrained(folder)(sentence, return_tensors="pt")
    with torch.no_grad():
        return BertModel.from_pretrained(folder, add_pooling_layer=False)(**ids).last_hidden_state[0].numpy()


class TestEncoders:
    @pytest.mark.parametrize(
        ("pooling", "said", "pool"),
        [
            (None, "mean (default)", lambda h: h.mean(axis=0)),
            ("cls", "cls (asked for)", lambda h: h[0]),
            ("max", "max (asked for)", lambda h: h.max(axis=0)),
        ],
    )
    def test_a_plain_encoder_is_pooled_as_asked_and_says_so(self, plain, pooling, said, pool):
        encoder = load_encoder(plain, pooling=pooling)
        assert encoder.pooling == said
        expected = np.stack([pool(states(plain, sentence)) for sentence in SENTENCES])
        np.testing.assert_allclose(embed(encoder, SENTENCES), expected, atol=1e-5)

    def test_our_own_poolings_work_on_plain_encoders(self, plain):
        encoder = load_encoder(plain, pooling="mean_first_last")
        assert encoder.pooling == "mean_first_last (asked for)"
        assert embed(encoder, SENTENCES).shape == (5, 16)

    def test_a_sentence_transformers_folder_keeps_its_own_pooling_unless_overridden(self, st_folder, plain):
        encoder = load_encoder(st_folder)
        assert encoder.pooling == "cls (its own)"
        got = embed(encoder, SENTENCES[:1])
        np.testing.assert_allclose(got[0], states(plain, SENTENCES[0])[0], atol=1e-5)
        assert load_encoder(st_folder, pooling="mean").pooling == "mean (asked for)"
        with pytest.raises(UserError, match=r"--pooling middle: for .* choose from cls, "):
            load_encoder(st_folder, pooling="middle")

    def test_a_checkpoint_of_ours_is_converted(self, plain, tmp_path):
        from arccse_hf import ArcCSEModel

        model = ArcCSEModel.from_backbone(plain, pooling="cls", projection="none")
        model.save_pretrained(tmp_path)
        tokenizer = BertTokenizer.from_pretrained(plain)
        tokenizer.save_pretrained(tmp_path)
        encoder = load_encoder(str(tmp_path))
        assert encoder.pooling == "cls (its own)"
        with torch.no_grad():
            expected = model.eval()(**tokenizer(SENTENCES[:1], return_tensors="pt")).pooler_output
        np.testing.assert_allclose(embed(encoder, SENTENCES[:1]), expected, atol=1e-5)
        assert load_encoder(str(tmp_path), pooling="mean").pooling == "mean (asked for)"

    def test_a_folder_without_tokenizer_is_refused(self, plain, tmp_path):
        BertModel.from_pretrained(plain, add_pooling_layer=False).save_pretrained(tmp_path)
        with pytest.raises(UserError, match="there is no usable tokenizer beside the weights"):
            load_encoder(str(tmp_path))

    def test_no_such_model_and_wrong_options_are_one_line(self, plain, tmp_path):
        with pytest.raises(UserError, match="nowhere: cannot be opened: there is no such folder") as caught:
            load_encoder(str(tmp_path / "nowhere"))
        assert "\n" not in str(caught.value)
        with pytest.raises(UserError, match="--dtype int8: choose from float32"):
            load_encoder(plain, dtype="int8")
        with pytest.raises(UserError, match=r"--max_seq_length 25: .* reads from 3 to 24 tokens"):
            load_encoder(plain, max_seq_length=25)

    def test_bfloat16_is_close_and_comes_back_as_float32(self, plain):
        exact = embed(load_encoder(plain), SENTENCES)
        rough = embed(load_encoder(plain, dtype="bfloat16"), SENTENCES)
        assert rough.dtype == np.float32
        assert 1e-6 < np.abs(rough - exact).max() < 0.1

    @pytest.mark.parametrize("batch_size", [1, 2, 64])
    def test_every_embedding_comes_back_to_its_sentence(self, plain, batch_size):
        encoder = load_encoder(plain)
        got = embed(encoder, SENTENCES, batch_size=batch_size)
        np.testing.assert_allclose(got, np.stack([encoder.model.encode(s) for s in SENTENCES]), atol=1e-5)

    def test_a_batch_holds_sentences_of_one_length_in_tokens(self, plain, monkeypatch):
        encoder = load_encoder(plain)
        shapes, preprocess = [], encoder.model.preprocess

        def watched(texts, **kwargs):
            features = preprocess(texts, **kwargs)
            shapes.append(tuple(features["input_ids"].shape))
            return features

        monkeypatch.setattr(encoder.model, "preprocess", watched)
        # Fewer characters are more tokens here: a word that the tokenizer lacks is one, however long.
        embed(encoder, ["a a a a", "incomprehensible", "on on on on", "cat"], batch_size=2)
        assert shapes == [(2, 6), (2, 3)]

    def test_truncated_sentences_are_counted(self, plain):
        encoder = load_encoder(plain, max_seq_length=5)
        assert encoder.count_truncated(["a cat sat", "a cat sat on", "unbelievable", *["the"] * 3]) == 1
        assert load_encoder(plain).count_truncated(["a " * 22, "a " * 23]) == 1


def spearman_differences(a, b, references, resamples, seed):
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, len(a), size=len(a)) for _ in range(resamples)]
    return [
        stats.spearmanr(a[r], references[r]).statistic - stats.spearmanr(b[r], references[r]).statistic for r in rows
    ]


class TestBootstrap:
    def test_spearman_differences_against_scipy_on_the_same_draws(self):
        rng = np.random.default_rng(0)
        a, b, gold = rng.normal(size=50), rng.normal(size=50), rng.integers(0, 5, size=50)
        got = bootstrap_differences(
            PerItemScores("spearman", a, gold), PerItemScores("spearman", b, gold), resamples=20, seed=3
        )
        np.testing.assert_allclose(got, spearman_differences(a, b, gold, 20, 3), atol=1e-12)

    def test_the_interval_of_a_mean_has_the_textbook_width(self):
        rng = np.random.default_rng(1)
        a, b = rng.normal(size=4000), rng.normal(size=4000)
        low, high = interval(bootstrap_differences(PerItemScores("mrr", a), PerItemScores("mrr", b), resamples=2000))
        half = 1.96 * (a - b).std() / math.sqrt(4000)
        assert low == pytest.approx((a - b).mean() - half, abs=0.1 * half)
        assert high == pytest.approx((a - b).mean() + half, abs=0.1 * half)

    def test_pairing_cancels_what_both_find_hard(self):
        hard = np.random.default_rng(2).normal(size=500) * 10
        low, high = interval(bootstrap_differences(PerItemScores("mrr", hard + 0.1), PerItemScores("mrr", hard)))
        assert low == pytest.approx(0.1) and high == pytest.approx(0.1)

    def test_units_of_a_group_are_redrawn_together(self):
        rng = np.random.default_rng(4)
        a, b, sizes = rng.normal(size=40), rng.normal(size=40), rng.integers(1, 6, size=40)
        groups = rng.permutation(np.repeat(np.arange(40), sizes))
        members = [np.flatnonzero(groups == group) for group in range(40)]
        a, b = a[groups] + rng.normal(size=len(groups)), b[groups]
        got = bootstrap_differences(
            PerItemScores("mrr", a, groups=groups), PerItemScores("mrr", b, groups=groups), resamples=20, seed=5
        )
        draws = np.random.default_rng(5)
        expected = []
        for _ in range(20):
            drawn = np.concatenate([members[group] for group in draws.integers(0, 40, size=40)])
            expected.append(a[drawn].mean() - b[drawn].mean())
        np.testing.assert_allclose(got, expected, atol=1e-12)

    def test_other_units_are_refused(self):
        with pytest.raises(ValueError, match="same units: 3 against 4"):
            bootstrap_differences(PerItemScores("mrr", np.ones(3)), PerItemScores("mrr", np.ones(4)))


class Failing:
    group, name, main_metrics, sentences = "other", "failing", ("score",), ("cat",)

    def score_with_samples(self, embeddings):
        raise RuntimeError("no luck")


def two_results(suite, noise=0.5):
    """Two made-up models of a suite: random embeddings, and the same with noise."""
    rng = np.random.default_rng(0)
    good = rng.normal(size=(len(suite.sentences), 8))
    results = []
    for name, embeddings in (("runs/one/model", good), ("runs/two/model", good + noise * rng.normal(size=good.shape))):
        results.append(score_suite(ModelResult(name, "mean (its own)"), embeddings, suite))
    return results


@pytest.fixture
def suite():
    rng = np.random.default_rng(3)
    pairs = ScoredPairs([f"a{i}" for i in range(30)], [f"b{i}" for i in range(30)], list(rng.uniform(0, 5, size=30)))
    retrieval = RetrievalTask("retrieval", [(f"a{i}", f"b{i}") for i in range(30)])
    return TaskSuite([STSTask("stsb_dev", pairs), retrieval, Failing()])


class TestComparison:
    def test_a_failing_task_does_not_lose_the_others(self, suite):
        for result in two_results(suite):
            assert set(result.scores) == {"stsb_dev", "retrieval"}
            assert result.errors == {"failing": "RuntimeError: no luck"}

    def test_differences_are_to_the_first_model(self, suite):
        one, two = two_results(suite)
        found = {d.task: d for d in compare([one, two])}
        assert found["stsb_dev"].value == two.scores["stsb_dev"]["spearman"] - one.scores["stsb_dev"]["spearman"]
        assert found["retrieval"].metric == "mrr_at_10"
        assert all(d.low <= d.value <= d.high and d.model == two.name for d in found.values())

    def test_the_average_of_the_papers_has_an_interval_too(self):
        rng = np.random.default_rng(4)
        names = ["sts12", "sts13", "sts14", "sts15", "sts16", "stsb_test", "sickr"]
        pairs = [([f"{n}a{i}" for i in range(20)], [f"{n}b{i}" for i in range(20)]) for n in names]
        tasks = [STSTask(n, ScoredPairs(*p, list(rng.uniform(size=20)))) for n, p in zip(names, pairs, strict=True)]
        one, two = two_results(TaskSuite(tasks))
        found = {d.task: d for d in compare([one, two])}
        (_, table) = score_tables([one, two], TaskSuite([*tasks, STSTask("stsb_dev", tasks[0].pairs)]))
        assert table.header[-3:] == ["SICK-R", "avg", "STS-B dev"]
        assert table.rows[0][-2:] == [f"{100 * one.averages['sts_avg_spearman']:.2f}", "-"]
        assert found["sts_avg"].value == pytest.approx(np.mean([found[name].value for name in names]))
        assert found["sts_avg"].high - found["sts_avg"].low < found["sts12"].high - found["sts12"].low

    def test_the_best_of_each_column_is_bold_and_lower_is_better_for_geometry(self):
        from arccse_hf.evaluation.geometry import GeometryTask

        suite = TaskSuite([GeometryTask(["a", "b"], ["c", "d"], [5, 1])])
        results = [ModelResult("x", "cls"), ModelResult("y", "cls")]
        for result, alignment in zip(results, (0.2, 0.1), strict=True):
            result.scores["geometry"] = {"alignment": alignment, "uniformity": -2.0, "mean_cosine": math.nan}
        table = score_tables(results, suite)[1]
        assert table.header == ["model", "alignment", "uniformity", "mean cosine"]
        assert table.rows == [["x", "0.200", "-2.000", "NaN"], ["y", "0.100", "-2.000", "NaN"]]
        assert table.bold == {(1, 1), (0, 2), (1, 2)}
        assert "| y | **0.100** | **-2.000** | NaN |" in to_markdown([table])

    def test_the_report_holds_everything_and_valid_json(self, suite, tmp_path):
        results = two_results(suite)
        results[0].scores["stsb_dev"]["pearson"] = math.nan
        differences = compare(results)
        tables = [*score_tables(results, suite), difference_table(differences, results)]
        write_report(tmp_path / "report", results, differences, tables, {"data": None})
        content = json.loads((tmp_path / "report" / "evaluation.json").read_text())
        assert content["models"][0]["scores"]["stsb_dev"]["pearson"] is None
        assert content["models"][1]["scores"]["stsb_dev"]["spearman"] == results[1].scores["stsb_dev"]["spearman"]
        assert content["models"][0]["errors"] == {"failing": "RuntimeError: no luck"}
        rows = list(csv.DictReader((tmp_path / "report" / "evaluation.csv").open()))
        assert rows[0]["task"] == "stsb_dev" and float(rows[0]["value"]) == results[0].scores["stsb_dev"]["spearman"]
        markdown = (tmp_path / "report" / "evaluation.md").read_text()
        assert f"{100 * results[0].scores['stsb_dev']['spearman']:.2f}" in markdown and "one/model" in markdown


class TestCommand:
    def test_every_distinct_sentence_is_embedded_once(self, plain, own_pairs, monkeypatch, capsys):
        from sentence_transformers import SentenceTransformer

        seen = []
        encode = SentenceTransformer.encode
        monkeypatch.setattr(
            SentenceTransformer, "encode", lambda self, s, **kwargs: seen.extend(s) or encode(self, s, **kwargs)
        )
        assert evaluate_and_print([plain], ["sts", "geometry"], data=own_pairs) == 0
        rows = list(csv.DictReader(Path(own_pairs).read_text().splitlines()))
        assert sorted(seen) == sorted({row[c] for row in rows for c in ("sentence1", "sentence2")})
        printed = capsys.readouterr().out
        assert "mean (default)" in printed and "uniformity" in printed

    def test_bars_name_the_model_and_what_is_done(self, plain, own_pairs, monkeypatch):
        class Terminal(io.StringIO):
            def isatty(self):
                return True

        monkeypatch.setattr(sys, "stderr", Terminal())
        assert evaluate_and_print([plain], ["sts", "geometry"], data=own_pairs) == 0
        told = sys.stderr.getvalue()
        assert f"{plain}: embedding: 100%" in told
        assert f"{plain}: scoring:" in told and "geometry" in told.partition("scoring")[2]

    def test_in_python_it_returns_scores_and_prints_nothing(self, plain, st_folder, own_pairs, tmp_path, capsys):
        evaluation = evaluate([plain, st_folder, str(tmp_path / "nowhere")], "sts", data=own_pairs)
        assert capsys.readouterr().out == ""
        assert list(evaluation.failed_models) == [str(tmp_path / "nowhere")]
        rows = list(csv.DictReader(Path(own_pairs).read_text().splitlines()))
        model = load_encoder(plain).model
        first, second = (model.encode([row[column] for row in rows]) for column in ("sentence1", "sentence2"))
        cosines = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
        expected = stats.spearmanr(cosines, [float(row["score"]) for row in rows]).statistic
        assert evaluation.scores[plain] == {"own_spearman": pytest.approx(expected, abs=1e-4)}
        difference = evaluation.scores[st_folder]["own_spearman"] - evaluation.scores[plain]["own_spearman"]
        assert [d.value for d in evaluation.differences] == [pytest.approx(difference)]
        assert evaluation.tables()[0].title == "Models"
        with pytest.raises(UserError, match="nowhere: cannot be opened: there is no such folder"):
            evaluate(str(tmp_path / "nowhere"), "sts", data=own_pairs)

    def test_paths_do_as_well_as_names(self, plain, own_pairs, tmp_path):
        evaluation = evaluate(Path(plain), Path(own_pairs))
        assert evaluation.scores == evaluate([plain], [str(own_pairs)]).scores
        evaluation.write(str(tmp_path / "report"))
        assert (tmp_path / "report" / "evaluation.csv").exists()

    @pytest.mark.parametrize("wrong", [{"truncate_dims": [8, 0]}, {"truncate_dims": [-1]}, {"seed": -1}])
    def test_numbers_out_of_range_are_refused_in_python_too(self, plain, own_pairs, wrong):
        with pytest.raises(UserError, match="must be"):
            evaluate(plain, own_pairs, **wrong)

    def test_two_models_and_a_report(self, plain, st_folder, own_pairs, tmp_path, capsys):
        assert (
            evaluate_and_print(
                [plain, st_folder], ["sts"], data=own_pairs, output=tmp_path / "report", max_seq_length=4
            )
            == 0
        )
        printed = capsys.readouterr().out
        assert "sentences were cut to 4 tokens" in printed
        assert "95 % interval" in printed
        content = json.loads((tmp_path / "report" / "evaluation.json").read_text())
        assert [model["pooling"] for model in content["models"]] == ["mean (default)", "cls (its own)"]
        assert content["models"][0]["truncated"] > 0

    def test_a_model_that_fails_does_not_lose_the_others(self, plain, own_pairs, tmp_path, capsys):
        assert evaluate_and_print([str(tmp_path / "nowhere"), plain], ["sts"], data=own_pairs) == 2
        captured = capsys.readouterr()
        assert "nowhere" in captured.err and "mean (default)" in captured.out

    def test_a_failing_task_is_reported_by_the_exit_status(self, plain, own_pairs, monkeypatch, capsys):
        monkeypatch.setattr("arccse_hf.evaluation.geometry.GeometryTask.score_with_samples", Failing.score_with_samples)
        assert evaluate_and_print([plain], ["sts", "geometry"], data=own_pairs) == 1
        printed = capsys.readouterr().out
        assert "geometry failed: RuntimeError: no luck" in printed and "Spearman" in printed

    def test_an_output_that_cannot_be_written_is_refused_before_the_work(self, plain, own_pairs):
        with pytest.raises(UserError, match=r"--output_dir .*own.csv: cannot be written"):
            evaluate_and_print([plain], ["sts"], data=own_pairs, output=Path(own_pairs))

    def test_mteb_is_an_extra(self, plain, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"pip install 'arccse-hf\[mteb\]'"):
            evaluate_and_print([plain], ["mteb:STS12"])

    def test_two_processes_give_the_numbers_of_one(self, plain, own_pairs, tmp_path):
        assert evaluate_and_print([plain], ["sts", "geometry"], data=own_pairs, output=tmp_path / "one") == 0
        launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
        launcher += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
        command = ["-m", "arccse_hf", "evaluate", plain, "--eval_tasks", "sts", "geometry", "--eval_data", own_pairs]
        command += ["--output_dir", tmp_path / "two"]
        done = processes.python(*launcher, *command, ACCELERATE_USE_CPU="1", OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Models\n") == 1, "one process prints"
        one, two = (json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("one", "two"))
        assert (one["settings"]["num_processes"], two["settings"]["num_processes"]) == (1, 2)
        for task, scores in one["models"][0]["scores"].items():
            assert two["models"][0]["scores"][task] == pytest.approx(scores, abs=1e-6)
