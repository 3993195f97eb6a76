"""Scores of several encoders on several tasks: `evaluate` computes them, `evaluate_and_print` is the command line."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError
from ..evaluation.compare import Difference, ModelResult, compare, score_suite
from ..evaluation.suite import Role, TaskSuite
from ..evaluation.tables import (
    ResultTable,
    difference_table,
    print_table,
    score_tables,
    table_console,
    write_report,
)
from ..evaluation.tasks import load_tasks
from ..paths import check_writable, without_checksum
from .embed import embed
from .open import Encoder, load_encoder
from .process_group import process_group, process_state

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

MTEB = "mteb:"


@dataclass
class Evaluation:
    """What several encoders scored on the same tasks.

    Args:
        results: One per model that could be opened, in their order. Under `accelerate launch` the main process has
            them, the others have none.
        differences: Of every model to the first, with a 95 % interval.
        failed_models: `{name: reason}` of the models that could not be opened.
        suite: What was measured.
        settings: The arguments that made a difference.
    """

    results: list[ModelResult]
    differences: list[Difference]
    failed_models: dict[str, str]
    suite: TaskSuite
    settings: dict[str, object]

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """The main metrics, `{model: {"stsb_dev_spearman": 0.86, ...}}`; raw, not x 100."""
        return {result.name: self.suite.flatten(result.scores) | _mteb_scores(result) for result in self.results}

    def tables(self) -> list[ResultTable]:
        """Returns the tables that the command line prints."""
        tables = score_tables(self.results, self.suite)
        return [*tables, difference_table(self.differences, self.results)] if self.differences else tables

    def write(self, folder: str | os.PathLike) -> None:
        """Writes evaluation.json, evaluation.md and evaluation.csv into `folder`."""
        write_report(Path(folder), self.results, self.differences, self.tables(), self.settings)


def evaluate(
    models: str | os.PathLike | Sequence[str | os.PathLike],
    tasks: str | os.PathLike | Sequence[str | os.PathLike] = "sts",
    *,
    data: str | os.PathLike | None = None,
    pooling: str | None = None,
    batch_size: int = 64,
    dtype: str = "float32",
    max_seq_length: int | None = None,
    truncate_dims: Sequence[int] = (),
    seed: int | None = None,
) -> Evaluation:
    """Scores encoders with the protocols of the papers, and compares each with the first.

    Under `accelerate launch` every process calls it; the main one scores.

    Args:
        models: One name or several: folders, hub ids, checkpoints or `package:NAME/PATH`.
        tasks: One name or several: `sts` (the seven test sets), `transfer`, `geometry`, `retrieval`, single sets such
            as `stsb_dev`, your own .csv, .tsv or .jsonl, or `mteb:NAME` where mteb is installed.
        data: A SentEval folder, the word `hub`, or your own file of scored pairs.
        pooling: Overrides the models' own; plain encoders use the mean by default.
        batch_size: Sentences embedded at once.
        dtype: Of the weights and the computation: `float32`, `bfloat16` or `float16`.
        max_seq_length: Tokens that a sentence is cut to; the models' own limit by default.
        truncate_dims: Numbers of dimensions that the embeddings are cut to; each is scored beside all dimensions, as a
            model of its own.
        seed: Draws folds, docstring pairs and bootstrap samples.

    Returns:
        Scores and differences. A task that failed is in its result's `errors`.

    Raises:
        UserError: An argument is wrong, or none of the models can be opened; nothing has been embedded then.

    Example:
        >>> evaluation = evaluate(["bert-base-uncased", "out"], "stsb_dev", data="hub")
        >>> evaluation.scores["out"]["stsb_dev_spearman"]
    """
    models, tasks = _names(models), _names(tasks)
    data = None if data is None else os.fspath(data)
    state = process_state()
    own_tasks = [name for name in tasks if not name.startswith(MTEB)]
    mteb_names = [name.removeprefix(MTEB) for name in tasks if name.startswith(MTEB)]
    mteb_tasks = _find_mteb_tasks(mteb_names, state.num_processes) if mteb_names else []
    if batch_size < 1:
        raise UserError(f"--batch_size {batch_size}: must be at least 1")
    if min(truncate_dims, default=1) < 1:
        raise UserError(f"--truncate_dims {min(truncate_dims)}: must be at least 1")
    if not 0 <= (seed or 0) < 2**32:
        raise UserError(f"--seed {seed}: must be in [0, 4294967295]")
    suite = TaskSuite(load_tasks(own_tasks, data, seed=seed) if own_tasks or not mteb_tasks else [])

    results: list[ModelResult] = []
    embedded: list[tuple[ModelResult, np.ndarray]] = []
    failed_models: dict[str, str] = {}
    for name in dict.fromkeys(models):
        try:
            encoder = load_encoder(name, pooling=pooling, dtype=dtype, max_seq_length=max_seq_length)
        except UserError as error:
            failed_models[name] = str(error)
            continue
        widest = encoder.model.get_embedding_dimension()
        if max(truncate_dims, default=0) > widest:
            failed_models[name] = f"--truncate_dims {max(truncate_dims)}: {name} has {widest} dimensions"
            continue
        result, embeddings = embed_suite(encoder, suite, batch_size=batch_size)
        cuts = _cuts(result, embeddings, truncate_dims)
        if state.num_processes > 1:
            embedded += cuts
            continue
        for task in mteb_tasks:
            _run_mteb(encoder, task, result, batch_size)
        results += [score_suite(cut, vectors, suite) for cut, vectors in cuts]
    if len(failed_models) == len(set(models)):
        raise UserError("; ".join(failed_models.values()) or "no model was named")
    # Only after the last gathering: the other processes would wait for the scores of the main one, and time out.
    if state.is_main_process:
        results += [score_suite(result, embeddings, suite) for result, embeddings in embedded]
    settings: dict[str, object] = {"tasks": tasks, "data": data, "pooling": pooling, "dtype": dtype, "seed": seed}
    settings["num_processes"] = state.num_processes
    differences = compare(results, seed=seed or 0) if results else []
    return Evaluation(results, differences, failed_models, suite, settings)


def _names(given: str | os.PathLike | Sequence[str | os.PathLike]) -> list[str]:
    return [os.fspath(name) for name in ([given] if isinstance(given, str | os.PathLike) else given)]


def _cuts(result: ModelResult, embeddings: np.ndarray, dims: Sequence[int]) -> list[tuple[ModelResult, np.ndarray]]:
    """Returns the result and embeddings of a model, and after them the same of its first so many dimensions."""
    cuts = [(result, embeddings)]
    for dim in dims:
        # A copy would share the dictionaries.
        cut = replace(result, name=f"{result.name} [:{dim}]", dimension=dim, scores={}, errors={}, samples={})
        cuts.append((cut, embeddings[:, :dim]))
    return cuts


def evaluate_and_print(models: Sequence[str], tasks: Sequence[str], *, output: Path | None = None, **options) -> int:
    """Evaluates `models` on `tasks`, prints the tables and, with `output`, writes the report.

    Args:
        models: See `evaluate`.
        tasks: See `evaluate`.
        output: The folder of the report.
        options: The other arguments of `evaluate`.

    Returns:
        The exit status: 0, 1 where a task failed, 2 where a model could not be opened.

    Raises:
        UserError: An argument is wrong; nothing has been embedded then.
    """
    if output is not None:
        check_writable(output)
    with process_group() as state:
        evaluation = evaluate(models, tasks, **options)
        if state.is_main_process:
            for error in evaluation.failed_models.values():
                print(f"error: {error}", file=sys.stderr)
            _print(evaluation)
            if output is not None:
                evaluation.write(output)
                print(f"written: {output}/evaluation.json, evaluation.md, evaluation.csv")
    if evaluation.failed_models:
        return 2
    return 1 if any(result.errors for result in evaluation.results) else 0


def _print(evaluation: Evaluation) -> None:
    console = table_console()
    for table in evaluation.tables():
        print_table(table, console)
    for result in evaluation.results:
        if result.truncated:
            console.print(
                f"{result.name}: {result.truncated} of {result.sentences} sentences were cut to "
                f"{result.max_seq_length} tokens",
                markup=False,
            )
        for task, message in result.errors.items():
            console.print(f"{result.name}: {task} failed: {message}", style="red", markup=False)


def _find_mteb_tasks(names: Sequence[str], num_processes: int) -> list[AbsTask]:
    if importlib.util.find_spec("mteb") is None:
        raise UserError("--eval_tasks mteb:...: mteb is not installed: pip install 'arccse-hf[mteb]'")
    if num_processes > 1:
        raise UserError("--eval_tasks mteb:...: run these in one process: arccse evaluate")
    import mteb

    tasks = []
    for name in dict.fromkeys(names):
        try:
            tasks.append(mteb.get_task(name))
        except KeyError as error:
            reason = str(error.args[0]).removeprefix("KeyError: ")
            raise UserError(f"--eval_tasks {MTEB}{name}: mteb has no such task, capitals count: {reason}") from None
    return tasks


def _run_mteb(encoder: Encoder, task: AbsTask, result: ModelResult, batch_size: int) -> None:
    """Has mteb evaluate `task` in its own way; its main score goes beside ours."""
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


def _mteb_scores(result: ModelResult) -> dict[str, float]:
    return {
        f"{task}_main_score": scores["main_score"] for task, scores in result.scores.items() if task.startswith(MTEB)
    }


def embed_suite(
    encoder: Encoder, suite: TaskSuite, *, batch_size: int = 64, show_progress: bool = True
) -> tuple[ModelResult, np.ndarray]:
    """Embeds the suite's distinct sentences once: a result without scores, and embeddings `[sentences, dim]`.

    A model with prompts for queries and documents gets them where the suite has such. Under `accelerate launch` every
    process must call it; each gets all embeddings.
    """
    result = ModelResult(encoder.name, encoder.pooling, encoder.model.max_seq_length, sentences=len(suite.sentences))
    if not suite.sentences:
        result.dimension = encoder.model.get_embedding_dimension()
        return result, np.zeros((0, result.dimension), dtype=np.float32)
    encoders = {role: encoder.for_task(role) if role else encoder for role in dict.fromkeys(suite.roles)}
    rows_of: dict[Role | None, list[int]] = {}
    for row, role in enumerate(suite.roles):
        rows_of.setdefault(encoders[role].task, []).append(row)
    start = time.perf_counter()
    label = f"{without_checksum(encoder.name)}: embedding"
    parts = []
    for task, rows in rows_of.items():
        part, texts = replace(encoder, task=task), [suite.sentences[row] for row in rows]
        result.truncated += part.count_truncated(texts)
        parts.append(embed(part, texts, batch_size=batch_size, show_progress=show_progress, label=label))
    embeddings = np.concatenate(parts)[np.argsort(np.concatenate(list(rows_of.values())))]
    result.seconds = time.perf_counter() - start
    result.dimension = embeddings.shape[1]
    return result, embeddings
