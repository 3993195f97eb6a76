"""`python -m arccse_hf evaluate`: several models, several tasks, one table."""

from __future__ import annotations

import importlib.util
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from accelerate import PartialState

from ..errors import UserError
from ..evaluation.compare import ModelResult, compare, score_suite
from ..evaluation.suite import TaskSuite
from ..evaluation.tables import check_writable, difference_grid, print_grid, score_grids, table_console, write_report
from ..evaluation.tasks import load_tasks
from .open import Encoder, count_truncated, embed, load_encoder, process_state

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

MTEB = "mteb:"


def run(
    models: Sequence[str],
    tasks: Sequence[str],
    *,
    data: str | None = None,
    pooling: str | None = None,
    output: Path | None = None,
    batch_size: int = 64,
    dtype: str = "float32",
    max_seq_length: int | None = None,
    seed: int | None = None,
) -> int:
    """Evaluate `models` on `tasks`, print the tables and, with `output`, write the report.

    Under `accelerate launch` every process calls it; the main one scores and prints.

    Args:
        models: See `load_encoder`.
        tasks: Names for `load_tasks`, and `mteb:NAME` for tasks of mteb where that is installed.
        data: See `load_tasks`.

    Returns:
        The exit status: 0, 1 where a task failed, 2 where a model couldn't be used.

    Raises:
        UserError: An argument is wrong; nothing has been embedded then.
    """
    state = process_state()
    own_tasks = [name for name in tasks if not name.startswith(MTEB)]
    mteb_names = [name.removeprefix(MTEB) for name in tasks if name.startswith(MTEB)]
    mteb_tasks = _find_mteb_tasks(mteb_names, state.num_processes) if mteb_names else []
    if batch_size < 1:
        raise UserError(f"--batch-size {batch_size}: must be at least 1")
    if output is not None:
        check_writable(output)
    suite = TaskSuite(load_tasks(own_tasks, data, seed=seed) if own_tasks or not mteb_tasks else [])

    results: list[ModelResult] = []
    pending = []
    failed_models = 0
    for name in dict.fromkeys(models):
        try:
            encoder = load_encoder(name, pooling=pooling, dtype=dtype, max_seq_length=max_seq_length)
        except UserError as error:
            _say(state, f"error: {error}")
            failed_models += 1
            continue
        result, embeddings = embed_suite(encoder, suite, batch_size=batch_size)
        if state.num_processes > 1:
            pending.append((result, embeddings))
            continue
        results.append(score_suite(result, embeddings, suite))
        for task in mteb_tasks:
            _run_mteb(encoder, task, results[-1], batch_size)
    # Only after the last gathering: the other processes would wait for the scores of the main one, and time out.
    if state.is_main_process:
        results += [score_suite(result, embeddings, suite) for result, embeddings in pending]
        if results:
            settings = {"tasks": list(tasks), "data": data, "pooling": pooling, "dtype": dtype, "seed": seed}
            settings["num_processes"] = state.num_processes
            _report(results, suite, output, settings, seed or 0)
    if failed_models:
        return 2
    return 1 if any(result.errors for result in results) else 0


def _report(
    results: list[ModelResult], suite: TaskSuite, output: Path | None, settings: dict[str, object], seed: int
) -> None:
    grids = score_grids(results, suite)
    differences = compare(results, seed=seed)
    if differences:
        grids.append(difference_grid(differences, results))
    console = table_console()
    for grid in grids:
        print_grid(grid, console)
    for result in results:
        if result.truncated:
            console.print(
                f"{result.name}: {result.truncated} of {result.sentences} sentences were cut to "
                f"{result.max_seq_length} tokens",
                markup=False,
            )
        for task, message in result.errors.items():
            console.print(f"{result.name}: {task} failed: {message}", style="red", markup=False)
    if output is not None:
        write_report(output, results, differences, grids, settings)
        console.print(f"written: {output}/evaluation.json, evaluation.md, evaluation.csv", markup=False)


def _say(state: PartialState, message: str) -> None:
    if state.is_main_process:
        print(message, file=sys.stderr)


def _find_mteb_tasks(names: Sequence[str], num_processes: int) -> list[AbsTask]:
    if importlib.util.find_spec("mteb") is None:
        raise UserError("--tasks mteb:...: mteb isn't installed: pip install 'arccse_hf[mteb]'")
    if num_processes > 1:
        raise UserError("--tasks mteb:...: run these in one process: python -m arccse_hf evaluate")
    import mteb

    tasks = []
    for name in dict.fromkeys(names):
        try:
            tasks.append(mteb.get_task(name))
        except KeyError as error:
            reason = str(error.args[0]).removeprefix("KeyError: ")
            raise UserError(f"--tasks {MTEB}{name}: mteb has no such task, capitals count: {reason}") from None
    return tasks


def _run_mteb(encoder: Encoder, task: AbsTask, result: ModelResult, batch_size: int) -> None:
    """Let mteb evaluate `task` in its own way; its main score goes beside ours."""
    import mteb

    name = f"{MTEB}{task.metadata.name}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = mteb.evaluate(
                encoder.model,
                task,
                encode_kwargs={"batch_size": batch_size},
                cache=None,
                overwrite_strategy="always",
            )
        if not found.task_results:  # a private data set
            raise RuntimeError(found.exceptions[0].exception)
        result.scores[name] = {"main_score": float(found.task_results[0].get_score())}
    except Exception as error:  # no network, a task for another kind of model: the other results stay
        result.errors[name] = f"{type(error).__name__}: {error}"


def embed_suite(
    encoder: Encoder, suite: TaskSuite, *, batch_size: int = 64, show_progress: bool = True
) -> tuple[ModelResult, np.ndarray]:
    """Embed the suite's distinct sentences once: a result without scores, and embeddings `[sentences, dim]`.

    Under `accelerate launch` every process must call it; each gets all embeddings.
    """
    result = ModelResult(encoder.name, encoder.pooling, encoder.model.max_seq_length, sentences=len(suite.sentences))
    result.truncated = count_truncated(encoder.model, suite.sentences)
    start = time.perf_counter()
    embeddings = embed(encoder.model, suite.sentences, batch_size=batch_size, show_progress=show_progress)
    result.seconds = time.perf_counter() - start
    result.dimension = embeddings.shape[1]
    return result, embeddings
