"""Tiny random encoders: a configuration of every family that must work, a tokenizer, and a folder with both."""

from pathlib import Path

import torch
from transformers import (
    AlbertConfig,
    BertConfig,
    BertModel,
    BertTokenizer,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    NomicBertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RobertaConfig,
    XLMRobertaConfig,
)

WORDS = (
    "the a of in on small large red blue green quick slow cat dog bird house river road man woman child sees hears "
    "finds likes builds crosses near under over with without two three many few old new long short first last"
).split()
VOCAB_SIZE = 64
_SHAPE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 66,
    "pad_token_id": 0,
}

BACKBONES = {
    "bert": (BertConfig, _SHAPE),
    "roberta": (RobertaConfig, _SHAPE | {"bos_token_id": 2, "eos_token_id": 3}),
    "xlm-roberta": (XLMRobertaConfig, _SHAPE | {"bos_token_id": 2, "eos_token_id": 3}),
    "distilbert": (
        DistilBertConfig,
        {"vocab_size": VOCAB_SIZE, "dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 24},
    ),
    "mpnet": (MPNetConfig, _SHAPE),
    "electra": (ElectraConfig, _SHAPE | {"embedding_size": 12}),
    "albert": (AlbertConfig, _SHAPE | {"embedding_size": 12, "classifier_dropout_prob": 0.1}),
    "deberta-v2": (DebertaV2Config, _SHAPE | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    # Of its weights transformers would write other names than the model has.
    "nomic-bert": (NomicBertConfig, _SHAPE),
    "modernbert": (
        ModernBertConfig,
        _SHAPE | {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
    ),
}


def tiny_config(family: str) -> PreTrainedConfig:
    """A fresh configuration of `family`, 3 layers of width 16 over `VOCAB_SIZE` tokens."""
    kind, settings = BACKBONES[family]
    return kind(**settings)


def tiny_tokenizer(words: list[str] = WORDS, max_length: int = 64) -> BertTokenizer:
    """A word-level BERT tokenizer."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    return BertTokenizer(vocab={word: index for index, word in enumerate(vocabulary)}, model_max_length=max_length)


def save_encoder(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    kind: type[PreTrainedModel] = BertModel,
    seed: int = 0,
    **settings: int | float,
) -> str:
    """Writes a tiny random BERT and a tokenizer as a plain encoder's folder, and returns its name.

    Args:
        folder: Where they go.
        tokenizer: What lies beside the weights.
        kind: The class that saves the weights.
        seed: Of the weights.
        settings: Fields of the configuration.
    """
    torch.manual_seed(seed)
    config = tiny_config("bert")
    config.update({"vocab_size": max(VOCAB_SIZE, len(tokenizer))} | settings)
    kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
