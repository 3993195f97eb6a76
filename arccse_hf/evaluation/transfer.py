"""SentEval's transfer tasks: a logistic regression on frozen embeddings.

The protocol is that of SentEval's scikit-learn classifier (Conneau & Kiela, "SentEval: An Evaluation Toolkit for
Universal Sentence Representations", LREC 2018): the same folds, and the same grid for the L2 penalty (C = 1/penalty).
The penalty is chosen on inner data by accuracy, to two decimals of a percent; the smallest C wins among equals.

    MR CR SUBJ MPQA   10-fold cross-validation; in each fold, another one on its training part chooses the penalty
    SST2              train / dev / test; dev chooses the penalty
    TREC MRPC         train / test; 10-fold cross-validation on train chooses the penalty. MRPC has |u-v| and u*v

Two details differ from the original. scikit-learn's present solver (lbfgs, without a penalty on the intercept, one
softmax for TREC's six classes) replaces liblinear. The accuracy over folds counts every sentence once, and does not
average the folds. Papers often print SentEval's other classifier, a one-layer network trained by Adam. Embeddings are
taken as the model returns them: where a model normalises them, the same grid is a stronger penalty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError
from .bootstrap import PerItemScores
from .files import find_senteval_file, read_lines, tokens_joined

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

FOLDS = 10
SENTEVAL_SEED = 1111
SPLIT_GRID = tuple(2.0**exponent for exponent in range(-2, 4))
TRAIN_GRID = tuple(2.0**exponent for exponent in range(-1, 6))

# Polarity files: (file, label, official rows).
BINARY = {
    "mr": (("MR/rt-polarity.pos", 1, 5331), ("MR/rt-polarity.neg", 0, 5331)),
    "cr": (("CR/custrev.pos", 1, 2407), ("CR/custrev.neg", 0, 1368)),
    "subj": (("SUBJ/subj.objective", 1, 5000), ("SUBJ/subj.subjective", 0, 5000)),
    "mpqa": (("MPQA/mpqa.pos", 1, 3312), ("MPQA/mpqa.neg", 0, 7294)),
}
SPLITS = {
    "sst2": (
        ("SST/binary/sentiment-train", 67349),
        ("SST/binary/sentiment-dev", 872),
        ("SST/binary/sentiment-test", 1821),
    ),
    "trec": (("TREC/train_5500.label", 5452), ("TREC/TREC_10.label", 500)),
    "mrpc": (("MRPC/msr_paraphrase_train.txt", 4076), ("MRPC/msr_paraphrase_test.txt", 1725)),
}
TREC_CLASSES = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")


@dataclass
class Split:
    """Labelled sentences, or sentence pairs where `second` is given."""

    first: list[str]
    labels: list[int]
    second: list[str] | None = None

    def sorted(self) -> Split:
        """Returns the sentences in SentEval's order, by number of words and label, which the folds are drawn from."""
        second = self.second or [""] * len(self.first)
        order = sorted(
            range(len(self.first)),
            key=lambda i: (len(self.first[i].split()), len(second[i].split()), self.labels[i]),
        )
        pick = lambda items: [items[i] for i in order]  # noqa: E731
        return Split(pick(self.first), pick(self.labels), pick(self.second) if self.second else None)


