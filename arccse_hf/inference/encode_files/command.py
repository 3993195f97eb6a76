"""`arccse encode`: files of text to Parquet shards of embeddings, divided over all processes."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from ...data.files import UnreadableFile
from ...errors import UserError
from ...paths import check_writable, no_empty_folder
from ..open import Encoder, load_encoder
from ..process_group import on_first_process, process_group, process_state
from .reading import Columns, InputFile, Row, find_files, inspect_file, read_rows
from .shards import Settings, Shard, list_shards, pending, write_shard
from .windows import EncodeOptions, embed_rows, shard_schema

T = TypeVar("T")


@dataclass
class EncodeCounts:
    """What one process has done.

    Args:
        rows: Rows embedded, those without text included.
        without_text: Rows whose embedding is null, because they have no text.
        failures: Why files could not be read or shards not be written.
    """

    rows: int = 0
    without_text: int = 0
    failures: list[str] = field(default_factory=list)


def open_and_encode(
    model: str,
    inputs: Sequence[str],
    output: Path,
    options: EncodeOptions,
    **opening: Any,
) -> int:
    """Loads `model` with the arguments `opening`, and embeds `inputs` with it: see `load_encoder` and `encode_files`.

    Under `accelerate launch` every process calls it; the main one prints.

    Returns:
        The exit status: 0, or 1 where a file could not be read or a shard not be written.

    Raises:
        UserError: An argument is wrong; nothing has been embedded then.
    """
    with process_group(), no_empty_folder(output):
        _on_all(lambda: check_writable(output))
        on_first_process(lambda: find_files(inputs))  # before time is spent on the model
        # Seeded so that weights which a checkpoint lacks (an unused pooler) are initialised identically everywhere.
        torch.manual_seed(0)
        encoder = _on_all(lambda: load_encoder(model, **opening))
        return encode_files(encoder, inputs, output, options)


def encode_files(encoder: Encoder, inputs: Sequence[str], output: Path, options: EncodeOptions) -> int:
    """Writes the embeddings of all rows of all files to shards in `output`, those that it does not hold yet.

    Process k of n takes the k-th of every n shards to do. Every process calls it; the main one prints.

    Args:
        encoder: The same on every process.
        inputs: Paths and globs.
        output: A folder that exists, the same for all processes.
        options: What is read, and how it is embedded and stored.

    Returns:
        The exit status: 0, or 1 where a file could not be read or a shard not be written.

    Raises:
        UserError: A column is missing, or `output` holds other embeddings; nothing has been embedded then.
    """
    start = time.perf_counter()
    files, failures = inspect_files(inputs, options.columns)
    shards = list_shards(files, options.shard_rows)
    counts, done_before = write_missing(encoder, shards, output, embedding_settings(encoder, files, options), options)
    failures += dict.fromkeys(failure for count in counts for failure in count.failures)
    if process_state().is_main_process:
        _report(counts, time.perf_counter() - start, output)
        if done_before:
            print(f"{done_before:,} of {len(shards):,} shards were done before")
        if empty := [file.path for file in files if not file.rows]:
            print(f"{len(empty):,} of {len(files):,} files have no rows, the first is {empty[0]}")
        for failure in failures:
            print(f"error: {failure}", file=sys.stderr)
    return 1 if failures else 0


def write_missing(
    encoder: Encoder, shards: Sequence[Shard], output: Path, settings: Settings, options: EncodeOptions
) -> tuple[list[EncodeCounts], int]:
    """Writes the shards that are not in `output` yet, divided over all processes.

    Returns:
        What each process has done, and how many shards were there before.

    Raises:
        UserError: `output` holds other embeddings; nothing has been embedded then.
    """
    state = process_state()
    missing = on_first_process(lambda: pending(output, shards, settings))
    own_shards = missing[state.process_index :: state.num_processes]
    counts = gather_object([_encode_shards(encoder, own_shards, output, settings, options)])
    return counts, len(shards) - len(missing)


def _report(counts: Sequence[EncodeCounts], seconds: float, output: Path) -> None:
    rows, without_text = sum(c.rows for c in counts), sum(c.without_text for c in counts)
    by_process = sorted(count.rows for count in counts)
    by = f" by {len(counts)} processes ({by_process[0]:,} to {by_process[-1]:,} each)" if len(counts) > 1 else ""
    print(f"{rows:,} rows embedded{by} in {seconds:,.1f} s, {rows / seconds:,.1f} per second; written to {output}")
    if without_text:
        print(f"{without_text:,} of them have no text: their embedding is null")


def inspect_files(
    inputs: Sequence[str], columns: Columns, option: str = "--input"
) -> tuple[list[InputFile], list[str]]:
    """Returns all files, each inspected by one process, and why others cannot be read.

    Args:
        inputs: Paths and globs.
        columns: What will be read.
        option: Where the user named them, for the errors.
    """
    state = process_state()
    paths = on_first_process(lambda: find_files(inputs, option))
    bar_options = {"desc": "hashing and counting", "unit": " files", "delay": 5, "disable": not state.is_main_process}
    unreadable = []

    def inspect_own() -> list[InputFile]:
        files = []
        for path, name in tqdm(paths[state.process_index :: state.num_processes], **bar_options):
            try:
                files.append(inspect_file(path, name, columns, option))
            except UnreadableFile as error:
                unreadable.append(str(error))
        return files

    files = gather_object(_on_all(inspect_own))
    return sorted(files, key=lambda file: file.name), gather_object(unreadable)


def embedding_settings(encoder: Encoder, files: Sequence[InputFile], options: EncodeOptions) -> Settings:
    """Returns what decides about the embeddings of `files`, the encoder's fingerprint included.

    Raises:
        UserError: Ids are of two types, or the encoder differs between the processes.
    """
    kinds = {file.id_type: file for file in files if file.id_type}
    if len(kinds) > 1:
        one, other = (f"{kind} in {file.path}" for kind, file in sorted(kinds.items()))
        raise UserError(f"--id_column {options.columns.id}: is {one}, but {other}; give ids of one type")
    fingerprint = encoder.fingerprint()
    if len(set(gather_object([fingerprint]))) > 1:
        raise UserError(f"--model {encoder.name}: differs between the processes; put it where all machines read it")
    return {
        "layout": "list",
        "model": encoder.name,
        "text_column": options.columns.text,
        "id_column": options.columns.id,
        "id_type": next(iter(kinds), "int64"),
        "pooling": encoder.pooling.partition(" ")[0],
        "max_seq_length": encoder.model.max_seq_length,
        "normalize": options.normalize,
        "dtype": encoder.dtype,
        "output_dtype": options.output_dtype,
        "shard_rows": options.shard_rows,
        "model_sha256": fingerprint,
        "task": encoder.task,
    }


def _encode_shards(
    encoder: Encoder, shards: Sequence[Shard], output: Path, settings: Settings, options: EncodeOptions
) -> EncodeCounts:
    state = process_state()
    counts = EncodeCounts()
    schema = shard_schema(str(settings["id_type"]), options.output_dtype)
    with tqdm(
        total=sum(shard.rows for shard in shards),
        desc="encoding" if state.num_processes == 1 else f"encoding, process 1 of {state.num_processes}",
        unit=" sentences",
        unit_scale=True,
        mininterval=0.5 if sys.stderr.isatty() else 60,  # a log file keeps every line
        disable=not (shards and state.is_main_process),
    ) as bar:
        for file, group in itertools.groupby(shards, key=lambda shard: shard.file):
            file_shards = list(group)
            rows = read_rows(file, options.columns, [(shard.start, shard.stop) for shard in file_shards])
            try:
                for shard in file_shards:
                    batches = embed_rows(encoder, _rows_of(shard, rows), schema, options, bar)
                    without_text = write_shard(output, shard, schema, settings, batches)
                    counts.rows += shard.rows
                    counts.without_text += without_text
            except UnreadableFile as error:
                counts.failures.append(str(error))
            except UserError as error:  # which would end the next shard too
                counts.failures.append(str(error))
                break
    return counts


def _rows_of(shard: Shard, rows: Iterator[Row]) -> Iterator[Row]:
    """Yields the next rows, which are the shard's."""
    count = 0
    for row in itertools.islice(rows, shard.rows):
        count += 1
        yield row
    if count < shard.rows:
        raise UnreadableFile(f"{shard.file.content.source.where()}: has become shorter while it was read; run again")


def _on_all(function: Callable[[], T]) -> T:
    """Returns what `function` returns on this process; raises an error of one on all, so that none waits for it."""
    results: list[T] = []
    error = None
    try:
        results.append(function())
    except UserError as caught:
        error = caught
    for other in gather_object([error]):
        if other is not None:
            raise other
    return results[0]
