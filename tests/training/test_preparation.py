"""What a run's settings make of its text."""

import itertools

import pytest

from arccse_hf.training.arguments import ArcCSETrainingArguments, DataArguments
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
