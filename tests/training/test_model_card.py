"""The card of a trained model: metadata that hubs parse, what a reader needs, and nothing that a name could break."""

import re
from types import SimpleNamespace

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from arccse_hf.data.cleaning import CleaningCounts
from arccse_hf.training.arguments import ArcCSETrainingArguments, DataArguments
from arccse_hf.training.judging import COLUMNS
from arccse_hf.training.model_arguments import ModelArguments
from arccse_hf.training.model_card import inline_code, model_card
from arccse_hf.training.verdict import EXPORTED, START, TRAINED, Verdict

TASKS = (
    SimpleNamespace(name="stsb_dev", group="sts", main_metrics=("spearman",)),
    SimpleNamespace(name="retrieval", group="retrieval", main_metrics=("mrr_at_10", "recall_at_1")),
    SimpleNamespace(name="geometry", group="geometry", main_metrics=("uniformity",)),
)
BEFORE = {"stsb_dev_spearman": 0.5, "retrieval_mrr_at_10": 0.25, "retrieval_recall_at_1": 0.125}
AFTER = {
    "stsb_dev_spearman": 0.84231234, "retrieval_mrr_at_10": 0.5, "retrieval_recall_at_1": float("nan"),
    "geometry_uniformity": -2.5,
}  # fmt: skip


def card_of(output_dir="runs/my-model", model=None, data=None, training=None, **other):
    """The card, parsed back."""
    model_args = ModelArguments(**{"model_name_or_path": "bert-base-uncased", "pooling": "cls"} | (model or {}))
    data_args = DataArguments(**{"train_file": ["/home/ada/texts.txt"]} | (data or {}))
    args = ArcCSETrainingArguments(output_dir=str(output_dir), use_cpu=True, **(training or {}))
    card = model_card(model_args, data_args, args, counts=CleaningCounts(50, 1, 0, 0, 16, 33, 5), **other)
    return ModelCard(str(card))


def test_the_metadata_is_what_hubs_read(tmp_path):
    card = card_of(tasks=TASKS, before=BEFORE, after=AFTER, data={"train_file": [], "dataset_name": "org/texts"})
    card.save(tmp_path / "README.md")
    text = (tmp_path / "README.md").read_text()
    metadata = yaml.safe_load(text.split("---\n")[1])

    def result(task, dataset, name, *metrics):
        metrics = [{"type": kind, "value": value, "name": label} for kind, value, label in metrics]
        return {"task": {"type": task}, "dataset": {"name": name, "type": dataset}, "metrics": metrics}

    index = metadata.pop("model-index")
    for entry in index[0]["results"]:
        entry["task"].pop("name", None)
    assert index == [{"name": "my-model", "results": [
        result("semantic-similarity", "stsb_dev", "STS-B dev", ("spearman", 0.842312, "spearman")),
        result("information-retrieval", "retrieval", "retrieval", ("mrr_at_10", 0.5, "MRR@10")),
        result("sentence-similarity", "geometry", "geometry", ("uniformity", -2.5, "uniformity")),
    ]}]  # fmt: skip
    assert metadata == {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "sentence-similarity", "feature-extraction", "arccse"],
        "base_model": "bert-base-uncased",
        "datasets": ["org/texts"],
    }
    loaded = ModelCard.load(tmp_path / "README.md").data
    assert [(r.dataset_type, r.metric_type, r.metric_value) for r in loaded.eval_results] == [
        ("stsb_dev", "spearman", 0.842312), ("retrieval", "mrr_at_10", 0.5), ("geometry", "uniformity", -2.5),
    ]  # fmt: skip


def test_licence_and_language_come_from_the_base(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "README.md").write_text("---\nlicense: mit\nlanguage: [de, en]\ntags: [x]\n---\n# A base\n")
    data = card_of(model={"model_name_or_path": str(tmp_path / "base")}).data
    assert (data.license, data.language, data.base_model, data.datasets) == ("mit", ["de", "en"], None, None)
    (tmp_path / "base" / "README.md").write_text("---\nlicense: [\n---\n")
    assert card_of(model={"model_name_or_path": str(tmp_path / "base")}).data.get("license") is None


