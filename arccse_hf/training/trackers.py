"""Trackers (`--report_to`): their runs stay open until the verdict, and end with a line about it.

docs/training-log.md lists the names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from transformers import Trainer
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from ..errors import UserError, one_line
from .verdict import Verdict

OUTCOMES = {"better": 1.0, "no clear difference": 0.0, "worse": -1.0}
"""Of the verdict, as numbers: MLflow takes no words."""


def final_line(scores: Mapping[str, float], verdict: Verdict | None) -> dict[str, float]:
    """Returns the last line of a run's log.

    Args:
        scores: Of what is exported, by name.
        verdict: None where there is none.
    """
    line = {f"final_{name}": value for name, value in scores.items()}
    if verdict is not None:
        measured = verdict.metrics()
        line |= {
            "verdict": OUTCOMES[verdict.outcome],
            "verdict_difference": verdict.difference,
            "verdict_low": verdict.low,
            "verdict_high": verdict.high,
            "verdict_share": verdict.share,
            "verdict_start_mrr_at_10": measured["before_verdict_mrr_at_10"],
            "verdict_trained_mrr_at_10": measured["eval_verdict_trained_mrr_at_10"],
            "verdict_mrr_at_10": measured["eval_verdict_mrr_at_10"],
        }
    return line


@contextlib.contextmanager
def trackers_open(trainer: Trainer) -> Iterator[None]:
    """Has the trackers of a trainer end their runs when the context ends, and not when training does.

    MLflow and trackio would give what is logged after training a run of its own. Where a tracker cannot begin its run,
    training ends with a `UserError` that names it.
    """
    names = {kind: name for name, kind in INTEGRATION_TO_CALLBACK.items()}
    ends: list[Callable[[], object]] = []

    def hold(end: Callable[..., object], *given: object, **more: object) -> None:
        ends.append(partial(end, *given, **more))

    for callback in trainer.callback_handler.callbacks:
        if type(callback) in names:  # Trainer looks its methods up by name
            begin = partial(_begin, names[type(callback)], callback.on_train_begin)
            vars(callback).update(on_train_begin=begin, on_train_end=partial(hold, callback.on_train_end))
    try:
        yield
    finally:
        for end in ends:
            end()


def _begin(name: str, begin: Callable[..., object], *given: object, **more: object) -> None:
    try:
        begin(*given, **more)
    except Exception as error:  # each tracker has errors of its own: no account, no server, no folder
        raise UserError(f"--report_to {name}: cannot begin its run: {one_line(error)}") from error
