"""The whole command on a folder of documents, and what is said where documents do not do."""

import json
import logging
import random
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from backbones import WORDS

from arccse_hf import evaluate
from arccse_hf.errors import UserError
from arccse_hf.evaluation import bootstrap
from arccse_hf.training import script
from arccse_hf.training.arguments import ArcCSETrainingArguments, DataArguments
from arccse_hf.training.own_documents import prepare_documents, prepare_own_pairs


def page(number):
    """A title of three words, and a text with the same words among others."""
    draw = random.Random(number)
    title = draw.sample(WORDS, 3)
    sentences = [" ".join(draw.sample(title, 2) + draw.sample(WORDS, 5)).capitalize() for _ in range(3)]
    return f"# {' '.join(title)}\n\n{'. '.join(sentences)}.\n"


@pytest.fixture
def folder(tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    for number in range(300):
        (docs / f"{number:03}.md").write_text(page(number))
    (docs / "broken.html").write_bytes(b"\0")
    return docs


@pytest.fixture
def command(encoder, folder, tmp_path):
    return [
        "--model_name_or_path", str(encoder), "--train_file", str(folder), "--output_dir", str(tmp_path / "out"),
        "--per_device_train_batch_size", "8", "--max_steps", "6", "--use_cpu", "True", "--eval_strategy", "no",
        "--save_strategy", "no", "--logging_steps", "3", "--max_seq_length", "24", "--learning_rate", "1e-3",
        "--disable_tqdm", "True", "--pooling", "mean", "--triplet_min_tokens", "6",
    ]  # fmt: skip


def test_a_folder_of_documents_ends_in_a_model_and_a_verdict(command, tmp_path, capsys, caplog):
    settings = ["--anchor_weight", "0.5", "--train_last_layers", "1", "--false_negative_threshold", "0.95"]
    status = script.main([*command, *settings, "--require_better", "True"])
    out = tmp_path / "out"
    results = json.loads((out / "all_results.json").read_text())
    verdict = results["verdict"]
    assert status == (0 if verdict["outcome"] == "better" else 3)
    assert verdict["line"].startswith("VERDICT: ")
    assert verdict["pairs"] == 100 and verdict["queries"] == "first sentences"  # titles are trained on
    assert set(verdict["validation"]) == {"0", "0.25", "0.5", "0.75", "1"}
    assert list(verdict["scores"]) == ["start encoder", "trained encoder", "mixture", "BM25", "mixture + BM25"]
    assert results["before_verdict_mrr_at_10"] == verdict["scores"]["start encoder"]["mrr_at_10"]
    assert verdict["control"][0] == "neighbouring sentences"

    screen = capsys.readouterr().out
    assert verdict["line"] in screen and "anchor" in screen
    assert verdict["line"] in (out / "README.md").read_text()
    assert "300 documents of 301: 1 binary or not UTF-8 (broken.html)" in caplog.text
    assert "held out with seed 42: 100 documents for the verdict (100 first sentences), 50 to choose" in caplog.text
    from sentence_transformers import SentenceTransformer

    assert SentenceTransformer(str(out), device="cpu").encode(["the cat"]).shape == (1, 16)


def test_own_pairs_are_what_the_verdict_is_about_and_are_never_trained_on(command, tmp_path, folder, caplog):
    titles = [Path(folder, f"{number:03}.md").read_text().split("\n\n") for number in range(120)]
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"query": title.removeprefix("# "), "document": text.strip()} for title, text in titles]
    pairs.write_text("\n".join(map(json.dumps, rows)))
    status = script.main([*command, "--eval_pairs", str(pairs), "--eval_corpus", str(folder), "--pairs", "crops"])
    verdict = json.loads((tmp_path / "out" / "all_results.json").read_text())["verdict"]
    assert status == 0
    assert (verdict["pairs"], verdict["queries"]) == (120, "own queries")
    assert "held out for evaluation" in caplog.text


