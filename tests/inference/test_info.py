"""`arccse info` against what the libraries themselves say of the same folder, and against a real run."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from backbones import save_encoder
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tiny import make_trainer, tiny_model

from arccse_hf.commands.texts import INFO, PAIR_KINDS, info
from arccse_hf.data.pairs import PairKind
from arccse_hf.data.tokenization import tokenize_texts
from arccse_hf.errors import UserError
from arccse_hf.inference.export import export
from arccse_hf.paths import write_json
from arccse_hf.run_folder import begin_run, finish_run


@pytest.fixture
def finished(tmp_path, tokenizer) -> Path:
    model = tiny_model(pooling="cls", projection="mlp", normalize=True, prompts={"query": "find:"})
    export(model, tokenizer, tmp_path / "out")
    return tmp_path / "out"


def facts(capsys, *argv: str) -> dict:
    assert info([*map(str, argv), "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])  # training prints rows before


def test_a_model_is_what_sentence_transformers_opens(finished, capsys):
    found, model = facts(capsys, finished), SentenceTransformer(str(finished), device="cpu")
    assert found["modules"] == [type(module).__name__ for module in model]
    assert found["pooling"] == model[1].pooling_mode and found["dimension"] == model.get_embedding_dimension()
    assert found["max length"] == f"{model.max_seq_length} tokens" and found["normalised"] is True
    assert found["similarity"] == model.similarity_fn_name and found["prompts"] == ["query: 'find:'"]
    count = sum(weight.numel() for weight in model.state_dict().values())
    assert found["weights"].startswith(f"{count:,} parameters")
    assert found["architecture"] == "bert, 3 layers" and "run" not in found


def test_a_plain_encoder_and_a_checkpoint(tmp_path, tokenizer, capsys):
    found = facts(capsys, save_encoder(tmp_path / "plain", tokenizer))
    assert found["model"] == "plain encoder" and "mean is taken" in found["pooling"] and found["dimension"] == 16
    model = tiny_model(pooling="mean_top2", projection="none")
    model.save_pretrained(tmp_path / "checkpoint-2")
    tokenizer.save_pretrained(tmp_path / "checkpoint-2")
    found = facts(capsys, tmp_path / "checkpoint-2")
    assert found["model"] == "checkpoint of ArcCSE" and found["pooling"] == "mean_top2"
    assert "angular margin 10.0, temperature 0.05" in found["trained with"]


def test_a_run_that_was_stopped_says_how_to_go_on(tmp_path, tokenizer, sentences, capsys):
    rows = tokenize_texts(Dataset.from_dict({"anchor": sentences}), tokenizer, 32)
    begin_run(tmp_path, resume=False, overwrite=False, facts={"hardware": "CPU", "versions": {"torch": "2"}})
    make_trainer(tmp_path, rows, tokenizer, max_steps=4, save_strategy="steps", save_steps=2).train()
    found = facts(capsys, tmp_path)
    assert found["run"] == "not done" and found["steps"] == "4 of 4"
    assert found["checkpoints"] == ["checkpoint-4", "checkpoint-2"]
    assert found["to go on"].endswith("--resume_from_checkpoint True goes on from checkpoint-4")
    write_json(tmp_path / "all_results.json", {"before_x": 0.25, "eval_x": 0.5, "eval_runtime": 3})
    write_json(tmp_path / "run_settings.json", {"model": {"model_name_or_path": "base"}, "data": {"train_file": ["t"]}})
    finish_run(tmp_path)
    found = facts(capsys, tmp_path)
    assert found["run"] == "done" and found["scores"] == ["x  0.2500 -> 0.5000"] and "to go on" not in found
    assert found["from"] == "base" and found["text"] == ["t"] and found["hardware"] == "CPU"


def test_a_file_is_read_with_a_models_tokenizer(finished, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = ["the red cat", "the red cat", "", "a zebra " + "road " * 70]
    Path("texts.jsonl").write_text("".join(json.dumps({"text": row, "n": 1}) + "\n" for row in rows))
    found = facts(capsys, "texts.jsonl")
    assert found["rows"] == 4 and found["columns"] == ["text (text)", "n (integers)"] and "--model" in found["hint"]
    found = facts(capsys, "texts.jsonl", "--model", finished)
    # 74 tokens with [CLS] and [SEP], of 64 that are read; one of 72 + 3 words is unknown; the copy is left out.
    assert found["cleaning"].startswith("2 of 4 rows kept: 1 empty, 0 shorter than 5 characters, 1 duplicates")
    # As training cuts by default, and as the encoder does.
    assert found["health"] == [
        f"2 rows · 50.0% cut at {length} tokens ({lost / 79:.1%} of tokens lost) · {1 / 75:.1%} unknown tokens"
        f" · median {median} tokens · 50% long enough for a triplet · 1 duplicates"
        for length, lost, median in ((32, 42, 18), (64, 10, 34))
    ]
    assert any("unknown to this tokenizer" in line for line in found["warnings"])
    (line,) = facts(capsys, "texts.jsonl", "--model", finished, "--max_seq_length", "9")["health"]
    assert "cut at 9 tokens" in line
    for path in finished.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(UserError, match="--model .*out: there is no usable tokenizer beside the weights"):
        info(["texts.jsonl", "--model", str(finished)])


def test_the_example_of_the_help_runs(finished, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("a cat\nthe dog\ndog\n")  # the last is too short to be trained on
    argv = shlex.split(INFO.example)
    assert argv[:2] == ["arccse", "info"] and info(argv[2:]) == 0
    assert "health     2 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("none.txt", "FILE none.txt: does not exist"),
        ("nothing", "nothing: neither a file of text .*, a folder, nor a hub id"),
        ("empty", "empty: holds neither a model nor a run"),
        ("empty --model m", "--model, --text_column and --max_seq_length: go with a file of text"),
        ("a.jsonl --text_column body --model out", "has no column body; it has text"),
    ],
)
def test_mistakes_are_one_line(argv, message, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("a.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(UserError, match=message):
        info(argv.split())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("modules.json", "modules.json: holds no list of modules .*; copy it again"),
        (
            "model.safetensors",
            "model.safetensors: is no whole safetensors file .*incomplete metadata",
        ),
    ],
)
def test_a_file_that_was_cut_is_named(name, message, finished):
    content = (finished / name).read_bytes()
    (finished / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=f"^{finished}/{message}"):
        info([str(finished)])


def test_folders_are_read_without_torch(finished):
    code = f"""
