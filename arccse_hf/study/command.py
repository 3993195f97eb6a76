"""`arccse study` and `reproduce`: ablations, variants x seeds. The runs that are not done, then what they show."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ..cli.options import Settings
from ..cli.recipes import RECIPES, find_recipe
from ..data.documents import are_documents
from ..errors import UserError, one_line
from ..evaluation.suite import TaskSuite, fingerprint, greater_is_better
from ..evaluation.tables import print_table, table_console
from ..evaluation.tasks import load_tasks
from ..paths import check_writable
from ..report import needing_matplotlib
from ..training.config import merge_settings, parse_arguments
from ..training.config_file import read_config
from ..training.preparation import warning_of_test_sets
from .execute import LOG, SCORES, check_launcher, check_tests, describe, execute, outcome, read_result
from .output import RESULTS_JSON, RESULTS_MARKDOWN, result_tables, write_results
from .plan import StudyConfig, read_study
from .summary import AVERAGE, Row, main_metrics, summarise

if TYPE_CHECKING:
    from ..report.figures import Figure
    from ..training.arguments import ArcCSETrainingArguments, DataArguments
    from ..training.model_arguments import ModelArguments

PUBLISHED = RECIPES / "published" / "spearman.yaml"


def run_study(
    path: Path,
    *,
    overrides: Settings | None = None,
    output: Path | None = None,
    seeds: Sequence[int] | None = None,
    resume: bool = False,
    only: int | None = None,
    list_runs: bool = False,
) -> int:
    """Does every run of the study that is not done, one after the other; then writes and prints the results.

    Args:
        path: The study file.
        overrides: Fields and their values, over the study's settings.
        output: Instead of the study's `output_dir`.
        seeds: Instead of the study's.
        resume: Go on in an output folder that holds runs already; those that are done are not repeated.
        only: The number of a single run to do, as `list_runs` prints it: for the array jobs of a cluster.
        list_runs: Print the runs and whether they are done, and do none.

    Returns:
        The exit status: 0, or 1 where a run failed.

    Raises:
        UserError: The study or a field of it is wrong; nothing has been trained then.
    """
    study = read_study(find_recipe(str(path), "studies"), output, overrides, seeds)
    arguments = study.check()
    if list_runs:
        for number, run in enumerate(study.runs()):
            done = (study.output_dir / run.name / SCORES).is_file()
            print(f"{number:4d}  {'done' if done else '-':4}  {run.name}")
        return 0
    texts = dict.fromkeys((tuple(data.train_file), data.one_document_per_file) for _, data, _ in arguments)
    for files, whole in texts:
        if files:
            are_documents(files, whole)  # raises where they are not there, rather than let run after run fail
    suite = _test_suite(study, _eval_data(study))
    _warn_of_test_sets(study, arguments, suite)
    return run_all(study, suite=suite, resume=resume, only=only)


def reproduce(
    config: Path, *, overrides: Settings | None = None, output: Path | None = None, resume: bool = False
) -> int:
    """Trains one recipe, scores it on the seven STS sets, and prints the published row above ours.

    Args:
        config: A recipe of `configs/`, or one of your own; the published row is that of its file name.
        overrides: Fields and their values, over the recipe.
        output: Instead of `runs/reproduce/RECIPE`.
        resume: See `run_study`.

    Returns:
        The exit status: 0, or 1 where the run failed.

    Raises:
        UserError: The recipe or a field of it is wrong; nothing has been trained then.
    """
    config = find_recipe(str(config))
    name, settings = config.stem, overrides or {}
    base = read_config(config)
    _, _, training = parse_arguments(merge_settings(base, settings))
    study = StudyConfig(
        output_dir=output or Path("runs", "reproduce", name),
        base=base,
        settings=settings,
        variants={name: {}},
        seeds=[training.seed],
        published=name,
        keep_models=True,
        source=str(config),
    )
    suite = _test_suite(study, _eval_data(study))
    return run_all(study, suite=suite, resume=resume, logs=False, command="reproduce")


def run_all(
    study: StudyConfig,
    *,
    suite: TaskSuite,
    resume: bool = False,
    only: int | None = None,
    logs: bool = True,
    command: str = "study",
) -> int:
    """Does the runs of a study, and scores them on a suite; the rest is as in `run_study`.

    With `logs`, what a run prints goes into a file of its folder, and the terminal gets one line per run.
    """
    with needing_matplotlib(command):  # now, and not when everything is trained
        from .figures import draw
    runs = study.runs()
    if only is not None and not 0 <= only < len(runs):
        raise UserError(f"--run {only}: the study has runs 0 to {len(runs) - 1}; --list shows them")
    check_writable(study.output_dir)
    begun = any(study.output_dir.iterdir())
    if begun and not resume and only is None:
        raise UserError(f"{study.output_dir}: holds a study; --resume goes on with it, --output_dir starts another")
    published = _published(study, suite, _eval_data(study))

    check_tests(study, suite)
    check_launcher(study)
    done = {run.name for run in runs if read_result(study, run) is not None}
    failures: dict[str, str] = {}
    if logs:
        print(f"what a run prints: {study.output_dir}/RUN/{LOG}")
    for number, run in enumerate(runs):
        if only not in (None, number):
            continue
        print(f"[{number + 1}/{len(runs)}] {describe(run)}: ", end="", flush=True)
        if run.name in done:
            print("done before")
            continue
        try:
            result = execute(study, run, suite, log=logs)
        except Exception as error:  # one run that fails must not lose the others
            failures[run.name] = one_line(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            print("failed", flush=True)
            print(f"error: {run.name}: {failures[run.name]}", file=sys.stderr, flush=True)
        else:
            print(outcome(result), flush=True)
    if only is None:
        write_and_print(study, suite, published, failures, draw)
    return 1 if failures else 0


def write_and_print(
    study: StudyConfig,
    suite: TaskSuite,
    published: dict[str, float] | None,
    failures: dict[str, str],
    draw: Callable[[StudyConfig, Sequence[Row]], list[Figure]],
) -> None:
    """Writes the tables and pictures of the runs that are done into the study's folder, and prints the tables.

    Args:
        study: The study.
        suite: Its test tasks.
        published: Published scores x 100 by test task, for a row of their own.
        failures: Why runs failed, by their names.
        draw: `figures.draw`, which needs matplotlib.
    """
    rows = summarise(study, suite)
    if not rows:
        return
    tables = result_tables(study, suite, rows, published)
    write_results(study, suite, rows, tables, failures)
    figures = draw(study, rows)
    for figure in figures:
        for file, png in figure.files.items():
            (study.output_dir / file).write_bytes(png)
    console = table_console()
    for table in tables:
        print_table(table, console)
    for name, message in failures.items():
        console.print(f"{name} failed: {message}", style="red", markup=False)
    pictures = " and pictures" if figures else "; no pictures"
    console.print(f"written: {study.output_dir}/{RESULTS_MARKDOWN}, {RESULTS_JSON}{pictures}", markup=False)


def _warn_of_test_sets(
    study: StudyConfig,
    arguments: Sequence[tuple[ModelArguments, DataArguments, ArcCSETrainingArguments]],
    tested: TaskSuite,
) -> None:
    """Prints where tests choose trials or checkpoints: what a run logs is not seen on the terminal."""
    choosing: dict[tuple[str | None, tuple[str, ...], str | None], None] = {}
    for run, (_, data, training) in zip(study.runs(), arguments, strict=True):
        keeps_best = training.load_best_model_at_end and "no" not in (training.eval_strategy, training.save_strategy)
        if data.eval_tasks and (run.kind == "trial" or (run.kind == "run" and keeps_best)):
            choosing[training.metric_for_best_model, tuple(data.eval_tasks), data.eval_data] = None
    warnings: dict[str, None] = {}
    tests = {fingerprint(task) for task in tested.tasks}
    for given, names, eval_data in choosing:
        suite = TaskSuite(load_tasks(names, eval_data))
        metric = (given or suite.metric_names()[0]).removeprefix("eval_")
        if warning := warning_of_test_sets(metric):
            warnings[warning] = None
            continue
        for task in suite.tasks:
            if metric.startswith(f"{task.name}_") and fingerprint(task) in tests:
                chosen_by = f"{task.name} chooses checkpoints or trials, and is a test too"
                warnings[f"{chosen_by}: its score there is too good; give other test_tasks, or other eval_data"] = None
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr, flush=True)


def _eval_data(study: StudyConfig) -> str | None:
    """Returns the study's own, whatever a trial or a variant measures on while it trains."""
    return parse_arguments(merge_settings(study.base, study.settings))[1].eval_data


def _test_suite(study: StudyConfig, eval_data: str | None) -> TaskSuite:
    suite = TaskSuite(load_tasks(study.test_tasks, eval_data))
    for name, metric in main_metrics(suite).items():
        if not greater_is_better(metric):
            raise UserError(
                f"{study.source}: test_tasks: {name}: its {metric} is the better the smaller, and the average is of "
                "scores that are the better the larger; leave it out"
            )
    return suite


def _published(study: StudyConfig, suite: TaskSuite, eval_data: str | None) -> dict[str, float] | None:
    """Returns the published row of scores x 100 that the study names, if it has all test tasks and their average."""
    if study.published is None:
        return None
    known = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    row = known.get(study.published, {})
    if not {AVERAGE, *main_metrics(suite)} <= row.keys():
        print(f"{study.published}: no published scores of these test tasks are known ({PUBLISHED.name})", flush=True)
        return None
    if str(eval_data).lower() == "hub":
        print(
            "published scores are of SentEval's text and of SICK-R's 4,927 test pairs. The hub's is not tokenised, "
            "and its SICK-R has 9,927 pairs: --eval_data FOLDER compares exactly",
            flush=True,
        )
    return row
