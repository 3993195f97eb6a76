"""What a run's settings make of its text."""

import itertools

import pytest

from arccse_hf.training.arguments import ArcCSETrainingArguments, DataArguments
from arccse_hf.training.preparation import load_rows


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
