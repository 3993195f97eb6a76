"""Recipes as YAML: text stays text, legal YAML works, and mischief ends in one line."""

import pytest
import yaml

from arccse_hf.errors import UserError
from arccse_hf.training import config_file
from arccse_hf.training.config_file import read_config


@pytest.fixture
def read(tmp_path):
    def read_text(text, name="config.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_config(path)

    return read_text


def test_scalars_stay_text_and_what_is_empty_is_left_out(read):
    text = "a: 1e-5\nb: no\nc: 007\nd:\ne: null\nf: [1, on]\ng: {h: 1.50}\ni: 2024-01-01\nj: '--k'\nl: 'null'\n"
    assert read(text) == {
        "a": "1e-5", "b": "no", "c": "007", "f": ["1", "on"], "g": {"h": "1.50"}, "i": "2024-01-01", "j": "--k",
        "l": "null",
    }  # fmt: skip


def test_json_and_a_byte_order_mark_and_an_empty_file(read):
    assert read('\ufeff{"a": [true, 1], "b": null}') == {"a": ["true", "1"]}
    assert read("# nothing\n") == {}


def test_anchors_and_merge_keys(read):
    text = (
        "base: &base {seed: 1, pooling: cls}\nruns:\n  a: &a {<<: *base, seed: 2}\n  b: {<<: [*a, *base], x: *base}\n"
    )
    base = {"seed": "1", "pooling": "cls"}
    assert read(text)["runs"] == {"a": base | {"seed": "2"}, "b": base | {"seed": "2", "x": base}}


BOMB = "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12))
ALIASES = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "holds lines of `name: value`"),
        ("just text", "holds lines of `name: value`"),
        ("seed: 1\nseed: 2\n", "not valid YAML or JSON: seed is given twice (line 2)"),
        ("a: {b: 1, b: 2}\n", "b is given twice (line 1)"),
        ("pooling: [cls\n", "not valid YAML or JSON: expected ',' or ']'"),
        ("a: !!set {b}\n", "could not determine a constructor for the tag 'tag:yaml.org,2002:set' (line 1)"),
        ("a: !!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
        ("a: !!float [1]\n", "expected a scalar node"),
        ("a: !!map b\n", "expected lines of `name: value`"),
        ("a: !!seq b\n", "expected a sequence node"),
        ("? [a, b]\n: c\n", "a name must be plain text (line 1)"),
        ("a: 1\n---\nb: 2\n", "but found another document (line 2)"),
        ("a: *gone\n", "found undefined alias"),
        ("a: &a [*a]\n", "stands within what it names"),
        ("a: " + "[" * 3000, "brackets within brackets, too deep to read"),
        ("a: '\x07'\n", "special characters are not allowed"),
        (b"a: \xff\n", "not UTF-8 text: byte 3"),
        ("a: " + "x" * config_file.MAX_BYTES, "has more than 200,000 bytes"),
        (BOMB, "has more than 20,000 values"),
        (ALIASES, "has more than 20,000 values"),
    ],
)
def test_mischief_is_one_line(read, text, message):
    with pytest.raises(UserError) as error:
        read(text)
    assert message in str(error.value) and "config.yaml: " in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.yaml: cannot read the config file \(No such file"):
        read_config(tmp_path / "gone.yaml")


def test_what_is_written_comes_back(read):
    settings = {"a": "1e-5", "b": ["no", "--x", ""], "c": {"d": "null"}}
    assert read(yaml.safe_dump(settings)) == settings
