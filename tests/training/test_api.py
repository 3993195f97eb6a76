"""`train`: from texts in memory to a folder and scores, and what each mistake is answered with."""

import json

import pytest
import torch
from datasets import Dataset
from transformers import AutoModel

from arccse_hf.errors import UserError
from arccse_hf.training.api import train

TINY = {
    "max_steps": 4, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "max_seq_length": 24, "use_cpu": True,
    "triplet_min_tokens": 10, "disable_tqdm": True, "save_strategy": "no",
}  # fmt: skip


def test_sentences_in_a_model_and_its_scores_out(encoder, tmp_path, sentences):
    """64 sentences, of which those that are measured are not trained on."""
    texts = sentences + [f"{sentence} river" for sentence in sentences[:16]]
    scored = tmp_path / "pairs.csv"
    pairs = zip(sentences[:8], sentences[8:16], strict=True)
    scored.write_text("sentence1,sentence2,score\n" + "".join(f"{a},{b},{i}\n" for i, (a, b) in enumerate(pairs)))
    settings = TINY | {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-6}}
    result = train(texts, encoder, tmp_path / "out", eval_data=str(scored), eval_steps=2, eval_tasks=None, **settings)

    from sentence_transformers import SentenceTransformer

    assert result.output_dir == str(tmp_path / "out")
    opened = SentenceTransformer(result.output_dir, device="cpu")
    assert opened.encode(sentences[:2]).shape == (2, 16)
    trained = AutoModel.from_pretrained(result.output_dir)
    start = AutoModel.from_pretrained(encoder)
    assert not torch.equal(trained.embeddings.word_embeddings.weight, start.embeddings.word_embeddings.weight)
    scores = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert set(result.before) == set(result.after) >= {"pairs_spearman", "geometry_alignment", "geometry_uniformity"}
    assert result.after == {name: scores[f"eval_{name}"] for name in result.after}
    assert result.before == {name: scores[f"before_{name}"] for name in result.before}
    used = json.loads((tmp_path / "out" / "training" / "run_settings.json").read_text())["training"]
    assert (used["lr_scheduler_kwargs"], used["learning_rate"]) == ({"min_lr": 1e-6}, 1e-3)
    assert "48 of 64 rows kept" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("kind", ["pairs", "dataset"])
def test_pairs_and_datasets_train_too(kind, encoder, tmp_path, sentences):
    rows = list(zip(sentences[:24], sentences[24:], strict=True))
    if kind == "dataset":
        rows = Dataset.from_dict(
            {"sent0": [row[0] for row in rows], "sent1": [row[1] for row in rows], "number": range(24)}
        )
    else:
        rows[0] = ("half of a surrogate pair: \ud800", rows[0][1])
    result = train(rows, encoder, tmp_path / "out", **TINY)
    assert (result.before, result.after) == ({}, {})
    assert (tmp_path / "out" / "modules.json").exists()


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        (None, {"lerning_rate": 1e-5}, "--lerning_rate: there is no such field; did you mean --learning_rate?"),
        (None, {"learning_rate": "fast"}, "--learning_rate fast: must be a number"),
        (None, {"pooling": "max"}, "--pooling max: must be one of cls"),
        (None, {"train_file": ["more.txt"]}, "--train_file: the texts .* are given already"),
        (None, {"streaming": True, "max_steps": 3}, "--streaming True: .*in memory"),
        (None, {"text_columns": ["body"]}, "--text_columns body: texts has no column body"),
        ("one sentence", {}, "texts: must be sentences, .*not one str"),
        (Dataset.from_dict({"anchor": ["a"]}).to_pandas(), {}, "not one DataFrame; Dataset.from_pandas"),
        ([], {}, "texts: is empty"),
        (["a sentence", 3], {}, r"texts\[1\]: 3 is not like the rest"),
        ([("a", "b"), ("c",)], {}, r"texts\[1\]: \('c',\) is not like the rest"),
        (Dataset.from_dict({"number": [1, 2]}), {}, "texts: cannot tell which of the columns number"),
    ],
)
def test_mistakes_are_named_before_training(texts, settings, message, encoder, tmp_path, sentences, monkeypatch):
    monkeypatch.setattr(
        "arccse_hf.training.trainer.ArcCSETrainer.train", lambda *_, **__: pytest.fail("training started")
    )
    with pytest.raises(UserError, match=message) as error:
        train(sentences if texts is None else texts, encoder, tmp_path / "out", **TINY | settings)
    assert "\n" not in str(error.value)
