"""`arccse duplicates`, `cluster` and `similarity` against a plain loop over numpy's cosines."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from backbones import save_encoder
from sentence_transformers import SentenceTransformer

from arccse_hf.commands.texts import CLUSTER, DUPLICATES, SIMILARITY, cluster, duplicates, similarity
from arccse_hf.errors import UserError
from arccse_hf.inference import mining
from arccse_hf.inference.corpus import Documents
from arccse_hf.inference.mining import find_clusters, find_duplicates

TEXTS = ["a red cat", "the old road", "a red cat", "a blue cat", "two long rivers", "the old road", "a red cat"]


@pytest.fixture(scope="module")
def model(tokenizer, tmp_path_factory) -> str:
    return save_encoder(tmp_path_factory.mktemp("models") / "plain", tokenizer, initializer_range=0.5)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    return tmp_path


def documents(vectors: np.ndarray) -> Documents:
    count = len(vectors)
    names = pa.array(["f"] * count).dictionary_encode()
    table = pa.table({"file": names, "id": range(count), "text": [f"text {number}" for number in range(count)]})
    return Documents(table, (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))


def points(count: int = 80) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.normal(size=(12, 8))[generator.integers(12, size=count)] + generator.normal(size=(count, 8)) / 4


def linked(vectors: np.ndarray, threshold: float) -> list[list[int]]:
    """Groups by walking from text to text, the largest first."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = unit @ unit.T >= threshold
    groups, seen = [], set()
    for start in range(len(vectors)):
        group, waiting = [], [start]
        while waiting:
            number = waiting.pop()
            if number not in seen:
                seen.add(number)
                group.append(number)
                waiting += np.flatnonzero(near[number]).tolist()
        groups += [sorted(group)] if len(group) > 1 else []
    return sorted(groups, key=lambda group: (-len(group), group[0]))


@pytest.mark.parametrize("threshold", [0.8, 0.95, 0.99])
def test_duplicates_are_what_links_reach(threshold):
    vectors = points()
    groups = find_duplicates(documents(vectors), threshold)
    assert [group.numbers.tolist() for group in groups] == linked(vectors, threshold)
    for group in groups:
        first = vectors[group.numbers[0]]
        expected = [vectors[n] @ first / np.linalg.norm(vectors[n]) / np.linalg.norm(first) for n in group.numbers]
        np.testing.assert_allclose(group.cosines, expected, atol=1e-6)


def test_a_text_may_have_any_number_of_like_ones(monkeypatch):
    """Two dense groups, linked by a few texts alone; compared seven texts at a time."""
    generator = np.random.default_rng(0)
    vectors = np.concatenate(
        [centre + generator.normal(size=(150, 8)) / 50 for centre in generator.normal(size=(2, 8))]
    )
    bridge = np.linspace(vectors[0], vectors[150], 12)
    vectors = np.concatenate([vectors, bridge])
    monkeypatch.setattr(mining, "BLOCK_CELLS", 7 * len(vectors))
    assert len(linked(vectors[:-12], 0.95)) == 2
    (group,) = find_duplicates(documents(vectors), 0.95)
    assert group.numbers.tolist() == list(range(len(vectors)))


def test_copies_are_a_cluster_at_a_cosine_of_one():
    """Their cosine may be below 1 by rounding."""
    triples = [np.tile(vector, (3, 1)) for vector in np.random.default_rng(0).normal(size=(50, 33))]
    assert all(len(find_clusters(documents(triple), 1.0, 3)) == 1 for triple in triples)


def test_clusters_lie_around_their_first_text():
    vectors = points()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    groups = find_clusters(documents(vectors), 0.9, 4)
    assert groups and all(len(group.numbers) >= 4 for group in groups)
    assert len(np.unique(np.concatenate([group.numbers for group in groups]))) == sum(len(g.numbers) for g in groups)
    for group in groups:
        np.testing.assert_allclose(group.cosines, unit[group.numbers] @ unit[group.numbers[0]], atol=1e-6)
        assert group.cosines.min() >= 0.9 - 1e-6
    largest = (unit @ unit.T >= 0.9).sum(axis=1).max()
    assert len(groups[0].numbers) == largest


def test_duplicates_of_a_file_and_their_csv(model, folder, capsys):
    argv = ["--model", model, "--input", "texts.txt", "--threshold", "1", "--output_dir", "out", "--cache_dir", "cache"]
    assert duplicates(argv) == 0
    out = capsys.readouterr().out
    assert "groups: 2; texts in them: 5 of 7; repetitions: 3 (42.9%)" in out and "written: out/duplicates.csv" in out
    with open("out/duplicates.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["group"], row["size"], row["id"], row["text"]) for row in rows] == [
        ("1", "3", "0", "a red cat"), ("1", "3", "2", "a red cat"), ("1", "3", "6", "a red cat"),
        ("2", "2", "1", "the old road"), ("2", "2", "5", "the old road"),
    ]  # fmt: skip
    assert {float(row["cosine"]) for row in rows} == {1.0}


def test_long_lists_are_cut_and_say_so(model, folder, capsys, monkeypatch):
    monkeypatch.setattr(mining, "_SHOWN_GROUPS", 1)
    monkeypatch.setattr(mining, "_SHOWN_TEXTS", 2)
    argv = ["--model", model, "--input", "texts.txt", "--threshold", "1", "--cache_dir", "cache"]
    assert duplicates(argv) == 0
    out = capsys.readouterr().out
    assert "and 1 more\n" in out and "and 1 more groups; --output_dir writes them all" in out


def test_similarity_is_the_matrix_of_cosines(model, capsys):
    texts = ["a red cat", "the old road over a river", "two dogs"]
    assert similarity([*texts, "--model", model, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    vectors = SentenceTransformer(model, device="cpu").encode(texts).astype(np.float64)
    expected = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a in vectors] for b in vectors]
    np.testing.assert_allclose(answer["cosines"], expected, atol=1e-6)
    assert answer["texts"] == texts
    assert similarity([*texts, "--model", model]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[2].split()[1] == f"{expected[0][1]:.4f}" and lines[1].endswith(texts[0])


@pytest.mark.parametrize(("command", "work"), [(DUPLICATES, duplicates), (CLUSTER, cluster), (SIMILARITY, similarity)])
def test_the_example_of_the_help_runs(command, work, model, folder, capsys):
    Path("out").symlink_to(model)
    argv = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", command.example)]
    assert argv[:2] == ["arccse", command.name]
    assert work([*argv[2:], *(["--cache_dir", "cache"] if command is not SIMILARITY else [])]) == 0
    assert capsys.readouterr().out
    assert command is SIMILARITY or len(list(Path("groups").glob("*.csv"))) == 1


def test_mistakes_are_named(model, folder):
    for work in (duplicates, cluster):
        with pytest.raises(UserError, match="--input none.txt: does not exist"):
            work(["--model", model, "--input", "none.txt"])
    Path("d.jsonl").write_text('{"body": "x"}\n')
    with pytest.raises(UserError, match="--text_column text: --input .*d.jsonl has no column text; it has body"):
        duplicates(["--model", model, "--input", "d.jsonl", "--cache_dir", "cache"])