@pytest.mark.parametrize("own", [False, True])
def test_the_documents_themselves_may_be_searched(own, folder, tmp_path, tokenizer, caplog):
    """The passage that a right document is a part of, or the same with other line breaks, is no wrong answer."""
    (folder / "broken.html").unlink()
    texts = [Path(folder, f"{number:03}.md").read_text().split("\n\n")[1].strip() for number in range(120)]
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"query": f"question {n}", "document": text.replace(". ", ".\n\n")} for n, text in enumerate(texts)]
    pairs.write_text("\n".join(map(json.dumps, rows)))
    data_args = DataArguments([str(folder)], eval_corpus=[str(folder)], eval_pairs=str(pairs) if own else None)
    args = ArcCSETrainingArguments(str(tmp_path / "out"), per_device_train_batch_size=8, use_cpu=True)
    with caplog.at_level("INFO", logger="arccse_hf"):
        tasks = prepare_documents(data_args, args, tokenizer).tasks
    for task in filter(None, [tasks.test, tasks.validation]):
        for query, right in zip(task.queries, task.own, strict=True):
            text = task.documents[right]
            assert "\n" not in text
            assert not [other for other in task.documents if other != text and (text in other or query in other)]
        assert len(task.documents) > 100
    assert re.search(r"--eval_corpus: 1[0-9]{2} of 300 passages left out, which hold a right document", caplog.text)


def test_some_documents_without_a_pair_do_not_end_a_run_without_a_verdict(folder, tmp_path, tokenizer):
    """Half of the documents, from which it is told what is trained on, may have fewer pairs than a batch takes."""
    for number, file in enumerate(sorted(folder.glob("*.md"))):
        if number >= 100:
            file.unlink()
        elif number % 7 == 0:
            file.write_text(f"One sentence alone is number {number} here.\n")
    args = ArcCSETrainingArguments(str(tmp_path / "out"), per_device_train_batch_size=64, use_cpu=True)
    prepared = prepare_documents(DataArguments([str(folder / "*.md")], pairs="title"), args, tokenizer)
    assert prepared.tasks is None and prepared.counts.used == 85


def test_columns_of_the_corpus_alone_may_be_named_beside_pages(folder, tmp_path, tokenizer):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(
        "".join(json.dumps({"body": f"The text {n} of another page.", "url": "x"}) + "\n" for n in range(9))
    )
    data_args = DataArguments([str(folder / "*.md")], pairs="title", text_columns=["body"], eval_corpus=[str(corpus)])
    args = ArcCSETrainingArguments(str(tmp_path / "out"), per_device_train_batch_size=8, use_cpu=True)
    assert "The text 3 of another page." in prepare_documents(data_args, args, tokenizer).tasks.test.documents


@pytest.mark.parametrize(("number", "own"), [(150, False), (120, True)])
def test_documents_that_choose_nothing_are_trained_on(number, own, folder, tmp_path, tokenizer, caplog, monkeypatch):
    """Too few queries for a choice, or a control that is too small to be measured: nothing is held out for them."""
    for file in sorted(folder.glob("*.md"))[number:]:
        file.unlink()
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"query": f"question {n}", "document": f"Its own answer is number {n}."} for n in range(120)]
    pairs.write_text("\n".join(map(json.dumps, rows)))
    data_args = DataArguments([str(folder / "*.md")], pairs="title", eval_pairs=str(pairs) if own else None)
    args = ArcCSETrainingArguments(str(tmp_path / "out"), per_device_train_batch_size=8, use_cpu=True)
    if not own:
        monkeypatch.setattr("arccse_hf.training.own_documents.MIN_TEST_PAIRS", 40)
    with caplog.at_level("INFO", logger="arccse_hf"):
        prepared = prepare_documents(data_args, args, tokenizer)
    assert prepared.tasks is not None and prepared.tasks.validation is None
    assert prepared.counts.used == (number if own else number - number // 3)
    assert "0 to choose a mixture by (0 queries)" in caplog.text and "NO VERDICT" not in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_unit": "tokens"}, "--crop_unit tokens: shapes crops, and the pairs are title; leave it out"),
        ({"crop_deletion": 0.5}, "--crop_deletion 0.5: shapes crops"),
        ({"title_column": "subject"}, "--title_column subject: is a column of rows, and .*md is a document"),
        ({"text_columns": ["body"]}, "--text_columns body: is a column of rows, and .*md is a document"),
    ],
)
def test_settings_that_have_no_effect_on_these_documents_are_refused(settings, message, folder, tmp_path, tokenizer):
    data_args = DataArguments([str(folder / "*.md")], pairs="title", **settings)
    with pytest.raises(UserError, match=message):
        prepare_documents(data_args, ArcCSETrainingArguments(str(tmp_path / "out"), use_cpu=True), tokenizer)


