"""What is text on a page in Markdown, HTML and reStructuredText, and which of it are headings."""

import pytest

from arccse_hf.data.markup import PARSERS, Block, Page, parse_html, parse_markdown, parse_rst


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


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("<p>Click the <img src=x> button to save.</p>", [(0, "Click the button to save.")]),
        ("<h2>Use the<img>menu now</h2>", [(2, "Use the menu now")]),
        ("<p>The <label>name</label>,<input>a <big>big</big> one.", [(0, "The name, a big one.")]),
        ("<p>An <acronym>OPC</acronym> <output>of</output> a <my-drum>drum</my-drum>.", [(0, "An OPC of a drum.")]),
        ("<p>A <picture><source><img></picture> <ruby>漢<rt>kan</rt></ruby>.", [(0, "A 漢kan.")]),
        ("<p>One<!-- a comment -->wo<wbr>rd<script>code()</script>.", [(0, "Oneword.")]),
        ("<my-card><p>First.</p>Second.</my-card>", [(0, "First."), (0, "Second.")]),
        ("<h2><div>Foo</div></h2>Text.", [(2, "Foo"), (0, "Text.")]),
        ("<div>Above<h1><div>A<p>b</p>c</div>d</h1>Below</div>", [(0, "Above"), (1, "A b c d"), (0, "Below")]),
        ("<div>Foo:<table><tr><td>x</table>Bar.</div>", [(0, "Foo:"), (0, "Bar.")]),
        ("<ul><li>First:<pre>code</pre>second.</ul>", [(0, "First:"), (0, "second.")]),
        ("<dl>A call.<dt class='x sig'>f()</dt>Its text.</dl>", [(0, "A call."), (0, "Its text.")]),
    ],
)
def test_html_text_is_cut_where_a_browser_begins_a_line_and_nowhere_else(text, blocks):
    assert read(".html", text) == blocks


@pytest.mark.parametrize("sign", ["¶", "#", "§", "🔗", "\u200b", "\uf0c1", " # "])
def test_html_a_link_to_the_heading_itself_is_no_part_of_it(sign):
    text = f"<h1>Getting started with <a href='c'>C#</a><a href='#start'><span>{sign}</span></a></h1>"
    assert read(".html", text) == [(1, "Getting started with C#")]


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("<p>Menu.<div role=main><p>A.<article>B.</article></div>", ["A.", "B."]),
        ("<p>Menu.<main>A.</main><article>Other.</article>", ["A."]),
        ("<article>Teaser.</article><main>A.</main>", ["A."]),
        ("<p>Menu.<article>A.</article>", ["A."]),
        ("<p>List.<article>A.</article><article>B.</article>", ["List.", "A.", "B."]),
    ],
)
def test_html_the_main_part_is_read(text, texts):
    assert read(".html", text) == paragraphs(*texts)


@pytest.mark.parametrize(
    ("html", "texts"),
    [
        ("<table>\n<tr><td>1</td></tr>\n\n<tr><td>2</td></tr>\n\n<tr><td>\n\n**3**\n\n</td></tr></table>", ()),
        ("<table>\n<tr><td>\n\nx **1** <br></td></tr></table> Behind it.", ("Behind it.",)),
        ("<nav>\n\n[Home](x)\n\n</nav>", ()),
        ("<nav>\n\nNothing closes it.", ("Nothing closes it.",)),
        ("<nav>\n\nHome\n\n<nav>\n\nInner\n\n</nav>\n\nOuter\n\n</nav>", ()),
        ("<table>\n\nNot closed by another.\n\n<table></table>", ("Not closed by another.",)),
        ("<div>\n<!-- <nav> -->\n</div>\n\nProse.\n\n<nav>x</nav>", ("Prose.",)),
        ("<aside>\nA note.\n\nIt goes on.\n\n</aside>", ("It goes on.",)),
        ("<!-- start --> The printer jams often. <!-- end -->", ("The printer jams often.",)),
        ("<!---->" * 5000 + "text", ("text",)),
        ("<details>\n\nUnfolded.\n\n</details>", ("Unfolded.",)),
    ],
)
def test_markdown_html_without_text_may_hold_blank_lines(html, texts):
    assert read(".md", f"Before.\n\n{html}\n\nAfter.\n") == paragraphs("Before.", *texts, "After.")


def test_markdown_line_breaks_of_html_keep_words_apart():
    assert read(".md", "First line<br>second<br/>third<BR />*fourth*<b>th</b>") == paragraphs(
        "First line second third fourthth"
    )


@pytest.mark.parametrize(
    ("text", "title", "texts"),
    [
        ("---\ntitle:\nlayout: default\n---\nText.", None, ["Text."]),
        ("---\ntitle: >\n  Paper\n  jams\nlayout: default\n---\nText.", "Paper jams", ["Text."]),
        ("---\ntitle: |-\n\n  Paper jams\n---\nText.", "Paper jams", ["Text."]),
        ("---  \ntitle: 'It''s in'  # at last\n--- \nText.", "It's in", ["Text."]),
        ("---\nlayout: default\ntitle: Jams: where?\n---", "Jams: where?", []),
        ("---\ntitle: [a]\n...\nText.", None, ["Text."]),
        ("---\n---\nText.", None, ["Text."]),
    ],
)
def test_markdown_front_matter_gives_the_title_and_no_text(text, title, texts):
    assert (PARSERS[".md"](text).title, read(".md", text)) == (title, paragraphs(*texts))


