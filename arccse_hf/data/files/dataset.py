"""Rows of files as datasets, prepared once in the datasets cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
from datasets import (
    ArrowBasedBuilder,
    BuilderConfig,
    Dataset,
    DatasetInfo,
    Features,
    Split,
    SplitGenerator,
    Value,
)
from datasets.exceptions import DatasetGenerationError

from ...errors import UserError, one_line
from .rows import RowFile


@dataclass
class _RowsConfig(BuilderConfig):
    """What decides about the rows, so that the datasets cache knows them again."""

    columns: tuple[str, ...] = ()
    states: tuple[tuple, ...] = ()


class _RowsBuilder(ArrowBasedBuilder):
    """Makes a dataset of what the reader gives."""

    BUILDER_CONFIG_CLASS = _RowsConfig

    def __init__(self, files: Sequence[RowFile], columns: Sequence[str]):
        self.files = list(files)
        states = tuple(file.state for file in files)
        reader = code_hash(*sorted(Path(__file__).parent.glob("*.py")))
        super().__init__(dataset_name="rows_of_files", hash=reader, columns=tuple(columns), states=states)

    def _info(self) -> DatasetInfo:
        return DatasetInfo(features=text_features(self.config.columns))

    def _split_generators(self, dl_manager: object) -> list[SplitGenerator]:
        return [SplitGenerator(name=Split.TRAIN, gen_kwargs={"files": self.files})]

    def _generate_tables(self, files: Sequence[RowFile]) -> Iterator[tuple[str, pa.Table]]:
        for shard, file in enumerate(files):
            for index, (table, _) in enumerate(file.tables(self.config.columns)):
                yield f"{shard}_{index}", table


def load_rows(files: Sequence[RowFile], columns: Sequence[str]) -> Dataset:
    """Returns the rows of `columns`, all text.

    Args:
        files: Whose rows these are, in this order.
        columns: Names.

    Raises:
        UserError: A row cannot be read.
    """
    builder = _RowsBuilder(files, columns)
    try:
        builder.download_and_prepare()
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise UserError(
            f"{files[0].source.where()}: the rows cannot be kept in the datasets cache {builder.cache_dir} "
            f"({one_line(error.__cause__ or error)}); make room there, or set HF_DATASETS_CACHE to another folder"
        ) from error
    return builder.as_dataset(split="train")


def text_features(columns: Sequence[str]) -> Features:
    """Returns features of columns that all hold text."""
    return Features({column: Value("string") for column in columns})


def code_hash(*files: str | Path) -> str:
    """Returns a hash of code: what another version of it has made is not taken from the datasets cache.

    Left to itself, `Dataset.map` knows a function by its name alone.
    """
    digest = sha256()
    for file in files:
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()
