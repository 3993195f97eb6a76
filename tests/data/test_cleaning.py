"""What evaluation keeps out of training: whole texts, and sentences of them that no other text would have."""

from arccse_hf.data.cleaning import RowCleaner, held_out_texts

GREETING, CLOSING = "Hello.", "Thank you for all of your help."


def ticket(number):
    return f"{GREETING} The printer number {number} is jammed. I have opened cover {number} already. {CLOSING}"


def test_the_texts_are_held_out_and_of_their_sentences_the_distinctive_ones():
    assert held_out_texts(["Add up the gauges", "Dry ones count here. So do others.", "Hello."]) == {
        "Add up the gauges",
        "Add up the gauges.",
        "Dry ones count here. So do others.",
        "Dry ones count here.",
        "Hello.",
    }


def test_a_greeting_of_test_texts_does_not_hold_all_others_out():
    exclude = held_out_texts(map(ticket, range(3)))
    cleaner = RowCleaner(5, exclude)
    leaked = f"{GREETING} The printer number 1 is jammed. What now? {CLOSING}"
    rows = [*map(ticket, range(3, 9)), ticket(2), "I have opened cover 0 already.", leaked, GREETING, CLOSING]
    assert [rows[index] for index in cleaner.keep((row,) for row in rows)] == [
        *map(ticket, range(3, 9)), GREETING, CLOSING,
    ]  # fmt: skip
    assert cleaner.counts.held_out == 3


def test_a_short_query_is_a_whole_text_and_holds_out_what_has_it_as_a_sentence():
    rows = [("Look here. Paper jam. That is all.",), ("Look here. Paper jam? That is all.",)]
    assert RowCleaner(5, held_out_texts(["Paper jam", "Hello. Pull the sheet out."])).keep(rows) == [1]


def test_a_text_that_is_given_for_several_queries_is_one_text():
    text = "Pull the whole sheet out. Then close it."
    assert "Pull the whole sheet out." in held_out_texts([text] * 9)


def test_lines_of_rows_that_end_without_a_full_stop_are_held_out():
    """A list on lines of its own: with the lines joined, none of its items would be a sentence."""
    steps = ["Open the rear door of the printer", "Pull the stuck sheet out slowly"]
    rows = [(f"Do this:\n- first\n{steps[0]}\nPut the new drum unit in",), ("Nothing\nof it is here",)]
    assert RowCleaner(5, held_out_texts(steps)).keep(rows) == [1]
    assert RowCleaner(5, held_out_texts(["\n".join(steps)])).keep([*rows, (steps[1],)]) == [1]


def test_a_text_that_comes_with_other_line_ends_once_more_holds_its_lines_out_too():
    lines = "Open the rear door now\nPull the stuck sheet out"
    both = [held_out_texts(texts) for texts in ([lines, lines.replace("\n", " ")], [lines.replace("\n", " "), lines])]
    assert both[0] == both[1] and "Pull the stuck sheet out" in both[0]


def test_an_ideographic_full_stop_is_tried_too():
    assert held_out_texts(["打印机卡住了", "打印机又卡住了。"]) == {
        "打印机卡住了", "打印机卡住了。", "打印机又卡住了。"
    }  # fmt: skip
