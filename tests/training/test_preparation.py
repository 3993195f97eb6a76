"""What a run's settings make of its text."""

import contextlib
import itertools

import pytest
from datasets import Dataset
from tiny import make_trainer

from arccse_hf.evaluation.geometry import GeometryTask
from arccse_hf.evaluation.sts import ScoredPairs
from arccse_hf.evaluation.suite import TaskSuite
from arccse_hf.training.arguments import ArcCSETrainingArguments, DataArguments
from arccse_hf.training.judging import measure_exported
from arccse_hf.training.preparation import load_rows, warning_of_test_sets


@pytest.mark.parametrize(("seeds", "order"), [((1, 7), 7), ((1, 0), 0), ((1, None), 1)])
def test_the_order_of_a_stream_is_that_of_data_seed(seeds, order, tmp_path, tokenizer, sentences):
    file = tmp_path / "text.txt"
    file.write_text("\n".join(sentences))

    def first_rows(seed, data_seed):
        args = ArcCSETrainingArguments(str(tmp_path / "out"), seed=seed, data_seed=data_seed, max_steps=1, use_cpu=True)
        data_args = DataArguments(train_file=[str(file)], streaming=True, streaming_shuffle_buffer=100)
        stream, *_ = load_rows(data_args, args, tokenizer, set())
        return [row["anchor"] for row in itertools.islice(stream, 20)]

    assert first_rows(*seeds) == first_rows(order, None) != first_rows(order + 1, None)


@pytest.mark.parametrize(
    ("metric", "warned"),
    [
        ("stsb_test_spearman", True),
        ("eval_sickr_spearman", True),
        ("stsb_test_spearman_dim96", True),
        ("sts_avg_spearman", True),
        ("transfer_avg_accuracy", True),
        ("mr_accuracy", True),
        ("mrpc_f1", True),
        ("stsb_dev_spearman", False),
        ("stsb_dev_spearman_dim96", False),
        ("geometry_alignment", False),
        ("retrieval_mrr_at_10", False),
        (None, False),
    ],
)
def test_test_sets_are_known_by_their_metrics(metric, warned):
    """Also by their average, and at fewer dimensions."""
    warning = warning_of_test_sets(metric)
    assert (warning is not None) == warned
    assert not warned or warning.startswith(f"--metric_for_best_model {metric}: a test set chooses the best")


def test_what_is_exported_is_measured_in_the_precision_of_training(tmp_path, tokenizer, sentences):
    """The same weights, so the same score: in float32 it would be another."""
    rows = Dataset.from_dict({"anchor": tokenizer(sentences)["input_ids"]})
    scored = ScoredPairs(sentences[:12], sentences[5:17], [float(number) for number in range(12)])
    suite = TaskSuite([GeometryTask(scored.first, scored.second, scored.scores)])
    trainer = make_trainer(tmp_path / "out", rows, tokenizer, suite=suite, bf16=True, eval_strategy="steps")
    measured = {name: value for name, value in trainer.evaluate().items() if "geometry" in name}
    exported = [
        measure_exported(trainer.model, tokenizer, suite, trainer.args, precision)
        for precision in (trainer.accelerator.autocast, contextlib.nullcontext)
    ]
    assert {f"eval_{name}": value for name, value in exported[0].items()} == measured
    assert exported[1] != exported[0]
