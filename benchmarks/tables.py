#!/usr/bin/env python
"""The tables of RESULTS.md and of docs/results.md, from the JSON files in results/.

    python benchmarks/train_throughput.py --text SENTENCES --output benchmarks/results/train_throughput.json
    python benchmarks/tables.py

A page has a pair of comments for each of its tables, and what stands between them is replaced:

    <!-- table: train_throughput -->
    <!-- end -->
"""

import json
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGES = (HERE / "RESULTS.md", HERE.parent / "docs" / "results.md")
_TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_MIB = 2**20


def main() -> None:
    """Writes the pages anew."""
    for page in PAGES:
        page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")


def render(text: str) -> str:
    """Returns the text of a page with the tables of today's JSON files."""
    return _TABLE.sub(lambda match: f"{match[1]}{TABLES[match[2]]()}\n{match[3]}", text)


def read(name: str) -> dict[str, Any]:
    """Returns what a script wrote to `results/NAME.json`."""
    return json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8"))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *names: str) -> str:
    """Returns a Markdown table, and below it the command and the date of each measurement that is named."""
    lines = ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]]
    if not names:
        return "\n".join(lines)
    sources = [f"`{report['command']}`, {report['date']}" for report in map(read, names)]
    return "\n".join([*lines, "", ";\n".join(sources) + "."])


def train_throughput(name: str) -> str:
    results = read(name)["results"]
    sides, ratios = list(results[0]["sentences_per_second"]), list(results[0]["ratios"])
    short = [side.replace("arccse_hf", "ours,").replace("sentence-transformers", "ST,") for side in sides]
    rows = [
        [str(result["length"]), str(result["batch"])]
        + [rate(result["sentences_per_second"][side]) for side in sides]
        + [f"**{result['ratios'][ratio]:.2f}**" for ratio in ratios]
        for result in results
    ]
    return table(["max length", "batch", *short, *ratios], rows, name)


def rate(value: float) -> str:
    """Returns a rate with three digits."""
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def percent(value: float) -> str:
    return f"{value * 100:.1f} %"


_SHARES = {
    "matrix products": ["matmul"],
    "Python between operations": ["outside operations"],
    "dropout": ["dropout"],
    "casts and copies": ["casts and copies"],
    "gelu": ["gelu"],
    "attention": ["attention"],
    "optimiser, loss, data loading": ["optimiser", "loss", "data loading"],
}


def step_profile() -> str:
    names = ["step_profile-fp32", "step_profile-bf16", "step_profile-triplets"]
    reports = [read(name) for name in names]
    tokens = [report["tokens_per_step"] for report in reports]
    rows = [
        ["utilisation", *(f"**{percent(report['utilisation'])}**" for report in reports)],
        ["of a peak, GFLOP/s", *(f"{max(report['peak_flops_per_second']) / 1e9:.0f}" for report in reports)],
        ["real tokens (padding)", *(f"{count['real']:,.0f} ({percent(count['padding'])})" for count in tokens)],
    ]
    for label, groups in _SHARES.items():
        rows.append([label, *(percent(sum(report["shares"].get(group, 0) for group in groups)) for report in reports)])
    named = {group for groups in _SHARES.values() for group in groups}
    rest = [sum(share for group, share in report["shares"].items() if group not in named) for report in reports]
    rows.append(["layer norm, embedding, gradient sums, the rest", *map(percent, rest)])
    return table(["", "pairs, fp32", "pairs, bf16", "with triplets, fp32"], rows, *names)


def objective_cost() -> str:
    report = read("objective_cost")
    columns = ("time", "processor_time", "tokens")
    rows = [[name, *(f"{cost[column]:.2f}" for column in columns)] for name, cost in report["over_simcse"].items()]
    against = table(["against SimCSE", "time", "processor time", "tokens"], rows, "objective_cost")
    names = ["views' forward", "triplets' look", "triplets' forward", "losses", "backward", "optimizer", "rest"]
    stages = [
        [name, *(f"{seconds[stage]:.2f}" if stage in seconds else "" for stage in names)]
        for name, seconds in report["stages"].items()
    ]
    return "\n".join([table(["processor seconds per step", *names], stages), "", against])


