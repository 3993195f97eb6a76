"""Made-up files, recipes and command lines end well, or with one clear line: never a traceback, a signal or a hang."""

import collections
import json
import os
import warnings
from datetime import timedelta
from pathlib import Path

import pytest
from fuzzing import TARGETS, end_well
from hypothesis import HealthCheck, given, settings

TIMES = float(os.environ.get("ARCCSE_FUZZ_TIMES", "1"))
"""How many times the cases of the suite; `make soak` sets it."""


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_made_up_ends_well_or_with_one_line(name):
    strategy, act, cases = TARGETS[name]
    ends: collections.Counter[str] = collections.Counter()

    @settings(
        max_examples=round(TIMES * cases),
        deadline=timedelta(seconds=60),
        derandomize=TIMES == 1,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def check(made):
        ends[end_well(act, made)] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is constant, in evaluations
        check()
    assert ends["refused"]
    if report := os.environ.get("ARCCSE_FUZZ_REPORT"):
        with Path(report).open("a") as file:
            file.write(json.dumps({"name": name, **ends}) + "\n")
