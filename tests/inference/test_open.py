"""Any encoder, opened to embed: with its own length, precision, pooling and prompts, or refused in one line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from backbones import BACKBONES, WORDS, tiny_config, tiny_tokenizer
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Pooling, StaticEmbedding, Transformer
from transformers import AutoModel

from arccse_hf import ArcCSEConfig, ArcCSEModel
from arccse_hf.errors import UserError
from arccse_hf.evaluation.retrieval import RetrievalTask
from arccse_hf.evaluation.sts import ScoredPairs, STSTask
from arccse_hf.evaluation.suite import TaskSuite
from arccse_hf.inference.demo import Demo
from arccse_hf.inference.evaluate import embed_suite
from arccse_hf.inference.open import load_encoder
from arccse_hf.inference.similarity import similarities
from arccse_hf.study.execute import _start_encoder
from arccse_hf.training.backbone import load_backbone
from arccse_hf.training.model_arguments import ModelArguments

LONG = " ".join(WORDS * 6)
TEXTS = ["the red cat", "two birds and a dog"]


def plain(folder, family="bert", max_length=64):
    torch.manual_seed(0)
    AutoModel.from_config(tiny_config(family)).save_pretrained(folder)
    tiny_tokenizer(max_length=max_length).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def modular(tmp_path):
    """Makes a sentence-transformers folder of a transformer and further modules."""

    def make(*modules, **settings):
        encoder = Transformer(plain(tmp_path / "plain"))
        folder = str(tmp_path / "modular")
        SentenceTransformer(modules=[encoder, *modules], device="cpu", **settings).save_pretrained(folder)
        return folder

    return make


def test_queries_and_documents_are_evaluated_with_their_prompts(modular):
    """As the evaluator of sentence-transformers does, where other sentences get no prompt."""
    pairs = [("the cat", "a dog on the river"), ("river road", "the cat"), ("a bird", "bird and cat")]
    folder = modular(Pooling(32, "mean"), prompts={"query": "the river the road the cat ", "document": "a bird "})
    scored = STSTask("sts", ScoredPairs(["the cat", "a bird"], ["a dog", "the cat"], [1.0, 2.0]))
    retrieval = RetrievalTask("own", pairs)
    suite = TaskSuite([scored, retrieval])
    assert suite.sentences.count("the cat") == 3  # as a sentence, a query and a document
    encoder = load_encoder(folder)
    result, embeddings = embed_suite(encoder, suite, show_progress=False)
    model = SentenceTransformer(folder, device="cpu")
    expected = np.concatenate([model.encode_query(retrieval.queries), model.encode_document(retrieval.documents)])
    np.testing.assert_allclose(suite.embeddings_of(retrieval, embeddings), expected, atol=1e-5)
    np.testing.assert_allclose(suite.embeddings_of(scored, embeddings), model.encode(scored.sentences), atol=1e-5)
    assert result.sentences == len(suite.sentences)


@pytest.mark.parametrize("family", ["modernbert", "nomic-bert"])
def test_rotary_positions_stay_in_32_bits(tmp_path, family):
    encoder = load_encoder(plain(tmp_path, family), dtype="bfloat16")
    types = {name: buffer.dtype for name, buffer in encoder.model.named_buffers() if "inv_freq" in name}
    assert set(types.values()) == {torch.float32}
    assert {weight.dtype for weight in encoder.model.parameters()} == {torch.bfloat16}
    assert encoder.encode_batch([LONG, "the cat"]).isfinite().all()
    untrained = _start_encoder(ModelArguments(str(encoder.name), pooling="mean", projection="none"), "bfloat16")
    torch.testing.assert_close(untrained.encode_batch([LONG]), encoder.encode_batch([LONG]))


@pytest.mark.parametrize("family", BACKBONES)
def test_texts_are_cut_where_positions_end_though_the_tokenizer_states_no_length(tmp_path, family):
    """A plain encoder, and a checkpoint of ours in sentence-transformers itself."""
    name = plain(tmp_path / "plain", family, max_length=10**30)
    limit = 64 if family == "mpnet" else 65 if "roberta" in family else 512 if family == "distilbert" else 66
    encoder = load_encoder(name)
    assert encoder.model.max_seq_length == limit
    embedded = encoder.encode_batch([LONG])
    ArcCSEModel.from_backbone(name, pooling="mean", projection="none").save_pretrained(tmp_path / "checkpoint")
    tiny_tokenizer(max_length=10**30).save_pretrained(tmp_path / "checkpoint")
    theirs = SentenceTransformer(str(tmp_path / "checkpoint"), device="cpu", trust_remote_code=True)
    torch.testing.assert_close(theirs.encode([LONG], convert_to_tensor=True), embedded, atol=1e-5, rtol=1e-4)
    with pytest.raises(UserError, match=f"--max_seq_length {limit + 1}: .* reads from 3 to {limit} tokens"):
        load_encoder(name, max_seq_length=limit + 1)


def test_a_pooling_that_is_asked_for_leaves_the_prompt_out_as_the_own_one_does(modular):
    name = modular(Pooling(16, "mean", include_prompt=False), prompts={"query": "find the old long road"})
    own, asked = (load_encoder(name, pooling=pooling).for_task("query") for pooling in (None, "mean"))
    torch.testing.assert_close(asked.encode_batch(TEXTS), own.encode_batch(TEXTS))


def test_a_pooling_of_another_width_than_a_dense_module_takes_is_refused(modular):
    name = modular(Pooling(16, ["cls", "mean"]), Dense(32, 8))
    with pytest.raises(UserError, match="--pooling mean: gives 16 numbers, and .* has a Dense module for 32; leave"):
        load_encoder(name, pooling="mean")


def test_static_embeddings_are_refused(tmp_path):
    tokenizer = tiny_tokenizer().backend_tokenizer
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu").save(str(tmp_path))
    with pytest.raises(UserError, match="MODEL .*: its tokenizer is none of transformers', as that of static"):
        load_encoder(str(tmp_path))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", {"hidden_size": "16x"}),
        ("modules.json", {"a": 1}),
        ("modules.json", [1]),
        ("config_sentence_transformers.json", {"prompts": {"query": 5}}),
    ],
)
def test_a_damaged_folder_is_one_line(modular, file, content):
    path = Path(modular(Pooling(16, "mean")), file)
    before = json.loads(path.read_text())
    path.write_text(json.dumps(before | content if isinstance(before, dict) else content))
    with pytest.raises(UserError, match="MODEL .*: cannot be opened: "):
        load_encoder(str(path.parent))
    with pytest.raises(UserError, match="--model_name_or_path "):
        load_backbone(ModelArguments(model_name_or_path=str(path.parent)))


def test_a_prompt_counts_where_texts_are_cut(modular):
    encoder = load_encoder(modular(Pooling(16, "mean"), prompts={"query": "the old "}), max_seq_length=20)
    text = " ".join(WORDS[:17])  # 19 tokens, and 21 as a query
    assert (encoder.count_truncated([text]), encoder.for_task("query").count_truncated([text])) == (0, 1)
    encoder.model.default_prompt_name = "query"
    assert encoder.count_truncated([text]) == 1


def test_the_demo_compares_sentences_as_they_are(modular):
    encoder = load_encoder(modular(Pooling(16, "mean"), prompts={"query": "find the old long road "}))
    search = type("Search", (), {"encoder": encoder.for_task("query"), "name": "one"})()
    demo = object.__new__(Demo)
    demo.encoders = [search]
    (matrix,) = demo.cosines("\n".join(TEXTS))[1]
    assert matrix == pytest.approx(similarities(encoder, TEXTS), abs=1e-6)
    assert matrix != pytest.approx(similarities(replace(encoder, task="query"), TEXTS), abs=1e-4)


def test_the_configuration_knows_the_positions_of_a_model_that_was_saved_before(tmp_path):
    model = ArcCSEModel(ArcCSEConfig(backbone_config=tiny_config("roberta")))
    assert (model.config.max_positions, model.config.max_position_embeddings) == (65, 65)
    config = ArcCSEConfig(backbone_config=tiny_config("modernbert"))
    assert config.max_positions is None and config.max_position_embeddings == 66
