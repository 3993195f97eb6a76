"""The output: one Parquet file per shard, which says in its metadata what it was made from, and how."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import UserError, one_line
from .reading import InputFile

METADATA_KEY = b"arccse_hf.encode"
_LONGEST_NAME = 255  # bytes, on the file systems in use
_TAG = 8

Settings = Mapping[str, str | int | bool | None]
"""What decides about the embeddings and their rows: option -> value. `model` is a mere name, `model_sha256` counts."""


@dataclass(frozen=True)
class Shard:
    """The rows `[start, stop)` of a file. Which ones they are does not depend on the number of processes."""

    file: InputFile
    start: int
    stop: int
    name: str

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.stop - self.start


def list_shards(files: Sequence[InputFile], shard_rows: int) -> list[Shard]:
    """Returns all shards of all files, in order."""
    return [
        Shard(file, start, min(start + shard_rows, file.rows), shard_name(file.name, start // shard_rows))
        for file in files
        for start in range(0, file.rows, shard_rows)
    ]


def shard_name(file_name: str, number: int) -> str:
    """Returns where a shard stands below the output folder; a long name of a file is cut, and told apart by a hash."""
    folder, name = os.path.split(file_name)
    suffix = f"-{number:05d}.parquet"
    most = _LONGEST_NAME - len(suffix) - len(f"..{_TAG * 'x'}.tmp")
    if len(os.fsencode(name)) > most:
        tag = f"~{hashlib.sha256(os.fsencode(name)).hexdigest()[:_TAG]}"
        name = os.fsencode(name)[: most - len(tag)].decode(errors="ignore") + tag
    return os.path.join(folder, name + suffix)


def pending(output: Path, shards: Sequence[Shard], settings: Settings) -> list[Shard]:
    """Returns the shards that are not done, and removes what a killed run left unfinished.

    Raises:
        UserError: `output` holds shards of another model, of other settings or of an input that has changed since, or
            files that are no shards at all.
    """
    by_name = {shard.name: shard for shard in shards}
    for leftover in output.rglob(".*.parquet.*.tmp"):
        shard_path = leftover.with_name(leftover.name[1:].rsplit(".", 2)[0])
        if shard_path.relative_to(output).as_posix() in by_name:  # others may be a run's that embeds other files
            leftover.unlink()
    names_by_hash = {shard.file.sha256: shard.file.name for shard in shards}
    hashes_by_name = {shard.file.name: shard.file.sha256 for shard in shards}
    done = set()
    for path in sorted(output.rglob("*.parquet")):
        metadata = _read_metadata(path)
        where = f"--output_dir {output}: {path.relative_to(output)}"
        for option, value in settings.items():
            if option != "model" and metadata.get(option) != value:
                raise UserError(f"{where} {_difference(option, metadata, settings)}; choose another folder")
        if metadata["input"] not in hashes_by_name:
            if twin := names_by_hash.get(metadata["input_sha256"]):
                raise UserError(
                    f"{where} holds the embeddings of {twin} under another name; give the --input of that run, or "
                    "choose another folder"
                )
            continue
        if hashes_by_name[metadata["input"]] != metadata["input_sha256"]:
            raise UserError(
                f"{where} was made before {metadata['input']} changed; delete its shards, or choose another folder"
            )
        done.add(path.relative_to(output).as_posix())
    return [shard for name, shard in by_name.items() if name not in done]


def _read_metadata(path: Path) -> dict:
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"--output_dir {path}: cannot be read ({one_line(error)}); delete it, or choose another folder"
        ) from error
    if METADATA_KEY not in metadata:
        raise UserError(f"--output_dir {path}: was not written by encode; choose another folder")
    return json.loads(metadata[METADATA_KEY])


def _difference(option: str, metadata: Mapping, settings: Settings) -> str:
    if option == "layout":
        return "was written by an earlier version, as lists of fixed size"
    if option == "model_sha256":
        if metadata["model"] == settings["model"]:
            return f"is from other weights or another tokenizer than {metadata['model']} has now"
        return f"is from another model, {metadata['model']}"
    return f"was made with {option.replace('_', ' ')} {metadata.get(option)}, not {settings[option]}"


def write_shard(
    output: Path, shard: Shard, schema: pa.Schema, settings: Settings, batches: Iterable[pa.RecordBatch]
) -> int:
    """Writes `batches`, each as a row group, so that the shard is whole or not written at all.

    Returns:
        How many embeddings are null.

    Raises:
        UserError: It cannot be written.
    """
    path = output / shard.name
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:_TAG]}.tmp")
    source = {"input": shard.file.name, "input_sha256": shard.file.sha256, "start": shard.start, "stop": shard.stop}
    schema = schema.with_metadata({METADATA_KEY: json.dumps({**settings, **source})})
    nulls = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            # Embeddings hardly repeat: a dictionary or compression would cost time and save next to nothing.
            with pq.ParquetWriter(file, schema, use_dictionary=False, compression="none") as writer:
                for batch in batches:
                    nulls += batch.column("embedding").null_count
                    writer.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            raise UserError(f"--output_dir {path}: another run has written it meanwhile; give each its own folder")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"--output_dir {path}: cannot be written ({one_line(error)}); run again to go on") from error
    finally:
        temporary.unlink(missing_ok=True)
    return nulls
