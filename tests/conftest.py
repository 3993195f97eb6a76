"""Shared fixtures: tiny random models and tokenizers, built here, so that no test needs a network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import gc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Not torch and transformers: pytest-xdist imports this file first in a process that runs no test.
if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

pytest.register_assert_rewrite("encode_runs")  # its asserts too say what differed


def pytest_collection_finish() -> None:
    """Takes what is imported out of the garbage collector's view; every training run calls it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tokenizer() -> "PreTrainedTokenizerBase":
    """A word-level BERT tokenizer over a few dozen words."""
    from backbones import tiny_tokenizer

    return tiny_tokenizer()


@pytest.fixture(scope="session")
def encoder(tokenizer: "PreTrainedTokenizerBase", tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny encoder as people find them: saved with heads for pretraining, the tokenizer beside it."""
    from backbones import save_encoder
    from transformers import BertForPreTraining

    return save_encoder(tmp_path_factory.mktemp("encoder"), tokenizer, BertForPreTraining)


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    """48 distinct sentences of 6 to 29 words, the same in every run."""
    import torch
    from backbones import WORDS

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