@pytest.mark.parametrize("way", ["rows", "documents"])
def test_sentences_get_a_verdict_by_own_pairs(way, command, tmp_path, sentences, caplog):
    """All sentences are trained on, as rows and as documents, which have nothing that could be asked for."""
    text, pairs = tmp_path / "text.txt", tmp_path / "pairs.csv"
    text.write_text("\n".join(sentences))
    pairs.write_text("query,document\n" + "\n".join(f"query {number},the text {number}" for number in range(160)))
    # Sentences of the corpus may be trained on.
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": sentence}) + "\n" for sentence in sentences[:30]))
    command += ["--pairs", "auto"] if way == "documents" else []
    script.main([*command, "--train_file", str(text), "--eval_pairs", str(pairs), "--eval_corpus", str(corpus)])
    assert ("48 of 48 rows kept" if way == "rows" else "48 pairs (48 dropout)") in caplog.text
    verdict = json.loads((tmp_path / "out" / "all_results.json").read_text())["verdict"]
    assert verdict["pairs"] == 107  # a third of them chose the mixture
    assert len(verdict["validation"]) == 5


def prepared_tasks(way, pairs, folder, tmp_path, tokenizer):
    """What a verdict on the user's own pairs is measured on, in a run on rows or on documents."""
    file = tmp_path / "pairs.csv"
    file.write_text("query,document\n" + "\n".join(f"{query},{document}" for query, document in pairs))
    data_args = DataArguments(train_file=[str(folder)], eval_pairs=str(file), pairs="crops")
    if way == "rows":
        return prepare_own_pairs(data_args, seed=0)
    return prepare_documents(data_args, ArcCSETrainingArguments(str(tmp_path / "out"), use_cpu=True), tokenizer).tasks


def queries_about(documents, each):
    return [(f"question {n} about {number}", f"the text {number}") for n in range(each) for number in range(documents)]


@pytest.mark.parametrize(("way", "documents"), [("rows", 22), ("documents", 33)])  # a third of rows' choose a mixture
def test_own_queries_that_share_a_document_are_drawn_together(way, documents, folder, tmp_path, tokenizer):
    test = prepared_tasks(way, queries_about(33, each=6), folder, tmp_path, tokenizer).test
    about = dict(zip(test.queries, test.groups.tolist(), strict=True))
    assert len(about) == 6 * documents and len(set(about.values())) == documents
    assert all(about[query] == about["question 0 " + query.split(" ", 2)[2]] for query in about)
    alone = prepared_tasks(way, queries_about(165, each=1), folder, tmp_path, tokenizer).test
    assert len(set(alone.groups.tolist())) == alone.num_queries == 5 * documents


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("way", "number", "more"), [("rows", 8, "2.5"), ("documents", 12, "1.7")])
def test_many_own_pairs_of_few_documents_or_queries_are_no_test(
    way, number, more, turned, folder, tmp_path, tokenizer, caplog
):
    pairs = [pair[::-1] if turned else pair for pair in queries_about(12, each=40)]
    assert prepared_tasks(way, pairs, folder, tmp_path, tokenizer) is None
    line = f"NO VERDICT: {number} independent test pairs are too few, it takes 20; bring {more} times as many pairs in "
    assert line + "--eval_pairs (those that share a query or a document are no independent draws)" in caplog.text


def test_too_few_documents_are_all_trained_on_without_a_verdict(command, tmp_path, folder, caplog):
    for number in range(90, 300):
        (folder / f"{number:03}.md").unlink()
    assert script.main(command) == 0
    assert "verdict" not in json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert "NO VERDICT: 30 test pairs are too few, it takes 100; bring 3.3 times as many documents" in caplog.text
    assert "pairs (90 title) from 90 of 90 documents" in caplog.text


def tickets(number):
    """Rows of titles and texts, which all begin and end alike."""
    texts = [
        f"Hello. The printer {n} is jammed again. I opened its cover {n}. Thank you for your help."
        for n in range(number)
    ]
    return [{"Title": f"Ticket about printer {n}", "Text": text} for n, text in enumerate(texts)]


def prepared_tickets(rows, tmp_path, tokenizer, held_out=()):
    """The pairs that a run on rows trains on, and what became of the others."""
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    args = ArcCSETrainingArguments(str(tmp_path / "out"), use_cpu=True)
    prepared = prepare_documents(DataArguments(train_file=[str(file)]), args, tokenizer, held_out)
    return prepared.rows.rows, prepared.counts