def scaling() -> str:
    report, minilm = read("scaling"), read("scaling-minilm")
    rows = []
    for part, label in {"preparation": "reading, cleaning and tokenising", "training": "training on"}.items():
        sizes = " / ".join(f"{size:,}" for size in report[part]["sentences"])
        seconds = " / ".join(f"{second:.1f}" for second in report[part]["seconds"])
        rows.append([f"{label} {sizes} sentences", f"{seconds} s", f"{report[part]['exponent']:.2f}"])
    batch = report["batch"]
    sizes = " / ".join(f"{size:,}" for size in batch["batches"])
    per_sentence = " / ".join(f"{seconds * 1e3:.1f}" for seconds in batch["seconds_per_sentence"])
    rows.append([f"batches of {sizes} sentences", f"{per_sentence} ms per sentence", f"{batch['exponent']:.2f}"])
    for label, source in {"2 x 128": report, "all-MiniLM-L6-v2": minilm}.items():
        efficiency = source["processes"]["weak_scaling_efficiency"]
        rows.append(
            [f"2 processes, each with its core and its batch, against 1: {label}", f"efficiency {efficiency:.2f}", ""]
        )
    return table(["", "", "exponent"], rows, "scaling", "scaling-minilm")


def memory() -> str:
    names = {
        "scaling-minilm": "all-MiniLM-L6-v2",
        "scaling": "2 x 128",
        "scaling-malloc": "2 x 128, with `MALLOC_MMAP_THRESHOLD_=65536`",
    }
    rows, header = [], []
    for name, label in names.items():
        report = read(name)["memory"]
        peaks = {run: peak for run, peak in report.items() if isinstance(peak, dict)}
        header = ["", *peaks, "largest against smallest"]
        cells = [f"{peak['peak_resident'] / _MIB:,.0f} MiB" for peak in peaks.values()]
        rows.append([label, *cells, f"**{report['peak_ratio']:.2f}**"])
    return table(header, rows, *names)


def encode_throughput() -> str:
    report = read("encode_throughput")
    rates = report["sentences_per_second"]
    peaks = " / ".join(f"{point['peak_mib']:.0f}" for point in report["memory"])
    sizes = " / ".join(f"{point['rows']:,}" for point in report["memory"])
    rows = [
        ["ours, from a file to Parquet shards", f"{rates['arccse_hf']:.0f} sentences/s"],
        ["`SentenceTransformer.encode`, from memory to memory", f"{rates['sentence-transformers']:.0f} sentences/s"],
        ["ratio", f"**{report['ratio']:.2f}**"],
        ["largest difference of an embedding", f"{report['largest_difference']:.1e}"],
        [f"peak memory for {sizes} rows", f"{peaks} MiB"],
    ]
    return table(["", ""], rows, "encode_throughput")


def search_index() -> str:
    report = read("search_index")
    rows = [["every text compared", "1", "0", f"{report['exact_ms_per_query']:.1f} ms", "", ""]]
    rows += [
        [
            f"index, graphs: {index['graphs']}",
            f"**{index['recall_at_10']:.4f}**",
            f"{index['largest_difference']:.1e}",
            f"{index['ms_per_query']:.1f} ms",
            f"{index['build_seconds']:.0f} s",
            f"{index['mib_on_disk']:.0f} MiB",
        ]
        for index in report["indexes"]
    ]
    header = ["", "recall at 10", "largest difference of a cosine", "per query", "to build", "on disk"]
    return table(header, rows, "search_index")


def evaluation_speed() -> str:
    report = read("evaluation_speed")
    seconds = {side: statistics.median(values) for side, values in report["seconds"].items()}
    rows = [
        ["ours", f"{seconds['arccse_hf']:.1f} s"],
        ["`EmbeddingSimilarityEvaluator`, called set by set", f"{seconds['sentence-transformers']:.1f} s"],
        ["ratio", f"**{report['ratio']:.2f}**"],
        ["largest difference of a score", f"{report['largest_difference']:.1e}"],
        ["sentences (distinct ones)", f"{report['sentences']:,} ({report['distinct']:,})"],
    ]
    return table(["", ""], rows, "evaluation_speed")


