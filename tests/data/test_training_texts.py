"""Text from files and datasets: what is read, what is dropped, what is refused, and its token ids."""

import copy
import gzip
import json
import logging
import random

import processes
import pytest
from datasets import Dataset, List, Value, disable_progress_bars
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from arccse_hf.data import cleaning, tokenization
from arccse_hf.data import training_texts as data
from arccse_hf.data.cleaning import CleaningCounts, RowCleaner
from arccse_hf.data.installed_docs import DocstringCorpus
from arccse_hf.data.tokenization import tokenize_texts
from arccse_hf.data.training_texts import load_training_texts
from arccse_hf.errors import UserError

disable_progress_bars()

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "first", "second", "one", "here"]
SENTENCES = ["The first sentence.", "A second one here.", "Finally, the third."]
NOISE = random.Random(0).randbytes(999).hex().encode()  # the same in every process that collects the tests


@pytest.fixture(autouse=True)
def offline_with_own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def texts(**arguments) -> list:
    """The rows as plain tuples."""
    dataset, _ = load_training_texts(**arguments)
    return list(zip(*(list(dataset[column]) for column in dataset.column_names), strict=True))


def write(path, content: str | bytes):
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return str(path)


def content_of(suffix: str) -> str:
    if suffix == ".txt":
        return "\n".join(SENTENCES) + "\n"
    if suffix == ".jsonl":
        return "".join(json.dumps({"text": sentence}) + "\n" for sentence in SENTENCES)
    if suffix == ".json":
        return json.dumps([{"text": sentence} for sentence in SENTENCES], indent=1)
    quote = "" if suffix == ".tsv" else '"'
    return "text\n" + "".join(f"{quote}{sentence}{quote}\n" for sentence in SENTENCES)


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("suffix", [".txt", ".csv", ".tsv", ".json", ".jsonl"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, suffix, packed):
    file = write(tmp_path / f"corpus{suffix}{packed}", content_of(suffix))
    assert texts(train_file=[file]) == [(sentence,) for sentence in SENTENCES]


def test_parquet(tmp_path):
    Dataset.from_dict({"text": SENTENCES}).to_parquet(tmp_path / "corpus.parquet")
    assert texts(train_file=[str(tmp_path / "corpus.parquet")]) == [(sentence,) for sentence in SENTENCES]


def test_globs_are_sorted_and_files_are_read_once(tmp_path, monkeypatch):
    for name, sentence in zip(("b.txt", "c.txt", "a.txt"), SENTENCES, strict=True):
        write(tmp_path / name, sentence)
    monkeypatch.setenv("HOME", str(tmp_path))
    _, counts = load_training_texts(train_file=["~/*.txt", str(tmp_path / "b.txt")])
    assert counts.read == 3
    assert texts(train_file=["~/*.txt"]) == [(SENTENCES[2],), (SENTENCES[0],), (SENTENCES[1],)]


def test_brackets_in_a_file_name_are_no_glob(tmp_path):
    assert len(texts(train_file=[write(tmp_path / "part[1].txt", content_of(".txt"))])) == 3


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path, packed):
    file = write(tmp_path / f"corpus.txt{packed}", b"\xef\xbb\xbfThe first sentence.\nThe first sentence.\n")
    dataset, counts = load_training_texts(train_file=[file])
    assert list(dataset["anchor"]) == ["The first sentence."] and counts.duplicate == 1


def test_words_that_pandas_takes_for_null_are_text(tmp_path):
    file = write(tmp_path / "words.csv", "text\nnull\nnormal\nNaN\n2024\n")
    assert texts(train_file=[file], min_chars=1) == [("null",), ("normal",), ("NaN",), ("2024",)]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("positive,negative,anchor", ("c", "a", "b")),
        ("sent0,sent1,hard_neg", ("a", "b", "c")),
        ("sent1,label,sent0", ("c", "a")),
        ("query,score,positive", ("a", "c")),
        ("id,text,title", ("b",)),
        ("id,title,sentence", ("c",)),
    ],
)
def test_columns_are_found_by_name_and_renamed(tmp_path, header, expected):
    file = write(tmp_path / "rows.csv", f"{header}\na text,b text,c text\n")
    dataset, _ = load_training_texts(train_file=[file])
    assert dataset.column_names == ["anchor", "positive", "negative"][: len(expected)]
    assert tuple(text[0] for text in dataset[0].values()) == expected


