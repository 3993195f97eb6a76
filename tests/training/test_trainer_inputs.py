"""What the trainer takes: text or token ids, a model or its name, and arguments that it leaves as they are."""

import inspect

import numpy as np
import pytest
import torch
from backbones import tiny_config
from datasets import Dataset
from tiny import tiny_model
from transformers import BertModel, Trainer
from transformers.trainer_utils import HPSearchBackend

from arccse_hf.errors import UserError
from arccse_hf.evaluation.metrics import correlations, cosine_similarity
from arccse_hf.evaluation.sts import ScoredPairs, STSTask
from arccse_hf.evaluation.suite import TaskSuite
from arccse_hf.training.arguments import ArcCSETrainingArguments
from arccse_hf.training.trainer import ArcCSETrainer


@pytest.fixture
def args(tmp_path):
    return ArcCSETrainingArguments(
        output_dir=str(tmp_path / "out"), per_device_train_batch_size=8, max_steps=2, max_seq_length=12, use_cpu=True,
        triplet_min_tokens=5, disable_tqdm=True, save_strategy="no", eval_steps=1,
    )  # fmt: skip


@pytest.fixture
def scored(sentences):
    return {"sentence1": sentences[:10], "sentence2": sentences[5:15], "score": list(range(10))}


def test_the_arguments_come_in_the_order_of_transformers():
    theirs, ours = (list(inspect.signature(trainer.__init__).parameters) for trainer in (Trainer, ArcCSETrainer))
    assert ours[:7] == theirs[:7]


def test_text_is_tokenised_by_the_trainer(args, tokenizer, sentences):
    """Text of any kind gives the batches of the token ids that the tokenizer makes of it, cut to max_seq_length."""

    def batches(*columns):
        trainer = ArcCSETrainer(tiny_model(), args, train_dataset=columns[0], processing_class=tokenizer)
        return [row for batch in trainer.get_train_dataloader() for row in batch["pair"]["input_ids"].tolist()]

    def token_ids(texts):
        return tokenizer(texts, truncation=True, max_length=12)["input_ids"]

    others = sentences[::-1]
    ids = Dataset.from_dict({"anchor": token_ids(sentences)})
    assert max(map(len, ids["anchor"])) == 12
    for given in (sentences, Dataset.from_dict({"sentence": sentences, "number": range(48)})):
        assert batches(given) == batches(ids)
    ids = ids.add_column("positive", token_ids(others))
    for given in (list(zip(sentences, others, strict=True)), Dataset.from_dict({"sent1": others, "sent0": sentences})):
        assert batches(given) == batches(ids)


def test_the_given_arguments_stay_as_they_are(args, tokenizer, sentences, scored):
    before = dict(vars(args))
    trainer = ArcCSETrainer(
        tiny_model(), args, train_dataset=sentences, eval_dataset=Dataset.from_dict(scored), processing_class=tokenizer
    )
    trainer.train()
    assert trainer.args.metric_for_best_model == "sts_spearman"
    assert ArcCSETrainer(tiny_model(), args, processing_class=tokenizer).args.eval_strategy == "no"
    assert vars(args) == before


def test_a_name_and_text_are_enough(tmp_path, tokenizer, sentences, monkeypatch):
    torch.manual_seed(0)
    BertModel(tiny_config("bert")).save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    monkeypatch.chdir(tmp_path)  # where the default output_dir is made
    texts = [f"{sentence} {word}" for sentence in sentences for word in ("river", "road")]
    first, second = (ArcCSETrainer("encoder", train_dataset=texts) for _ in range(2))
    assert first.args.output_dir == "trainer_output"
    assert first.processing_class.get_vocab() == tokenizer.get_vocab()
    assert first.model.config.angular_margin == 10
    for name, weight in first.model.state_dict().items():  # the projection too, which starts at random
        assert torch.equal(weight, second.model.state_dict()[name])
    assert len(next(iter(first.get_train_dataloader()))["pair"]["input_ids"]) == 64


@pytest.mark.parametrize("as_suite", [False, True])
def test_scored_pairs_are_measured(as_suite, args, tokenizer, scored, sentences):
    """Also where `model_init` makes the model, whose longest input the sentences are cut to."""
    if as_suite:
        given = {"eval_suite": TaskSuite([STSTask("sts", ScoredPairs(*(scored.values())))])}
    else:
        given = {"eval_dataset": Dataset.from_dict(scored)}
    trainer = ArcCSETrainer(args=args, model_init=lambda: tiny_model(), processing_class=tokenizer, **given)
    embeddings = []
    for texts in (scored["sentence1"], scored["sentence2"]):
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            embeddings.append(
                trainer.model.eval()(batch["input_ids"], batch["attention_mask"]).sentence_embedding.numpy()
            )
    expected = correlations(cosine_similarity(*embeddings), np.array(scored["score"]))["spearman"]
    assert trainer.evaluate()["eval_sts_spearman"] == pytest.approx(expected, abs=1e-6)