import contextlib, io, sys
from arccse_hf.__main__ import main
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    main(["info", {str(finished)!r}])
assert not {{"torch", "transformers", "datasets"}} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_documents_show_the_pairs_that_training_would_make(tmp_path, capsys):
    for number in range(3):
        (tmp_path / f"{number}.md").write_text(
            f"# Title {number}\n\nThe first sentence {number}. And the next {number}.\n"
        )
    found = facts(capsys, tmp_path, "--pairs", "title", "--show", "2")
    assert found["pairs"].startswith("3 pairs (3 title) from 3 of 3 documents")
    assert found["examples"] == [
        "anchor: Title 0",
        "positive: The first sentence 0. And the next 0.",
        "anchor: Title 1",
        "positive: The first sentence 1. And the next 1.",
    ]
    crops = facts(capsys, tmp_path, "--pairs", "crops", "--show", "9")["examples"]
    assert len(crops) == 6 and all(
        line.split(": ", 1)[1] in (tmp_path / f"{n // 2}.md").read_text() for n, line in enumerate(crops)
    )


def test_documents_without_such_pairs_say_which_they_have(tmp_path):
    (tmp_path / "a.md").write_text("# Title\n\nOne sentence only.\n")
    with pytest.raises(UserError, match="--pairs adjacent: 1 documents have no such pair .*possible are title"):
        info([str(tmp_path), "--pairs", "adjacent"])


def test_text_files_are_documents_where_it_is_asked_for(tmp_path, capsys):
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(f"The first line of {number}.\n\nThe second paragraph of {number}.\n")
    with pytest.raises(UserError, match="has no file that is a document"):
        info([str(tmp_path), "--pairs", "dropout"])
    found = facts(capsys, tmp_path, "--pairs", "dropout", "--one_document_per_file")
    assert found["documents"] == "3 documents of 3"
    (tmp_path / "a.md").write_text("# A title\n\nAnd its text, which is long enough.\n")
    found = facts(capsys, tmp_path, "--pairs", "title")
    assert found["documents"].startswith("1 documents of 4: 3 of another kind (0.txt")


def test_options_of_pairs_and_of_files_are_not_mixed(tmp_path):
    (tmp_path / "a.md").write_text("# Title\n\nOne sentence only.\n")
    with pytest.raises(UserError, match="--show 2: goes with --pairs"):
        info([str(tmp_path), "--show", "2"])
    with pytest.raises(UserError, match="--model and --max_seq_length: go without --pairs"):
        info([str(tmp_path), "--pairs", "title", "--model", "m"])
    with pytest.raises(UserError, match="holds neither a model nor a run; --pairs auto looks for documents"):
        info([str(tmp_path)])


def test_the_kinds_of_pairs_are_those_of_training_that_need_no_weights():
    assert set(PAIR_KINDS) == set(get_args(PairKind)) - {"mixed"}


def test_a_graph_and_an_encoder_in_a_folder_of_its_own_are_described(tmp_path, capsys, tokenizer):
    graph = tmp_path / "graph"
    graph.mkdir()
    (graph / "onnx_encoder.json").write_text(json.dumps({"max_seq_length": 32, "dimension": 16}))
    assert facts(capsys, graph) == {"model": "ONNX graph", "dimension": 16, "max length": "32 tokens"}
    encoder = Transformer(save_encoder(tmp_path / "plain", tokenizer), max_seq_length=32)
    SentenceTransformer(modules=[encoder, Pooling(16, "cls")], device="cpu").save_pretrained(str(tmp_path / "old"))
    modules = json.loads((tmp_path / "old" / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (tmp_path / "old" / "0_Transformer").mkdir()
    for path in [path for path in (tmp_path / "old").iterdir() if path.is_file()]:
        if path.name not in ("modules.json", "config_sentence_transformers.json", "README.md"):
            path.rename(path.parent / "0_Transformer" / path.name)
    (tmp_path / "old" / "modules.json").write_text(json.dumps(modules))
    assert SentenceTransformer(str(tmp_path / "old"), device="cpu").max_seq_length == 32
    found = facts(capsys, tmp_path / "old")
    expected = {"architecture": "bert, 3 layers", "dimension": 16, "max length": "32 tokens", "pooling": "cls"}
    assert {name: found[name] for name in expected} == expected
