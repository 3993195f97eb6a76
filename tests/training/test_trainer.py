"""The trainer: what a step computes, what a log line says, and that Trainer's own machinery keeps working."""

import json
import math
import pickle

import numpy as np
import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.state import GradientState
from datasets import Dataset
from tiny import make_trainer, tiny_model
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import TrainerCallback

from arccse_hf import ArcCSEForContrastiveLearning, arccon_loss, triplet_loss
from arccse_hf.errors import UserError
from arccse_hf.evaluation.suite import TaskSuite
from arccse_hf.training.arguments import ArcCSETrainingArguments
from arccse_hf.training.distributed import set_up_fsdp
from arccse_hf.training.trainer import ArcCSETrainer


class Distances:
    """A task whose score can be derived by hand: the norms of the embeddings, in order."""

    name = "distances"
    main_metrics = ("mean",)

    def __init__(self, sentences, scripted=None):
        self.sentences = sentences
        self.seen = []
        self.scripted = scripted

    def score(self, embeddings):
        self.seen.append(embeddings)
        if self.scripted:
            return {"mean": self.scripted[len(self.seen) - 1]}
        return {"mean": float(np.linalg.norm(embeddings, axis=1).mean())}


@pytest.fixture
def rows(tokenizer, sentences):
    return Dataset.from_dict({"anchor": tokenizer(sentences)["input_ids"]})


def weights_of(model):
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


def spy_on_batches(trainer):
    """Every batch that compute_loss is called with."""
    batches, compute_loss = [], trainer.compute_loss

    def spy(model, inputs, *args, **kwargs):
        batches.append(inputs)
        return compute_loss(model, inputs, *args, **kwargs)

    trainer.compute_loss = spy
    return batches


def test_every_weight_moves(tmp_path, rows, tokenizer):
    trainer = make_trainer(tmp_path, rows, tokenizer)
    before = weights_of(trainer.model)
    trainer.train()
    still = [name for name, weight in trainer.model.state_dict().items() if torch.equal(weight, before[name])]
    # Rows that no batch reads: one type of token, and positions beyond the sentences; weights as a whole all move.
    assert still == ["arccse.encoder.embeddings.position_ids"] or still == []


def test_a_pickled_trainer_trains_as_the_one_that_it_was_made_of(tmp_path, rows, tokenizer, monkeypatch):
    """Ray Tune sends it to its workers."""
    trainer = make_trainer(tmp_path, rows, tokenizer)
    # Where another trainer ran before in this process, accelerate has weak references to its loaders.
    monkeypatch.setitem(GradientState._shared_state, "_dataloader_references_ref", [None])
    copy = pickle.loads(pickle.dumps(trainer))
    for each in (trainer, copy):
        torch.manual_seed(0)  # dropout
        each.train()
    torch.testing.assert_close(copy.model.state_dict(), trainer.model.state_dict(), rtol=0, atol=0)


