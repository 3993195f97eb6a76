"""Embeddings that are not finite: every command that compares embeddings refuses them."""

import csv
import json
from pathlib import Path

import pytest
import torch
from backbones import WORDS, save_encoder
from transformers import BertModel

from arccse_hf.commands import VERBS
from arccse_hf.errors import UserError
from arccse_hf.evaluation.suite import TaskSuite
from arccse_hf.inference.evaluate import embed_suite
from arccse_hf.inference.open import load_encoder


@pytest.fixture(scope="module")
def model(tokenizer, tmp_path_factory) -> str:
    """An encoder that gives NaN for every text with the word "red"."""
    folder = save_encoder(tmp_path_factory.mktemp("models") / "plain", tokenizer)
    broken = BertModel.from_pretrained(folder)
    with torch.no_grad():
        broken.embeddings.word_embeddings.weight[tokenizer.convert_tokens_to_ids("red")] = torch.nan
    broken.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["similarity", "a cat", "the red cat", "--json"], "the red cat"),
        (["search", "--corpus", "docs.jsonl", "--cache_dir", "cache", "--query", "a red dog"], "a red dog"),
        (["mine", "--train_file", "anchors.csv", "--output", "triples.jsonl"], "the red road"),
        (["mine", "--train_file", "positives.csv", "--output", "triples.jsonl"], "the red road"),
    ],
)
def test_an_embedding_that_is_not_finite_is_refused(argv, text, model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("docs.jsonl").write_text(json.dumps({"text": "the cat"}) + "\n")
    pairs = [(f"the {first}", f"a {second}") for first, second in zip(WORDS[10:18], WORDS[18:26], strict=True)]
    for name, row in (("anchors", ("the red road", "a man")), ("positives", ("a man", "the red road"))):
        with open(f"{name}.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("anchor", "positive"), *pairs, row])
    command, *options = argv
    with pytest.raises(UserError, match=f"^MODEL .*plain: the embedding of text '{text}' is not finite; check the mod"):
        VERBS[command][1]([*options, "--model", model])
    assert "nan" not in capsys.readouterr().out.lower() and not Path("triples.jsonl").exists()


def test_nothing_to_embed_is_no_error(model):
    """Where all tasks are mteb's, which embeds for itself."""
    result, embeddings = embed_suite(load_encoder(model), TaskSuite([]))
    assert embeddings.shape == (0, 16) and (result.dimension, result.sentences) == (16, 0)


@pytest.mark.parametrize(
    "argv", [["similarity", "a cat", "\udce9t\udce9"], ["search", "--corpus", "x.txt", "--query", "\udce9t\udce9"]]
)
def test_a_text_in_another_encoding_is_named(argv, model):
    with pytest.raises(UserError, match="'.udce9t.udce9': is not text in the terminal's encoding"):
        VERBS[argv[0]][1]([*argv[1:], "--model", model])
