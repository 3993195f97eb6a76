"""Values of options: types, choices, intervals, and what a wrong one is answered with."""

import pytest

from arccse_hf.cli.options import Interval, Option
from arccse_hf.errors import UserError


@pytest.mark.parametrize(
    ("interval", "inside", "outside", "words"),
    [
        ("(0, 1]", (1e-9, 1), (0, 1.1, -1), "above 0 and at most 1"),
        ("[0, 90)", (0, 89.9), (90, -1e-9), "0 or more and below 90"),
        ("[1, 1e9]", (1, 1e9), (0, 1.1e9), "from 1 to 1e9"),
        ("-1 or [1, 8]", (-1, 1, 8), (0, -2, 9), "from 1 to 8, or -1"),
        ("[0, 0]", (0,), (1, -1), "0"),
    ],
)
def test_intervals(interval, inside, outside, words):
    interval = Interval(interval)
    assert all(number in interval for number in inside)
    assert not any(number in interval for number in (*outside, float("nan"), float("inf"), -float("inf")))
    assert str(interval) == words


@pytest.mark.parametrize(
    ("option", "given", "value"),
    [
        (Option("x", "int"), "7", 7),
        (Option("x", "float"), "1e-5", 1e-5),
        (Option("x", "bool"), "off", False),
        (Option("x", "bool"), "Yes", True),
        (Option("x"), "no", "no"),
        (Option("x", choices=("a", "no")), "no", "no"),
        (Option("x", "bool", choices=("false",)), "no", False),
        (Option("x", many=True), "a", ["a"]),
        (Option("x", many=True), ["a,b", "--c"], ["a,b", "--c"]),
        (Option("x", many=True, commas=True), ["a,b", "c"], ["a", "b", "c"]),
        (Option("x", many=True, commas=True), "", []),
        (Option("x", "int", many=True), ["1,", "2"], [1, 2]),
        (Option("x", many=True, or_text=True), ["a"], "a"),
        (Option("x", flag=True), "true", True),
        (Option("x", flag=True), "full_shard", "full_shard"),
        (Option("x", "json"), '{"a": 1}', {"a": 1}),
        (Option("x", "json"), {"a": "1e-6", "b": ["true", "c"], "d": None}, {"a": 1e-6, "b": [True, "c"], "d": None}),
    ],
)
def test_text_becomes_a_value(option, given, value):
    assert option.read(given) == value
    assert type(option.read(given)) is type(value)


@pytest.mark.parametrize(
    ("option", "given", "message"),
    [
        (Option("x", "int"), "1.5", "--x 1.5: must be a whole number"),
        (Option("x", "int"), ["1", "2"], "--x 1 2: takes one value, not several"),
        (Option("x", "float"), "nan", "--x nan: must be a number"),
        (Option("x", "float"), "1e400", "--x 1e400: must be a number"),
        (Option("x", "int", interval="[1, 9]"), "0", "--x 0: must be a whole number from 1 to 9"),
        (Option("x", "float", interval="[0, 0]", reason="why"), "1", "--x 1: must be a number 0; why"),
        (Option("x", "bool"), "perhaps", "--x perhaps: must be true or false"),
        (Option("x", "bool", choices=("false",), reason="why"), "1", "--x 1: must be false; why"),
        (Option("x", choices=("a", "b")), "c", "--x c: must be one of a, b"),
        (Option("x"), {"a": "1"}, "--x {'a': '1'}: must be text"),
        (Option("x", "int", many=True), ",", "--x ,: must be a whole number"),
        (Option("x", many=True), [["a"]], "--x ['a']: must be text"),
        (Option("x", many=True), [None], "--x None: must be text"),
        (Option("x", "json"), "abc", '--x abc: must be {"name": value, ...}'),
        (Option("x", "json"), "{", "--x {: is not valid JSON (Expecting property name enclosed in double quotes"),
        (Option("x", "json"), '{"a":' * 5000, "...: is not valid JSON"),
        (Option("x", "json file"), "gone.json", "--x gone.json: must be {"),
        (Option("x", "int"), "1" * 5000, "...: must be a whole number"),
    ],
)
def test_a_wrong_value_is_named(option, given, message):
    with pytest.raises(UserError) as error:
        option.read(given)
    assert message in str(error.value)
    assert len(str(error.value)) < 250 and "\n" not in str(error.value)


def test_a_file_with_a_comma_in_its_name_is_one_value(tmp_path):
    path = tmp_path / "a,b.csv"
    path.touch()
    assert Option("x", many=True, commas=True).read([str(path)]) == [str(path)]
