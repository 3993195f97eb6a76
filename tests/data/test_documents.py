"""From files of all kinds to documents with their structure."""

import json

import pytest

from arccse_hf.data.columns import find_column
from arccse_hf.data.documents import Document, Section, are_documents, read_documents
from arccse_hf.errors import UserError

EXPECTED = (
    "Paper jam",
    (
        Section(None, (("Open the rear cover.", "Pull out the sheet."),)),
        Section("Toner", (("Shake the drum twice.",), ("Never touch it, e.g. Not with wet hands.",))),
    ),
)

PAGES = {
    "page.md": """---
layout: page
---
[![badge](b.svg)](x)

# Paper *jam*

Open the
[rear cover](cover.md). Pull out the sheet.

```
rm -rf code
```

| a | table |
|---|-------|
| 1 | 2 |

## Toner

Shake the `drum` twice.

- Never touch it, e.g. Not with wet hands.
""",
    "page.html": """<html><head><title>Paper jam - The manual</title><style>p {}</style></head><body>
<nav><p>Home. Menu.</p></nav><script>var text = "<p>No prose.</p>";</script>
<main><h1>Paper <b>jam</b><a href="#jam">¶</a></h1><p>Open the
<a href="cover">rear cover</a>. Pull out the sheet.<pre>rm -rf code</pre><table><tr><td>1</table>
<script>var text = "<p>No prose.</p>";</script>
<h2 id="toner">Toner</h2><div>Shake the <code>drum</code> twice.<ul><li>Never touch it, e.g. Not with wet hands.</ul>
</div></main><footer>Imprint.</footer>""",
    "page.rst": """.. comment

=========
Paper jam
=========

Open the :ref:`rear cover <cover>`. Pull out the sheet.

.. code-block:: sh

   rm -rf code

.. unknown-directive:: Whatever
   And its text.

Toner
=====

.. function:: shake(drum)

   Shake the ``drum`` twice.

   * Never touch it, e.g. Not with wet hands.
""",
}


@pytest.mark.parametrize("name", PAGES)
def test_the_same_page_in_every_markup_is_the_same_document(tmp_path, name):
    (tmp_path / name).write_text(PAGES[name], encoding="utf-8")
    documents, counts = read_documents([str(tmp_path / name)])
    assert [(document.title, document.sections) for document in documents] == [EXPECTED]
    assert str(counts) == "1 documents of 1"


def test_titles_come_from_front_matter_or_the_head_where_no_heading_stands_above_all(tmp_path):
    (tmp_path / "a.md").write_text("---\ntitle: 'Front'\n---\n# One\nText of it.\n# Two\nMore of it.")
    (tmp_path / "b.html").write_text("<title>Head</title><p>Text.")
    (tmp_path / "c.md").write_text("Only text.")
    documents, _ = read_documents([str(tmp_path)])
    assert [document.title for document in documents] == ["Front", "Head", None]
    assert [section.heading for section in documents[0].sections] == ["One", "Two"]


def test_a_single_lower_heading_does_not_replace_a_title_that_stands_outside(tmp_path):
    (tmp_path / "a.md").write_text("---\ntitle: Paper jams\n---\nOpen the cover.\n\n## See also\n\nThe manual.")
    (tmp_path / "b.md").write_text("---\ntitle: Front\n---\nHome > Toner\n\n# Toner\n\nShake the drum.")
    (tmp_path / "c.md").write_text("## Drums\n\nThey turn.")
    documents, _ = read_documents([str(tmp_path)])
    assert [(document.title, document.sections) for document in documents] == [
        ("Paper jams", (Section(None, (("Open the cover.",),)), Section("See also", (("The manual.",),)))),
        ("Toner", (Section(None, (("Shake the drum.",),)), Section(None, (("Home > Toner",),)))),
        ("Drums", (Section(None, (("They turn.",),)),)),
    ]