def test_a_greeting_of_a_test_text_does_not_hold_out_the_rest_but_another_sentence_does(tmp_path, tokenizer):
    whole = tickets(600)
    rows, counts = prepared_tickets(whole, tmp_path, tokenizer)
    assert counts.made == {"title": 300} and not counts.dropped["held out for evaluation"]
    trained = {row.texts[1] for row in rows}
    tested, leaking = (next(n for n in range(600) if (whole[n]["Text"] in trained) == kept) for kept in (False, True))
    whole[leaking]["Text"] = f"Hello. The printer {tested} is jammed again. What now?"
    _, counts = prepared_tickets(whole, tmp_path, tokenizer)
    assert counts.made == {"title": 299} and counts.dropped["held out for evaluation"] == 1


def test_titles_that_are_held_out_do_not_turn_auto_into_another_kind(tmp_path, tokenizer):
    whole = tickets(600)
    rows, counts = prepared_tickets(whole, tmp_path, tokenizer, [row["Title"] for row in whole[:400]])
    assert {row.kind for row in rows} == {"title"} and counts.dropped["held out for evaluation"] > 150
    assert {row.texts[0] for row in rows} <= {row["Title"] for row in whole[400:]}


def test_auto_is_decided_once_and_says_where_it_leaves_titles(tmp_path, tokenizer, caplog):
    whole = tickets(100) + [{"Title": "", "Text": f"The printer {n} is new here."} for n in range(110)]
    with caplog.at_level("INFO", logger="arccse_hf"):
        rows, _ = prepared_tickets(whole, tmp_path, tokenizer)
    assert {row.kind for row in rows} == {"dropout"}
    lines = [message for message in caplog.messages if message.startswith("--pairs auto: takes dropout, since ")]
    assert len(lines) == 1 and lines[0].endswith(" of 105 documents have a pair of title and text, fewer than half")


def with_headings(folder, each):
    """Writes the 300 pages as sections of fewer documents."""
    pages = [page(number) for number in range(300)]
    for number in range(300):
        (folder / f"{number:03}.md").unlink()
    for number in range(0, 300, each):
        (folder / f"{number:03}.md").write_text("\n".join(f"#{text}" for text in pages[number : number + each]))


def test_headings_of_one_document_are_drawn_together(command, folder, tmp_path, monkeypatch):
    with_headings(folder, 4)
    drawn, resampled = [], SimpleNamespace(bootstrap_distribution=np.zeros(5))
    monkeypatch.setattr(bootstrap, "bootstrap", lambda columns, *_, **__: drawn.append(columns) or resampled)
    script.main([*command, "--pairs", "crops"])
    verdict = json.loads((tmp_path / "out" / "all_results.json").read_text())["verdict"]
    assert (verdict["queries"], verdict["pairs"]) == ("headings", 100)
    assert drawn[0][-1].tolist() == [4] * 25


