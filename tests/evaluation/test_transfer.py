"""The transfer protocol: on cases whose answer is known, and against scikit-learn's own machinery."""

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit, StratifiedKFold, cross_val_predict
from threadpoolctl import threadpool_limits

from arccse_hf.errors import UserError
from arccse_hf.evaluation.suite import TaskSuite
from arccse_hf.evaluation.tasks import load_tasks
from arccse_hf.evaluation.transfer import BINARY, SPLITS, Split, TransferTask, read_transfer

SHARED = os.environ.get("ARCCSE_SHARED_DATA")


@pytest.fixture(autouse=True)
def one_thread():
    """Many threads on tiny matrices only wait for each other."""
    with threadpool_limits(1):
        yield


def texts(count, prefix="s"):
    """Sentences of one word: the protocol's order is then that of the labels, which the tests below keep sorted."""
    return [f"{prefix}{i}" for i in range(count)]


def clusters(labels, dim=5, separation=1.0, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(labels) + 1, dim)) * separation
    return (centres[labels] + rng.normal(size=(len(labels), dim))).astype(np.float32)


def halves(count, classes=2):
    return sorted(i % classes for i in range(count))


def grid_search(c_exponents, folds):
    grid = {"C": [2.0**e for e in c_exponents]}
    return GridSearchCV(LogisticRegression(max_iter=2000, tol=1e-6), grid, cv=folds, scoring="accuracy")


def agreement(a, b):
    return float(np.mean(np.asarray(a) == np.asarray(b)))


class TestKnownAnswers:
    @pytest.mark.parametrize("sizes", [(60,), (60, 30), (60, 30, 30)])
    def test_a_separable_set_is_solved(self, sizes):
        labels = [halves(size) for size in sizes]
        splits = [Split(texts(size, f"{i}_"), y) for i, (size, y) in enumerate(zip(sizes, labels, strict=True))]
        task = TransferTask("toy", splits, folds=3)
        assert task.score(clusters(np.concatenate(labels), separation=20)) == {"accuracy": 1.0}

    def test_random_labels_stay_near_chance(self):
        task = TransferTask("toy", [Split(texts(300), halves(300))], folds=5)
        embeddings = np.random.default_rng(1).normal(size=(300, 5)).astype(np.float32)
        assert 0.4 < task.score(embeddings)["accuracy"] < 0.6

    def test_a_pair_is_seen_through_difference_and_product_alone(self):
        # Label 1 where both sentences have the same vector: no linear function of u and v says so, |u-v| does.
        rng = np.random.default_rng(0)
        labels = halves(80)
        u = rng.normal(size=(80, 3)).astype(np.float32)
        v = np.where(np.array(labels)[:, None] == 1, u, rng.normal(size=(80, 3))).astype(np.float32)
        splits = [Split(texts(40, f"{n}a"), y, texts(40, f"{n}b")) for n, y in ((0, halves(40)), (1, halves(40)))]
        order = [i for half in (0, 1) for i in range(80) if i % 2 == half]
        rows = [part[order[n * 40 : n * 40 + 40]] for n in (0, 1) for part in (u, v)]
        task = TransferTask("mrpc", splits, folds=4)
        features = task.features(np.concatenate(rows))
        np.testing.assert_array_equal(features[0][:, :3], np.abs(rows[0] - rows[1]))
        np.testing.assert_array_equal(features[0][:, 3:], rows[0] * rows[1])
        got = task.score(np.concatenate(rows))
        assert got["accuracy"] > 0.85 and got["f1"] > 0.85


