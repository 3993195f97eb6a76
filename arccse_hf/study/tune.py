"""`arccse tune`: Optuna looks for the fields of a recipe that do best on what it measures.

A trial is a whole run of `arccse train`. Trainer's own search sets training arguments only, and would leave margins,
pairs and all that was built from the old values as they were.
"""

from __future__ import annotations

import csv
import gc
import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from transformers import TrainerCallback

from ..cli.options import Settings
from ..errors import UserError, one_line
from ..evaluation.suite import greater_is_better
from ..paths import check_writable, read_json
from ..run_folder import RESULTS, SETTINGS, TRAINING, record_path
from ..training.config import build_arguments, read_values
from ..training.preparation import load_evaluation, warning_of_test_sets
from ..training.script import run
from .inputs import inputs_of
from .search_space import Dimension

if TYPE_CHECKING:
    import optuna

BEST, TRIALS, DATABASE, PICTURE = "best.yaml", "trials.csv", "study.db", "history.png"


@dataclass(frozen=True)
class Search:
    """What is searched, and where.

    Args:
        name: Of the study in the storage.
        settings: Fields of every trial, without `output_dir`.
        space: What is looked for.
        output_dir: Folder of the trials' records and the result.
        n_trials: Trials that are to be done or pruned in the end, those of earlier runs and other machines included.
        storage: URL of Optuna's storage; None: a file in `output_dir`.
        seed: Of Optuna's sampler.
    """

    name: str
    settings: Settings
    space: Mapping[str, Dimension]
    output_dir: Path
    n_trials: int
    storage: str | None = None
    seed: int | None = None


