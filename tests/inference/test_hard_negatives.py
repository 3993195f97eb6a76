"""`arccse mine` against a plain loop over numpy's cosines."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from backbones import WORDS, save_encoder
from sentence_transformers import SentenceTransformer

from arccse_hf.commands.texts import MINE, mine
from arccse_hf.data.training_texts import load_training_texts
from arccse_hf.errors import UserError

FILES = ["--train_file", "pairs.csv", "--output", "triples.jsonl"]


@pytest.fixture(scope="module")
def model(tokenizer, tmp_path_factory) -> str:
    return save_encoder(tmp_path_factory.mktemp("models") / "plain", tokenizer, initializer_range=0.5)


@pytest.fixture
def pairs(tmp_path, monkeypatch) -> list[tuple[str, str]]:
    """39 pairs, of which the first anchor has two; in a file with a repeated and an empty row besides."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(WORDS, size=6)) for _ in range(78)]
    pairs = list(zip(texts[:39], texts[39:], strict=True))
    pairs[1] = (pairs[0][0], pairs[1][1])
    write("pairs.csv", [*pairs, pairs[5], (texts[0], "")])
    return pairs


def write(path: str, pairs: list[tuple[str, str]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("anchor", "positive"), *pairs])


def by_hand(model: str, pairs: list[tuple[str, str]], number: int, margin: float) -> dict:
    """Returns the negatives of each pair: of the nearest texts, those below the cosine with the farthest positive."""
    encoder = SentenceTransformer(model, device="cpu")

    def unit(texts):
        vectors = encoder.encode(texts).astype(np.float64)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    documents = list(dict.fromkeys(positive for _, positive in pairs))
    vectors = unit(documents)
    negatives = {}
    for anchor, positive in pairs:
        own = {other for first, other in pairs if first == anchor}
        cosines = dict(zip(documents, vectors @ unit([anchor])[0], strict=True))
        limit = min(cosines[text] - abs(cosines[text]) * margin for text in own)
        # sentence-transformers looks at ten texts per negative, and at two more per positive, of which there are two.
        nearest = sorted(documents, key=lambda text: -cosines[text])[: 10 * number + 4]
        candidates = [text for text in nearest if text not in own and cosines[text] <= limit]
        negatives[anchor, positive] = candidates[:number]
    return negatives


@pytest.mark.parametrize(("number", "margin"), [(1, 0.05), (3, 0.3)])
def test_negatives_are_the_nearest_beyond_the_margin_and_training_reads_them(model, pairs, capsys, number, margin):
    settings = ["--num_negatives", str(number), "--relative_margin", str(margin)]
    assert mine(["--model", model, *FILES, *settings]) == 0
    expected = by_hand(model, pairs, number, margin)
    rows = [json.loads(line) for line in Path("triples.jsonl").read_text().splitlines()]
    found = {pair: [] for pair in expected}
    for row in rows:
        found[row["anchor"], row["positive"]].append(row["negative"])
    assert found == expected
    without = [pair for pair, negatives in expected.items() if not negatives]
    out = capsys.readouterr().out
    assert without and "pairs: 39 of 41 rows kept: 1 empty, 0 shorter than 1 characters, 1 duplicates" in out
    pairs_with = len(expected) - len(without)
    assert f"triples: {len(rows)}, of {pairs_with} pairs; pairs without a negative: {len(without)}\n" in out
    assert f"    {without[0][0]!r} with {without[0][1]!r}" in out
    assert f"and {len(without) - 5} more" in out or len(without) <= 5
    read, counts = load_training_texts(train_file=["triples.jsonl"])
    assert read.column_names == ["anchor", "positive", "negative"] and counts.kept == len(rows)
    assert read.to_list() == rows


def test_an_output_is_replaced_only_when_asked(model, pairs):
    Path("triples.jsonl").write_text("precious")
    with pytest.raises(UserError, match="--output triples.jsonl: is there already; .*--overwrite"):
        mine(["--model", model, *FILES])
    assert Path("triples.jsonl").read_text() == "precious"
    assert mine(["--model", model, *FILES, "--overwrite"]) == 0
    assert Path("triples.jsonl").read_text().startswith('{"anchor"')
    with pytest.raises(UserError, match="--output triples.jsonl: is a --train_file too"):
        mine(["--model", model, "--train_file", "triples.jsonl", "--output", "triples.jsonl", "--overwrite"])


def test_a_full_disk_is_one_line_and_leaves_nothing(model, pairs, monkeypatch):
    def to_json(triples, path, **options):
        Path(path).write_text("half a")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("datasets.Dataset.to_json", to_json)
    with pytest.raises(UserError, match="--output triples.jsonl: cannot be written .*No space left on device"):
        mine(["--model", model, *FILES])
    assert [path.name for path in Path().iterdir()] == ["pairs.csv"]


def test_mistakes_are_named(model, pairs):
    Path("one.txt").write_text("a red cat\nthe old road\n")
    with pytest.raises(UserError, match="--train_file one.txt: has 1 column.s. of text .* name the two"):
        mine(["--model", model, "--train_file", "one.txt", "--output", "t.jsonl"])
    write("single.csv", pairs[:1])
    with pytest.raises(UserError, match="--relative_margin 0.05: no pair has a negative; give more pairs"):
        mine(["--model", model, "--train_file", "single.csv", "--output", "t.jsonl"])
    assert not Path("t.jsonl").exists()


def test_the_example_of_the_help_runs(model, pairs):
    Path("out").symlink_to(model)
    assert mine(MINE.example.split()[2:]) == 0
    assert Path("triples.jsonl").exists()