class TransferTask:
    """Accuracy of a logistic regression on frozen embeddings, by the protocol that the number of splits implies.

    Args:
        name: The beginning of the metrics' names.
        splits: One split is cross-validated (nested); two are train and test; three are train, dev and test. Splits of
            sentence pairs have F1 too.
        seed: The seed of the folds; SentEval's by default.
        folds: The number of folds, also of the inner cross-validation.
    """

    group = "transfer"

    def __init__(self, name: str, splits: Sequence[Split], *, seed: int = SENTEVAL_SEED, folds: int = FOLDS):
        self.name = name
        self.splits = [split.sorted() for split in splits]
        self.seed, self.folds = seed, folds
        self.paired = splits[0].second is not None
        self.main_metrics = ("accuracy", "f1") if self.paired else ("accuracy",)
        self.sentences = [s for split in self.splits for s in (*split.first, *(split.second or ()))]

    def features(self, embeddings: np.ndarray) -> list[np.ndarray]:
        """Returns one array `[rows, features]` per split: the embeddings, or |u-v| and u*v of pairs."""
        features, start = [], 0
        for split in self.splits:
            size = len(split.first)
            block = embeddings[start : start + size]
            start += size
            if self.paired:
                other = embeddings[start : start + size]
                start += size
                block = np.concatenate([np.abs(block - other), block * other], axis=1)
            features.append(block)
        return features

    def score_with_samples(self, embeddings: np.ndarray) -> tuple[dict[str, float], PerItemScores]:
        """Returns what `score` does, and 1 or 0 per test sentence, for a right or a wrong label."""
        x = self.features(embeddings)
        y = [np.array(split.labels) for split in self.splits]
        if len(x) == 1:
            gold, predicted = y[0], nested_cross_validation(x[0], y[0], folds=self.folds, seed=self.seed)
        elif len(x) == 2:
            gold, predicted = y[1], cross_validated(x[0], y[0], x[1], folds=self.folds, seed=self.seed)
        else:
            gold, predicted = y[2], dev_selected(x[0], y[0], x[1], y[1], x[2])
        correct = (gold == predicted).astype(np.float64)
        scores = {"accuracy": float(correct.mean())}
        if self.paired:
            hits = float(((gold == 1) & (predicted == 1)).sum())
            scores["f1"] = 2 * hits / max(1.0, float((gold == 1).sum() + (predicted == 1).sum()))
        return scores, PerItemScores("accuracy", correct)

    def score(self, embeddings: np.ndarray) -> dict[str, float]:
        """Returns `accuracy`, in [0, 1], of embeddings `[len(self.sentences), dim]`; for pairs also `f1` of label 1."""
        return self.score_with_samples(embeddings)[0]