def test_the_card_says_how_to_use_what_trained_and_what_was_scored(tmp_path):
    settings = {"train_file": ["/home/ada/texts.txt", "b c.txt"], "bf16": True, "lr_scheduler_kwargs": {"min_lr": 1e-6}}
    settings |= {"resume_from_checkpoint": "True", "output_dir": "/home/ada/my-model", "hub_token": "hf_SECRET"}
    settings |= {"eval_pairs": ["clients/acme/*.csv"]}
    card = card_of(tmp_path / "ada" / "my-model", tasks=TASKS, before=BEFORE, after=AFTER, settings=settings)
    text = card.content
    assert 'SentenceTransformer("my-model")' in text and 'AutoModel.from_pretrained("my-model")' in text
    assert "/home/ada" not in text and str(tmp_path) not in text
    assert "[ArcCSE](https://aclanthology.org/2022.acl-long.336/) from `bert-base-uncased`" in text
    assert "| objective | ArcCon, 10 degrees + 0.1 x triplet |" in text
    assert "| spans | 0.2 inside 0.4 (mask) |" in text and "| seed | 42 |" in text
    assert "| stsb_dev_spearman | 0.5000 | 0.8423 |" in text and "| geometry_uniformity | - | -2.5000 |" in text
    assert "Spearman's correlation of cosines with gold scores, the pairs of all subsets" in text
    assert "Transfer:" not in text
    command = [line.strip(" \\") for line in text.partition("```bash\n")[2].partition("\n```")[0].splitlines()]
    assert command == [
        "arccse train", "--train_file texts.txt 'b c.txt'", "--bf16 True",
        """--lr_scheduler_kwargs '{"min_lr": 1e-06}'""", "--output_dir my-model", "--eval_pairs '*.csv'",
    ]  # fmt: skip
    assert re.search(r"Trained on CPU \(.*cores\), with python 3\.\d+\.\d+, .*torch \d", text)
    assert "{{" not in text and "{%" not in text and "\n\n\n" not in text


def test_a_kept_start_encoder_has_no_dimensions_that_were_trained():
    metrics = dict.fromkeys(COLUMNS, 0.5)
    verdict = Verdict("worse", "titles", 9, dict.fromkeys((START, TRAINED, EXPORTED), metrics), -0.1, -0.2, 0.0)
    model = {"matryoshka_dims": [16, 8]}
    after = {"stsb_dev_spearman": 0.5, "stsb_dev_spearman_dim8": 0.25}
    kept = card_of(model=model, before=BEFORE, after=after, verdict=verdict).content
    assert "It has the weights of" in kept and "were trained on their own" not in kept and "truncate_dim" not in kept
    assert "By number of dimensions, of what is exported:\n\n| metric | all | 8 |" in kept
    assert "truncate_dim=8" in card_of(model=model, before=BEFORE, after=after).content


def test_without_scores_and_command_nothing_is_made_up():
    text = card_of().content
    assert "Nothing was measured in this run." in text and "| before |" not in text and "```bash" not in text
    assert "model-index" not in text


def test_a_run_without_margin_and_triplets_is_simcse():
    simcse = card_of(model={"angular_margin": 0.0}, training={"triplet_weight": 0.0})
    assert "[SimCSE](https://aclanthology.org/2021.emnlp-main.552/)" in simcse.content
    assert "gao-etal-2021-simcse" in simcse.content and "ArcC" not in simcse.content
    assert "| objective | NT-Xent |" in simcse.content and "spans" not in simcse.content
    assert "simcse" in simcse.data.tags and "arccse" not in simcse.data.tags
    assert "[ArcCSE]" in card_of(model={"angular_margin": 0.0}).content


def test_a_model_that_is_pushed_is_called_by_its_hub_id():
    training = {"push_to_hub": True, "hub_model_id": "ada/encoder"}
    assert 'SentenceTransformer("ada/encoder")' in card_of(training=training).content


@pytest.mark.parametrize("name", ["a`b``c", "`", "<script>x</script>", "x\n```\n# Heading", "a|b", "*b* [c](d) _e_ #"])
def test_names_are_text_and_never_markup(name, tmp_path):
    """Rendered, the name stands in the title, the data and the command as it is, and adds no element."""
    files = [str(tmp_path / name.replace("/", "-"))]
    card = card_of(tmp_path / name.replace("/", "-"), data={"train_file": files}, settings={"train_file": files})
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(card.content.split("---\n", 2)[-1])
    inline = [child for token in tokens for child in token.children or []]
    assert not any(token.type.startswith("html") for token in [*tokens, *inline])
    headings = [tokens[i + 1].children for i, token in enumerate(tokens) if token.type == "heading_open"]
    titles = ["".join(child.content for child in heading) for heading in headings]
    shown = " ".join(name.replace("/", "-").split())
    assert titles == [shown, "Use", "Training", "Results", "Citation"]
    assert any(child.type == "code_inline" and child.content == shown for child in inline)
    assert sum(token.type == "fence" for token in tokens) == 3


def test_code_within_a_line():
    assert inline_code("a`b``c") == "```a`b``c```"
    assert inline_code("`x`") == "`` `x` ``"
    assert inline_code("plain\nname") == "`plain name`"