class TestAgainstScikitLearn:
    """The same protocol, put together from GridSearchCV and cross_val_predict, cold starts and all."""

    def test_nested_cross_validation(self):
        labels = halves(240, classes=3)
        x, y = clusters(labels) * 0.05, np.array(labels)  # so small that a strong penalty would flatten it
        folds = StratifiedKFold(4, shuffle=True, random_state=1111)
        expected = cross_val_predict(grid_search(range(-2, 4), folds), x, y, cv=folds)
        task = TransferTask("toy", [Split(texts(240), labels)], folds=4)
        scores, sample = task.score_with_samples(x)
        assert agreement(sample.values, expected == y) >= 0.99
        assert scores["accuracy"] == pytest.approx((expected == y).mean(), abs=0.01)
        assert 0.5 < scores["accuracy"] < 0.95

    def test_train_and_test_with_f1(self):
        y = [np.array(sorted(int(i % 3 > 0) for i in range(n))) for n in (160, 90)]
        first = [clusters(part, seed=1) * 0.1 for part in y]
        second = [clusters(part, seed=2) * 0.1 for part in y]
        features = [np.hstack([np.abs(u - v), u * v]) for u, v in zip(first, second, strict=True)]
        search = grid_search(range(-1, 6), StratifiedKFold(5, shuffle=True, random_state=1111))
        expected = search.fit(features[0], y[0]).predict(features[1])
        strongest = LogisticRegression(C=0.5).fit(features[0], y[0]).predict(features[1])
        assert (expected != strongest).mean() > 0.1, "the choice has to matter"
        names = [(texts(160, "a"), texts(160, "b")), (texts(90, "c"), texts(90, "d"))]
        task = TransferTask("mrpc", [Split(a, list(p), b) for (a, b), p in zip(names, y, strict=True)], folds=5)
        got = task.score(np.concatenate([first[0], second[0], first[1], second[1]]))
        assert got["accuracy"] == pytest.approx((expected == y[1]).mean(), abs=0.012)
        assert got["f1"] == pytest.approx(f1_score(y[1], expected), abs=0.012)

    def test_train_dev_and_test(self):
        y = [np.array(halves(n)) for n in (150, 60, 200)]
        x = clusters(np.concatenate(y), dim=40, separation=0.35, seed=1)
        held_out = PredefinedSplit([-1] * 150 + [0] * 60)
        search = grid_search(range(-2, 4), held_out).fit(x[:210], np.concatenate(y[:2]))
        assert search.best_params_["C"] == 0.5, "the choice has to matter"
        best = LogisticRegression(max_iter=2000, tol=1e-6, **search.best_params_).fit(x[:150], y[0])
        splits = [Split(texts(len(part), f"{n}_"), list(part)) for n, part in enumerate(y)]
        _, sample = TransferTask("toy", splits).score_with_samples(x)
        assert sample.values.tolist() == (best.predict(x[210:]) == y[2]).tolist()

    def test_rows_are_in_the_order_of_length_and_label_whatever_the_file_had(self):
        task = TransferTask("toy", [Split(["a b c", "d", "e f", "g"], [0, 1, 1, 0])])
        assert task.sentences == ["g", "d", "e f", "a b c"]
        assert task.splits[0].labels == [0, 1, 1, 0]

    def test_the_seed_draws_the_folds(self):
        labels = halves(120)
        x = clusters(labels, separation=0.5)

        def correct(seed):
            return (
                TransferTask("toy", [Split(texts(120), labels)], folds=3, seed=seed)
                .score_with_samples(x)[1]
                .values.tolist()
            )

        assert correct(1) == correct(1)
        assert correct(1) != correct(2)


def write_binary(root, name="cr", counts=None):
    for (file, label, official), count in zip(BINARY[name], counts or [None, None], strict=True):
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [f"caf\xe9 number\x85 {label} {i} " for i in range(count or official)]  # \x85 is no line end here
        path.write_bytes(("\n".join(["", *rows[1:]]) + "\n").encode("latin-1"))


class TestReading:
    def test_polarity_files_are_latin_1_and_keep_their_blank_lines(self, tmp_path):
        write_binary(tmp_path)
        (split,) = read_transfer("cr", tmp_path).splits
        assert len(split.labels) == 3775 and sum(split.labels) == 2407
        assert split.first.count(".") == 2  # a line without words
        assert "caf\xe9 number 1 7" in split.first

    def test_another_count_is_refused_with_both_numbers(self, tmp_path):
        write_binary(tmp_path, counts=[2407, 1367])
        with pytest.raises(UserError, match=r"custrev.neg has 1367 lines, the official file has 1368"):
            read_transfer("cr", tmp_path)

    def test_missing_files_and_the_hub_are_answered(self, tmp_path):
        with pytest.raises(UserError, match=r"rt-polarity.pos is missing"):
            load_tasks(["transfer"], str(tmp_path))
        with pytest.raises(UserError, match="SentEval folder only"):
            load_tasks(["mr"], "hub")

    @pytest.mark.parametrize(
        ("name", "good", "bad"),
        [
            ("sst2", "so good .\t1", "no label"),
            ("trec", "HUM:ind Who ?", "WHO:ind Who ?"),
            ("mrpc", "1\t2\t3\tone text\tanother", "1\t2\t3\tone text"),
        ],
    )
    def test_malformed_rows_name_file_and_line(self, tmp_path, name, good, bad):
        for file, count in SPLITS[name]:
            path = tmp_path / file
            path.parent.mkdir(parents=True, exist_ok=True)
            header = ["Quality\t..."] if name == "mrpc" else []
            path.write_text("\n".join([*header, *[good] * (count - 1), bad]) + "\n", encoding="utf-8")
        file, count = SPLITS[name][0]
        with pytest.raises(UserError, match=rf"{Path(file).name}:{count + (name == 'mrpc')}: expected"):
            read_transfer(name, tmp_path)

    @pytest.mark.skipif(not SHARED, reason="set ARCCSE_SHARED_DATA to the folder that holds senteval/")
    def test_the_real_sets_are_read_whole(self):
        suite = TaskSuite(load_tasks(["transfer"], SHARED))
        sizes = {task.name: [len(split.labels) for split in task.splits] for task in suite.tasks}
        assert sizes == {
            "mr": [10662],
            "cr": [3775],
            "subj": [10000],
            "mpqa": [10606],
            "sst2": [67349, 872, 1821],
            "trec": [5452, 500],
            "mrpc": [4076, 1725],
        }
        mrpc = suite.tasks[-1]
        assert mrpc.main_metrics == ("accuracy", "f1")
        assert round(np.mean(mrpc.splits[1].labels), 3) == 0.665  # the share that always answering 1 gets