@pytest.mark.parametrize(
    ("heading", "text"),
    [
        ("## Install {#install}", "Install"),
        ("## `pip` {: #a_pip_b .code } ##", "pip"),
        ("Install it{#install}\n---", "Install it"),
        ("## Conditions with `{#if}`", "Conditions with {#if}"),
        ("## {#if}", "{#if}"),
        ("## The set {a, b}", "The set {a, b}"),
    ],
)
def test_markdown_attributes_are_no_part_of_a_heading(heading, text):
    assert read(".md", heading) == [(2, text)]


def test_markdown_text_below_a_marker_is_read_and_the_marker_is_not():
    text = """\
An intro.
!!! note
    Mind the drum.

    - It turns.

    ```sh
    !!! code
    ```

    === "Linux"

        Type it.

    === "Windows"
        Click it.

    Both work.
??? tip inline "A title"

\tOpen it.

    Then shut it.

After it.

    code

:::note A title
Inside.
:::

::: drum.turn
    options:
      heading_level: 2
"""
    assert read(".md", text) == paragraphs(
        "An intro.", "Mind the drum.", "It turns.", "Type it.", "Click it.", "Both work.", "Open it.", "Then shut it.",
        "After it.", "Inside.",
    )  # fmt: skip


def test_markdown_a_marker_in_a_list_or_in_code():
    text = """\
1. First:

    !!! warning "Hot"
        Let it cool.

2. Second:

    ```
    !!! note
        Code.
    ```

- ~~~sh
  turn
  ~~~

```md
!!! note

    ```sh
    turn
    ```
```

```A line``` of code.

!!! bug

    Report it.

The `!!! note` is a marker. !!! No: this is none.
"""
    assert read(".md", text) == paragraphs(
        "First:",
        "Let it cool.",
        "Second:",
        "A line of code.",
        "Report it.",
        "The !!! note is a marker. !!! No: this is none.",
    )


def test_text_between_rules_is_no_front_matter():
    page = parse_markdown("---\n# Manual\n\nIts text is here.\n\n---\n\nA last line.\n")
    assert page == Page([Block(1, "Manual"), Block(0, "Its text is here."), Block(0, "A last line.")])
    for keys in ("date created: 2023", "$schema: x", '"a key": b', "{{ macro }}: x"):
        assert parse_markdown(f"---\n{keys}\ntitle: A page\n---\nBody.") == Page([Block(0, "Body.")], "A page")
    assert parse_markdown("---\n\n---\nBody.") == Page([Block(0, "Body.")])
    assert parse_markdown("---\n# ours\n\nlayout: post\ntitle: A page\n---\nBody.").title == "A page"


def test_front_matter_of_hugo_gives_the_title():
    assert parse_markdown('+++\ntitle = "A page"\ndraft = false\n+++\nBody.') == Page([Block(0, "Body.")], "A page")
    assert parse_markdown("+++\n[extra]\nkey = 1\n+++\nBody.") == Page([Block(0, "Body.")])
    assert parse_markdown("+++\ntitle = broken\n+++\nBody.") == Page([Block(0, "Body.")])


def test_marks_of_github_are_no_text():
    text = (
        "> [!NOTE]\n> Useful.\n\n- [ ] To do\n- [x] Done\n\n~~Gone~~ here[^1], `[^a]`.\n\n[^1]: A note.\n\n$$\nE\n$$\n"
    )
    assert [block.text for block in parse_markdown(text).blocks] == ["Useful.", "To do", "Done", "Gone here, [^a]."]


def test_formulas_within_a_sentence_and_addresses_in_footnotes():
    """A paragraph may begin and end with a formula; CommonMark takes an address in a footnote for that of a link."""
    for text in ("$$E=mc^2$$ is the energy, and at rest $$v=0$$", "Here[^1].\n\n[^1]: https://example.com\n"):
        first = text.split("\n")[0].replace("[^1]", "")
        assert [block.text for block in parse_markdown(text).blocks] == [first]


def test_what_stands_below_a_deep_list_is_read():
    deep = "".join(f"{'  ' * level}- item {level}\n" for level in range(30))
    assert parse_markdown(deep + "\n# After\n\nText.\n").blocks[-3:] == [
        Block(0, "item 29"), Block(1, "After"), Block(0, "Text."),
    ]  # fmt: skip


def test_a_button_within_a_heading_is_its_text():
    page = parse_html("<main><h2><button>How?</button></h2><div>So.</div><button>Send</button></main>")
    assert page.blocks == [Block(2, "How?"), Block(0, "So.")]
    for heading in ("So <button>Copy</button>", "So<button hidden>x</button>", "So<button aria-hidden=true>x</button>"):
        assert parse_html(f"<main><h2>{heading}</h2></main>").blocks == [Block(2, "So")]


def test_images_and_references_of_rst_are_no_text():
    text = (
        "|build|\n\nAs shown in [#f1]_ and |build| [Smith]_.\n\n.. |build| image:: b.png\n   :alt: Passing\n\n"
        ".. [#f1] A note.\n\n.. [Smith] A book.\n"
    )
    assert [block.text for block in parse_rst(text).blocks] == ["As shown in and ."]


def test_escapes_of_rst_are_undone():
    (block,) = parse_rst("Create ``Widget``\\ s with \\*args.\n").blocks
    assert block.text == "Create Widgets with *args."
