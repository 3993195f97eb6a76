"""From the names of tasks to tasks with their data."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from .files import TABLE_SUFFIXES, column, read_table, text_field
from .geometry import GeometryTask
from .retrieval import RetrievalTask
from .sts import SCORE_COLUMNS, STS_NAMES, STSTask, read_scored_pairs, read_sts, task_name
from .suite import STS_AVERAGE, TRANSFER_AVERAGE, Task

GROUPS = {"sts": STS_AVERAGE, "transfer": TRANSFER_AVERAGE}
TASK_NAMES = (*GROUPS, *STS_NAMES, *TRANSFER_AVERAGE, "geometry", "retrieval")
_ALIASES = {"stsb": "stsb_test", "sst": "sst2", "sick_r": "sickr", "stsbenchmark": "stsb_test"}

QUERY_COLUMNS = ("query", "question", "anchor", "title", "sentence1")
DOCUMENT_COLUMNS = ("document", "passage", "answer", "positive", "text", "body", "sentence2")
DOCSTRING_PAIRS = 1000


def load_tasks(
    names: Sequence[str],
    data: str | None,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    seed: int | None = None,
) -> list[Task]:
    """Load the tasks called `names`, each once, in that order.

    Args:
        names: `TASK_NAMES` in any case, hyphens for underscores allowed: `sts` is the seven test sets, `transfer` the
            seven classification tasks. A path to the user's own .csv, .tsv or .jsonl is a name too: with a score column
            it is an STS task, without one a retrieval task, called after the file.
        data: A SentEval folder, "hub" (STS only), or the user's own file, which then stands for `sts` and `geometry`
            (with a score column) or for `retrieval` (without). None where no task reads data.
        pairs: (query, document) texts for `retrieval`; without them, and without an own file, docstrings of the
            installed packages are used.
        seed: Draws those docstrings and the folds of the transfer tasks; by default 0 and SentEval's own.

    Raises:
        UserError: An unknown name (the message has the nearest one), missing or malformed data.
    """
    own_file = Path(data) if data is not None and Path(data).suffix.lower() in TABLE_SUFFIXES else None
    tasks: dict[str, Task] = {}
    singles = [single for name in names for single in (("sts",) if _key(name) == "sts" and own_file else expand(name))]
    for single in dict.fromkeys(singles):
        task = _load(single, data, own_file, pairs, seed)
        if task.name in tasks:
            raise UserError(f"evaluation task {single}: two tasks would be called {task.name}: rename the file")
        tasks[task.name] = task
    if not tasks:
        raise UserError(f"no evaluation task was named: choose from {', '.join(TASK_NAMES)}")
    return list(tasks.values())


def expand(name: str) -> tuple[str, ...]:
    """The single tasks behind one of the names that `load_tasks` takes.

    Raises:
        UserError: There is no such task.
    """
    if Path(name).suffix.lower() in TABLE_SUFFIXES:
        return (name,)
    key = _key(name)
    if key not in TASK_NAMES:
        nearest = difflib.get_close_matches(key, TASK_NAMES, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]}?" if nearest else f"choose from {', '.join(TASK_NAMES)}"
        raise UserError(f"evaluation task {name}: there is no such task; {hint}")
    return GROUPS.get(key, (key,))


def _key(name: str) -> str:
    key = name.strip().lower().replace("-", "_")
    return _ALIASES.get(key, key)


def _load(
    name: str, data: str | None, own_file: Path | None, pairs: Sequence[tuple[str, str]] | None, seed: int | None
) -> Task:
    if Path(name).suffix.lower() in TABLE_SUFFIXES:
        path = Path(name).expanduser()
        if _is_scored(path):
            return STSTask(task_name(path), read_scored_pairs(path))
        return RetrievalTask(task_name(path), read_text_pairs(path))
    if name == "retrieval":
        if pairs is None:
            pairs = read_text_pairs(own_file) if own_file and not _is_scored(own_file) else _docstring_pairs(seed or 0)
        return RetrievalTask(name, pairs)
    if own_file:
        if name not in ("sts", "geometry"):
            raise UserError(
                f"evaluation task {name}: {own_file} is one file of your own: ask for sts, geometry or retrieval"
            )
        own = read_scored_pairs(own_file)
        if name == "sts":
            return STSTask(task_name(own_file), own)
        return GeometryTask(own.first, own.second, own.scores)
    if name == "geometry":
        dev = read_sts("stsb_dev", data)
        return GeometryTask(dev.first, dev.second, dev.scores)
    if name in STS_NAMES:
        return STSTask(name, read_sts(name, data))
    from .transfer import SENTEVAL_SEED, read_transfer

    return read_transfer(name, data, seed=SENTEVAL_SEED if seed is None else seed)


def _is_scored(path: Path) -> bool:
    return column(read_table(path)[0], SCORE_COLUMNS) is not None


def read_text_pairs(path: Path) -> list[tuple[str, str]]:
    """Read the user's own (query, document) pairs from a .csv, .tsv or .jsonl with such columns.

    Raises:
        UserError: Missing columns, a malformed row (named by file and line), or no row.
    """
    columns, rows = read_table(path)
    query = column(columns, QUERY_COLUMNS)
    document = column([name for name in columns if name != query], DOCUMENT_COLUMNS)
    if query is None or document is None:
        raise UserError(f"{path}: no columns query and document (nor a score) among {columns}: name them so")
    return [(text_field(row, query, where), text_field(row, document, where)) for where, row in rows]


def _docstring_pairs(seed: int) -> list[tuple[str, str]]:
    from ..data.installed_docs import docstring_corpus, held_out_pairs

    try:
        return held_out_pairs(docstring_corpus(), DOCSTRING_PAIRS, seed)
    except ValueError as error:
        raise UserError(f"evaluation task retrieval: {error}; give a file of your own pairs instead") from error
