"""Files that are written whole or not at all, folders that stay as they were, and short names."""

import pytest

from arccse_hf.paths import check_writable, no_empty_folder, replacing, short_names


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    (tmp_path / "scores.csv").write_text("{}")
    with pytest.raises(OSError, match="full"), replacing(tmp_path / "scores.csv") as unfinished:
        unfinished.write_text("half")
        raise OSError("full")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("scores.csv", "{}")]
    with replacing(tmp_path / "scores.csv") as unfinished:
        unfinished.write_text("whole")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("scores.csv", "whole")]


def test_an_error_leaves_no_empty_folder(tmp_path):
    (tmp_path / "runs").mkdir()
    for make in ([], ["model"]):
        with pytest.raises(KeyError), no_empty_folder(tmp_path / "runs" / "a" / "b"):
            check_writable(tmp_path / "runs" / "a" / "b")
            for name in make:
                (tmp_path / "runs" / "a" / "b" / name).mkdir()
            raise KeyError
        assert (tmp_path / "runs").exists() and (tmp_path / "runs" / "a").exists() == bool(make)


def test_names_are_as_short_as_they_can_be_told_apart():
    assert short_names(["/runs/out/a/", "b"], parts=2) == ["out/a", "b"]
    assert short_names(["x/one/b/m", "x/two/b/m", "org/name"], parts=2) == ["one/b/m", "two/b/m", "org/name"]
    assert short_names(["package:some/model#sha256=ab12", "runs/a#1"], parts=2) == ["package:some/model", "runs/a#1"]