def nested_cross_validation(x: np.ndarray, y: np.ndarray, *, folds: int, seed: int) -> np.ndarray:
    """Returns labels `[n]` for `x`, each from a classifier that saw neither the row nor its fold.

    Args:
        x: Features `[n, features]`.
        y: Labels `[n]`.
        folds: The number of outer and of inner folds.
        seed: The seed of the folds.
    """

    def fold(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        c = _chosen(x[train], y[train], SPLIT_GRID, folds, seed)
        return _classifier(c).fit(x[train], y[train]).predict(x[test])

    splits = list(_stratified(folds, seed).split(x, y))
    predicted = np.empty_like(y)
    for (_, test), labels in zip(splits, _in_threads(fold, splits), strict=True):
        predicted[test] = labels
    return predicted


def cross_validated(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, *, folds: int, seed: int) -> np.ndarray:
    """Returns labels `[m]` for `x_test`, where cross-validation on the training rows chooses the penalty.

    Args:
        x: Features of the training rows `[n, features]`.
        y: Their labels `[n]`.
        x_test: Features of the test rows `[m, features]`.
        folds: The number of folds.
        seed: The seed of the folds.
    """
    return _classifier(_chosen(x, y, TRAIN_GRID, folds, seed)).fit(x, y).predict(x_test)


def dev_selected(x: np.ndarray, y: np.ndarray, x_dev: np.ndarray, y_dev: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """Returns labels `[m]` for `x_test`, where the dev rows choose the penalty.

    Args:
        x: Features of the training rows `[n, features]`.
        y: Their labels `[n]`.
        x_dev: Features of the dev rows `[k, features]`.
        y_dev: Their labels `[k]`.
        x_test: Features of the test rows `[m, features]`.
    """
    accuracies, predictions = [], []
    for classifier in _path(x, y, SPLIT_GRID):
        accuracies.append(classifier.score(x_dev, y_dev))
        predictions.append(classifier.predict(x_test))
    return predictions[_best(accuracies)]


def _chosen(x: np.ndarray, y: np.ndarray, grid: Sequence[float], folds: int, seed: int) -> float:
    """Returns the C of `grid` with the best mean accuracy over the folds of `x` `[n, features]` and `y` `[n]`."""

    def fold(train: np.ndarray, dev: np.ndarray) -> list[float]:
        x_dev, y_dev = x[dev], y[dev]
        return [classifier.score(x_dev, y_dev) for classifier in _path(x[train], y[train], grid)]

    accuracies = _in_threads(fold, list(_stratified(folds, seed).split(x, y)))
    return grid[_best(np.mean(accuracies, axis=0))]


def _in_threads(function: Callable, items: Sequence[tuple]) -> list:
    """Returns `function(*item)` for all items, each computed in a thread: the solver releases Python's lock.

    Its matrix products are too small for several threads each, so they get one.
    """
    from joblib import Parallel, delayed
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return Parallel(n_jobs=-1, prefer="threads")(delayed(function)(*item) for item in items)


def _path(x: np.ndarray, y: np.ndarray, grid: Sequence[float]) -> Iterator[LogisticRegression]:
    """Yields one classifier, fitted anew per C of `grid`, from the previous solution: the same optima, in less time."""
    classifier = _classifier(grid[0], warm_start=True)
    for c in grid:
        yield classifier.set_params(C=c).fit(x, y)


def _classifier(c: float, warm_start: bool = False) -> LogisticRegression:
    from sklearn.linear_model import LogisticRegression

    # The default tolerance, 1e-4, stops before the optimum: the gradient is a mean over many rows, and begins small.
    return LogisticRegression(C=c, tol=1e-6, max_iter=1000, warm_start=warm_start)


def _stratified(folds: int, seed: int) -> StratifiedKFold:
    from sklearn.model_selection import StratifiedKFold

    return StratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)


def _best(accuracies: Sequence[float]) -> int:
    return int(np.argmax(np.round(100 * np.asarray(accuracies), 2)))


def read_transfer(name: str, data: str | Path | None, *, seed: int = SENTEVAL_SEED) -> TransferTask:
    """Reads one of the seven tasks from a SentEval folder.

    Args:
        name: A key of `BINARY` or `SPLITS`.
        data: The folder (see `find_senteval_file`); the hub has no copy in SentEval's form.
        seed: The seed of the folds.

    Raises:
        UserError: A file is missing, a row is malformed, or a file has another count than the official one.
    """
    if str(data).lower() == "hub":
        raise UserError(
            f"--eval_data hub: the transfer task {name} is read from a SentEval folder only: give --eval_data FOLDER"
        )
    if name in BINARY:
        merged = Split([], [])
        for file, label, count in BINARY[name]:
            lines = _lines(data, file, "latin-1", count)
            merged.first += [tokens_joined(line) for line in lines]
            merged.labels += [label] * len(lines)
        return TransferTask(name, [merged], seed=seed)
    parse = {"sst2": _parse_sst, "trec": _parse_trec, "mrpc": _parse_mrpc}[name]
    splits = []
    for file, count in SPLITS[name]:
        path = find_senteval_file(data, file)
        header = name == "mrpc"
        lines = _lines(data, file, "latin-1" if name == "trec" else "utf-8", count + header)[header:]
        rows = [parse(line, f"{path}:{number}") for number, line in enumerate(lines, start=1 + header)]
        *texts, labels = zip(*rows, strict=True)
        splits.append(Split(list(texts[0]), list(labels), list(texts[1]) if len(texts) > 1 else None))
    return TransferTask(name, splits, seed=seed)


def _lines(data: str | Path | None, file: str, encoding: str, count: int) -> list[str]:
    path = find_senteval_file(data, file)
    lines = read_lines(path, encoding)
    if len(lines) != count:
        raise UserError(f"{path} has {len(lines)} lines, the official file has {count}: fetch it again")
    return lines


def _parse_sst(line: str, where: str) -> tuple[str, int]:
    text, _, label = line.rstrip().rpartition("\t")
    if label not in ("0", "1"):
        raise UserError(f"{where}: expected a sentence, a tab and the label 0 or 1, got {line!r}")
    return tokens_joined(text), int(label)


def _parse_trec(line: str, where: str) -> tuple[str, int]:
    label, _, text = line.partition(" ")
    coarse = label.partition(":")[0]
    if coarse not in TREC_CLASSES or not text.strip():
        raise UserError(f"{where}: expected CLASS:subclass and a question, CLASS one of {', '.join(TREC_CLASSES)}")
    return tokens_joined(text), TREC_CLASSES.index(coarse)


def _parse_mrpc(line: str, where: str) -> tuple[str, str, int]:
    fields = line.split("\t")
    if len(fields) < 5 or fields[0] not in ("0", "1"):
        raise UserError(f"{where}: expected label, two ids and two sentences, tab-separated, got {line!r}")
    return tokens_joined(fields[3]), tokens_joined(fields[4]), int(fields[0])
