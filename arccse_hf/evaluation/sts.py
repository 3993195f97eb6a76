"""Semantic textual similarity: Spearman's correlation of cosines with gold scores, by the protocol of the papers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..compat import use_caches_where_hub_is_out_of_reach
from ..data.columns import FIRST_COLUMNS, SCORE_COLUMNS, SECOND_COLUMNS, find_column
from ..data.files import stem
from ..errors import UserError
from .bootstrap import PerItemScores
from .files import (
    OPTION,
    check_count,
    find_senteval_file,
    parse_score,
    read_lines,
    read_table,
    text_field,
    tokens_joined,
)
from .metrics import correlations, cosine_similarity

# Scored pairs of each subset. STS13 is without SMT, whose licence keeps it out of SentEval.
STS_SUBSETS = {
    "sts12": {"MSRpar": 750, "MSRvid": 750, "SMTeuroparl": 459, "surprise.OnWN": 750, "surprise.SMTnews": 399},
    "sts13": {"FNWN": 189, "headlines": 750, "OnWN": 561},
    "sts14": {"deft-forum": 450, "deft-news": 300, "headlines": 750, "images": 750, "OnWN": 750, "tweet-news": 750},
    "sts15": {"answers-forums": 375, "answers-students": 750, "belief": 375, "headlines": 750, "images": 750},
    "sts16": {"answer-answer": 254, "headlines": 249, "plagiarism": 230, "postediting": 244, "question-question": 209},
}
STSB_FILES = {"stsb_dev": ("sts-dev.csv", 1500), "stsb_test": ("sts-test.csv", 1379)}
SICKR_FILE, SICKR_COUNT = "SICK/SICK_test_annotated.txt", 4927
STS_NAMES = (*STS_SUBSETS, *STSB_FILES, "sickr")

# name -> (hub dataset, split, pairs). The hub's SICK-R joins train, trial and test.
HUB_SETS = {
    **{name: (f"mteb/{name}-sts", "test", sum(subsets.values())) for name, subsets in STS_SUBSETS.items()},
    "stsb_dev": ("mteb/stsbenchmark-sts", "validation", 1500),
    "stsb_test": ("mteb/stsbenchmark-sts", "test", 1379),
    "sickr": ("mteb/sickr-sts", "test", 9927),
}


@dataclass
class ScoredPairs:
    """Sentence pairs with gold similarities: three sequences of one length, and the subset each pair belongs to."""

    first: list[str]
    second: list[str]
    scores: list[float]
    subsets: list[str] | None = None

    def __len__(self) -> int:
        return len(self.scores)


class STSTask:
    """Correlation of the cosine of each pair with its gold score.

    The main metric, `spearman`, is SentEval's "all" setting, which the papers of the field print: the pairs of all
    subsets in one ranking. `spearman_mean` and `spearman_wmean` average the subsets' own correlations, the latter by
    size.

    Args:
        name: Begins the metrics' names.
        pairs: At least two pairs, of at least two different scores.

    Raises:
        UserError: There are fewer.
    """

    group = "sts"
    main_metrics = ("spearman",)

    def __init__(self, name: str, pairs: ScoredPairs):
        if len(pairs) < 2:
            raise UserError(f"{name}: a correlation needs at least 2 scored pairs, got {len(pairs)}")
        if len(set(pairs.scores)) == 1:
            raise UserError(
                f"{name}: all {len(pairs)} gold scores are {pairs.scores[0]:g}, so nothing can correlate with them; "
                "give pairs of different similarity"
            )
        self.name = name
        self.pairs = pairs
        self.references = np.asarray(pairs.scores, dtype=np.float64)
        self.sentences = [*pairs.first, *pairs.second]

    def cosines(self, embeddings: np.ndarray) -> np.ndarray:
        """The predicted similarities `[num_pairs]` of embeddings `[2 * num_pairs, dim]`."""
        return cosine_similarity(embeddings[: len(self.pairs)], embeddings[len(self.pairs) :])

    def score_with_samples(self, embeddings: np.ndarray) -> tuple[dict[str, float], PerItemScores]:
        """`score`, and the cosines behind it."""
        return self.score(embeddings), PerItemScores("spearman", self.cosines(embeddings), self.references)

    def score(self, embeddings: np.ndarray) -> dict[str, float]:
        """Returns `spearman` and `pearson` in [-1, 1]; with subsets also `..._mean`, `..._wmean` and `.../<subset>`."""
        from .similarity_correlation import similarity_correlation  # takes a second to import

        cosines = self.cosines(embeddings)
        scores = similarity_correlation(cosines, self.references)
        if self.pairs.subsets is None or len(set(self.pairs.subsets)) < 2:
            return scores
        labels = np.array(self.pairs.subsets)
        names = list(dict.fromkeys(self.pairs.subsets))
        sizes = [int((labels == name).sum()) for name in names]
        parts = [correlations(cosines[labels == name], self.references[labels == name]) for name in names]
        for metric in ("spearman", "pearson"):
            values = [part[metric] for part in parts]
            scores[f"{metric}_mean"] = float(np.mean(values))
            scores[f"{metric}_wmean"] = float(np.average(values, weights=sizes))
        for name, part in zip(names, parts, strict=True):
            scores |= {f"{metric}/{name}": value for metric, value in part.items()}
        return scores


def read_sts(name: str, data: str | Path | None) -> ScoredPairs:
    """Reads one of `STS_NAMES` from a SentEval folder, or from the hub where `data` is the word "hub".

    Args:
        name: A key such as "sts12" or "stsb_dev".
        data: The folder (see `find_senteval_file`) or "hub". The two differ in their text: SentEval's is tokenised and
            lower-cased (published numbers are measured on it), the hub's is not; the hub's SICK-R holds all 9927 pairs.

    Raises:
        UserError: A missing file, a malformed row, a score out of range, or another count than the official one.
    """
    if str(data).lower() == "hub":
        return _read_hub(name)
    if name == "sickr":
        path = find_senteval_file(data, SICKR_FILE)
        return _read_rows(name, path, SICKR_COUNT, header=1, texts=(1, 2), score=3, low=1)
    if name in STSB_FILES:
        file, count = STSB_FILES[name]
        path = find_senteval_file(data, f"STS/STSBenchmark/{file}")
        return _read_rows(name, path, count, header=0, texts=(5, 6), score=4, low=0)
    subsets: list[str] = []
    merged = ScoredPairs([], [], [], subsets)
    for subset, count in STS_SUBSETS[name].items():
        folder = f"STS/{name.upper()}-en-test"
        texts = find_senteval_file(data, f"{folder}/STS.input.{subset}.txt")
        part = _read_subset(texts, find_senteval_file(data, f"{folder}/STS.gs.{subset}.txt"))
        check_count(f"{name} {subset}", len(part), count, texts)
        merged.first += part.first
        merged.second += part.second
        merged.scores += part.scores
        subsets += [subset] * len(part)
    return merged


def read_scored_pairs(path: Path) -> ScoredPairs:
    """Reads the user's own pairs from a file with columns sentence1, sentence2 and score (or their like).

    Any finite scores are fine: Spearman's correlation knows their order only.

    Raises:
        UserError: Missing columns, a malformed row (named by file and line), or no row.
    """
    return scored_pairs(path, *read_table(path))


def scored_pairs(path: Path, columns: Sequence[str], rows: Iterable[tuple[str, dict[str, object]]]) -> ScoredPairs:
    """Returns the pairs of what `read_table` has found in a file, as `read_scored_pairs` does."""
    first, second, score = (find_column(columns, names) for names in (FIRST_COLUMNS, SECOND_COLUMNS, SCORE_COLUMNS))
    if first is None or second is None or score is None:
        columns_by_name = {"sentence1": first, "sentence2": second, "score": score}
        missing = [name for name, column in columns_by_name.items() if column is None]
        raise UserError(
            f"{OPTION} {path}: has no column {', '.join(missing)}; it has {', '.join(columns)}; name the columns "
            "sentence1, sentence2 and score"
        )
    pairs = ScoredPairs([], [], [])
    for where, row in rows:
        pairs.first.append(text_field(row, first, where))
        pairs.second.append(text_field(row, second, where))
        pairs.scores.append(parse_score(row[score], where))
    return pairs


def task_name(path: Path) -> str:
    """Returns a name for the metrics of the user's own file: lower-case letters, digits and underscores.

    It never begins with `eval`, because Trainer and its tools take `eval_` for the prefix of every metric.

    Example:
        >>> task_name(Path("data/My pairs v1.2.csv.gz")), task_name(Path("eval.csv"))
        ('my_pairs_v1_2', 'own_eval')
    """
    name = re.sub(r"\W+", "_", stem(str(path))).strip("_").lower() or "own"
    return f"own_{name}" if re.match("eval(_|$)", name) else name


def _split_row(line: str, where: str, width: int, wanted: Sequence[int]) -> list[str]:
    fields = line.split("\t")
    if len(fields) < width:
        raise UserError(f"{where}: {len(fields)} tab-separated fields, expected at least {width}")
    texts = [fields[index] for index in wanted]
    if any(not text.strip() for text in texts):
        raise UserError(f"{where}: a sentence is empty")
    return [tokens_joined(text) for text in texts]


def _read_subset(texts: Path, gold: Path) -> ScoredPairs:
    lines, scores = read_lines(texts), read_lines(gold)
    if len(lines) != len(scores):
        raise UserError(f"{texts} has {len(lines)} lines but {gold} has {len(scores)}: they must be of one release")
    pairs = ScoredPairs([], [], [])
    for number, (line, score) in enumerate(zip(lines, scores, strict=True), start=1):
        if not score.strip():
            continue  # the organisers scored only a part of each file
        first, second = _split_row(line, f"{texts}:{number}", 2, (0, 1))
        pairs.first.append(first)
        pairs.second.append(second)
        pairs.scores.append(parse_score(score, f"{gold}:{number}", 0, 5))
    return pairs


def _read_rows(
    name: str, path: Path, count: int, *, header: int, texts: tuple[int, int], score: int, low: float
) -> ScoredPairs:
    pairs = ScoredPairs([], [], [])
    for number, line in enumerate(read_lines(path)[header:], start=1 + header):
        where = f"{path}:{number}"
        first, second = _split_row(line, where, 1 + max(*texts, score), texts)
        pairs.first.append(first)
        pairs.second.append(second)
        pairs.scores.append(parse_score(line.split("\t")[score], where, low, 5))
    check_count(name, len(pairs), count, path)
    return pairs


def _read_hub(name: str) -> ScoredPairs:
    import datasets

    repository, split, count = HUB_SETS[name]
    use_caches_where_hub_is_out_of_reach()
    try:
        rows = datasets.load_dataset(repository, split=split)
    except Exception as error:  # datasets raises many kinds: no network, no such set, a broken cache
        raise UserError(
            f"evaluation data hub: {repository} cannot be loaded ({type(error).__name__}): "
            "check the network, or give a SentEval folder"
        ) from error
    check_count(name, len(rows), count, repository)
    return ScoredPairs(list(rows["sentence1"]), list(rows["sentence2"]), [float(s) for s in rows["score"]])