def test_the_loss_is_arccon_plus_weighted_triplet_and_the_log_has_every_term(tmp_path, rows, tokenizer):
    model = tiny_model(dropout=0.0, pooling="mean", temperature=0.3)
    trainer = make_trainer(tmp_path, rows, tokenizer, model, triplet_weight=0.5, learning_rate=0.0, max_steps=2)
    batches = spy_on_batches(trainer)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert len(lines) == len(batches) == 2
    model.eval()
    for line, batch in zip(lines, batches, strict=True):

        def embed(kind, view, batch=batch):
            with torch.no_grad():
                return model(**{name: values[:, view] for name, values in batch[kind].items()}).sentence_embedding

        anchors, positives = embed("pair", 0), embed("pair", 1)
        versions = [embed("triplet", view) for view in range(3)]
        cosine = torch.nn.functional.cosine_similarity
        cosines = [[cosine(a, p, dim=0).item() for p in positives] for a in anchors]
        negatives = [value for i, row in enumerate(cosines) for j, value in enumerate(row) if i != j]
        violated = [cosine(a, f, dim=0) > cosine(a, c, dim=0) for a, c, f in zip(*versions, strict=True)]
        row_losses = arccon_loss(anchors, positives, angular_margin=10, temperature=0.3, reduction="none").tolist()
        triplet_losses = triplet_loss(*versions, triplet_margin=0, reduction="none").tolist()
        arccon, triplet = np.mean(row_losses), np.mean(triplet_losses)
        assert line["arccon_loss"] == pytest.approx(arccon, abs=1e-5)
        assert line["triplet_loss"] == pytest.approx(triplet, abs=1e-6)
        assert line["loss"] == pytest.approx(arccon + 0.5 * triplet, abs=1e-5)
        assert line["triplets_violated"] == pytest.approx(sum(violated).item() / len(violated))
        rows_with_loss = [value > 1e-3 for value in row_losses]
        assert line["rows_with_loss"] == pytest.approx(sum(rows_with_loss) / len(rows_with_loss))
        assert line["triplets_with_loss"] == pytest.approx(
            sum(value > 1e-3 for value in triplet_losses) / len(violated)
        )
        assert line["positive_cosine"] == pytest.approx(1, abs=1e-5)  # no dropout: the views are the same
        assert line["negative_cosine"] == pytest.approx(sum(negatives) / len(negatives), abs=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_accumulation_gives_the_mean_of_the_micro_batches_gradients(tmp_path, rows, tokenizer, weight):
    model = tiny_model(dropout=0.0)
    start = weights_of(model)
    trainer = make_trainer(
        tmp_path, rows, tokenizer, model, gradient_accumulation_steps=3, max_steps=1, triplet_weight=weight,
        optim="sgd", learning_rate=1.0, lr_scheduler_type="constant", max_grad_norm=0.0,
    )  # fmt: skip
    batches = spy_on_batches(trainer)
    trainer.train()
    assert len(batches) == 3
    reference = tiny_model(dropout=0.0)
    reference.load_state_dict(start)
    for batch in batches:
        output = reference(**batch)
        loss = output.arccon_loss + (weight * output.triplet_loss if weight else 0)
        (loss / 3).backward()
    for name, parameter in reference.named_parameters():
        moved = start[name] - trainer.model.state_dict()[name]
        torch.testing.assert_close(moved, parameter.grad, atol=2e-6, rtol=1e-4, msg=name)


def test_with_triplet_weight_0_nothing_of_the_triplet_path_runs(tmp_path, rows, tokenizer, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("the triplet path ran")

    monkeypatch.setattr("arccse_hf.data.collator.nested_spans", fail)
    monkeypatch.setattr("arccse_hf.model.heads.TripletHead.forward", fail)
    trainer = make_trainer(tmp_path, rows, tokenizer, triplet_weight=0.0, triplet_min_tokens=1)
    trainer.train()
    assert "triplet_loss" not in trainer.state.log_history[0]
    with pytest.raises(AssertionError, match="triplet path"):  # and with a weight it would have
        make_trainer(tmp_path, rows, tokenizer, triplet_weight=0.1, triplet_min_tokens=1).train()


def test_batches_without_any_triplet_train(tmp_path, rows, tokenizer):
    trainer = make_trainer(tmp_path, rows, tokenizer, triplet_min_tokens=1000)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == trainer.state.log_history[0]["arccon_loss"]


def test_sharded_training_embeds_a_triplet_in_every_batch_that_counts_for_nothing(
    tmp_path, rows, tokenizer, monkeypatch
):
    """Sharded weights are gathered at every call of the encoder, which all processes then have to make."""
    in_one_piece = "arccse_hf.model.modeling_arccse.embed_by_length"
    monkeypatch.setattr(in_one_piece, lambda model, ids, mask: model(ids, mask).pooler_output)
    runs = []
    for sharded in (False, True):
        trainer = make_trainer(
            tmp_path, rows, tokenizer, tiny_model(triplet_margin=0.3), triplet_min_tokens=1000, triplet_weight=0.5
        )
        trainer.sharded = sharded
        given = []
        trainer.model.register_forward_pre_hook(
            lambda _, args, kwargs, given=given: given.append(kwargs), with_kwargs=True
        )
        trainer.train()
        assert [("triplet" in kwargs) for kwargs in given] == [sharded] * 3
        runs.append((weights_of(trainer.model), [line for line in trainer.state.log_history if "loss" in line]))
    assert all(torch.equal(weight, runs[1][0][name]) for name, weight in runs[0][0].items())
    assert runs[0][1] == runs[1][1]


def test_training_drops_the_last_batch_and_evaluation_drops_nothing(tmp_path, rows, tokenizer, sentences):
    task = Distances(sentences[:7])
    trainer = make_trainer(
        tmp_path, rows.select(range(21)), tokenizer, suite=TaskSuite([task]), per_device_eval_batch_size=2,
        num_train_epochs=1, max_steps=-1,
    )  # fmt: skip
    batches = spy_on_batches(trainer)
    trainer.train()
    assert [batch["pair"]["input_ids"].shape[0] for batch in batches] == [8, 8]
    metrics = trainer.evaluate()
    expected = []
    for sentence in sentences[:7]:  # one at a time, without padding
        with torch.no_grad():
            batch = tokenizer(sentence, return_tensors="pt")
            expected.append(trainer.model(batch["input_ids"], batch["attention_mask"]).sentence_embedding[0].numpy())
    np.testing.assert_allclose(task.seen[-1], expected, atol=1e-6)
    assert metrics["eval_distances_mean"] == pytest.approx(np.linalg.norm(expected, axis=1).mean(), rel=1e-5)


@pytest.mark.parametrize(("save_steps", "first"), [(1, math.nan), (2, 0.95)])
def test_the_best_checkpoint_is_kept_and_loaded_at_the_end(save_steps, first, tmp_path, rows, tokenizer, sentences):
    # Before training, then at steps 1, 2, 3 and after; NaN must never win, and no step that is not saved.
    task = Distances(sentences[:4], scripted=[0.5, first, 0.9, 0.2, 0.0])
    trainer = make_trainer(
        tmp_path, rows, tokenizer, suite=TaskSuite([task]), eval_on_start=True, eval_strategy="steps", eval_steps=1,
        save_strategy="steps", save_steps=save_steps, save_total_limit=1, load_best_model_at_end=True,
        metric_for_best_model="distances_mean", greater_is_better=True,
    )  # fmt: skip
    trainer.train()
    assert trainer.state.best_metric == 0.9
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-2")
    best = ArcCSEForContrastiveLearning.from_pretrained(tmp_path / "checkpoint-2").state_dict()
    assert all(torch.equal(weight, best[name]) for name, weight in trainer.model.state_dict().items())


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_resumed_run_ends_as_if_it_had_never_stopped(tmp_path, rows, tokenizer, accumulation):
    settings = {
        "per_device_train_batch_size": 4, "gradient_accumulation_steps": accumulation, "max_steps": 10 // accumulation,
        "save_strategy": "steps", "save_steps": 4, "save_total_limit": None, "seed": 7,
    }  # fmt: skip
    whole = make_trainer(tmp_path / "whole", rows.select(range(26)), tokenizer, **settings)
    whole.train()  # 6 batches per epoch: the checkpoint lies inside one
    resumed = make_trainer(tmp_path / "resumed", rows.select(range(26)), tokenizer, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    expected = whole.model.state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in resumed.model.state_dict().items())
    assert [line["loss"] for line in resumed.state.log_history if "loss" in line] == [
        line["loss"] for line in whole.state.log_history if "loss" in line
    ]


def test_spans_are_drawn_anew_each_epoch_and_are_the_same_for_the_same_seed(tmp_path, rows, tokenizer):
    def spans(seed):
        one = rows.select([40] * 8)  # a long sentence, in every place of the batch
        trainer = make_trainer(
            tmp_path, one, tokenizer, triplet_min_tokens=5, max_steps=3, num_train_epochs=3, data_seed=seed
        )
        batches = spy_on_batches(trainer)
        trainer.train()
        return [batch["triplet"]["input_ids"][0].tolist() for batch in batches]

    first = spans(1)
    assert len({json.dumps(epoch) for epoch in first}) == 3
    assert spans(1) == first
    assert spans(2) != first


def test_bfloat16_trains_on_the_cpu(tmp_path, rows, tokenizer):
    trainer = make_trainer(tmp_path, rows, tokenizer, bf16=True)
    before = weights_of(trainer.model)
    trainer.train()
    assert all(np.isfinite(line["loss"]) for line in trainer.state.log_history if "loss" in line)
    name = "arccse.encoder.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(trainer.model.state_dict()[name], before[name])
    assert trainer.model.state_dict()[name].dtype == torch.float32


def test_embeddings_have_the_precision_of_training_before_it_too(tmp_path, rows, tokenizer, sentences):
    before, in_float32 = (
        make_trainer(tmp_path, rows, tokenizer, bf16=bf16).embed(sentences[:4]) for bf16 in (True, False)
    )
    trainer = make_trainer(tmp_path, rows, tokenizer, bf16=True, learning_rate=0.0, max_steps=1)
    trainer.train()
    np.testing.assert_array_equal(trainer.embed(sentences[:4]), before)
    assert before.dtype == np.float32 and not np.array_equal(before, in_float32)


def test_no_progress_bar_of_transformers_stays_in_a_notebook_either(tmp_path, rows, tokenizer, monkeypatch):
    class NotebookBar(TrainerCallback):
        pass

    for module in ("transformers.trainer", "arccse_hf.training.trainer"):
        monkeypatch.setattr(f"{module}.DEFAULT_PROGRESS_CALLBACK", NotebookBar)
    callbacks = make_trainer(tmp_path, rows, tokenizer, disable_tqdm=False).callback_handler.callbacks
    assert not [callback for callback in callbacks if isinstance(callback, NotebookBar)]


def test_several_gpus_in_one_process_are_refused(tmp_path):
    args = ArcCSETrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    args._n_gpu = 4
    with pytest.raises(UserError, match="--num_processes 4"):
        ArcCSETrainer(tiny_model(), args)


@pytest.mark.extras
@pytest.mark.parametrize("chunk_size", [None, 8])
def test_compiled_training_goes_as_eager_training(tmp_path, rows, tokenizer, chunk_size):
    """With the graphs of torch.compile, whatever makes machine code of them; lengths are padded to a few."""
    rows = rows.map(lambda row: {"positive": row["anchor"][3:]})  # of equal views, rounding would decide
    results = []
    for compiled in ({}, {"torch_compile": True, "torch_compile_backend": "aot_eager"}):
        model = tiny_model(dropout=0.0, triplet_margin=0.3, pooling="mean")
        settings = {"optim": "sgd", "triplet_weight": 0.5, "grad_cache_chunk_size": chunk_size, **compiled}
        trainer = make_trainer(tmp_path, rows, tokenizer, model, **settings)
        batches = spy_on_batches(trainer)
        trainer.train()
        lengths = {values.shape[-1] for batch in batches for part in batch.values() for values in part.values()}
        results.append((weights_of(model), trainer.state.log_history, lengths))
    (expected, expected_log, _), (weights, log, lengths) = results
    assert all(length % 8 == 0 for length in lengths)
    assert [line["loss"] for line in log[:3]] == pytest.approx([line["loss"] for line in expected_log[:3]], abs=1e-5)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], atol=1e-5, rtol=1e-4, msg=name)


