"""What is held out of documents, and which queries ask for it."""

import pytest

from arccse_hf.data.documents import Document, Section
from arccse_hf.evaluation.held_out import (
    MIN_TEST_PAIRS,
    choose_query_kind,
    divide_documents,
    divide_pairs,
    neighbour_pairs,
    passages,
    query_pairs,
    without_answers,
)
from arccse_hf.evaluation.retrieval import linked_pairs


def documents(number, headings=0, title=True):
    return [
        Document(
            f"Title {index}" if title else None,
            (
                Section(None, ((f"The first sentence of {index}.", f"The second sentence of {index}."),)),
                *(Section(f"Heading {index}.{n}", ((f"The text {n} of {index}.",),)) for n in range(headings)),
            ),
            "source",
        )
        for index in range(number)
    ]


@pytest.mark.parametrize(("number", "sizes"), [(300, (150, 50, 100)), (12_000, (10_500, 500, 1_000)), (3, (2, 0, 1))])
def test_each_document_is_in_one_part_and_the_same_seed_divides_alike(number, sizes):
    whole = documents(number)
    parts = divide_documents(whole, seed=1)
    assert tuple(map(len, parts)) == sizes
    assert {document for part in parts for document in part} == set(whole)
    assert divide_documents(whole, seed=1) == parts
    assert number == 3 or divide_documents(whole, seed=2) != parts


def test_queries_are_of_the_best_kind_that_was_not_trained_on():
    rich = documents(MIN_TEST_PAIRS, headings=1)
    assert choose_query_kind(rich) == "title"
    assert choose_query_kind(rich, {"title"}) == "heading"
    assert choose_query_kind(rich, {"title", "heading"}) == "first_sentence"
    plain = documents(MIN_TEST_PAIRS, title=False)
    assert choose_query_kind(plain, {"first_sentence"}) == "first_sentence"  # there is no choice
    assert choose_query_kind(documents(8, title=False)[5:] + documents(5)) == "first_sentence"  # gives most


def test_no_query_and_no_text_twice():
    whole = documents(3, headings=2)
    twice = [*whole, whole[0]._replace(title="title 1"), whole[1]._replace(title="Another")]
    assert query_pairs(twice, "title").pairs == [
        (f"Title {index}", f"The first sentence of {index}. The second sentence of {index}.") for index in range(3)
    ]
    assert query_pairs(whole, "heading").documents == [0, 0, 1, 1, 2, 2]
    assert query_pairs(documents(600, headings=2), "heading").documents == list(range(600))  # one of each is enough


def test_neighbours_and_passages():
    whole = documents(2, headings=1)
    assert neighbour_pairs(documents(1)) == [("The first sentence of 0.", "The second sentence of 0.")]
    assert neighbour_pairs(whole) == [  # their last section has a single sentence
        ("The first sentence of 0.", "The second sentence of 0."),
        ("The first sentence of 1.", "The second sentence of 1."),
    ]
    assert neighbour_pairs([whole[0]._replace(sections=whole[0].sections[1:])]) == []
    assert passages(whole)[:2] == ["The first sentence of 0. The second sentence of 0.", "The text 0 of 0."]


def test_what_many_documents_have_is_no_neighbour():
    closing = "Thank you for all of your help."
    texts = [(f"The printer number {n} is jammed.", f"I have opened its cover {n}.", closing) for n in range(3)]
    tickets = [Document(f"Ticket {n}", (Section(None, (text,)),), "source") for n, text in enumerate(texts)]
    assert neighbour_pairs(tickets) == [text[:2] for text in texts]
    assert neighbour_pairs(tickets[:2]) == [texts[0][1:]]  # two are not many; the second pair would repeat a text


@pytest.mark.parametrize("shared", ["document", "query", "chain"])
def test_own_pairs_with_a_query_or_a_document_in_common_stay_together(shared):
    numbers = {
        "document": [(number, number // 3) for number in range(90)],
        "query": [(number // 3, number) for number in range(90)],
        "chain": [(number // 3 * 3 + (number + 1) % 3 // 2, number // 3 * 3 + number % 3 // 2) for number in range(90)],
    }[shared]
    pairs = [(f"query {query}", f"document {document}") for query, document in numbers]
    validation, test = divide_pairs(pairs, seed=3)
    assert (len(validation), len(test)) == (30, 60)
    for column in (0, 1):
        assert {pair[column] for pair in validation}.isdisjoint(pair[column] for pair in test)
    assert linked_pairs(pairs).tolist() == [number // 3 for number in range(90)]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("sizes", [[1, 2, 6] * 20, [100] + [1] * 50, [60, 60] + [1] * 60, [1] * 160])
def test_groups_of_any_size_leave_a_test_and_something_to_choose_by(sizes, seed):
    pairs = [(f"query {group}.{n}", f"document {group}") for group, size in enumerate(sizes) for n in range(size)]
    validation, test = divide_pairs(pairs, seed)
    assert len(validation) + len(test) == len(pairs) and 25 <= len(validation) <= len(pairs) // 3
    assert len({document for _, document in test}) >= len(sizes) // 2
    assert {document for _, document in validation}.isdisjoint(document for _, document in test)
    if max(sizes) < 10:  # groups that fit in
        assert len(validation) > 0.3 * len(pairs)


def test_passages_that_hold_a_right_document_are_no_wrong_ones():
    answers = ["Open the rear cover and pull.", "Pull."]
    corpus = [answers[0], f"First of all. {answers[0]} Done.", "Pull.", "Pull it out."]
    assert without_answers(corpus, answers) == corpus[2:]  # "Pull." may stand anywhere
    assert without_answers(corpus, []) == corpus and without_answers([], answers) == []
    chinese = ["先打开后盖。然后把纸慢慢地拉出来。", "打印机没有纸了。"]
    assert without_answers(chinese, ["然后把纸慢慢地拉出来。"]) == chinese[1:]
    assert without_answers(["a b c d", "b c d\n", "a b c d e f"], ["b c d e"]) == ["a b c d", "b c d\n"]