def streaming_memory() -> str:
    rows = [[f"{point['rows']:,}", f"{point['resident_mib']:.0f} MiB"] for point in read("streaming_memory")["points"]]
    return table(["rows read", "resident"], rows, "streaming_memory")


def own_documents() -> str:
    runs = read("own_documents")["runs"]
    header = ["pairs"] + [f"{corpus}: {kind}" for corpus, kind in _asked(runs)]
    rows = [
        [variant, *(_gain(runs, variant, corpus, kind) for corpus, kind in _asked(runs))]
        for variant in dict.fromkeys(run["variant"] for run in runs)
    ]
    return table(header, rows, "own_documents")


def own_documents_verdicts() -> str:
    rows = []
    runs = read("own_documents")["runs"]
    outcomes = ("better", "no clear difference", "worse")
    for variant in dict.fromkeys(run["variant"] for run in runs):
        chosen = [run for run in runs if run["variant"] == variant]
        counts = [str(sum(run["outcome"] == outcome for run in chosen)) for outcome in outcomes]
        least = [f"{min(run[name] for run in chosen):+.3f}" for name in ("difference", "low")]
        shares = ", ".join(f"{share:g}" for share in sorted({run["share"] for run in chosen}))
        rows.append([variant, *counts, *least, shares])
    return table(["pairs", *outcomes, "least difference", "least lower end", "a chosen"], rows)


def matryoshka() -> str:
    runs = read("matryoshka")["runs"]
    plain, nested = dict.fromkeys(run["variant"] for run in runs)
    rows = []
    for dim in (None, *runs[0]["cut"]):
        scores: dict[tuple[str, int], list[float]] = {}
        for run in runs:  # the mean over the kinds of queries, before and after training
            pairs = (run["common"] if dim is None else run["cut"][dim]).values()
            scores[run["variant"], run["seed"]] = [statistics.mean(side) for side in zip(*pairs, strict=True)]
        seeds = sorted({seed for _, seed in scores})
        means = [statistics.mean(scores[plain, seed][0] for seed in seeds)]
        means += [statistics.mean(scores[variant, seed][1] for seed in seeds) for variant in (plain, nested)]
        gains = [scores[nested, seed][1] - scores[plain, seed][1] for seed in seeds]
        difference = f"**{statistics.mean(gains):+.3f}** ({min(gains):+.3f} to {max(gains):+.3f})"
        rows.append([dim or "all 384", *(f"{mean:.3f}" for mean in means), difference])
    return table(["numbers kept", "start encoder", "trained as ever", "Matryoshka", "difference"], rows, "matryoshka")


def _asked(runs: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Returns each corpus with what its documents are asked for: titles where it has them."""
    asked = {run["corpus"]: next(iter(run["common"])) for run in runs}
    return [(corpus, kind) for corpus, kind in asked.items()]


def _gain(runs: Sequence[dict[str, Any]], variant: str, corpus: str, kind: str) -> str:
    pairs = [run["common"][kind] for run in runs if (run["corpus"], run["variant"]) == (corpus, variant)]
    if not pairs:
        return ""
    gains = [after - before for before, after in pairs]
    start = statistics.mean(before for before, _ in pairs)
    spread = f" ({min(gains):+.3f} to {max(gains):+.3f}, {len(gains)} seeds)" if len(gains) > 1 else " (one seed)"
    return f"{start:.3f} **{statistics.mean(gains):+.3f}**{spread}"


TABLES: dict[str, Callable[[], str]] = {
    "train_throughput": lambda: train_throughput("train_throughput"),
    "train_throughput-tiny": lambda: train_throughput("train_throughput-tiny"),
    "step_profile": step_profile,
    "objective_cost": objective_cost,
    "scaling": scaling,
    "memory": memory,
    "encode_throughput": encode_throughput,
    "search_index": search_index,
    "evaluation_speed": evaluation_speed,
    "streaming_memory": streaming_memory,
    "own_documents": own_documents,
    "own_documents-verdicts": own_documents_verdicts,
    "matryoshka": matryoshka,
}


if __name__ == "__main__":
    main()
