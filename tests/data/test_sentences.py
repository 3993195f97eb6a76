"""Where sentences end, in several scripts, and which are long and rare enough to hold a text out."""

import time

import pytest

from arccse_hf.data.sentences import boilerplate, is_distinctive, join_sentences, split_sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["He said “Go away.”", "Then he left."],
        ["“Go away.”", "‘Never.’", "“‘Yes.’”", "(So be it.)"],  # noqa: RUF001
        ["“Go away.” said he."],
        ["Il dit «Non.»", "«Oui.»", "Puis rien."],
        ["Hola.", "¿Cómo estás?", "¡Bien!"],
        ["It was shown.", "[2] says more."],
        ["Mrs. Smith, Ms. Jones and J. Smith Jr. Of St. Ives met.", "Sr. Garcia came too."],
        ["It took approx. 5 days, see Nos. 3 and 4.", "The rest took 5 ms.", "That is all."],
        ["That is the best.", "A misnamed wrapprox.", "So it is."],  # "st." and "approx." end longer words
    ],
)
def test_marks_that_close_a_sentence_are_its_own_and_opening_ones_are_the_next_ones(sentences):
    assert split_sentences(" ".join(sentences)) == sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["「はい。」", "と彼は言った。"],
        ["「はい。」"],
        ["『はい。』", "「いいえ！」", "(そうか。)"],  # noqa: RUF001
        ["他说：“好。”", "他走了。", "“再见。”"],  # noqa: RUF001
        ["他走了（真的。）", "我也走。"],  # noqa: RUF001
        ["すごい！！", "本当に？！", "はい。"],  # noqa: RUF001
    ],
)
def test_scripts_without_spaces_have_their_own_marks(sentences):
    assert split_sentences("".join(sentences)) == sentences


@pytest.mark.parametrize(
    "piece", ["Dr. A ", "A. ", ". a", ".) (", '."” “(', ". [[", "。", "。」", "。\n", "! ", "¿", "”", "approx. A "]
)
def test_the_time_to_cut_is_linear(piece):
    """Quadratic time would be minutes."""
    start = time.perf_counter()
    split_sentences(piece * (100_000 // len(piece)))
    split_sentences(f"x.{piece[-1] * 100_000}")
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("sentence", "distinctive"),
    [
        ("Hello.", False),
        ("Thanks, 2 3 4 - 5!", False),
        ("See you soon.", False),
        ("Shake the drum twice.", True),
        ("Où est la gare?", True),
        ("用户反馈打印机卡纸。", False),  # nine characters
        ("用户反馈打印机卡纸了。", True),
        ("ปุ่มเปิดเครื่องหลวม", True),
        ("감사합니다 여러분.", False),  # Korean has spaces
    ],
)
def test_a_distinctive_sentence_has_some_words_or_characters(sentence, distinctive):
    assert is_distinctive(sentence) == distinctive


@pytest.mark.parametrize(("number", "common"), [(2, False), (3, True), (300, True)])
def test_boilerplate_is_what_more_than_two_texts_have(number, common):
    texts = [["Hello there.", "Hello there.", f"Text {index}."] for index in range(number)]
    assert boilerplate(texts) == ({"Hello there."} if common else set())


@pytest.mark.parametrize(("having", "common"), [(5, False), (6, True)])
def test_boilerplate_is_what_more_than_a_hundredth_of_many_texts_have(having, common):
    texts = [["Hello there."] if index < having else [f"Text {index}."] for index in range(500)]
    assert boilerplate(texts) == ({"Hello there."} if common else set())


@pytest.mark.parametrize(
    "text",
    ["It works. So does this. No end", "打开后盖。“取出卡纸。”好。", "「はい。」と言う。終わり。", "One.", ""],
)
def test_sentences_are_joined_to_the_paragraph_that_they_come_from(text):
    assert join_sentences(split_sentences(text)) == text
