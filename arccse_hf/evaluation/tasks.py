"""From the names of tasks to tasks with their data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..data.columns import DOCUMENT_COLUMNS, QUERY_COLUMNS, SCORE_COLUMNS, find_column
from ..errors import UserError, did_you_mean
from .files import OPTION, is_table, read_table, text_field
from .geometry import GeometryTask
from .retrieval import RetrievalTask
from .sts import STS_NAMES, ScoredPairs, STSTask, read_scored_pairs, read_sts, scored_pairs, task_name
from .suite import STS_AVERAGE, TRANSFER_AVERAGE, Task

GROUPS = {"sts": STS_AVERAGE, "transfer": TRANSFER_AVERAGE}
TASK_NAMES = (*GROUPS, *STS_NAMES, *TRANSFER_AVERAGE, "geometry", "retrieval")
_ALIASES = {"stsb": "stsb_test", "sst": "sst2", "sick_r": "sickr", "stsbenchmark": "stsb_test"}

DOCSTRING_PAIRS = 1000


def load_tasks(names: Sequence[str], data: str | None, *, seed: int | None = None) -> list[Task]:
    """Loads the tasks called `names`, each once, in that order.

    Args:
        names: `TASK_NAMES` in any case, hyphens for underscores allowed: `sts` is the seven test sets, `transfer` the
            seven classification tasks. A path to the user's own file (`arccse_hf.data.files`) is a name too: with a
            score column it is an STS task, without one a retrieval task, called after the file.
        data: A SentEval folder, "hub" (STS only), or the user's own file, which then stands for `sts` and `geometry`
            (with a score column) or for `retrieval` (without). None where no task reads data; `retrieval` then has
            docstrings of the installed packages.
        seed: Draws those docstrings and the folds of the transfer tasks; by default 0 and SentEval's own.

    Raises:
        UserError: An unknown name (the message has the nearest one), missing or malformed data.
    """
    own_file = Path(data).expanduser() if data is not None and is_table(data) else None
    tasks: dict[str, Task] = {}
    singles = [single for name in names for single in (("sts",) if _key(name) == "sts" and own_file else expand(name))]
    for single in dict.fromkeys(singles):
        task = _load(single, data, own_file, seed)
        if task.name in tasks:
            raise UserError(
                f"evaluation task {single}: another task is called {task.name} too, and so would their metrics be; "
                "rename the file"
            )
        tasks[task.name] = task
    if not tasks:
        raise UserError(f"no evaluation task was named: choose from {', '.join(TASK_NAMES)}")
    return list(tasks.values())


def expand(name: str) -> tuple[str, ...]:
    """The single tasks behind one of the names that `load_tasks` takes.

    Raises:
        UserError: There is no such task.
    """
    if is_table(name):
        return (name,)
    key = _key(name)
    if key not in TASK_NAMES:
        hint = did_you_mean(key, TASK_NAMES) or f"; choose from {', '.join(TASK_NAMES)}"
        raise UserError(f"evaluation task {name}: there is no such task{hint}")
    return GROUPS.get(key, (key,))


def _key(name: str) -> str:
    key = name.strip().lower().replace("-", "_")
    return _ALIASES.get(key, key)


def _load(name: str, data: str | None, own_file: Path | None, seed: int | None) -> Task:
    if is_table(name):
        path = Path(name).expanduser()
        named = read_own_pairs(path)
        if isinstance(named, ScoredPairs):
            return STSTask(task_name(path), named)
        return RetrievalTask(task_name(path), named)
    if name == "retrieval":
        pairs = read_own_pairs(own_file) if own_file else docstring_pairs(seed or 0)
        if isinstance(pairs, ScoredPairs):
            raise UserError(
                f"evaluation task retrieval: {own_file} has scores, and retrieval takes columns query and document"
            )
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


def read_own_pairs(path: Path) -> ScoredPairs | list[tuple[str, str]]:
    """Reads the user's own pairs: with a score where there is a column of scores, else (query, document).

    Raises:
        UserError: Missing columns, a malformed row (named by file and line), or no row.
    """
    columns, rows = read_table(path)
    if find_column(columns, SCORE_COLUMNS) is not None:
        return scored_pairs(path, columns, rows)
    query = find_column(columns, QUERY_COLUMNS)
    document = find_column([name for name in columns if name != query], DOCUMENT_COLUMNS)
    if query is None or document is None:
        raise UserError(
            f"{OPTION} {path}: has neither a column score nor columns query and document; it has {', '.join(columns)}; "
            "name the columns so"
        )
    return [(text_field(row, query, where), text_field(row, document, where)) for where, row in rows]


def docstring_pairs(seed: int = 0) -> list[tuple[str, str]]:
    """Returns (first sentence, next paragraph) of `DOCSTRING_PAIRS` docstrings of the installed packages."""
    from ..data.installed_docs import docstring_corpus, held_out_pairs

    try:
        return held_out_pairs(docstring_corpus(), DOCSTRING_PAIRS, seed)
    except ValueError as error:
        raise UserError(f"evaluation task retrieval: {error}; give a file of your own pairs instead") from error