def tune(search: Search, *, resume: bool = False) -> int:
    """Does the trials that are missing, writes the best as a recipe, and returns the exit status 0.

    Args:
        search: What is searched.
        resume: Whether to go on with what `output_dir` holds.

    Raises:
        UserError: Optuna is not installed, the folder holds another search, or no trial came to its end.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError("arccse tune: needs optuna: pip install 'arccse-hf[tune]'") from error
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("arccse tune: runs in one process; several take trials from one --storage")
    database = search.output_dir / DATABASE
    if database.exists() and not resume and search.storage is None:
        raise UserError(
            f"--output_dir {search.output_dir}: holds a search; --resume goes on with it, or choose another"
        )
    metric, direction = searched_metric(search.settings)
    if warning := warning_of_test_sets(metric):
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    check_writable(search.output_dir)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            study_name=search.name,
            storage=search.storage or f"sqlite:///{database}",
            direction=direction,
            load_if_exists=True,
        )
    except Exception as error:  # of the database's own driver
        raise UserError(f"--storage {search.storage or database}: cannot be opened ({one_line(error)})") from error
    _require_same_search(search, study)
    # With the same seed again, a search that goes on would draw its first trials once more.
    seed = None if search.seed is None else search.seed + len(study.trials)
    study.sampler = optuna.samplers.TPESampler(seed=seed)
    finished = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    missing = search.n_trials - len(study.get_trials(states=finished))
    if missing > 0:
        study.optimize(
            _objective(search),
            n_trials=missing,
            catch=(UserError,),
            callbacks=[optuna.study.MaxTrialsCallback(search.n_trials, states=finished), _print_trial],
        )
    return _write_result(search, study)


def searched_metric(settings: Settings) -> tuple[str, Literal["maximize", "minimize"]]:
    """Returns the metric that trials are compared by, the one that chooses checkpoints, and what to do with it.

    Raises:
        UserError: Nothing is measured.
    """
    _, data, training = build_arguments(read_values(settings | {"output_dir": "unused"}))
    suite, _ = load_evaluation(data)
    if suite is None:
        raise UserError("nothing is measured while a trial trains; give --eval_tasks and --eval_data")
    metric, better = training.metric_for_best_model or suite.metric_names()[0], training.greater_is_better
    return metric, "maximize" if (greater_is_better(metric) if better is None else better) else "minimize"


def _require_same_search(search: Search, study: optuna.Study) -> None:
    """Notes in the storage what the trials have in common, and compares it with what is there.

    Raises:
        UserError: The trials that are there were made with other settings, or in another space.
    """
    model, data, _ = build_arguments(read_values(search.settings | {"output_dir": "unused"}))
    own = {
        "settings": search.settings,
        "space": {name: asdict(values) for name, values in search.space.items()},
        "files": inputs_of(model, data),
    }
    own = json.loads(json.dumps(own, default=str))  # as the storage gives it back
    theirs = study.user_attrs.get("search", own)
    for part, option in (
        ("space", "--space"),
        ("settings", "its fields"),
        ("files", "it has changed since"),
    ):
        then, now = theirs.get(part, own[part]), own[part]  # earlier versions have not noted the files
        changed = [name for name in {**then, **now} if then.get(name) != now.get(name)]
        if changed:
            raise UserError(
                f"arccse tune {search.name}: the search that is there has another {changed[0]} ({option}), and trials "
                "are compared with each other; give what it was begun with, or choose another --output_dir or --storage"
            )
    study.set_user_attr("search", own)


class ReportToTrial(TrainerCallback):
    """Tells a trial every measurement of its run, and ends the run where the trial is not worth going on with.

    Args:
        trial: Of the run.
        metric: What is searched for; `searched_metric` has made sure that there is one.
    """

    def __init__(self, trial: optuna.Trial, metric: str | None):
        self.trial, self.metric = trial, metric

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        """Reports what was measured after a step of training."""
        import optuna

        if state.global_step > 0:
            self.trial.report(metrics[f"eval_{self.metric}"], state.global_step)
            if self.trial.should_prune():
                raise optuna.TrialPruned


def _objective(search: Search) -> Callable[[optuna.Trial], float]:
    def objective(trial: optuna.Trial) -> float:
        chosen = {name: dimension.suggest(trial) for name, dimension in search.space.items()}
        folder = search.output_dir / f"trial-{trial.number}"
        settings: Settings = search.settings | chosen | {"output_dir": str(folder), "overwrite_output_dir": "true"}
        values = read_values(settings)
        start = time.perf_counter()
        try:
            return _train(values, folder, trial)
        except UserError as error:
            trial.set_user_attr("error", str(error))
            raise
        finally:
            trial.set_user_attr("seconds", time.perf_counter() - start)
            gc.collect()  # trainers hold themselves in cycles
            for path in [*folder.glob("*"), *(folder / TRAINING).glob("checkpoint-*")]:
                if path.name not in (TRAINING, RESULTS):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    return objective


def _train(values: dict[str, Any], folder: Path, trial: optuna.Trial) -> float:
    arguments = build_arguments(values)

    run(*arguments, settings=values, callbacks=lambda metric: [ReportToTrial(trial, metric)])
    metric = read_json(record_path(folder, SETTINGS))["training"]["metric_for_best_model"]
    results = read_json(record_path(folder, RESULTS))
    if results.get("verdict", {}).get("keeps_start"):
        raise UserError("the verdict kept the start encoder, whose score says nothing of these values")
    return results[f"eval_{metric}"]


def _print_trial(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    value = trial.user_attrs.get("error") or ("-" if trial.value is None else f"{trial.value:.4f}")
    print(f"trial {trial.number}: {trial.state.name.lower()} · {value} · {_in_words(trial.params)}", flush=True)


def _in_words(params: Mapping[str, object]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in params.items()
    )


def _write_result(search: Search, study: optuna.Study) -> int:
    """Writes the table of the trials, a picture where matplotlib is there, and the best as a recipe."""
    import optuna

    names = list(search.space)
    with (search.output_dir / TRIALS).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "state", "value", "seconds", *names])
        for trial in study.trials:
            seconds = trial.user_attrs.get("seconds")
            cells = [trial.params.get(name) for name in names]
            writer.writerow(
                [trial.number, trial.state.name.lower(), trial.value, seconds and round(seconds, 1), *cells]
            )
    done = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    if not done:
        reasons = [trial.user_attrs["error"] for trial in study.trials if "error" in trial.user_attrs]
        raise UserError(f"no trial came to its end{f': {reasons[-1]}' if reasons else ''}")
    best = study.best_trial
    chosen = {name: dimension.text(best.params[name]) for name, dimension in search.space.items()}
    recipe = search.settings | chosen | {"output_dir": str(search.output_dir / "best")}
    heading = f"# Trial {best.number} of {len(study.trials)}: {best.value:.4f}, with {_in_words(best.params)}.\n"
    path = search.output_dir / BEST
    path.write_text(heading + yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), encoding="utf-8")
    if importlib.util.find_spec("matplotlib"):
        _draw(done, max if study.direction.name == "MAXIMIZE" else min, search.output_dir / PICTURE)
    print(f"best: trial {best.number} of {len(study.trials)} · {best.value:.4f} · {_in_words(best.params)}")
    print(f"written: {path}, {TRIALS}; arccse train {path} trains it")
    return 0


def _draw(trials: Sequence[optuna.trial.FrozenTrial], best: Callable[[float, float], float], path: Path) -> None:
    from matplotlib.figure import Figure

    done = [(trial.number, trial.value) for trial in trials if trial.value is not None]
    numbers, values = zip(*done, strict=True)
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(numbers, values, "o", label="trial")
    axes.step(numbers, list(accumulate(values, best)), where="post", label="best so far")
    axes.set(xlabel="trial", ylabel="value")
    axes.legend()
    figure.savefig(path, dpi=150)