def test_the_only_column_of_text_needs_no_name(tmp_path):
    file = write(tmp_path / "rows.csv", "id,body\n1,the body of it\n2,another body\n")
    assert texts(train_file=[file]) == [("the body of it",), ("another body",)]


def test_named_columns_win_and_keep_their_order(tmp_path):
    file = write(tmp_path / "rows.csv", "text,title,body\nxxxxx,a title,a body\n")
    assert texts(train_file=[file], text_columns=["body", "title"]) == [("a body", "a title")]


def test_cleaning_counts_the_first_reason_for_each_row(tmp_path, caplog):
    rows = [
        ("  Good anchor. ", "Good positive."),
        ("Good   anchor.", "Good\tpositive."),  # differs in whitespace alone
        ("Good anchor.", "Another positive."),
        ("", "A positive without anchor."),
        ("An anchor of nothing.", None),
        ("   ", "A positive of spaces."),
        ("abcd", "Four characters."),
        ("abcde", "Five characters."),
        ("Held out,  spaced.", "A positive."),
        ("A fine anchor.", "Held out, spaced."),
        ("A finer anchor.", "Look closely. Held out,\nspaced. That is all."),
    ]
    lines = [json.dumps({"anchor": anchor, "positive": positive}) for anchor, positive in rows]
    file = write(tmp_path / "pairs.jsonl", "\n".join(lines))
    with caplog.at_level(logging.INFO, logger="arccse_hf.data"):
        dataset, counts = load_training_texts(train_file=[file], exclude=["Held out, \n spaced."])
    assert counts == CleaningCounts(read=11, empty=3, too_short=1, duplicate=1, held_out=3, kept=3, min_chars=5)
    assert [tuple(row.values()) for row in dataset] == [
        ("Good anchor.", "Good positive."),
        ("Good anchor.", "Another positive."),
        ("abcde", "Five characters."),
    ]
    line = "3 of 11 rows kept: 3 empty, 1 shorter than 5 characters, 1 duplicates, 3 held out for evaluation"
    assert line in caplog.messages


def test_a_row_is_a_duplicate_until_it_is_forgotten():
    cleaner = RowCleaner(1, (), duplicate_window=8)
    assert cleaner.keep((text,) for text in "abaccbab") == [0, 1, 3]
    assert cleaner.counts == CleaningCounts(8, 0, 0, duplicate=5, held_out=0, kept=3, min_chars=1, duplicate_window=8)
    cleaner.forget()
    assert cleaner.keep([("a",), ("b",), ("a",)]) == [0, 1] and cleaner.counts.read == 11
    other = RowCleaner(1, (), duplicate_window=8)
    other.go_on_from(cleaner.state())
    assert other.counts == cleaner.counts


def test_a_sample_is_random_and_the_same_for_the_same_seed(tmp_path):
    numbered = [(f"Sentence number {number}.",) for number in range(200)]
    file = write(tmp_path / "many.txt", "\n".join(text for (text,) in numbered))
    samples = [texts(train_file=[file], max_samples=20, seed=seed) for seed in (1, 1, 2)]
    assert samples[0] == samples[1] != samples[2]
    assert len(set(samples[0])) == 20 and set(samples[0]) < set(numbered) and samples[0] != numbered[:20]
    assert texts(train_file=[file], max_samples=1000) == numbered


def test_a_dataset_folder_can_be_named(tmp_path):
    write(tmp_path / "train.csv", "id,text\n1,a row to train on\n")
    write(tmp_path / "test.csv", "id,text\n1,a row to test on\n")
    assert texts(dataset_name=str(tmp_path), dataset_split="test") == [("a row to test on",)]


