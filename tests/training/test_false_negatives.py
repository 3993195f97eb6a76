"""Keys that are no negatives: by a loop over the texts, and in the loss of a batch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from tiny import make_trainer, tiny_model

from arccse_hf.training.false_negatives import same_texts


def padded(rows: list[list[tuple[int, ...]]], length: int) -> dict[str, torch.Tensor]:
    ids = torch.tensor([[[*text, *[0] * (length - len(text))] for text in row] for row in rows])
    mask = torch.tensor([[[1] * len(text) + [0] * (length - len(text)) for text in row] for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def expected(rows, all_keys):
    """`all_keys`: the text of each key, and the anchor that it answers."""
    found = []
    for row in rows:
        answers = [text for text, question in all_keys if question == row[0]]
        found.append([text in (row[0], row[1], *answers) for text, _ in all_keys])
    return found


def keys_of(rows):
    return [(row[1], row[0]) for row in rows] + [(row[view], None) for view in range(2, len(rows[0])) for row in rows]


@pytest.mark.parametrize("views", [2, 3])
def test_they_are_those_that_a_loop_finds_on_one_process_and_on_two(views):
    generator = np.random.default_rng(views)
    texts = [
        (5,),
        (5, 6),
        (6, 5),
        (0, 5),
        (7, 8, 9),
        (2**17, 1),
        (30, 31),
        (32,),
        (33, 33),
    ]  # 0 as a token, not padding
    drawn = [[[texts[number] for number in generator.integers(len(texts), size=views)] for _ in range(6)] for _ in "ab"]
    own, other = drawn
    assert same_texts(padded(own, 3), None).tolist() == expected(own, keys_of(own))

    # The other process has padded its texts to another length.
    sent = []
    same_texts(padded(other, 5), lambda keys: sent.append(keys) or keys)
    found = same_texts(padded(own, 3), lambda keys: torch.cat([keys, *sent]))
    assert found.tolist() == expected(own, keys_of(own) + keys_of(other))


def test_an_answer_of_the_same_question_is_none_beside_another_question_either():
    rows = [[(1,), (7,)], [(1,), (8,)], [(2,), (8,)]]
    assert same_texts(padded(rows, 1), None).int().tolist() == [[1, 1, 1], [1, 1, 1], [0, 1, 1]]
    triples = [[(1,), (7,), (10,)], [(1,), (8,), (11,)], [(3,), (9,), (8,)]]  # the last one's hard negative
    assert same_texts(padded(triples, 1), None)[0].tolist() == [True, True, False, False, False, True]


def test_rows_that_share_no_text_have_none():
    rows = [[(1, 2), (3,)], [(4,), (4,)], [(2, 1), (5, 6)]]
    assert same_texts(padded(rows, 2), None) is None


def test_no_row_is_pushed_away_from_its_own_answer(tmp_path, tokenizer, sentences):
    questions, answers = sentences[:4], [*sentences[4:7], sentences[4]]  # the first and the last question share theirs
    rows = Dataset.from_dict({"anchor": questions, "positive": answers})
    model = tiny_model(angular_margin=0)
    trainer = make_trainer(tmp_path, rows, tokenizer, model, triplet_weight=0, per_device_train_batch_size=4)
    trainer.model.eval()
    batch = trainer.data_collator([trainer.train_dataset[number] for number in range(4)])
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model, batch).item()
        views = [{name: values[:, view] for name, values in batch["pair"].items()} for view in (0, 1)]
        embedded = [trainer.model(**view).sentence_embedding for view in views]
    first, second = (F.normalize(vectors, dim=-1).double() for vectors in embedded)
    losses = []
    for row in range(4):
        others = [key for key in range(4) if answers[key] != answers[row]]
        logits = torch.stack([first[row] @ second[key] for key in (row, *others)]) / 0.05
        losses.append(-logits.log_softmax(0)[0].item())
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)
