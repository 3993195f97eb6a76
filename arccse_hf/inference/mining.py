"""`arccse duplicates` and `arccse cluster`: groups of like texts."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sentence_transformers.util import community_detection
from tqdm.auto import tqdm

from ..data.files import expand_files
from ..errors import UserError, one_line, printable
from ..evaluation.retrieval import BLOCK_CELLS, normalize
from ..paths import check_writable, replacing
from .corpus import CorpusOptions, Documents, embed_corpus, rows_at
from .open import load_encoder

DUPLICATES, CLUSTERS = "duplicates.csv", "clusters.csv"
COLUMNS = ("group", "size", "cosine", "file", "id", "text")

_ROUNDING = 1e-6
"""The cosine of a text with a copy of itself may come out below 1 by as much."""
_SHOWN_GROUPS = 20
_SHOWN_TEXTS = 5


@dataclass(frozen=True)
class Group:
    """Texts that are alike.

    Args:
        numbers: Of the texts, by their row in `Documents.table`; the first stands for the group.
        cosines: Of each text with the first.
    """

    numbers: np.ndarray
    cosines: np.ndarray


def find_duplicates(documents: Documents, threshold: float) -> list[Group]:
    """Returns groups of texts that are linked by pairs with a cosine of at least `threshold`, the largest first.

    All pairs are looked at. The first text of a group is the one that stands first in the corpus. Two texts of a group
    may be less alike than `threshold`, where others stand between them.

    Args:
        documents: Texts and their embeddings.
        threshold: In (0, 1].
    """
    first: dict[str, int] = {}
    texts = documents.table["text"].to_pylist()
    codes = np.array([first.setdefault(text, len(first)) for text in texts])
    _, places = np.unique(codes, return_index=True)  # copies are one text
    labels = _linked(normalize(documents.embeddings[places].astype(np.float32)), threshold - _ROUNDING)[codes]
    order = np.argsort(labels, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    groups = [_group(documents, numbers) for numbers in members if len(numbers) > 1]
    return sorted(groups, key=lambda group: (-len(group.numbers), group.numbers[0]))


def _linked(unit: np.ndarray, least: float) -> np.ndarray:
    """Returns a number per row of `unit` `[n, dim]`: equal where a chain of cosines of at least `least` leads."""
    count = len(unit)
    labels = np.arange(count)
    block = max(1, BLOCK_CELLS // count)
    for start in tqdm(range(0, count, block), desc="comparing", leave=False, disable=None):
        rows, columns = np.nonzero(unit[start : start + block] @ unit[start:].T >= least)
        ends = labels[start + rows], labels[start + columns]
        links = coo_array((np.ones(len(rows), dtype=bool), ends), shape=(count, count))
        labels = connected_components(links, directed=False)[1][labels]
    return labels


def find_clusters(documents: Documents, threshold: float, min_community_size: int) -> list[Group]:
    """Returns the clusters that `community_detection` finds, the largest first; the first text of each is its centre.

    Args:
        documents: Texts and their embeddings.
        threshold: Least cosine of a text with the centre, in (0, 1].
        min_community_size: Least number of texts.
    """
    communities = community_detection(
        torch.from_numpy(documents.embeddings), threshold=threshold - _ROUNDING, min_community_size=min_community_size
    )
    return [_group(documents, np.array(numbers)) for numbers in communities]


def run(
    verb: str,
    model: str,
    patterns: Sequence[str],
    options: CorpusOptions,
    *,
    threshold: float,
    min_community_size: int = 2,
    output_dir: Path | None = None,
    **opening: Any,
) -> int:
    """Prints groups and counts, and returns the exit status 0.

    Args:
        verb: "duplicates" or "cluster".
        model: See `load_encoder`.
        patterns: Paths and globs of the texts.
        options: How the texts are read and embedded.
        threshold: Least cosine.
        min_community_size: Of a cluster.
        output_dir: Folder for the CSV of all groups.
        opening: Arguments of `load_encoder`: `pooling`, `dtype`, `max_seq_length`.

    Raises:
        UserError: An argument is wrong.
    """
    expand_files(patterns, options.option)  # before time is spent on the model
    if output_dir is not None:
        check_writable(output_dir)
    encoder = load_encoder(model, **opening)
    documents = embed_corpus(encoder, patterns, options).read()
    if verb == "duplicates":
        groups = find_duplicates(documents, threshold)
    else:
        groups = find_clusters(documents, threshold, min_community_size)
    _show(documents, groups, all_in_file=output_dir is not None)
    grouped, rows = sum(len(group.numbers) for group in groups), len(documents.table)
    counts = f"groups: {len(groups):,}; texts in them: {grouped:,} of {rows:,}"
    if verb == "duplicates":
        counts += f"; repetitions: {grouped - len(groups):,} ({(grouped - len(groups)) / rows:.1%})"
    print(counts)
    if output_dir is not None:
        path = output_dir / (DUPLICATES if verb == "duplicates" else CLUSTERS)
        write_groups(path, documents, groups)
        print(f"written: {path}")
    return 0


def write_groups(path: Path, documents: Documents, groups: Sequence[Group]) -> None:
    """Writes one row per text: the group's number from 1 and its size, the cosine with its first text, and the text.

    Raises:
        UserError: The file cannot be written.
    """
    try:
        with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for number, group in enumerate(groups, start=1):
                rows = rows_at(documents.table, group.numbers)
                for row, cosine in zip(rows, group.cosines, strict=True):
                    cells = (row["file"], row["id"], row["text"])
                    writer.writerow((number, len(group.numbers), f"{cosine:.6f}", *cells))
    except OSError as error:
        raise UserError(f"--output_dir {path.parent}: cannot be written ({one_line(error)})") from error


def _group(documents: Documents, numbers: np.ndarray) -> Group:
    vectors = normalize(documents.embeddings[numbers].astype(np.float64))
    return Group(numbers, vectors @ vectors[0])


def _show(documents: Documents, groups: Sequence[Group], all_in_file: bool) -> None:
    for number, group in enumerate(groups[:_SHOWN_GROUPS], start=1):
        print(f"{number}  {len(group.numbers):,} texts")
        rows = rows_at(documents.table, group.numbers[:_SHOWN_TEXTS])
        for row, cosine in zip(rows, group.cosines, strict=False):
            print(f"    {cosine:6.4f}  {printable(row['text'])[:100]}  ({row['file']}: {row['id']})")
        if len(group.numbers) > _SHOWN_TEXTS:
            print(f"            and {len(group.numbers) - _SHOWN_TEXTS:,} more")
    if len(groups) > _SHOWN_GROUPS:
        print(
            f"and {len(groups) - _SHOWN_GROUPS:,} more groups{'' if all_in_file else '; --output_dir writes them all'}"
        )