def test_installed_docs_train_on_sentences_without_those_held_out(monkeypatch):
    corpus = DocstringCorpus(sentences=SENTENCES, pairs=[])
    monkeypatch.setattr(data, "docstring_corpus", lambda: corpus)
    expected = [(sentence,) for sentence in SENTENCES[:2]]
    assert texts(dataset_name="installed-docs", exclude={SENTENCES[2]}) == expected


def refuse(match: str, **arguments) -> None:
    with pytest.raises(UserError, match=match) as caught:
        load_training_texts(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("empty.txt", b"", "is empty"),
        ("blank.txt", b"\n \n\n", "no row is left"),
        ("latin.txt", "one\ntwo\ndrei Wörter\n".encode("latin1"), "line 3: not UTF-8"),
        ("ragged.csv", b"text\nhello\na,b,c\n", "line 3: 3 cells"),
        ("numbers.csv", b"text\n1\n2\n", "column text holds numbers"),
        ("report.pdf", b"%PDF", "unknown kind"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path, name, content, problem):
    (tmp_path / name).write_bytes(content)
    refuse(rf"^--train_file .*{name}: .*{problem}", train_file=[str(tmp_path / name)])


def test_missing_files_and_folders_are_refused(tmp_path):
    refuse("--train_file .*absent.txt: does not exist", train_file=[str(tmp_path / "absent.txt")])
    refuse("--train_file .*: matches no file", train_file=[str(tmp_path / "*.txt")])
    refuse(r"--train_file .*: is a folder; name its files, such as .*\*.txt", train_file=[str(tmp_path)])


def test_files_must_agree(tmp_path):
    first = write(tmp_path / "a.csv", "text\nhello there\n")
    refuse("b.csv: has no column text; it has body", train_file=[first, write(tmp_path / "b.csv", "body\nhello\n")])
    refuse("c.txt: is of another kind", train_file=[first, write(tmp_path / "c.txt", "hello\n")])
    good = write(tmp_path / "a.jsonl", '{"text": "hello"}\n')
    refuse(
        "b.jsonl: has no column text; it has body",
        train_file=[good, write(tmp_path / "b.jsonl", '{"body": "hello"}\n')],
    )
    refuse("c.jsonl: line 1: not a JSON object", train_file=[good, write(tmp_path / "c.jsonl", '{"text": \n')])


def test_columns_that_are_not_there_are_refused_with_the_nearest(tmp_path):
    file = write(tmp_path / "rows.csv", "sentence1,sentence2,score\nhello there,you there,0.5\n")
    refuse("sentence1, sentence2, score to use; name them with --text_columns", train_file=[file])
    refuse("has no column sentense1; it has .* did you mean sentence1", train_file=[file], text_columns=["sentense1"])
    refuse("--text_columns score: column score of .*rows.csv holds numbers", train_file=[file], text_columns=["score"])
    refuse("one to three different", train_file=[file], text_columns=["sentence1", "sentence1"])
    assert texts(train_file=[file], text_columns=["sentence1", "sentence2"]) == [("hello there", "you there")]


def test_arguments_that_contradict_are_refused(tmp_path):
    file = write(tmp_path / "a.txt", "hello there\n")
    refuse("--train_file and --dataset_name", train_file=[file], dataset_name="some/dataset")
    refuse("--train_file and --dataset_name")
    refuse("--max_train_samples 0", train_file=[file], max_samples=0)
    refuse("--dataset_name no/such-dataset .*cannot be loaded", dataset_name="no/such-dataset")
    refuse("--dataset_split nope", dataset_name=str(tmp_path), dataset_split="nope")


@pytest.fixture
def tokenizer():
    vocab = {token: index for index, token in enumerate(WORDS)}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", model_max_length=9)


def test_token_ids_have_special_tokens_and_no_padding(tokenizer):
    dataset = Dataset.from_dict({"anchor": ["the first one", "second"], "positive": ["here", "one one one one"]})
    tokens = tokenize_texts(dataset, tokenizer, max_seq_length=5)
    assert tokens.column_names == ["anchor", "positive"]
    assert tokens.features["anchor"] == List(Value("int32"))
    assert list(tokens["anchor"]) == [[2, 4, 5, 7, 3], [2, 6, 3]]
    assert list(tokens["positive"]) == [[2, 8, 3], [2, 7, 7, 7, 3]]


def test_several_processes_give_the_same_ids(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenization, "_ROWS_PER_PROCESS", 5)
    dataset = Dataset.from_dict({"anchor": ["the first one", "second one here"] * 5})
    assert list(tokenize_texts(dataset, tokenizer, 8, num_proc=2)["anchor"]) == [[2, 4, 5, 7, 3], [2, 6, 7, 8, 3]] * 5


def test_tokens_are_cached_whatever_the_tokenizer_did_before(tmp_path, tokenizer):
    dataset, _ = load_training_texts(train_file=[write(tmp_path / "a.txt", "the first one\nsecond one here\n")])
    first = tokenize_texts(dataset, tokenizer, 8)
    assert tokenizer.backend_tokenizer.truncation is None  # The caller's tokenizer is left alone.
    used = copy.deepcopy(tokenizer)
    used(["the first one here"] * 2, truncation=True, padding=True, max_length=3)
    used("the first one here " * 9)  # Longer than the model's positions: the tokenizer notes that it has warned.
    again, _ = load_training_texts(train_file=[str(tmp_path / "a.txt")])
    assert tokenize_texts(again, used, 8).cache_files == first.cache_files != []
    assert tokenize_texts(again, used, 4).cache_files != first.cache_files
    used.add_tokens(["second one"])
    assert tokenize_texts(again, used, 8).cache_files != first.cache_files


def test_what_other_code_has_made_is_not_taken_from_the_cache(tmp_path, tokenizer, monkeypatch):
    (tmp_path / "text.txt").write_text("a cat\nthe old road\n")

    def prepared():
        rows, _ = load_training_texts(train_file=[str(tmp_path / "text.txt")])
        return rows._fingerprint, tokenize_texts(rows, tokenizer, 9)._fingerprint

    before = prepared()
    assert prepared() == before
    for module in (cleaning, tokenization):
        with monkeypatch.context() as patched:
            patched.setattr(module, "code_hash", lambda *_: "of another version")
            after = prepared()
        assert (after[0] == before[0]) == (module is tokenization) and after[1] != before[1]


def test_a_new_process_finds_the_cached_tokens(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    file = write(tmp_path / "a.txt", "the first one\nsecond one here\n")
    tokens = tokenize_texts(load_training_texts(train_file=[file])[0], tokenizer, 8)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.arrow")}
    script = (
        "import datasets, pathlib\n"
        f"datasets.config.HF_DATASETS_CACHE = pathlib.Path({str(tmp_path / 'cache')!r})\n"
        "from transformers import AutoTokenizer\n"
        "from arccse_hf.data.tokenization import tokenize_texts\n"
        "from arccse_hf.data.training_texts import load_training_texts\n"
        f"rows, _ = load_training_texts(train_file=[{file!r}])\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(tmp_path / 'tokenizer')!r})\n"
        "print(tokenize_texts(rows, tokenizer, 8).cache_files[0]['filename'])"
    )
    run = processes.python("-c", script)
    assert run.stdout.strip() == tokens.cache_files[0]["filename"], run.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.arrow")} == times


def test_a_length_without_room_for_a_word_is_refused(tokenizer):
    with pytest.raises(UserError, match="--max_seq_length 2: the tokenizer adds 2 special tokens"):
        tokenize_texts(Dataset.from_dict({"anchor": ["the"]}), tokenizer, max_seq_length=2)


def test_wikipedia_sentences_are_all_kept(shared_data):
    pattern = str(shared_data / "corpus" / "*.txt.gz")
    dataset, counts = load_training_texts(train_file=[pattern], max_samples=1000)
    assert counts.read == counts.kept == 1_000_000 and len(dataset) == 1000
