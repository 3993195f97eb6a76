"""What is text on a page in Markdown, HTML and reStructuredText, and which of it are headings."""

import pytest

from arccse_hf.data.markup import PARSERS


def read(suffix, text):
    return [tuple(block) for block in PARSERS[suffix](text).blocks]


def paragraphs(*texts):
    return [(0, text) for text in texts]


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        (".. versionchanged:: 3.7\n   Added *x*,\n   a float.\n\n   Slow.\n", ["Added x, a float.", "Slow."]),
        (".. versionadded:: 3.7 It is\n   new.\n", ["It is new."]),
        (".. deprecated:: 3.8\n\nAfter it.\n", ["After it."]),
        (".. deprecated::\n\nAfter it.\n", ["After it."]),
        (".. deprecated-removed:: 3.2 3.4\n   Use another.\n", ["Use another."]),
        (".. seealso:: The manual.\n", ["The manual."]),
        (".. SeeAlso:: The manual.\n\n.. seealso::\n   The guide.\n", ["The manual.", "The guide."]),
        (".. impl-detail:: Only here.\n", ["Only here."]),
        (".. glossary::\n   :sorted:\n\n   drum\n      It turns.\n", ["drum", "It turns."]),
        (".. tab-set::\n\n   .. tab-item:: Linux\n      :sync: linux\n\n      Type it.\n", ["Type it."]),
    ],
)  # fmt: skip
def test_rst_text_beside_and_right_below_a_directive_is_read(text, texts):
    assert read(".rst", text) == paragraphs(*texts)


@pytest.mark.parametrize(
    "name", ["classmethod", "py:classmethod", "property", "py:property", "envvar", "confval", "only", "dropdown"]
)
def test_rst_text_below_the_signature_of_a_directive_is_read(name):
    text = f".. {name}:: jam(paper)\n   jam(sheet)\n\n   It is *open*.\n\n   - And shut.\n"
    assert read(".rst", text) == paragraphs("It is open.", "And shut.")


def test_rst_a_caption_is_read_and_a_table_of_contents_is_not():
    text = """\
Title
=====

.. contents::

Install
-------

.. contents::
   :local:

.. figure:: drum.png
   :width: 3

   The *drum* from above.

   It turns.

.. topic:: Care

   Keep it dry.
"""
    assert read(".rst", text) == [
        (1, "Title"), (2, "Install"), *paragraphs("The drum from above.", "It turns.", "Care", "Keep it dry."),
    ]  # fmt: skip


def test_rst_numbered_references_have_their_kind_in_front():
    text = "See :pep:`484`, :rfc:`2822`, :pep:`the guide <8>`, :pep:`8#names` and :func:`~os.walk`."
    assert read(".rst", text) == paragraphs("See PEP 484, RFC 2822, the guide, PEP 8#names and os.walk.")
