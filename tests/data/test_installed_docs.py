"""Docstrings as text: prose is kept, markup and code are not, and what is held out stays out."""

import logging
from itertools import chain

import pytest

from arccse_hf.data.cleaning import held_out_texts
from arccse_hf.data.installed_docs import DocstringCorpus, docstring_corpus, held_out_pairs
from arccse_hf.data.installed_docs import corpus as corpus_module
from arccse_hf.data.installed_docs.prose import is_sentence, without_markup
from arccse_hf.data.sentences import split_sentences
from arccse_hf.data.training_texts import load_training_texts

MODULE = '''"""Tools that measure the rainfall of a region.

The tools read gauges once an hour, e.g. those of a valley. They keep what
they read in a table that :class:`~rain.Table` describes in *detail* [1]_.

Examples
--------
>>> This example looks like a sentence but it is code.
The output of the example is not prose either.

Notes
-----
Rain gauges freeze in winter and report no rainfall then.

    This indented block looks like prose but it is code.

.. [1] The citation of a book should not be a sentence here.
"""


def total(gauges, start=None):
    """Add up the rainfall of several gauges

    Gauges without readings count as dry. See https://example.org for more about the gauges.

    Args:
        gauges (list of Gauge): The gauges to add up in this call.
        start: see above

    Returns:
        The sum of all the readings in millimetres.

    ```python
    This fenced line should never be a sentence here.
    ```
    """
    def inner():
        """The inner function is found as well."""


class Table:
    if True:
        def row(self):
            """Return the row of one gauge only.

            :param gauge: The gauge whose row is wanted by the caller.

            - The first point of a list counts as prose.
            - not this
            """

        async def again(self):
            """Return the row of one gauge only."""
'''

SENTENCES = [
    "Tools that measure the rainfall of a region.",
    "The tools read gauges once an hour, e.g. those of a valley.",
    "They keep what they read in a table that Table describes in detail.",
    "Rain gauges freeze in winter and report no rainfall then.",
    "Gauges without readings count as dry.",
    "The gauges to add up in this call.",
    "The sum of all the readings in millimetres.",
    "The inner function is found as well.",
    "Return the row of one gauge only.",
    "The gauge whose row is wanted by the caller.",
    "The first point of a list counts as prose.",
]

PAIRS = [
    (
        "Tools that measure the rainfall of a region.",
        "The tools read gauges once an hour, e.g. those of a valley. "
        "They keep what they read in a table that Table describes in detail.",
    ),
]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose import would fail."""
    folder = tmp_path / "rainfall_tools"
    (folder / "tests").mkdir(parents=True)
    (folder / "__init__.py").write_text(MODULE + "\nraise ImportError('parsed, not imported')\n")
    (folder / "broken.py").write_text("def broken(:\n")
    (folder / "tests" / "__init__.py").write_text('"""The tests of a package are not its documentation."""\n')
    monkeypatch.syspath_prepend(tmp_path)
    corpus_module._docstring_corpus.cache_clear()
    return folder.name


def test_prose_is_found_and_nothing_else(package):
    corpus = docstring_corpus([package])
    assert sorted(corpus.sentences) == sorted(SENTENCES)
    assert corpus.pairs == PAIRS


def test_files_that_cannot_be_parsed_and_packages_that_are_missing_are_logged(package, caplog):
    with caplog.at_level(logging.INFO, logger="arccse_hf.data.installed_docs.corpus"):
        docstring_corpus([package, "no_such_package_here"])
    assert any("1 of 2 source files could not be parsed" in line and "broken.py" in line for line in caplog.messages)
    assert any("no_such_package_here is not installed" in line for line in caplog.messages)


def test_several_processes_find_the_same_in_the_same_order(package, monkeypatch):
    alone = docstring_corpus([package, "json", "email"])
    corpus_module._docstring_corpus.cache_clear()
    monkeypatch.setattr(corpus_module, "_FILES_PER_TASK", 3)
    monkeypatch.setattr(corpus_module.os, "cpu_count", lambda: 2)
    assert docstring_corpus([package, "json", "email"]) == alone
    assert len(alone.sentences) > 300


def test_the_corpus_of_a_process_is_made_once(package):
    assert docstring_corpus([package]) is docstring_corpus((package,))


def test_sentences_end_at_stops_but_not_at_abbreviations():
    text = 'Use one, e.g. Adam by D. Kingma. It works (see Fig. 2)! Does it? "Yes." Version 2.0 does.'
    assert split_sentences(text) == [
        "Use one, e.g. Adam by D. Kingma.",
        "It works (see Fig. 2)!",
        "Does it?",
        '"Yes."',
        "Version 2.0 does.",
    ]
    assert split_sentences("") == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Too few words here.",
        "There is no stop at the end",
        "2 is not how a sentence starts here.",
        "The value x_1 = 3 is set here.",
        "Visit https://example.org for the whole story.",
        "Set a_b to c_d or e_f via g_h.",
        "The bracket (is never closed in this one.",
        "Der Satz enthält viele schöne deutsche Wörter.",
        "word " * 61 + "end.",
    ],
)
def test_what_is_no_sentence(text):
    assert not is_sentence(text)


@pytest.mark.parametrize(
    ("markup", "plain"),
    [
        ("Use ``a`` and `b` now.", "Use a and b now."),
        ("A :func:`~os.path.join` and :func:`os.walk` call.", "A join and os.walk call."),
        ("See `the guide <https://a.b>`_ and [this one](https://c.d).", "See the guide and this one."),
        ("A [`Trainer`] is **not** *here* [3]_.", "A Trainer is not here."),
        ("The keys input_ids and *args stay.", "The keys input_ids and *args stay."),
    ],
)
def test_markup_goes_and_its_text_stays(markup, plain):
    assert without_markup(markup) == plain


def test_a_sentence_with_a_formula_or_without_its_citation_is_no_sentence():
    for text in ("The value of :math:`x` is not known here.", "The method was described at length in [2]_."):
        assert not is_sentence(without_markup(text))


def test_held_out_pairs_repeat_no_query_and_no_document():
    pairs = [(f"Query {i // 2}.", f"Document {i}.") for i in range(40)] + [(f"Other {i}.", "Same.") for i in range(9)]
    corpus = DocstringCorpus([], pairs)
    chosen = held_out_pairs(corpus, 21, seed=3)
    assert len(set(chosen)) == len({query for query, _ in chosen}) == len({document for _, document in chosen}) == 21
    assert set(chosen) <= set(pairs)
    assert (
        held_out_pairs(corpus, 10, seed=3) == held_out_pairs(corpus, 10, seed=3) != held_out_pairs(corpus, 10, seed=4)
    )
    with pytest.raises(ValueError, match=r"22 pairs were asked for.* only 21"):
        held_out_pairs(corpus, 22)


def test_a_held_out_pair_is_never_trained_on(package, monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    corpus = docstring_corpus([package])
    monkeypatch.setattr("arccse_hf.data.training_texts.docstring_corpus", lambda: corpus)
    dataset, counts = load_training_texts(
        dataset_name="installed-docs", exclude=held_out_texts(chain(*held_out_pairs(corpus, 1)))
    )
    assert counts.held_out == 3
    assert sorted(dataset["anchor"]) == sorted(SENTENCES[3:])
