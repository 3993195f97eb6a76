"""A tiny random configuration of every family of encoders that must work."""

from transformers import (
    AlbertConfig,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

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
    "modernbert": (
        ModernBertConfig,
        _SHAPE | {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
    ),
}


def tiny_config(family: str) -> PreTrainedConfig:
    """A fresh configuration of `family`, 3 layers of width 16 over `VOCAB_SIZE` tokens."""
    kind, settings = BACKBONES[family]
    return kind(**settings)