def test_many_headings_of_few_documents_are_no_test(command, folder, caplog):
    with_headings(folder, 10)
    assert script.main([*command, "--pairs", "crops", "--max_steps", "1"]) == 0
    assert "NO VERDICT: 10 test documents are too few, it takes 20; bring 2.0 times as many documents" in caplog.text


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_scores_are_those_of_what_is_exported(command, tmp_path, monkeypatch, share, capsys):
    """Not of the weights that training ended with."""
    monkeypatch.setattr("arccse_hf.training.mixtures.SHARES", (share,))
    monkeypatch.setattr("arccse_hf.training.verdict.compare", lambda *given: ("no clear difference", 0.0, -0.1, 0.1))
    scored = tmp_path / "scored.csv"
    draw = random.Random(0)
    pairs = [(" ".join(draw.sample(WORDS, 4)), " ".join(draw.sample(WORDS, 4))) for _ in range(30)]
    scored.write_text("sentence1,sentence2,score\n" + "".join(f"{a},{b},{n % 7}\n" for n, (a, b) in enumerate(pairs)))
    measure = ["--eval_data", str(scored), "--eval_tasks", "sts", "--eval_strategy", "steps", "--eval_steps", "6"]
    script.main([*command, *measure, "--save_strategy", "steps", "--save_steps", "6"])
    out = tmp_path / "out"
    results = json.loads((out / "all_results.json").read_text())
    log = json.loads((out / "training" / "trainer_state.json").read_text())["log_history"]
    trained = [line["eval_scored_spearman"] for line in log if line.get("step") == 6 and "eval_scored_spearman" in line]
    expected = evaluate([str(out)], str(scored)).scores[str(out)]["scored_spearman"]
    assert results["eval_scored_spearman"] == pytest.approx(expected, abs=1e-6) != pytest.approx(trained[-1], abs=1e-6)
    assert f"{expected:.4f}" in (out / "README.md").read_text() and f"{expected:.4f}" in capsys.readouterr().out
    assert (results["eval_scored_spearman"] == results["before_scored_spearman"]) == (share == 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--streaming", "True", "--max_steps", "3"], "--streaming True: documents are read whole"),
        (["--max_train_samples", "5"], "--max_train_samples 5: chooses rows"),
        (["--pairs", "mixed"], "--pairs mixed: say how much of each, such as"),
        (["--train_file", "TEXT", "--require_better", "True"], "--require_better True: there is nothing to judge by"),
        (["--train_file", "TEXT", "--pair_weights", "title=2"], "--pair_weights title=2: is for documents, and rows"),
        (["--train_file", "TEXT", "--crop_deletion", "0.3"], "--crop_deletion 0.3: is for documents, and rows are"),
        (
            ["--train_file", "TEXT", "--eval_corpus", "gone"],
            "--eval_corpus gone: is searched with --eval_pairs; give these too",
        ),
        (["--projection", "mlp"], "--projection mlp: is new and becomes part of the embeddings"),
        (["--train_sampling_strategy", "sequential"], "streams and documents have their own order"),
        (["--eval_pairs", "missing.csv"], "missing.csv"),
        (["--per_device_train_batch_size", "200"], "150 documents do not fill a batch of 200"),
        (["--train_last_layers", "9"], "--train_last_layers 9: the encoder has"),
        (["--anchor_weight", "-1"], "--anchor_weight"),
    ],
)
def test_mistakes_are_told_in_one_line(command, settings, message, tmp_path, sentences):
    (tmp_path / "text.txt").write_text("\n".join(sentences))
    settings = [str(tmp_path / "text.txt") if word == "TEXT" else word for word in settings]
    with pytest.raises(UserError, match=message):
        script.main([*command, *settings])


def test_one_giant_document_is_too_few(command, folder, tmp_path):
    giant = tmp_path / "giant.md"
    giant.write_text("\n\n".join(f"## {number}\n\nThe text {number}. And more." for number in range(500)))
    with pytest.raises(UserError, match="1 documents do not fill a batch of 8: each may have one pair in it"):
        script.main([*command, "--train_file", str(giant)])


def test_what_is_searched_too_is_read_as_the_documents_are_and_counted(folder, tmp_path, tokenizer, caplog):
    caplog.set_level(logging.INFO, logger="arccse_hf")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name, content in (("a.txt", b"One text.\n\nIts end."), ("b.txt", b"\xff\xfe"), ("c.txt", b" ")):
        (corpus / name).write_bytes(content)
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("query,document\n" + "\n".join(f"{a},{b}" for a, b in queries_about(165, each=1)))
    data_args = DataArguments(
        train_file=[str(folder)], eval_pairs=str(pairs), eval_corpus=[str(corpus)], one_document_per_file=True
    )
    args = ArcCSETrainingArguments(str(tmp_path / "out"), use_cpu=True)
    tasks = prepare_documents(data_args, args, tokenizer).tasks
    assert "One text. Its end." in tasks.test.documents
    said = "--eval_corpus: 1 documents of 3: 1 empty (c.txt), 1 binary or not UTF-8 (b.txt)"
    assert said in caplog.messages


def test_what_is_searched_too_may_have_columns_of_its_own(tmp_path, tokenizer):
    """Those of the documents where it has them; else they are found by name."""
    rows = [{"name": f"title {number}", "body": f"The text {number} of a thing."} for number in range(300)]
    documents, own, theirs = (tmp_path / f"{name}.jsonl" for name in ("documents", "own", "theirs"))
    documents.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    own.write_text('{"name": "a", "body": "The same columns."}\n')
    theirs.write_text('{"title": "a", "text": "Other columns."}\n')
    for corpus, text in ((own, "The same columns."), (theirs, "Other columns.")):
        pairs = tmp_path / "pairs.csv"
        pairs.write_text("query,document\n" + "\n".join(f"{a},{b}" for a, b in queries_about(165, each=1)))
        data_args = DataArguments(
            train_file=[str(documents)], title_column="name", text_columns=["body"], eval_pairs=str(pairs),
            eval_corpus=[str(corpus)],
        )  # fmt: skip
        args = ArcCSETrainingArguments(str(tmp_path / "out"), use_cpu=True)
        assert text in prepare_documents(data_args, args, tokenizer).tasks.test.documents
