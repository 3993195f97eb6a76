"""The losses in sentence-transformers' trainer, and against the heads of the training model."""

import math
import warnings

import pytest
import torch
from backbones import save_encoder
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments

from arccse_hf.model.configuration_arccse import ArcCSEConfig
from arccse_hf.model.heads import ArcConHead, TripletHead
from arccse_hf.sentence_transformers import ArcConLoss, CachedArcConLoss, MaskedSpanTripletLoss

SETTINGS = {"angular_margin": 12.0, "temperature": 0.07, "triplet_margin": 0.1}


@pytest.fixture
def model(tmp_path, tokenizer) -> SentenceTransformer:
    return SentenceTransformer(save_encoder(tmp_path / "encoder", tokenizer), device="cpu")


def embeddings(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_arccon_equals_the_head(model):
    anchors, positives, negatives = embeddings(3, 9, 16).unbind()
    loss = ArcConLoss(model, margin_degrees=12.0, temperature=0.07)
    head = ArcConHead(ArcCSEConfig(**SETTINGS))
    for columns in ([anchors, positives], [anchors, positives, negatives]):
        found = loss.compute_loss_from_embeddings(columns)
        assert found.item() == pytest.approx(head(anchors, torch.cat(columns[1:])).mean().item(), abs=1e-6)
    unit = [torch.nn.functional.normalize(rows.double(), dim=1).tolist() for rows in (anchors, positives)]
    total = 0.0
    for index, anchor in enumerate(unit[0]):  # the formula of the paper, written out
        cosines = [sum(a * b for a, b in zip(anchor, key, strict=True)) for key in unit[1]]
        logits = [cosine / 0.07 for cosine in cosines]
        logits[index] = math.cos(math.acos(cosines[index]) + math.radians(12)) / 0.07
        total += math.log(sum(map(math.exp, logits))) - logits[index]
    found = loss.compute_loss_from_embeddings([anchors, positives]).item()
    assert found == pytest.approx(total / len(anchors), abs=1e-5)


def test_the_triplet_loss_equals_the_head(model):
    triplets = embeddings(11, 3, 16)
    losses, _, _ = TripletHead(ArcCSEConfig(**SETTINGS))(triplets)
    found = MaskedSpanTripletLoss(model, margin=0.1).compute_loss_from_embeddings(triplets.unbind(1))
    assert found.item() == pytest.approx(losses.mean().item(), abs=1e-6)


def test_one_column_is_embedded_twice_with_other_dropout(model, sentences):
    features = model.tokenize(sentences[:8]) if hasattr(model, "tokenize") else model.preprocess(sentences[:8])
    seen = []
    loss = ArcConLoss(model)
    loss.compute_loss_from_embeddings = lambda columns: seen.append(columns) or columns[0].sum()
    model.train()
    loss([features])
    (first, second) = seen[0]
    assert first.shape == second.shape == (8, 16) and not torch.allclose(first, second)


@pytest.mark.parametrize("columns", [2, 3])
def test_the_cached_loss_has_the_gradient_of_the_whole_batch(columns, model, sentences):
    model.eval()  # no dropout

    def gradients(loss):
        model.zero_grad()
        parts = [sentences[start : start + 10] for start in range(0, 10 * columns, 10)]
        value = loss([dict(model.tokenizer(part, padding=True, return_tensors="pt")) for part in parts])
        (2 * value).backward()
        return value.item(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}

    plain, cached = gradients(ArcConLoss(model)), gradients(CachedArcConLoss(model, mini_batch_size=4))
    assert cached[0] == pytest.approx(plain[0], abs=1e-6) and cached[1].keys() == plain[1].keys()
    for name, gradient in plain[1].items():
        torch.testing.assert_close(cached[1][name], gradient, atol=1e-6, rtol=1e-4, msg=name)
    assert CachedArcConLoss(model).get_config_dict()["mini_batch_size"] == 32


def test_versions_lose_nested_spans(model, sentences):
    loss = MaskedSpanTripletLoss(model, 0.2, 0.4, min_tokens=10)
    texts = sentences[:20]
    mask = model.tokenizer.mask_token_id
    triplets = loss.triplets(model.tokenizer(texts, padding=True, return_tensors="pt"))
    long_enough = [text for text in texts if len(text.split()) >= 10]
    assert len(triplets) == len(long_enough) < len(texts)
    for text, (tokens, *versions) in zip(long_enough, triplets, strict=True):
        assert tokens == model.tokenizer(text)["input_ids"]
        small, large = ({place for place, token in enumerate(version) if token == mask} for version in versions)
        words = len(text.split())
        assert small < large and len(small) == round(0.2 * words) and len(large) == round(0.4 * words)
        for version in versions:
            assert all(new in (token, mask) for token, new in zip(tokens, version, strict=True))


def test_versions_are_embedded_without_dropout(model, sentences):
    loss = MaskedSpanTripletLoss(model, min_tokens=5, margin=1.0)
    features = model.tokenizer(sentences[:8], padding=True, return_tensors="pt").data
    fixed = loss.triplets(features)
    loss.triplets = lambda _: fixed
    model.train()
    first, second = loss([features]), loss([features])
    assert torch.equal(first, second) and first.item() > 0 and model.training
    flat = [model.tokenizer.decode(tokens[1:-1]) for row in fixed for tokens in row]
    rows = torch.from_numpy(model.eval().encode(flat)).unflatten(0, (-1, 3)).unbind(1)
    assert first.item() == pytest.approx(loss.compute_loss_from_embeddings(rows).item(), abs=1e-6)


def test_short_texts_cost_nothing(model):
    loss = MaskedSpanTripletLoss(model)(iter([model.tokenizer(["a cat"], return_tensors="pt").data]))
    assert loss.item() == 0 and loss.requires_grad


@pytest.mark.parametrize("together", [False, True])
def test_the_trainer_trains_with_them(together, model, sentences, tmp_path):
    rows, spans = (Dataset.from_dict({"text": sentences}) for _ in "12")
    calls = []
    losses = {"pairs": ArcConLoss(model), "spans": MaskedSpanTripletLoss(model, margin=0.2, min_tokens=5)}
    for name, loss in losses.items():
        loss.register_forward_hook(lambda *_, name=name: calls.append(name))
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path / "out"), max_steps=6, per_device_train_batch_size=8, learning_rate=1e-2, use_cpu=True,
        report_to="none", logging_steps=1, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset={"pairs": rows, "spans": spans} if together else rows,
            loss=losses if together else losses["pairs"],
        )
        trainer.train()
    history = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert set(calls) == ({"pairs", "spans"} if together else {"pairs"})
    assert len(history) == 6 and all(math.isfinite(value) for value in history)
    changed = [
        not torch.equal(weight, before[name]) for name, weight in model.named_parameters() if "pooler" not in name
    ]
    assert all(changed)
    model.save(str(tmp_path / "saved"))
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "ArcConLoss" in card and '"margin_degrees": 10.0' in card and "zhang-etal-2022-contrastive" in card
    assert ("MaskedSpanTripletLoss" in card and '"large_ratio": 0.4' in card) == together


def test_impossible_settings_are_refused(model):
    with pytest.raises(ValueError, match="margin_degrees must be in"):
        ArcConLoss(model, margin_degrees=90)
    with pytest.raises(ValueError, match="0 < small < large < 1"):
        MaskedSpanTripletLoss(model, 0.5, 0.4)
