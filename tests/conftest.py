"""Shared fixtures: tiny random models and tokenizers, built here, so that no test needs a network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pathlib import Path

import pytest
import torch
from backbones import WORDS, save_encoder, tiny_tokenizer
from transformers import BertForPreTraining, PreTrainedTokenizerFast

pytest.register_assert_rewrite("encode_runs")  # its asserts too say what differed


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A word-level BERT tokenizer over a few dozen words."""
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def encoder(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny encoder as people find them: saved with heads for pretraining, the tokenizer beside it."""
    return save_encoder(tmp_path_factory.mktemp("encoder"), tokenizer, BertForPreTraining)


@pytest.fixture
def sentences() -> list[str]:
    """48 distinct sentences of 6 to 29 words, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    lengths = [6 + index % 24 for index in range(48)]
    return [
        " ".join(WORDS[i] for i in torch.randint(len(WORDS), (length,), generator=generator).tolist())
        for length in lengths
    ]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with `senteval/` and `corpus/`; tests that need it are skipped where it is not given."""
    folder = os.environ.get("ARCCSE_SHARED_DATA")
    if not folder:
        pytest.skip("ARCCSE_SHARED_DATA is not set: it names the folder with senteval/ and corpus/")
    return Path(folder)
