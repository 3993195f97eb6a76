"""Encoders as one ONNX graph: encoder, pooling and normalisation inside, for any batch size and length.

sentence-transformers' own ONNX backend needs an exporter that cannot be installed beside transformers 5.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Router
from torch import Tensor, nn
from transformers import AutoTokenizer

from ..errors import UserError, one_line
from ..evaluation.metrics import cosine_similarity
from ..evaluation.retrieval import normalize
from ..run_folder import ONNX_SETTINGS
from .embed import require_finite
from .loading import silence_load_report
from .new_folder import new_folder

GRAPH = "model.onnx"
QUANTIZED_GRAPH = "model_int8.onnx"
MIN_COSINE = 0.9999
"""The least cosine between an embedding of the graph and one of PyTorch that counts as equal."""

_BATCH_SIZES = (1, 7, 32)
_INSTALL = "pip install 'arccse-hf[onnx]'"


@dataclass(frozen=True)
class GraphCheck:
    """How one graph compares with PyTorch on the same sentences.

    Args:
        name: "torch float32", "onnx float32" or "onnx int8".
        min_cosine: Least cosine between its embeddings and PyTorch's.
        mean_cosine: The mean of these cosines.
        sentences_per_second: Throughput over all sentences, in batches of 32.
        megabytes: Size of the weights' file.
    """

    name: str
    min_cosine: float
    mean_cosine: float
    sentences_per_second: float
    megabytes: float


class OnnxEncoder:
    """A graph that was exported here, with the methods of `SentenceTransformer` that embedding needs.

    Args:
        path: The folder, or the .onnx file in it.

    Attributes:
        graph: The .onnx file.
        prompts: What is put before a text, by name, as in the model that was exported.
        default_prompt_name: Of the prompt that `encode` puts before texts, if any.
        dtype: Of the embeddings.

    Raises:
        UserError: onnxruntime is not installed, or the folder is not complete.

    Example:
        >>> OnnxEncoder("encoder-onnx").encode(["printer jams"]).shape
        (1, 384)
    """

    def __init__(self, path: str | os.PathLike):
        onnxruntime = _require("onnxruntime")
        graph = Path(path)
        if graph.is_dir():
            graph = next((graph / name for name in (GRAPH, QUANTIZED_GRAPH) if (graph / name).is_file()), graph / GRAPH)
        settings = graph.parent / ONNX_SETTINGS
        if not graph.is_file() or not settings.is_file():
            raise UserError(
                f"MODEL {path}: holds no {graph.name} with {ONNX_SETTINGS}; arccse export MODEL OUT --to onnx"
            )
        stored = json.loads(settings.read_text(encoding="utf-8"))
        self.max_seq_length: int = stored["max_seq_length"]
        self.dimension: int = stored["dimension"]
        self.prompts: dict[str, str] = stored.get("prompts", {})
        self.default_prompt_name: str | None = stored.get("default_prompt_name")
        self.graph = graph
        self.dtype = torch.float32
        self.tokenizer = AutoTokenizer.from_pretrained(graph.parent)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self.session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class for each of its reasons, and no common one
            raise UserError(f"MODEL {graph}: onnxruntime cannot open it: {one_line(error)}") from error

    def encode(
        self,
        sentences: Sequence[str],
        *,
        batch_size: int = 32,
        convert_to_tensor: bool = False,
        show_progress_bar: bool = False,
        normalize_embeddings: bool = False,
        prompt_name: str | None = None,
    ) -> np.ndarray | Tensor:
        """Returns the embeddings `[len(sentences), dim]` in float32, in the order of `sentences`.

        Args:
            sentences: Texts; longer ones are cut to `max_seq_length` tokens.
            batch_size: Texts that go through the graph at once.
            convert_to_tensor: Whether to return a tensor instead of an array.
            show_progress_bar: Accepted as `SentenceTransformer` does; no bar is shown.
            normalize_embeddings: Whether to scale embeddings to length 1.
            prompt_name: Of the prompt before each text; `default_prompt_name` by default.
        """
        prompt = self.prompts.get(prompt_name or self.default_prompt_name or "", "")
        sentences = [prompt + sentence for sentence in sentences]
        parts = [np.empty((0, self.dimension), dtype=np.float32)]
        for start in range(0, len(sentences), batch_size):
            tokens = self.tokenizer(
                sentences[start : start + batch_size],
                padding=True,
                truncation=True,
                max_length=self.max_seq_length,
                return_tensors="np",
            )
            feed = {name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
            parts.append(self.session.run(None, feed)[0])
        embeddings = np.concatenate(parts)
        if normalize_embeddings:
            embeddings = normalize(embeddings)
        return torch.from_numpy(embeddings) if convert_to_tensor else embeddings

    def encode_query(self, sentences: Sequence[str], **settings: Any) -> np.ndarray | Tensor:
        """As `encode`, with the prompt for queries."""
        return self.encode(sentences, prompt_name=self._first_prompt("query"), **settings)

    def encode_document(self, sentences: Sequence[str], **settings: Any) -> np.ndarray | Tensor:
        """As `encode`, with the prompt for documents."""
        return self.encode(sentences, prompt_name=self._first_prompt("document", "passage", "corpus"), **settings)

    def _first_prompt(self, *names: str) -> str | None:
        """Returns the first of these names that has a prompt, as sentence-transformers chooses it."""
        return next((name for name in names if name in self.prompts), None)

    def get_embedding_dimension(self) -> int:
        """Returns the width of the embeddings."""
        return self.dimension


def is_graph(path: str | os.PathLike) -> bool:
    """Returns whether `path` is an .onnx file, or a folder with a graph that was exported here."""
    return Path(path).suffix == ".onnx" or (Path(path) / ONNX_SETTINGS).is_file()


def export_onnx(
    model: SentenceTransformer, output_dir: str | os.PathLike, sentences: Sequence[str], *, quantize: bool = False
) -> list[GraphCheck]:
    """Writes `model` as an ONNX folder, after its graph was compared with PyTorch on `sentences`.

    Args:
        model: In float32 on the CPU.
        output_dir: A folder that does not exist or is empty; nothing is left there where the graph differs.
        sentences: Real sentences of different lengths, at least 40.
        quantize: Whether to write a second graph with int8 weights, `model_int8.onnx`, by onnxruntime's dynamic
            quantisation.

    Returns:
        The comparison: a row for PyTorch and one per graph.

    Raises:
        UserError: The folder is in use or cannot be written, a package is missing, one graph cannot embed as the
            encoder does, the exporter does not take it, the graph's embeddings differ from PyTorch's, or these are not
            finite.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        _require(package)
    if any(not getattr(module, "include_prompt", True) for module in model):
        raise UserError("MODEL: its pooling leaves the prompt's tokens out, which a graph cannot; leave out --to onnx")
    if any(isinstance(module, Router) for module in model):
        raise UserError(
            "MODEL: embeds queries and documents by different modules, which one graph cannot; leave out --to onnx"
        )
    output_dir = Path(output_dir)
    with new_folder(output_dir, "--output_dir") as staging:
        _write_graph(model, staging / GRAPH)
        model.tokenizer.save_pretrained(staging)
        settings = {
            "max_seq_length": model.max_seq_length,
            "dimension": model.get_embedding_dimension(),
            "prompts": model.prompts,
            "default_prompt_name": model.default_prompt_name,
        }
        (staging / ONNX_SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        expected, speed = _embed_timed(model, sentences)
        require_finite(expected, sentences, "MODEL", way_out="check its weights")
        size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
        checks = [GraphCheck("torch float32", 1.0, 1.0, speed, size / 1e6)]
        checks.append(_compare("onnx float32", staging / GRAPH, sentences, expected))
        if not checks[-1].min_cosine >= MIN_COSINE:  # NaN too
            raise UserError(
                f"--output_dir {output_dir}: the graph's embeddings differ from PyTorch's (cosine "
                f"{checks[-1].min_cosine:.6f}); nothing was written; please report the encoder"
            )
        if quantize:
            _quantize(staging / GRAPH, staging / QUANTIZED_GRAPH)
            checks.append(_compare("onnx int8", staging / QUANTIZED_GRAPH, sentences, expected))
    return checks


class _Graph(nn.Module):
    """All modules of a sentence-transformers model in one forward: `[batch, length]` twice to `[batch, dim]`."""

    def __init__(self, model: SentenceTransformer):
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        features = {"input_ids": input_ids, "attention_mask": attention_mask}
        for module in self.model:
            features = module(features)
        return features["sentence_embedding"]


def _write_graph(model: SentenceTransformer, path: Path) -> None:
    tokens = model.tokenizer(["one text", "another text that is longer"], padding=True, return_tensors="pt")
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    try:
        with _quiet_exporter():
            program = torch.onnx.export(
                _Graph(model).eval(),
                (tokens["input_ids"], tokens["attention_mask"]),
                dynamo=True,
                dynamic_shapes={"input_ids": shape, "attention_mask": shape},
                input_names=["input_ids", "attention_mask"],
                output_names=["sentence_embedding"],
                verbose=False,
            )
    except ImportError as error:
        raise UserError(
            f"--to onnx: onnxscript does not fit PyTorch {torch.__version__} ({error}): pip install -U onnxscript"
        ) from error
    except Exception as error:  # whatever the exporter meets in an encoder's code
        reason: BaseException = error
        while reason.__cause__ is not None:  # the exporter's own exceptions tell how to report them, not what is wrong
            reason = reason.__cause__
        first_line = next(iter(str(reason).splitlines()), "")
        raise UserError(
            "MODEL: PyTorch's ONNX exporter does not take this encoder "
            f"({type(reason).__name__}: {one_line(first_line)[:300]})"
        ) from error
    with _quiet_exporter():
        program.save(str(path))


def _quantize(graph: Path, quantized: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet_exporter():
        quantize_dynamic(str(graph), str(quantized), weight_type=QuantType.QInt8, per_channel=True)


def _compare(name: str, graph: Path, sentences: Sequence[str], expected: np.ndarray) -> GraphCheck:
    encoder = OnnxEncoder(graph)
    cosines = []
    # At other batch sizes, and with them other lengths, than the graph was traced with.
    for size in _BATCH_SIZES:
        found = encoder.encode(sentences, batch_size=size)
        cosines.append(cosine_similarity(found, expected))
    _, speed = _embed_timed(encoder, sentences)
    size = sum(path.stat().st_size for path in graph.parent.glob(f"{graph.name}*"))
    return GraphCheck(name, float(np.min(cosines)), float(np.mean(cosines)), speed, size / 1e6)


def _embed_timed(encoder: SentenceTransformer | OnnxEncoder, sentences: Sequence[str]) -> tuple[np.ndarray, float]:
    # Sorted, so that both are timed on hardly any padding.
    order = sorted(range(len(sentences)), key=lambda index: len(sentences[index]))
    ordered = [sentences[index] for index in order]
    start = time.perf_counter()
    embeddings = encoder.encode(ordered, batch_size=32, show_progress_bar=False)
    speed = len(sentences) / (time.perf_counter() - start)
    return embeddings[np.argsort(order)], speed


def _require(package: str):
    try:
        return __import__(package)
    except ImportError as error:
        raise UserError(f"--to onnx: the package {package} is not installed: {_INSTALL}") from error


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keeps the exporter's progress, and its and onnxruntime's warnings, to themselves."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "root")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), silence_load_report():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