def test_fsdp_averages_gradients_and_leaves_losses_in_float32():
    bfloat16 = MixedPrecisionPolicy(*[torch.bfloat16] * 3)
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, mixed_precision_policy=bfloat16)
    set_up_fsdp(plugin, tiny_model())
    policy = plugin.mixed_precision_policy
    assert (policy.param_dtype, policy.reduce_dtype, policy.output_dtype) == (torch.bfloat16, torch.float32, None)
    assert plugin.transformer_cls_names_to_wrap == ["BertLayer"]


def test_fsdp_1_is_refused():
    with pytest.raises(UserError, match="fsdp_version: 2"):
        set_up_fsdp(FullyShardedDataParallelPlugin(fsdp_version=1), tiny_model())
    with pytest.raises(UserError, match="fsdp_activation_checkpointing: not supported: .* --activation_checkpointing"):
        set_up_fsdp(FullyShardedDataParallelPlugin(fsdp_version=2, activation_checkpointing=True), tiny_model())


def test_training_lowers_the_loss(tmp_path, rows, tokenizer):
    model = tiny_model(dropout=0.0)
    trainer = make_trainer(tmp_path, rows, tokenizer, model, max_steps=60, per_device_train_batch_size=16)
    trainer.train()
    losses = [line["arccon_loss"] for line in trainer.state.log_history if "loss" in line]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_checkpoints_hold_the_tokenizer_the_code_and_the_run(tmp_path, rows, tokenizer):
    make_trainer(tmp_path, rows, tokenizer, save_strategy="steps", save_steps=3).train()
    names = {path.name for path in (tmp_path / "checkpoint-3").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "trainer_state.json", "optimizer.pt"} <= names
    assert {"modeling_arccse.py", "configuration_arccse.py", "losses.py", "pooling.py"} <= names
