"""What the documents tell a reader to type is run as it stands there, with a tiny encoder and texts of a few words."""

import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from backbones import WORDS
from doc_text import ROOT, block_commands, blocks, our_command
from sentence_transformers import SentenceTransformer

from arccse_hf.__main__ import main

START, SENTENCES, EXPORTING = (ROOT / "docs" / name for name in ("index.md", "sentences.md", "exporting.md"))
USING, SCALING, MIGRATING = (ROOT / "docs" / name for name in ("using.md", "scaling.md", "migrating.md"))
AROUND = ROOT / "docs" / "around-training.md"


@pytest.fixture(scope="module")
def place(encoder, tmp_path_factory) -> Path:
    """A folder with the encoders and files that the documents name; `out` is an encoder as well."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("sentence-transformers/all-MiniLM-L6-v2", "bert-base-uncased"):
        shutil.copytree(encoder, folder / name)  # where the documents' come from the hub
    SentenceTransformer(encoder).save(str(folder / "out"))
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(6, 29))) for _ in range(96)]
    for name in ("tickets.txt", "sentences.txt", "texts.txt", "queries.txt"):
        (folder / name).write_text("\n".join(texts))
    scored = "".join(f"{a},{b},{c}\n" for a, b, c in zip(texts, texts[1:], range(10), strict=False))
    (folder / "scored.csv").write_text(f"sentence1,sentence2,score\n{scored}")
    (folder / "docs").mkdir()
    for number, text in enumerate(texts):
        (folder / "docs" / f"{number}.md").write_text(f"# {text[:30]}\n\n{text}.\n\n{text[::-1]}.\n")
    (folder / "tables").mkdir()
    for name in ("docs.jsonl", "tables/part.jsonl"):
        rows = [json.dumps({"text": text, "id": str(number)}) for number, text in enumerate(texts)]
        (folder / name).write_text("\n".join(rows))
    return folder


@pytest.fixture(autouse=True)
def at_the_place(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("HF_HOME", str(tmp_path))  # embeddings of a corpus are kept below it


def run_python(document: Path, *, without: str = "never") -> dict[str, object]:
    """Runs the Python blocks of a document one after the other, and returns their names."""
    names: dict[str, object] = {}
    for block in blocks(document, "python"):
        if without not in block:
            exec(compile(block, document.name, "exec"), names)
    return names


def run_commands(document: Path, *verbs: str) -> int:
    """Runs our commands of a document's shell blocks, those of `verbs`, and returns how many there were."""
    found = [our_command(words) for words in block_commands(document)]
    lines = [[command.name, *arguments] for command, arguments in filter(None, found) if command.name in verbs]
    for line in lines:
        with pytest.raises(SystemExit) as done:
            main(line)
        assert done.value.code == 0, line
    return len(lines)


def test_the_readme_trains_scores_and_embeds_and_the_folder_opens_as_told(capsys):
    assert blocks(ROOT / "README.md", "python")[0].count("\n") == 8
    names = run_python(ROOT / "README.md")
    assert "'tickets-encoder': {'scored_spearman': " in capsys.readouterr().out
    assert len(names["embeddings"]) == 2
    assert run_python(EXPORTING)["embeddings"] == pytest.approx(names["embeddings"])


def test_the_trainer_of_the_sentences_page_changes_the_encoder(place):
    names = run_python(SENTENCES)
    trained, base = SentenceTransformer("out").encode("a cat"), SentenceTransformer(names["base"]).encode("a cat")
    assert trained != pytest.approx(base, abs=1e-6)


def test_the_first_page_searches_the_documents_that_it_trains_on(capsys):
    assert "embeddings" in run_python(START)
    assert run_commands(START, "search") == 1
    hits = [line for line in capsys.readouterr().out.splitlines() if line.lstrip()[:1].isdigit()]
    assert len(hits) == 3 and all("  (docs/" in hit and ".md: " in hit for hit in hits)


def test_the_commands_that_use_an_encoder_run_as_they_stand(place, monkeypatch):
    (place / "tables" / "part.jsonl").write_text('{"text": "paper jam", "id": "a"}\n{"text": "toner", "id": "b"}\n')
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda _: True, "readline": lambda _: ""})())
    assert run_commands(USING, "search", "similarity", "duplicates", "cluster", "info") == 9


def test_sentence_transformers_trains_with_our_losses():
    assert run_python(MIGRATING)["trainer"].state.global_step > 0


def test_embeddings_are_read_back_as_told(place):
    with pytest.raises(SystemExit) as done:
        main("encode --model out --input texts.txt --output_dir embeddings".split())
    assert done.value.code == 0
    names = run_python(SCALING, without="import faiss")  # which is no dependency of ours
    assert names["vectors"].shape == (96, SentenceTransformer("out").get_embedding_dimension())
    assert len(names["rows"]) == 96


@pytest.mark.extras
def test_transformers_own_search_finds_settings_of_the_model_too():
    pytest.importorskip("optuna")
    block = next(block for block in blocks(AROUND, "python") if "hyperparameter_search" in block)
    names: dict[str, Any] = {}
    exec(block.replace("n_trials=20", "n_trials=3"), names)
    best = names["best"]
    configs = [json.loads(path.read_text()) for path in Path("search", f"run-{best.run_id}").rglob("config.json")]
    assert {config["angular_margin"] for config in configs} == {best.hyperparameters["angular_margin"]}
