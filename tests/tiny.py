"""Tiny models, batches and trainers that tests share."""

import torch
from backbones import VOCAB_SIZE, tiny_config

from arccse_hf.model.configuration_arccse import ArcCSEConfig
from arccse_hf.model.modeling_arccse import ArcCSEForContrastiveLearning
from arccse_hf.training.arguments import ArcCSETrainingArguments
from arccse_hf.training.trainer import ArcCSETrainer


def batch(rows=5, views=2, length=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(5, VOCAB_SIZE, (rows, views, length), generator=generator)
    lengths = torch.randint(3, length + 1, (rows, views, 1), generator=generator)
    mask = (torch.arange(length) < lengths).long()
    return {"input_ids": input_ids * mask, "attention_mask": mask}


def trainable(family="bert", **config):
    torch.manual_seed(0)
    return ArcCSEForContrastiveLearning(ArcCSEConfig(backbone_config=tiny_config(family), **config))


def padded(rows=42):
    """Texts of 3 to 9 tokens, `[rows, 9]`."""
    return {name: values[:, 0] for name, values in batch(rows=rows).items()}


def gradients(model, embeddings):
    weights = torch.linspace(-1, 1, embeddings.numel(), dtype=embeddings.dtype).view_as(embeddings)
    (embeddings * weights).sum().backward()
    return {name: weight.grad for name, weight in model.named_parameters()}


def tiny_model(dropout=0.1, **config):
    torch.manual_seed(0)
    backbone = tiny_config("bert")
    backbone.hidden_dropout_prob = backbone.attention_probs_dropout_prob = dropout
    return ArcCSEForContrastiveLearning(ArcCSEConfig(backbone_config=backbone, **config))


def make_trainer(folder, rows, tokenizer, model=None, suite=None, **settings):
    defaults = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 8,
        "triplet_min_tokens": 15,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "max_steps": 3,
        "eval_strategy": "no",
        "eval_on_start": False,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    args = ArcCSETrainingArguments(**{**defaults, **settings})
    return ArcCSETrainer(
        model=model or tiny_model(), args=args, train_dataset=rows, processing_class=tokenizer, eval_suite=suite
    )