def test_other_scored_pairs_are_measured_when_they_are_given(args, tokenizer, scored, sentences, capsys):
    trainer = ArcCSETrainer(tiny_model(), args, processing_class=tokenizer)
    with pytest.raises(UserError, match="eval_dataset: is missing, and the trainer has no eval_suite"):
        trainer.evaluate()
    given = {"train_dataset": sentences, "eval_dataset": Dataset.from_dict(scored)}
    measured = ArcCSETrainer(tiny_model(), args, processing_class=tokenizer, **given)
    metrics = trainer.evaluate(Dataset.from_dict(scored), metric_key_prefix="test")
    assert metrics["test_sts_spearman"] == measured.evaluate()["eval_sts_spearman"]
    measured.train()
    capsys.readouterr()
    others = Dataset.from_dict(scored | {"score": scored["score"][::-1]})
    found = measured.evaluate(others)["eval_sts_spearman"]
    measured.evaluate(others, metric_key_prefix="test")
    # No change from another test's score, and it chooses nothing.
    assert capsys.readouterr().out == f"evaluation of other pairs: sts_spearman {found:.4f}\n"
    with pytest.raises(UserError, match=r"predict: .*embed\(texts\)"):
        trainer.predict(Dataset.from_dict(scored))


def test_functions_that_would_not_be_called_are_refused(args, tokenizer, sentences):
    for name in ("compute_loss_func", "compute_metrics", "preprocess_logits_for_metrics"):
        with pytest.raises(UserError, match=f"{name}: is not supported"):
            ArcCSETrainer(tiny_model(), args, processing_class=tokenizer, **{name: lambda *_: None})


@pytest.mark.parametrize("name", ["triplet_weight", "large_span_ratio", "anchor_weight"])
def test_a_search_cannot_change_what_was_read_when_the_trainer_was_made(name, args, tokenizer, sentences):
    trainer = ArcCSETrainer(
        args=args, model_init=lambda: tiny_model(), train_dataset=sentences, processing_class=tokenizer
    )
    trainer.hp_search_backend = HPSearchBackend.RAY
    trainer._hp_search_setup({"learning_rate": 1e-3, "triplet_dropout": True})
    assert trainer.args.learning_rate == 1e-3 and trainer.args.triplet_dropout
    with pytest.raises(UserError, match=f"hp_space: {name} is read once, when the trainer is made; arccse tune tries"):
        trainer._hp_search_setup({name: 0.7})


def test_what_does_not_fit_is_named(args, tokenizer, scored, sentences):
    def make(**given):
        ArcCSETrainer(**{"model": tiny_model(), "args": args, "processing_class": tokenizer} | given)

    pairs, suite = Dataset.from_dict(scored), TaskSuite([STSTask("own", ScoredPairs(*scored.values()))])
    with pytest.raises(UserError, match="processing_class: is missing"):
        make(processing_class=None)
    with pytest.raises(UserError, match="eval_dataset and eval_suite: give one of the two"):
        make(eval_dataset=pairs, eval_suite=suite)
    with pytest.raises(UserError, match="eval_dataset: must be a datasets.Dataset of sentence1, sentence2 and score"):
        make(eval_dataset=pairs.remove_columns("score"))
    with pytest.raises(UserError, match="train_dataset: cannot tell which of the columns score"):
        make(train_dataset=pairs.select_columns("score"))
    with pytest.raises(UserError, match="--per_device_train_batch_size 8: 7 rows do not fill one batch"):
        make(train_dataset=sentences[:7])
    with pytest.raises(UserError, match=r"texts\[1\]: 3 is not like the rest"):
        make(train_dataset=["one", 3])


def test_a_dataset_of_tensors_gives_the_batches_of_one_of_numbers(args, tokenizer, sentences):
    """Tensors are equal to no number: special tokens were masked, and spans were drawn anew each time."""
    rows = Dataset.from_dict({"anchor": tokenizer(sentences)["input_ids"]})
    batches = []
    for format_name in (None, "numpy", "torch"):
        trainer = ArcCSETrainer(
            tiny_model(), args, train_dataset=rows.with_format(format_name), processing_class=tokenizer
        )
        batches.append([batch["triplet"]["input_ids"].tolist() for batch in trainer.get_train_dataloader()])
    assert batches[0] == batches[1] == batches[2] != []
