"""A folder as the documents presuppose it: the text files, encoders and evaluation sets that their commands name."""

import gzip
import itertools
import json
import random
from pathlib import Path

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backbones import WORDS, save_encoder, tiny_tokenizer
from doc_text import ROOT
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from arccse_hf.evaluation import sts, transfer

ENCODERS = {
    "bert-base-uncased": 768,
    "xlm-roberta-base": 768,
    "sentence-transformers/all-MiniLM-L6-v2": 384,
    "tests/tiny": 16,
}
"""Encoders of the hub that commands name, and the width of each. The last one is for the tests."""

_DRAWN = [" ".join(random.Random(row).choices(WORDS, k=6 + row % 24)) for row in range(480)]
TEXTS, HELD_OUT = _DRAWN[:240], _DRAWN[240:]
PAIRS, QUERIES = ([(text, f"{text} {text[:20]}") for text in texts[::2]] for texts in (TEXTS, HELD_OUT))
SMALLER = 100  # evaluation sets have a hundredth of their official rows


def make_folder(folder: Path) -> None:
    """Writes the files that commands read."""
    _write_texts(folder)
    _write_tables(folder)
    _write_documents(folder)
    for name in ("run_arccse.py", "configs", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    write_senteval(folder / "SENTEVAL")


def _write_texts(folder: Path) -> None:
    names = "sentences tickets texts queries wiki50k wiki1m_for_simcse support_tickets/a corpus/a docs/a".split()
    for name in names:
        path = folder / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(TEXTS) + "\n")
    for name in ("wiki1m.txt.gz", "corpus/b.txt.gz"):
        (folder / name).write_bytes(gzip.compress("\n".join(TEXTS).encode()))
    pq.write_table(pa.table({"text": TEXTS}), folder / "corpus" / "c.parquet")


def _write_tables(folder: Path) -> None:
    tables = {
        "pairs.csv": ("anchor,positive", PAIRS),
        "tickets.csv": ("subject,body", PAIRS),
        "queries.csv": ("query,document", QUERIES),
        "retrieval.csv": ("query,document", QUERIES),
        "scored.csv": ("sentence1,sentence2,score", [(*pair, str(row % 6)) for row, pair in enumerate(QUERIES)]),
        "nli_for_simcse.csv": ("sent0,sent1,hard_neg", [(*pair, pair[0][::-1]) for pair in PAIRS]),
    }
    for name, (header, rows) in tables.items():
        (folder / name).write_text("\n".join([header, *map(",".join, rows)]) + "\n")
    rows = [json.dumps({"text": text, "id": str(row)}) for row, text in enumerate(TEXTS)]
    (folder / "tables").mkdir()
    for name in ("docs.jsonl", "tables/a.jsonl"):
        (folder / name).write_text("\n".join(rows))


def _write_documents(folder: Path) -> None:
    for number, (title, text) in enumerate(PAIRS):
        place = folder / ("more-docs" if number % 4 == 0 else "docs")
        place.mkdir(exist_ok=True)
        (place / f"{number}.md").write_text(f"# {title}\n\n{text.capitalize()}. {text[::-1].capitalize()}.\n")
        place = folder / "python3.11-doc" / "tutorial"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.html").write_text(f"<html><body><h1>{title}</h1><p>{text.capitalize()}.</p></body></html>")


