"""A folder of results is there whole, or nothing is."""

from pathlib import Path

import pytest
from safetensors import SafetensorError

from arccse_hf.errors import UserError
from arccse_hf.inference.new_folder import new_folder


@pytest.mark.parametrize("name", ["new", "deep/er", "empty", "."])
def test_the_content_comes_into_the_folder(name, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / ".new.unfinished" / "left by a killed run").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "empty" if name == "." else tmp_path)
    with new_folder(Path(name), "--output_dir") as staging:
        (staging / "sub").mkdir()
        (staging / "sub" / "file").write_text("content")
        assert not Path(name, "sub").exists()
    assert sorted(Path(name).rglob("*")) == [Path(name, "sub"), Path(name, "sub", "file")]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")])
@pytest.mark.parametrize("name", ["new", "deep/er", "empty"])
def test_a_disk_that_is_full_is_one_line_and_leaves_nothing(name, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with (
        pytest.raises(UserError, match=f"--output_dir {name}: cannot be written .*No space left on device"),
        new_folder(Path(name), "--output_dir") as staging,
    ):
        (staging / "file").write_text("half")
        raise error
    assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("precious")
    for folder, message in (
        (tmp_path, "is in use"),
        (tmp_path / "file", "is in use"),
        (tmp_path / "file" / "x", "cannot be written"),
    ):
        with pytest.raises(UserError, match=f"--index {folder}: {message}"), new_folder(folder, "--index"):
            raise AssertionError
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]


def test_two_commands_do_not_write_the_same_folder(tmp_path):
    with new_folder(tmp_path / "out", "--index") as staging:
        (staging / "file").write_text("first")
        with (
            pytest.raises(UserError, match="--index .*out: another command is writing it; wait for its end"),
            new_folder(tmp_path / "out", "--index"),
        ):
            raise AssertionError
        assert (staging / "file").read_text() == "first"
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "file"]


def test_what_a_killed_run_has_left_in_an_empty_folder_is_no_use_of_it(tmp_path):
    (tmp_path / f".{tmp_path.name}.unfinished" / "sub").mkdir(parents=True)
    with new_folder(tmp_path, "--index") as staging:
        (staging / "file").write_text("content")
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]