def test_folders_and_globs_hold_what_is_a_document_and_the_rest_is_counted_and_named(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    for name in ("a.md", "deep/b.rst", "deep/er/c.HTML", ".git/hidden.md"):
        (tmp_path / name).write_text(f"The text of {name}.")
    (tmp_path / "deep/copy.md").write_text("The text of a.md.")
    (tmp_path / "empty.md").write_text("")
    (tmp_path / "script.html").write_text("<script>only()</script>")
    (tmp_path / "binary.md").write_bytes(b"\0\1")
    (tmp_path / "latin.md").write_bytes("Käse.".encode("latin-1"))
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    documents, counts = read_documents([str(tmp_path)])
    assert [document.sentences for document in documents] == [
        ["The text of a.md."], ["The text of deep/b.rst."], ["The text of deep/er/c.HTML."],
    ]  # fmt: skip
    assert str(counts) == (
        "3 documents of 8: 2 empty (empty.md, script.html), 2 binary or not UTF-8 (binary.md, latin.md), "
        "1 duplicates (copy.md)"
    )
    (tmp_path / "deep/empty.md").write_text("")
    assert f"3 empty (deep/empty.md, {tmp_path.name}/empty.md, script.html)" in str(read_documents([str(tmp_path)])[1])
    globbed, counts = read_documents([f"{tmp_path}/**/*"])
    assert globbed == documents
    assert counts.other_kind == [f"{tmp_path}/picture.png"]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_rows_are_documents_with_paragraphs_and_sentences(tmp_path, suffix):
    import pandas as pd

    rows = [
        {"title": " Paper  jam ", "text": "Open it. Pull it out.\n\nClose it\nagain."},
        {"title": "", "text": "One line here.\nAnother there."},
        {"title": "Nothing", "text": " "},
    ]
    file = tmp_path / f"rows.{suffix}"
    if suffix == "jsonl":
        file.write_text("\n".join(map(json.dumps, rows)))
    else:
        getattr(pd.DataFrame(rows), f"to_{suffix}")(file, index=False)
    documents, counts = read_documents([str(file)])
    assert documents == [
        Document("Paper jam", (Section(None, (("Open it.", "Pull it out."), ("Close it again.",))),), f"{file}:1"),
        Document(None, (Section(None, (("One line here.",), ("Another there.",))),), f"{file}:2"),
    ]
    assert counts.empty == [f"{file}:3"]


def test_a_text_file_is_a_document_per_line_or_one_by_itself(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("First here. And on.\nSecond there.")
    by_line, _ = read_documents([str(file)])
    whole, _ = read_documents([str(file)], one_document_per_file=True)
    assert [document.sentences for document in by_line] == [["First here.", "And on."], ["Second there."]]
    assert [document.sentences for document in whole] == [["First here.", "And on.", "Second there."]]


def test_other_columns_are_named(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("name,body,id\nJam,Open it. Pull it.,1\n")
    documents, _ = read_documents([str(file)], title_column="name", text_column="body")
    assert (documents[0].title, documents[0].sentences) == ("Jam", ["Open it.", "Pull it."])
    with pytest.raises(UserError, match="which of the columns name, body, id is the text.*--text_columns"):
        read_documents([str(file)])
    with pytest.raises(UserError, match="--title_column head: .* has no column head; it has name, body, id"):
        read_documents([str(file)], title_column="head", text_column="body")


def test_columns_are_found_in_any_case(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("ID,Title,Text\n1,Jam,Open it. Pull it.\n")
    documents, _ = read_documents([str(file)])
    assert (documents[0].title, documents[0].sentences) == ("Jam", ["Open it.", "Pull it."])
    assert are_documents([str(file)])
    file.write_text("TITLE,body\nJam,Open it. Pull it.\n")
    assert [document.title for document in read_documents([str(file)])[0]] == ["Jam"]
    assert not are_documents([str(file)])


def test_what_cannot_be_read_is_said_in_one_line(tmp_path):
    (tmp_path / "a.md").write_text("Text.")
    (tmp_path / "b.jsonl").write_text('{"text": "Row."}')
    (tmp_path / "none").mkdir()
    (tmp_path / "empty.md").write_text(" ")
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7")
    for patterns, message in (
        (["a.md", "b.jsonl"], "b.jsonl: holds rows, but .*a.md is a document; give files of one sort"),
        (["none"], r"none: has no file that is a document \(.htm, .html"),
        (["*.rst"], "matches no file"),
        (["a.pdf"], r"a.pdf: unknown kind of document; known are .*\.md, .*\.csv, .*; pdftotext makes text of it"),
        (["missing.md"], "does not exist"),
        (["empty.md"], r"holds no document with text \(0 documents of 1: 1 empty \(empty.md\)\)"),
    ):
        with pytest.raises(UserError, match=message):
            read_documents([str(tmp_path / pattern) for pattern in patterns])


def test_paragraphs_that_many_documents_have_are_left_out(tmp_path):
    for number in range(6):
        (tmp_path / f"{number}.md").write_text(f"Copyright by somebody.\n\nThe page number {number}.")
    (tmp_path / "licence.md").write_text("Copyright by somebody.")
    documents, counts = read_documents([str(tmp_path)])
    assert [document.sentences for document in documents] == [
        *([f"The page number {number}."] for number in range(6)),
        ["Copyright by somebody."],
    ]
    assert "6 paragraphs left out that many documents have" in str(counts)


def test_pages_nest_deeper_than_python_recurses(tmp_path):
    (tmp_path / "deep.html").write_text("<div>" * 5_000 + "Bottom.")
    assert read_documents([str(tmp_path)])[0][0].sentences == ["Bottom."]


def test_rst_reads_no_other_file(tmp_path):
    (tmp_path / "secret.txt").write_text("The secret.")
    (tmp_path / "a.rst").write_text(f"Text.\n\n.. include:: {tmp_path}/secret.txt\n\n.. raw:: html\n\n   <b>Raw.</b>\n")
    assert read_documents([str(tmp_path)])[0][0].sentences == ["Text."]


def test_a_page_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.md").write_text("Text.")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(UserError, match=r"--train_file .*a.md: cannot be read \(Permission denied\); check its perm"):
        read_documents([str(tmp_path)])


def test_a_carriage_return_alone_ends_a_line(tmp_path):
    (tmp_path / "old.md").write_bytes(b"---\rtitle: A\r---\rOne\r\rtwo.\r")
    (document,), _ = read_documents([str(tmp_path)])
    assert (document.title, document.sentences) == ("A", ["One", "two."])


def test_of_columns_that_differ_by_case_the_one_that_is_meant_is_read():
    assert find_column(["Text", "text", "TEXT"], ["text"]) == "text"
    assert find_column(["TEXT", "Text"], ["text"]) == "TEXT"
