"""LoRA: what is trained, what a checkpoint holds, and that the merged weights are those that peft itself merges.

Gradient cache and several processes: test_distributed.py.
"""

import sys

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from tiny import make_trainer, tiny_model
from transformers import AutoModel

from arccse_hf.errors import UserError
from arccse_hf.inference.export import export
from arccse_hf.model.adapters import plain_state_dict
from arccse_hf.training import script
from arccse_hf.training.arguments import ArcCSETrainingArguments
from arccse_hf.training.run_identity import run_identity
from arccse_hf.training.trainer import ArcCSETrainer

LORA = {"lora_r": 4, "learning_rate": 1e-2}


@pytest.fixture
def train(tmp_path, tokenizer, sentences):
    """Trains 4 steps in a folder, with a checkpoint every 2, and returns the trainer."""
    rows = Dataset.from_dict({"anchor": tokenizer(sentences)["input_ids"]})

    def run(name, resume=None, **settings):
        checkpoints = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 3}
        trainer = make_trainer(tmp_path / name, rows, tokenizer, **{**checkpoints, **LORA, **settings})
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return run


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft asks for it
def test_a_run_exports_what_peft_merges(encoder, sentences, tmp_path, monkeypatch):
    """The whole script: a plain folder, and checkpoints that open as it does."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sentences.txt").write_text("".join(f"{sentence}.\n" for sentence in sentences))
    argv = f"--model_name_or_path {encoder} --train_file sentences.txt --output_dir out --lora_r 4 --learning_rate 0.01"
    argv += " --lora_target_modules query dense --lora_alpha 6 --per_device_train_batch_size 8 --max_steps 4"
    assert script.main([*argv.split(), "--save_steps", "4", "--use_cpu", "True", "--pooling", "mean"]) == 0
    exported = AutoModel.from_pretrained("out", add_pooling_layer=False)
    start = AutoModel.from_pretrained(encoder, add_pooling_layer=False)
    before = {name: weight.clone() for name, weight in start.state_dict().items()}
    merged = PeftModel.from_pretrained(start, "out/training/checkpoint-4/adapter").merge_and_unload().state_dict()
    assert merged.keys() == before.keys()
    for name, weight in exported.state_dict().items():
        torch.testing.assert_close(weight, merged[name], atol=1e-6, rtol=0, msg=name)
        assert torch.equal(weight, before[name]) == (not name.endswith(("query.weight", "dense.weight"))), name
    assert not list((tmp_path / "out").glob("adapter*"))
    checkpoint = [path for path in (tmp_path / "out" / "training" / "checkpoint-4").rglob("*") if path.is_file()]
    assert not [path for path in checkpoint if encoder.encode() in path.read_bytes()]  # it may be uploaded
    folders = [SentenceTransformer(folder, device="cpu") for folder in ("out", "out/training/checkpoint-4")]
    np.testing.assert_allclose(*(folder.encode(sentences) for folder in folders), atol=1e-5)
    assert "rank 4, alpha 6, on query, dense; merged" in (tmp_path / "out" / "README.md").read_text()


def test_adapters_and_the_projection_are_trained_and_nothing_else(train):
    trainer = train("run")
    start = tiny_model().state_dict()
    changed = {n for n, weight in trainer.model.state_dict().items() if not torch.equal(weight, start.get(n, weight))}
    changed |= {name for name, weight in trainer.model.named_parameters() if "lora_B" in name and weight.any()}
    trained = {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert changed == {name for name in trained if "lora_A" not in name}
    assert {id(weight) for weight in trainer.optimizer.state} == {
        id(weight) for name, weight in trainer.model.named_parameters() if name in trained
    }
    assert any("intermediate" in name for name in changed) and any("projection" in name for name in changed)


def test_all_linear_layers_are_the_default(tmp_path, tokenizer):
    """By the name that peft has for them."""
    choices = ([], ["all-linear"], None)
    trainers = [make_trainer(tmp_path, None, tokenizer, lora_r=4, lora_target_modules=names) for names in choices]
    expected, *others = ({name for name, _ in trainer.model.named_parameters()} for trainer in trainers)
    assert others == [expected] * 2 and any("lora_A" in name for name in expected)
    assert len({str(run_identity(trainer.model, trainer.args, None)) for trainer in trainers}) == 1


def test_a_resumed_run_is_the_whole_run(train, tmp_path):
    whole, checkpoint = train("whole"), str(tmp_path / "whole" / "checkpoint-2")
    resumed = train("parts", resume=checkpoint).model.state_dict()
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed[name], weight), name
    for change, message in [
        ({"lora_r": None}, "--lora_r None: the checkpoint was trained with --lora_r 4"),
        ({"lora_alpha": 9}, "--lora_alpha 9: the checkpoint was trained with --lora_alpha 8"),
    ]:
        with pytest.raises(UserError, match=message):
            train("other", resume=checkpoint, **change)


def test_the_best_checkpoint_is_loaded_whole(train, tmp_path):
    trainer = train("run")
    trainer.state.best_model_checkpoint = str(tmp_path / "run" / "checkpoint-2")
    trainer._load_best_model()
    saved = load_file(tmp_path / "run" / "checkpoint-2" / "model.safetensors")
    last = load_file(tmp_path / "run" / "checkpoint-4" / "model.safetensors")
    found = plain_state_dict(trainer.model)
    assert found.keys() == saved.keys() == tiny_model().state_dict().keys()
    assert all(torch.equal(weight, saved[name]) for name, weight in found.items())
    assert any(not torch.equal(weight, last[name]) for name, weight in found.items())


def test_before_training_the_plain_weights_are_those_of_the_encoder(tmp_path, tokenizer):
    """From them the verdict mixes."""
    trainer = make_trainer(tmp_path, None, tokenizer, **LORA)
    plain, start = plain_state_dict(trainer.model), tiny_model().state_dict()
    assert plain.keys() == start.keys() and all(torch.equal(weight, start[name]) for name, weight in plain.items())


def test_a_model_in_memory_is_exported_merged(train, tokenizer, sentences, tmp_path):
    trainer = train("run", model=tiny_model(projection="none"))
    export(trainer.model, tokenizer, tmp_path / "out")
    embeddings = SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(sentences)
    np.testing.assert_allclose(embeddings, trainer.embed(sentences), atol=1e-5)


def test_mistakes_are_named(tmp_path, tokenizer, monkeypatch):
    def arguments(**settings):
        return ArcCSETrainingArguments(output_dir=str(tmp_path), use_cpu=True, **settings)

    with pytest.raises(UserError, match="--lora_alpha: goes with --lora_r"):
        arguments(lora_alpha=3)
    with pytest.raises(UserError, match="--train_last_layers 1: does not go with --lora_r"):
        arguments(lora_r=4, train_last_layers=1)
    texts = ["a dog", "a cat"]
    with pytest.raises(UserError, match="--lora_r: does not go with model_init"):
        ArcCSETrainer(None, arguments(lora_r=4), model_init=tiny_model, processing_class=tokenizer, train_dataset=texts)
    with pytest.raises(UserError, match="--lora_target_modules queri: Target modules .*queri.* not found"):
        make_trainer(tmp_path, None, tokenizer, lora_r=4, lora_target_modules=["queri"])
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match="--lora_r 4: needs peft: pip install 'arccse-hf.lora.'"):
        make_trainer(tmp_path, None, tokenizer, lora_r=4)
