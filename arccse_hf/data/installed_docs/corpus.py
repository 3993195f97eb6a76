"""English text from the docstrings of installed packages: sentences to train on, and pairs for a retrieval test.

A pair is a docstring's first sentence and its next paragraph. Packages are parsed with `ast`, never imported.
"""

from __future__ import annotations

import ast
import functools
import gc
import importlib.util
import inspect
import logging
import multiprocessing
import os
import random
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ..sentences import split_sentences
from .prose import is_sentence, prose_of, title_and_body

logger = logging.getLogger(__name__)

STANDARD_LIBRARY = "stdlib"
DEFAULT_PACKAGES = (STANDARD_LIBRARY, "numpy", "scipy", "torch", "transformers")

# Folders without documentation for users. The folder of the standard library also holds what pip installs.
_SKIPPED_FOLDERS = {"test", "tests", "testing", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__"}
_FILES_PER_TASK = 64


@dataclass(frozen=True)
class DocstringCorpus:
    """Text from docstrings, without repetitions and in the order of packages, files and lines.

    Attributes:
        sentences: English sentences.
        pairs: Pairs of a docstring's first sentence and the prose of its next paragraph.
    """

    sentences: list[str]
    pairs: list[tuple[str, str]]


def docstring_corpus(packages: Sequence[str] = DEFAULT_PACKAGES) -> DocstringCorpus:
    """Returns sentences and pairs from the docstrings of `packages`, which are parsed once per process.

    Args:
        packages: Names of importable packages or modules; "stdlib" stands for the standard library. A package that is
            not installed is skipped, and the log says so.

    Example:
        >>> corpus = docstring_corpus(["json", "email"])
        >>> corpus.sentences[0]
        'json exposes an API familiar to users of the standard library marshal and pickle modules.'
    """
    return _docstring_corpus(tuple(packages))


@functools.cache
def _docstring_corpus(packages: tuple[str, ...]) -> DocstringCorpus:
    files = [str(path) for package in packages for path in _source_files(package)]
    tasks = [files[start : start + _FILES_PER_TASK] for start in range(0, len(files), _FILES_PER_TASK)]
    workers = min(len(tasks), os.cpu_count() or 1, 8)
    if workers > 1 and "fork" in multiprocessing.get_all_start_methods():
        # A spawned worker would first import this package, and torch with it; a forked one need not.
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork")) as pool:
            results = list(pool.map(_parse_files, tasks))
    else:
        results = list(map(_parse_files, tasks))
    failures = [failure for _, _, failed in results for failure in failed]
    if failures:
        logger.warning(
            "%d of %d source files could not be parsed, the first: %s", len(failures), len(files), failures[0]
        )
    corpus = DocstringCorpus(
        sentences=list(dict.fromkeys(chain.from_iterable(sentences for sentences, _, _ in results))),
        pairs=list(dict.fromkeys(chain.from_iterable(pairs for _, pairs, _ in results))),
    )
    logger.info(
        "%s sentences and %s pairs from the docstrings of %s files (%s)",
        f"{len(corpus.sentences):,}",
        f"{len(corpus.pairs):,}",
        f"{len(files):,}",
        ", ".join(packages),
    )
    return corpus


def held_out_pairs(corpus: DocstringCorpus, num_pairs: int, seed: int = 0) -> list[tuple[str, str]]:
    """Returns random pairs for a retrieval test, in which no query and no document occurs twice.

    Args:
        corpus: Where the pairs come from.
        num_pairs: How many to choose.
        seed: The same seed chooses the same pairs.

    Raises:
        ValueError: The corpus has fewer pairs with distinct queries and documents.
    """
    chosen: list[tuple[str, str]] = []
    queries: set[str] = set()
    documents: set[str] = set()
    for query, document in random.Random(seed).sample(corpus.pairs, len(corpus.pairs)):
        if len(chosen) >= num_pairs:
            break
        if query not in queries and document not in documents:
            queries.add(query)
            documents.add(document)
            chosen.append((query, document))
    if len(chosen) < num_pairs:
        raise ValueError(f"{num_pairs} pairs were asked for, but the installed docstrings have only {len(chosen)}")
    return chosen


def _source_files(package: str) -> Iterator[Path]:
    if package == STANDARD_LIBRARY:
        roots = [sysconfig.get_paths()["stdlib"]]
    else:
        spec = importlib.util.find_spec(package)
        if spec is None:
            logger.info("package %s is not installed: its docstrings are left out", package)
            return
        if spec.submodule_search_locations is None:
            yield from [Path(spec.origin)] if spec.origin and spec.origin.endswith(".py") else []
            return
        roots = list(spec.submodule_search_locations)
    for root in roots:
        for folder, subfolders, names in os.walk(root):
            subfolders[:] = sorted(set(subfolders) - _SKIPPED_FOLDERS)
            yield from (Path(folder, name) for name in sorted(names) if name.endswith(".py"))


def _parse_files(files: Sequence[str]) -> tuple[list[str], list[tuple[str, str]], list[str]]:
    """Returns the sentences, the pairs, and an entry "file: reason" per file that could not be parsed."""
    sentences: list[str] = []
    pairs: list[tuple[str, str]] = []
    failures: list[str] = []
    gc_was_enabled = gc.isenabled()
    gc.disable()  # A syntax tree has no cycles, but the collector would walk it, in a quarter of the time.
    try:
        for file in files:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # such as invalid escapes in strings
                    tree = ast.parse(Path(file).read_bytes())
                for docstring in _docstrings(tree.body, tree):
                    paragraphs, asides = prose_of(docstring)
                    for paragraph in filter(None, chain(paragraphs, asides)):
                        sentences.extend(filter(is_sentence, split_sentences(paragraph)))
                    if pair := title_and_body(paragraphs):
                        pairs.append(pair)
            except (OSError, SyntaxError, ValueError, RecursionError) as error:
                failures.append(f"{file}: {error}")
    finally:
        if gc_was_enabled:
            gc.enable()
    return sentences, pairs, failures


def _docstrings(statements: Sequence[ast.stmt], owner: ast.AST | None = None) -> Iterator[str]:
    """Yields docstrings in the order of the source. Only statements are visited: expressions are most of a tree."""
    if isinstance(owner, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and statements:
        first = statements[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            yield inspect.cleandoc(first.value.value)
    for statement in statements:
        for field in ("body", "handlers", "orelse", "finalbody"):
            inner = getattr(statement, field, None)
            if isinstance(inner, list):
                yield from _docstrings(inner, statement if field == "body" else None)
