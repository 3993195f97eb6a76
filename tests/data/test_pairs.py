"""Pairs: both sides from one document, none that other documents have too, and the same for the same seed."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arccse_hf.data.cleaning import RowCleaner, held_out_texts
from arccse_hf.data.documents import Document, Section
from arccse_hf.data.pair_dataset import PairDataset
from arccse_hf.data.pairs import (
    QUERY_KINDS,
    SINGLE_KINDS,
    PairRow,
    draw_texts,
    make_pairs,
    parse_weights,
    query_texts,
)
from arccse_hf.errors import UserError

# Few different sentences, so that documents share some.
_sentences = st.sampled_from([f"sentence number {number} of all" for number in range(12)] + ["short"])
_paragraphs = st.lists(_sentences, min_size=1, max_size=4).map(tuple)
_sections = st.builds(
    Section,
    st.one_of(st.none(), st.sampled_from(["usage", "notes"])),
    st.lists(_paragraphs, min_size=1, max_size=3).map(tuple),
)
_documents = st.lists(
    st.builds(
        Document,
        st.one_of(st.none(), st.sampled_from(["first title", "second title"])),
        st.lists(_sections, min_size=1, max_size=3).map(tuple),
        st.just("source"),
    ),
    min_size=1,
    max_size=6,
)


def document(title, *paragraphs, heading=None):
    return Document(title, (Section(heading, paragraphs),), "source")


MANUAL = [
    document("Paper jam", ("Open the cover.", "Pull out the sheet."), ("Close it again.",)),
    document("Toner", ("Shake the drum.", "Do it twice."), ("Put it back.",)),
    document(None, ("Wi-Fi needs a name.",), ("It is on the back of it.", "Type it in.")),
]


@settings(deadline=None)
@given(_documents, st.sampled_from([*SINGLE_KINDS, "mixed"]))
def test_each_pair_comes_from_one_document_and_shares_no_text_with_another(documents, kind):
    try:
        rows, counts = make_pairs(documents, kind, min_chars=6, weights=dict.fromkeys(SINGLE_KINDS, 1))
    except UserError as error:
        assert "have no such pair" in str(error)
        return
    owners = {}
    for row in rows:
        source = documents[row.document]
        text = " ".join(source.sentences)
        names = [source.title, *(section.heading for section in source.sections)]
        assert all(part in text or part in names for part in row.texts)
        assert row.kind in {"title": QUERY_KINDS, "mixed": (*QUERY_KINDS, *SINGLE_KINDS)}.get(kind, (kind,))
        numbers = {"dropout": 1, "crops": len(row.texts)}
        assert len(set(row.texts)) == len(row.texts) == numbers.get(row.kind, 2)
        for part in row.texts:
            assert owners.setdefault(part, row.document) == row.document
    assert len(set(rows)) == len(rows)
    assert counts.made.total() == len(rows)
    assert counts.used == len({row.document for row in rows})


def test_what_each_kind_makes_of_a_manual():
    texts = {kind: [row.texts for row in make_pairs(MANUAL, kind)[0]] for kind in SINGLE_KINDS}
    assert texts["title"] == [
        ("Paper jam", "Open the cover. Pull out the sheet. Close it again."),
        ("Toner", "Shake the drum. Do it twice. Put it back."),
        ("Wi-Fi needs a name.", "It is on the back of it. Type it in."),
    ]
    assert texts["adjacent"][:2] == [
        ("Open the cover.", "Pull out the sheet."),
        ("Pull out the sheet.", "Close it again."),
    ]
    assert texts["crops"][1] == ("Shake the drum.", "Do it twice.", "Put it back.")
    assert len(texts["dropout"]) == 9


def test_headings_stand_for_their_text_and_a_long_paragraph_is_enough():
    long = tuple(f"This is the sentence number {number} of a long one." for number in range(6))
    page = Document("T", (Section("Usage", (long, ("More of it.",))), Section("Notes", (("Nothing.",),))), "source")
    rows, _ = make_pairs([page], "title")
    assert [row.texts for row in rows] == [("T", " ".join(long)), ("Usage", " ".join(long)), ("Notes", "Nothing.")]


def test_evaluations_texts_and_short_sentences_are_left_out_and_counted():
    rows, counts = make_pairs(MANUAL, "adjacent", min_chars=12, exclude=["Shake  the drum."])
    assert all("Shake the drum." not in row.texts for row in rows)
    assert "1 held out for evaluation" in str(counts)
    assert "1 too short" in str(counts)
    # A text of several sentences must not hold an excluded one either.
    assert "Toner" not in [row.texts[0] for row in make_pairs(MANUAL, "title", exclude=["Shake the drum."])[0]]


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("Shake the drum.", False),
        ("Shake  the\ndrum.", False),
        ("First of all. Shake the drum. That is all.", False),
        ("Shake the drum twice.", True),
        ("shake the drum.", True),
        ("2. Pull the sheet.", True),
    ],
)
def test_rows_and_documents_are_held_out_by_one_rule(text, stays):
    exclude = ["Shake the drum.", "2."]
    assert RowCleaner(5, exclude).keep([("Toner", text)]) == [0] * stays
    documents = [document("Toner", (text,)), document("Paper", ("Pull it out.",))]
    rows, _ = make_pairs(documents, "title", exclude=exclude)
    assert [row.document for row in rows] == [0] * stays + [1]


def test_auto_takes_titles_where_half_of_the_documents_have_them():
    single = [document(None, (f"Only sentence {number}.",)) for number in range(4)]
    assert {row.kind for row in make_pairs(MANUAL + single[:3], "auto")[0]} == {"title", "first_sentence"}
    assert {row.kind for row in make_pairs(MANUAL + single, "auto")[0]} == {"dropout"}


def test_auto_counts_the_titles_that_evaluation_holds_out_and_says_where_it_leaves_titles(caplog):
    with caplog.at_level(logging.INFO, logger="arccse_hf.data"):
        rows, counts = make_pairs(MANUAL, "auto", exclude=["Paper jam", "Toner"])
        assert [row.kind for row in rows] == ["first_sentence"] and "2 held out for evaluation" in str(counts)
        assert not caplog.messages
        single = [document(None, (f"Only sentence {number}.",)) for number in range(1_200)]
        make_pairs(MANUAL + single, "auto")
    assert caplog.messages == [
        "--pairs auto: takes dropout, since 3 of 1,203 documents have a pair of title and text, fewer than half"
    ]


def test_an_impossible_kind_is_an_error_that_names_the_possible_ones():
    with pytest.raises(
        UserError, match=r"--pairs title: 2 documents have no such pair .*possible are dropout \(2 documents"
    ):
        make_pairs([document(None, (f"Only sentence {number}.",)) for number in range(2)], "title")
    same = [document("Release notes", (f"Sentence {number} of it.", "Another one.")) for number in range(9)]
    assert make_pairs(same, "title")[1].used == 1
    message = r"1 of 9 documents have such a pair, and a batch takes 8 .*possible are dropout \(9 documents\)"
    with pytest.raises(UserError, match=message):
        make_pairs(same, "title", fewest=8)
    alike = [document("Index", (f"Sentence {number}.",)) for number in range(3)]
    assert "2 with a text of another document" in str(make_pairs(alike, "title")[1])


@pytest.mark.parametrize("weight", ["title=0", "title=-1", "title=inf", "title=nan", "title"])
def test_a_weight_is_a_finite_number_above_0(weight):
    with pytest.raises(UserError, match=f"{weight} must be KIND=NUMBER with a number above 0"):
        parse_weights("mixed", [weight, "dropout=1"])


def test_mixed_pairs_come_in_the_numbers_that_the_weights_want():
    rows, counts = make_pairs(MANUAL, "mixed", weights={"title": 1, "dropout": 2}, seed=1)
    assert counts.made == {"title": 2, "first_sentence": 1, "dropout": 6}
    assert "3 over the weights" in str(counts)
    assert rows == make_pairs(MANUAL, "mixed", weights={"title": 1, "dropout": 2}, seed=1)[0]
    assert parse_weights("mixed", ["title=2", "crops=.5"]) == {"title": 2, "crops": 0.5}
    for pairs, weights, message in (
        ("mixed", [], "--pairs mixed: say how much of each"),
        ("title", ["title=1"], "only --pairs mixed has weights"),
        ("mixed", ["titel=1"], "titel is no kind of pairs; choose from title"),
        ("mixed", ["title=0"], "title=0 must be KIND=NUMBER"),
    ):
        with pytest.raises(UserError, match=message):
            parse_weights(pairs, weights)


WINDOW = ("the cat sees a dog", "a bird finds the house", "the man builds a road")


def drawn(tokenizer, row, epoch=0, **options):
    rows = PairDataset([row], tokenizer, options.pop("max_seq_length", 64), **options)
    rows.set_epoch(epoch)
    return [tokenizer.decode(rows[0][side]) for side in ("anchor", "positive")]


def test_crops_of_sentences_are_one_or_two_in_a_row_and_new_each_epoch(tokenizer):
    row = PairRow(0, "crops", WINDOW)
    allowed = {*WINDOW, " ".join(WINDOW[:2]), " ".join(WINDOW[1:])}
    pairs = [drawn(tokenizer, row, epoch, crop_deletion=0) for epoch in range(60)]
    assert {text for pair in pairs for text in pair} == {f"[CLS] {text} [SEP]" for text in allowed}
    assert pairs == [drawn(tokenizer, row, epoch, crop_deletion=0) for epoch in range(60)]


def test_crops_of_tokens_are_runs_of_the_window_between_special_tokens(tokenizer):
    row = PairRow(0, "crops", WINDOW)
    window = " ".join(WINDOW)
    lengths = set()
    for epoch in range(60):
        for text in drawn(tokenizer, row, epoch, crop_unit="tokens", crop_deletion=0):
            crop = text.removeprefix("[CLS] ").removesuffix(" [SEP]")
            assert crop in window
            lengths.add(len(crop.split()))
    assert lengths <= set(range(1, 9))  # 0.05 to 0.5 of 15 tokens
    assert len(lengths) > 5


def test_crops_lose_a_share_of_their_tokens(tokenizer):
    row = PairRow(0, "crops", (WINDOW[0], WINDOW[0]))
    kept = [len(drawn(tokenizer, row, epoch, crop_deletion=0.3)[0].split()) - 2 for epoch in range(300)]
    whole = [len(drawn(tokenizer, row, epoch, crop_deletion=0.0)[0].split()) - 2 for epoch in range(300)]
    assert np.mean(kept) / np.mean(whole) == pytest.approx(0.7, abs=0.05)


def test_pairs_are_cut_to_the_length_with_their_special_tokens(tokenizer):
    row = PairRow(0, "title", ("the cat", " ".join(["dog"] * 30)))
    assert drawn(tokenizer, row, max_seq_length=6) == ["[CLS] the cat [SEP]", "[CLS] dog dog dog dog [SEP]"]
    with pytest.raises(UserError, match="--max_seq_length 2"):
        drawn(tokenizer, row, max_seq_length=2)


def test_dropout_rows_are_a_sentence_with_itself(tokenizer):
    assert drawn(tokenizer, PairRow(0, "dropout", ("the cat",))) == ["[CLS] the cat [SEP]"] * 2


def test_texts_to_look_at_are_spread_over_the_rows_and_leave_crops_of_tokens_out(tokenizer):
    rows = [PairRow(n, "title", (f"title {n}", f"text {n}")) for n in range(10)]
    windows = [PairRow(n, "crops", (f"first {n}.", f"second {n}.")) for n in range(10, 14)]
    looked_at = PairDataset([*rows, *windows], tokenizer, 16, crop_unit="tokens").texts(4)
    assert looked_at["anchor"] == ["title 0", "title 3", "title 6", "title 9"]
    assert looked_at["positive"] == ["text 0", "text 3", "text 6", "text 9"]
    assert len(PairDataset(windows, tokenizer, 16, crop_unit="tokens").texts(4)) == 0
    assert len(PairDataset(windows, tokenizer, 16).texts(9)) == 4


LISTS = [
    document(
        "Clear a jam", ("Do this:",), ("Open the rear door of the printer",), ("Pull the stuck sheet out slowly",)
    ),
    document(
        "Replace a drum", ("First, then:",), ("Open the rear door of the printer",), ("Put the new drum unit in",)
    ),
]


@pytest.mark.parametrize("kind", SINGLE_KINDS)
def test_paragraphs_without_a_full_stop_are_held_out_and_hold_out(kind):
    """Both ways: a list item that is held out, and a held-out text that has the item."""
    item = "Open the rear door of the printer"
    for exclude in ([item], [text for pair in query_texts(LISTS[0], "title") for text in pair]):
        try:
            rows, _ = make_pairs(LISTS[1:], kind, exclude=held_out_texts(exclude))
        except UserError:
            continue
        assert not any(item in text for row in rows for text in row.texts)


def test_rows_are_on_one_line_and_queries_have_a_line_per_paragraph():
    (row,) = make_pairs(LISTS[:1], "title")[0]
    assert row.texts == ("Clear a jam", "Do this: Open the rear door of the printer Pull the stuck sheet out slowly")
    assert query_texts(LISTS[0], "title")[0][1].split("\n") == [text for (text,) in LISTS[0].sections[0].paragraphs]


def test_chinese_sentences_are_put_together_as_they_were():
    manual = document("卡纸", ("打开后盖。", "取出卡纸。", "关上后盖。"))
    assert make_pairs([manual], "title")[0][0].texts[1] == "打开后盖。取出卡纸。关上后盖。"
    (window,) = make_pairs([manual], "crops", min_chars=2)[0]
    crops = {text for seed in range(20) for text in draw_texts(window, np.random.default_rng(seed))}
    assert {"打开后盖。取出卡纸。", "关上后盖。"} <= crops


def test_every_sentence_of_crops_is_used_or_counted_and_owned_only_where_it_is_used():
    alone, both = "Only one sentence here.", "And a second one here."
    first = Document(
        "T", (Section(None, ((alone,),)), Section("B", (("One of two.", "Two of two.", "One of two."),))), "a"
    )
    second = document("V", (alone, both), ("No.",))
    rows, counts = make_pairs([first, second], "crops", min_chars=4)
    assert [row.texts for row in rows] == [("One of two.", "Two of two."), (alone, both)]
    assert dict(counts.dropped) == {"too short": 1, "alone in its passage": 1, "repeated": 1}