def write_senteval(folder: Path) -> None:
    """Writes all sets in SentEval's layout, with as many rows as `sts` and `transfer` ask for."""

    def write(name: str, lines: list[str], encoding: str = "utf-8") -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("\n".join(lines) + "\n", encoding=encoding)

    def pairs(count: int) -> list[str]:
        return ["\t".join(QUERIES[row % len(QUERIES)]) for row in range(count)]

    for name, subsets in sts.STS_SUBSETS.items():
        for subset, count in subsets.items():
            write(f"STS/{name.upper()}-en-test/STS.input.{subset}.txt", pairs(count))
            write(f"STS/{name.upper()}-en-test/STS.gs.{subset}.txt", [str(row % 6) for row in range(count)])
    for file, count in sts.STSB_FILES.values():
        rows = [f"g\tf\ty\t{row}\t{row % 6}\t{pair}" for row, pair in enumerate(pairs(count))]
        write(f"STS/STSBenchmark/{file}", rows)
    rows = [f"{row}\t{pair}\t{1 + row % 5}\tx" for row, pair in enumerate(pairs(sts.SICKR_COUNT))]
    write(sts.SICKR_FILE, ["header", *rows])
    for files in transfer.BINARY.values():
        for file, _, count in files:
            write(file, (TEXTS * 9)[:count], "latin-1")
    for name, files in transfer.SPLITS.items():
        for file, count in files:
            texts = (TEXTS * 9)[:count]
            if name == "mrpc":
                write(file, ["header", *(f"{row % 2}\t1\t2\t{pair}" for row, pair in enumerate(pairs(count)))])
            elif name == "trec":
                classes = transfer.TREC_CLASSES
                write(file, [f"{classes[row % 6]}:x {text}" for row, text in enumerate(texts)], "latin-1")
            else:
                write(file, [f"{text}\t{row % 2}" for row, text in enumerate(texts)])


def shrink_evaluation_sets(patch: pytest.MonkeyPatch) -> None:
    """Lets the evaluation sets have a part of their official rows only, and the transfer tasks two folds."""

    def less(count: int) -> int:
        return -(-count // SMALLER)

    subsets = {name: {part: less(count) for part, count in parts.items()} for name, parts in sts.STS_SUBSETS.items()}
    patch.setattr(sts, "STS_SUBSETS", subsets)
    patch.setattr(sts, "STSB_FILES", {name: (file, less(count)) for name, (file, count) in sts.STSB_FILES.items()})
    patch.setattr(sts, "SICKR_COUNT", less(sts.SICKR_COUNT))
    patch.setattr(
        sts, "HUB_SETS", {name: (repo, split, less(rows)) for name, (repo, split, rows) in sts.HUB_SETS.items()}
    )
    binary = {
        name: tuple((file, label, less(count)) for file, label, count in files)
        for name, files in transfer.BINARY.items()
    }
    patch.setattr(transfer, "BINARY", binary)
    splits = {name: tuple((file, less(count)) for file, count in files) for name, files in transfer.SPLITS.items()}
    patch.setattr(transfer, "SPLITS", splits)
    patch.setitem(transfer.TransferTask.__init__.__kwdefaults__, "folds", 2)


def make_hub(home: Path, patch: pytest.MonkeyPatch) -> None:
    """Puts encoders and STS sets where a download of them would lie, and points the libraries there."""
    patch.setenv("HF_HOME", str(home))
    patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "hub"))
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(home / "datasets"))
    for name, width in ENCODERS.items():
        place = home / "hub" / f"models--{name.replace('/', '--')}"
        (place / "refs").mkdir(parents=True)
        (place / "refs" / "main").write_text("0" * 40)
        save_hub_encoder(place / "snapshots" / ("0" * 40), width, with_modules="/" in name)
    splits: dict[str, dict[str, str]] = {}
    for repository, split, count in sts.HUB_SETS.values():
        rows = [
            {"sentence1": first, "sentence2": second, "score": row % 6}
            for row, (first, second) in zip(range(count), itertools.cycle(QUERIES), strict=False)
        ]
        path = home / f"{repository.replace('/', '--')}-{split}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        splits.setdefault(repository, {})[split] = str(path)
    for repository, files in splits.items():
        owner, name = repository.split("/")
        builder = datasets.load_dataset_builder("json", data_files=files, cache_dir=str(home / "json"))
        builder.dataset_name = name  # begins the names of the files
        builder.download_and_prepare(str(home / "datasets" / f"{owner}___{name}" / "default" / "0.0.0" / "0"))


def save_hub_encoder(folder: Path, width: int, *, with_modules: bool) -> None:
    """Writes an encoder of one layer, with modules of sentence-transformers or plain."""
    save_encoder(folder, tiny_tokenizer(), hidden_size=width, num_hidden_layers=1, initializer_range=0.5)
    if with_modules:
        modules = [Transformer(str(folder)), Pooling(width, "mean"), Normalize()]
        SentenceTransformer(modules=modules).save(str(folder))
