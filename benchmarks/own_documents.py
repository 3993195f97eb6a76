#!/usr/bin/env python
"""Which pairs, and which protections, make a tuned encoder better on documents: a verdict for each, over seeds.

    python benchmarks/own_documents.py --output benchmarks/results/own_documents.json \
        --corpus docstrings=installed-docs --corpus python=python3.11-doc --seeds 1 2 3

A corpus is a folder or glob of documents, or `installed-docs`. Each run is the recipe `own-documents` with one change,
and with the fields of `--settings`. All runs of one corpus and seed hold the same documents out; which
queries are asked about them depends on the pairs trained on (`queries` in the JSON), so rows are compared by their
difference to the start encoder. Results are written after each run, and runs that stand in the file are left out when
the script is started again. The seed that comes first is finished before the next.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

VARIANTS = {
    "title": ["--pairs", "title"],
    "dropout": ["--pairs", "dropout"],
    "adjacent": ["--pairs", "adjacent"],
    "crops": ["--pairs", "crops"],
    "title, anchor 1": ["--pairs", "title", "--anchor_weight", "1"],
    "title, last 2 layers": ["--pairs", "title", "--train_last_layers", "2"],
    "title, no margin": ["--pairs", "title", "--angular_margin", "0"],
    "crops, anchor 1": ["--pairs", "crops", "--anchor_weight", "1"],
}
KEPT = ("outcome", "queries", "pairs", "scores", "difference", "low", "high", "share", "validation", "control")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs what is missing in the output file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--corpus", action="append", required=True, metavar="NAME=SOURCE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--settings", nargs="*", default=[], help="fields for all runs, each as name=value")
    options = parser.parse_args(argv)
    command = "python benchmarks/own_documents.py " + shlex.join(sys.argv[1:] if argv is None else argv)
    report = {"command": command, "date": date.today().isoformat(), "runs": []}
    if options.output.exists():
        report["runs"] = json.loads(options.output.read_text(encoding="utf-8"))["runs"]
    done = {(run["corpus"], run["variant"], run["seed"]) for run in report["runs"]}
    corpora = dict(corpus.split("=", 1) for corpus in options.corpus)
    common = [word for setting in options.settings for word in ("--{}={}".format(*setting.split("=", 1)),)]
    for seed in options.seeds:
        for corpus, source in corpora.items():
            for variant in options.variants:
                if (corpus, variant, seed) in done:
                    continue
                verdict = judged(source, [*VARIANTS[variant], *common, "--seed", str(seed)])
                run = {"corpus": corpus, "variant": variant, "seed": seed}
                report["runs"].append(run | {name: verdict[name] for name in KEPT})
                options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
                print(f"{corpus}, {variant}, seed {seed}: {verdict['line']}", flush=True)


def judged(source: str, settings: Sequence[str]) -> dict:
    """Returns the verdict of one run."""
    text = ["--dataset_name", source] if source == "installed-docs" else ["--train_file", source]
    with TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "arccse_hf",
            "train",
            "own-documents",
            *text,
            *settings,
            "--output_dir",
            folder,
        ]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        results = Path(folder) / "all_results.json"
        if finished.returncode or not results.exists():
            raise SystemExit(f"{shlex.join(command)}\n{finished.stdout[-2000:]}\n{finished.stderr[-4000:]}")
        return json.loads(results.read_text(encoding="utf-8"))["verdict"]


if __name__ == "__main__":
    main()
