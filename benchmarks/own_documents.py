#!/usr/bin/env python
"""Which pairs, and which protections, make a tuned encoder better on documents: a verdict for each, over seeds.

    python benchmarks/own_documents.py --output benchmarks/results/own_documents.json \
        --corpus docstrings=installed-docs --corpus python=python3.11-doc --seeds 1 2 3

A corpus is a folder or glob of documents, or `installed-docs`. Each run is the recipe `own-documents` with one change,
and with the fields of `--settings`. All runs of one corpus and seed hold the same documents out, but which queries the
verdict asks about them depends on the pairs trained on. So that runs can be compared, what each exports is also asked
for all kinds of queries (`common` in the JSON: MRR@10 of the start encoder and of the exported one).

Results are written after each run, and runs that stand in the file are left out when the script is started again. The
seed that comes first is finished before the next.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from arccse_hf.data.pairs import QUERY_KINDS
from arccse_hf.data.training_texts import INSTALLED_DOCS
from arccse_hf.evaluation.held_out import MIN_TEST_PAIRS, divide_documents, query_pairs
from arccse_hf.evaluation.retrieval import RetrievalTask
from arccse_hf.inference.embed import embed
from arccse_hf.inference.open import load_encoder
from arccse_hf.run_folder import RESULTS
from arccse_hf.training.arguments import DataArguments
from arccse_hf.training.own_documents import load_documents

VARIANTS = {
    "title": ["--pairs", "title"],
    "title and adjacent": ["--pairs", "mixed", "--pair_weights", "title=1", "adjacent=1"],
    "dropout": ["--pairs", "dropout"],
    "adjacent": ["--pairs", "adjacent"],
    "crops": ["--pairs", "crops"],
    "title, learning rate 2e-5": ["--pairs", "title", "--learning_rate", "2e-5"],
    "title, learning rate 1e-4": ["--pairs", "title", "--learning_rate", "1e-4"],
    "title, no margin": ["--pairs", "title", "--angular_margin", "0"],
    "title, no triplets": ["--pairs", "title", "--triplet_weight", "0"],
    "title, 20 degrees, no triplets": ["--pairs", "title", "--angular_margin", "20", "--triplet_weight", "0"],
    "title, Matryoshka": ["--pairs", "title", "--matryoshka_dims", "384", "192", "96", "48"],
    "title, anchor 1": ["--pairs", "title", "--anchor_weight", "1"],
    "title, last 2 layers": ["--pairs", "title", "--train_last_layers", "2"],
    "crops, anchor 1": ["--pairs", "crops", "--anchor_weight", "1"],
    "dropout, no margin": ["--pairs", "dropout", "--angular_margin", "0"],
    "[CLS], title": ["--pairs", "title", "--pooling", "cls"],
    "[CLS], crops": ["--pairs", "crops", "--pooling", "cls"],
    "[CLS], dropout": ["--pairs", "dropout", "--pooling", "cls"],
}
KEPT = ("line", "outcome", "queries", "pairs", "scores", "difference", "low", "high", "share", "validation", "control")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs what is missing in the output file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--corpus", action="append", required=True, metavar="NAME=SOURCE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2", help="the start encoder")
    parser.add_argument("--dims", type=int, nargs="+", help="score embeddings cut to so many numbers, too")
    parser.add_argument("--settings", nargs="*", default=[], help="fields for all runs, each as name=value")
    options = parser.parse_args(argv)
    command = "python benchmarks/own_documents.py " + shlex.join(sys.argv[1:] if argv is None else argv)
    report = {"command": command, "date": date.today().isoformat(), "runs": []}
    report["asked"] = {name: getattr(options, name) for name in ("model", "settings", "dims")}
    if options.output.exists():
        before = json.loads(options.output.read_text(encoding="utf-8"))
        if before.get("asked", report["asked"]) != report["asked"]:
            parser.error(f"--output {options.output}: holds runs of {before['asked']}; choose another file")
        report["runs"] = before["runs"]
    done = {(run["corpus"], run["variant"], run["seed"]) for run in report["runs"]}
    corpora = dict(corpus.split("=", 1) for corpus in options.corpus)
    common = [word for setting in options.settings for word in ("--{}={}".format(*setting.split("=", 1)),)]
    for seed in options.seeds:
        for corpus, source in corpora.items():
            for variant in options.variants:
                if (corpus, variant, seed) in done:
                    continue
                settings = [*VARIANTS[variant], "--model", options.model, *common, "--seed", str(seed)]
                measured = one_run(source, settings, seed, options.dims or [])
                run = {"corpus": corpus, "variant": variant, "seed": seed, **measured}
                report["runs"].append(run)
                options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
                print(f"{corpus}, {variant}, seed {seed}: {run['line']} {run['common']}", flush=True)


def one_run(source: str, settings: Sequence[str], seed: int, dims: Sequence[int]) -> dict:
    """Returns the verdict of one run, and the scores of start and export on all kinds of queries, and when cut."""
    text = ["--dataset_name", source] if source == INSTALLED_DOCS else ["--train_file", source]
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "arccse_hf", "train", "own-documents", *text, *settings]
        command += ["--output_dir", folder]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        results = Path(folder) / RESULTS
        if finished.returncode or not results.exists():
            raise SystemExit(f"{shlex.join(command)}\n{finished.stdout[-2000:]}\n{finished.stderr[-4000:]}")
        verdict = json.loads(results.read_text(encoding="utf-8"))["verdict"]
        pooling = settings[settings.index("--pooling") + 1] if "--pooling" in settings else None
        start = settings[settings.index("--model") + 1]
        before = {dim: start_scores(source, seed, start, pooling, dim) for dim in (None, *dims)}
        after = {dim: common_scores(source, seed, folder, dim=dim) for dim in before}
    common = {dim: {kind: [score, after[dim][kind]] for kind, score in before[dim].items()} for dim in before}
    cut = {"cut": {dim: common[dim] for dim in dims}} if dims else {}
    return {name: verdict[name] for name in KEPT} | {"common": common[None]} | cut


@cache
def common_tests(source: str, seed: int) -> dict[str, RetrievalTask]:
    """Returns the queries of each kind about the documents that all runs with this seed hold out."""
    chosen = DataArguments(dataset_name=source) if source == INSTALLED_DOCS else DataArguments(train_file=[source])
    held_out = divide_documents(load_documents(chosen), seed).test
    pairs = {kind: query_pairs(held_out, kind).pairs for kind in QUERY_KINDS}
    return {kind: RetrievalTask(kind, found) for kind, found in pairs.items() if len(found) >= MIN_TEST_PAIRS}


@cache
def start_scores(source: str, seed: int, model: str, pooling: str | None, dim: int | None) -> dict[str, float]:
    """Returns `common_scores` of an encoder that several runs start from."""
    return common_scores(source, seed, model, pooling, dim)


def common_scores(
    source: str, seed: int, model: str, pooling: str | None = None, dim: int | None = None
) -> dict[str, float]:
    """Returns MRR@10 of an encoder by kind of queries, with the first `dim` numbers of its embeddings alone."""
    encoder = load_encoder(model, pooling=pooling)
    return {
        kind: task.score(embed(encoder, task.sentences)[:, :dim])["mrr_at_10"]
        for kind, task in common_tests(source, seed).items()
    }


if __name__ == "__main__":
    main()
