"""`arccse info`: what is in a file of text, in a model's folder, and what a run was.

Folders are read without torch and transformers: their JSON files and the headers of their weights say it all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ..data.columns import choose_columns, require_text
from ..data.documents import read_documents
from ..data.files import RowFile, expand_files, file_kind, open_file
from ..data.files.find import KINDS
from ..data.pairs import PairKind, draw_texts, make_pairs
from ..data.sentences import MIN_CHARS
from ..errors import UserError, one_line
from ..paths import read_json
from ..run_folder import (
    MODULES,
    ONNX_SETTINGS,
    RESULTS,
    SETTINGS,
    STATE,
    STATUS,
    checkpoints,
    exported_in_words,
    is_done,
    kept_step,
    metrics_of,
    record_path,
)

Facts = dict[str, Any]
"""Name -> value, in the order in which they are printed."""

SHOWN_PAIRS = 3
_MAX_ROWS = 1_000_000
_DESCRIBED = ("*.json", "*/*.json", "README.md", "*vocab.txt", "*merges.txt", "*.model")
"""Files of a hub's model: what describes it, and its tokenizer."""


def run(
    what: str,
    *,
    model: str | None = None,
    text_column: str | None = None,
    title_column: str | None = None,
    max_seq_length: int | None = None,
    pairs: PairKind | None = None,
    one_document_per_file: bool = False,
    show: int | None = None,
    as_json: bool = False,
) -> int:
    """Prints the facts about a file, a model or a run, and returns the exit status 0.

    Args:
        what: A file or glob, a folder, a hub id or package:NAME/PATH.
        model: Of a file: the encoder that would read it.
        text_column: Of a file: the column of the texts; None: as `arccse train` chooses.
        title_column: Of rows as documents: the column of their titles; None: likewise.
        max_seq_length: Of a file: tokens that a text is cut to; None: 32, as training has it, and the encoder's limit.
        pairs: Of documents: the kind of pairs that `arccse train --pairs` would make of them.
        one_document_per_file: Whether a .txt file is a document, as for `arccse train`.
        show: How many of these pairs to print; `SHOWN_PAIRS` by default.
        as_json: Whether to print a JSON object.

    Raises:
        UserError: There is nothing of this name, or it cannot be read.
    """
    path = Path(what).expanduser()
    if pairs is None and show is not None:
        raise UserError(f"--show {show}: goes with --pairs")
    if pairs is None and title_column is not None:
        raise UserError(f"--title_column {title_column}: goes with --pairs")
    if pairs is None and one_document_per_file:
        raise UserError("--one_document_per_file: goes with --pairs")
    if pairs is not None:
        if model or max_seq_length:
            raise UserError("--model and --max_seq_length: go without --pairs")
        facts = pair_facts(
            what, pairs, SHOWN_PAIRS if show is None else show, text_column, title_column, one_document_per_file
        )
    elif not path.is_dir() and not what.startswith("package:") and file_kind(what) in KINDS:
        facts = file_facts(what, model, text_column, max_seq_length)
    else:
        if model or text_column or max_seq_length:
            raise UserError("--model, --text_column and --max_seq_length: go with a file of text")
        folder = path if path.is_dir() else _find_model(what)
        facts = run_facts(folder) | model_facts(folder)
        if not facts:
            raise UserError(f"{what}: holds neither a model nor a run; --pairs auto looks for documents in it")
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return 0
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        for number, line in enumerate(_lines(value)):
            print(f"{name if number == 0 else '':<{width}}{line}")
    return 0


def file_facts(
    pattern: str, model: str | None = None, text_column: str | None = None, max_seq_length: int | None = None
) -> Facts:
    """Returns rows and columns of files; and with a model, what its tokenizer makes of the texts.

    Raises:
        UserError: A file cannot be read, has no such column, or the model has no tokenizer.
    """
    option = "FILE"
    files = [open_file(path, option, [text_column] if text_column else []) for path in expand_files([pattern], option)]
    facts: Facts = {
        "files": len(files),
        "rows": sum(file.count() for file in files),
        "columns": [f"{name} ({kind})" for name, kind in files[0].columns.items()],
    }
    if model is None:
        return facts | {"hint": "--model MODEL tells how much of the text an encoder would see"}
    columns = [text_column] if text_column else []
    columns = columns or choose_columns(files[0].columns, source=f"{option} {pattern}", option="--text_column")
    return facts | {"text": columns} | _health(files, columns, model, max_seq_length)


def pair_facts(
    pattern: str,
    kind: PairKind,
    show: int,
    text_column: str | None = None,
    title_column: str | None = None,
    one_document_per_file: bool = False,
) -> Facts:
    """Returns what became of documents, the pairs that they give, and the first pair of as many of them.

    Raises:
        UserError: There are no documents, or they have no such pairs.
    """
    documents, counts = read_documents(
        [pattern],
        title_column=title_column,
        text_column=text_column,
        one_document_per_file=one_document_per_file,
        option="FILE",
        text_option="--text_column",
    )
    rows, made = make_pairs(documents, kind)
    first = list({row.document: row for row in reversed(rows)}.values())[::-1][:show]
    texts = [draw_texts(row, np.random.default_rng(row.document)) for row in first]
    lines = [
        f"{name}: {one_line(text)}" for pair in texts for name, text in zip(("anchor", "positive"), pair, strict=True)
    ]
    return {"documents": str(counts), "pairs": str(made), "examples": lines}


def model_facts(folder: Path) -> Facts:
    """Returns what a model's folder says about itself; empty where there is no model."""
    if graph := read_json(folder / ONNX_SETTINGS):
        length = f"{graph.get('max_seq_length')} tokens"
        return {"model": "ONNX graph", "dimension": graph.get("dimension"), "max length": length}
    modules = _modules(folder)
    encoder = folder / modules[0]["path"] if modules else folder
    config = read_json(encoder / "config.json")
    if not config and not modules:
        return {}
    backbone = config.get("backbone_config", config)
    settings = read_json(folder / "config_sentence_transformers.json")
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    own = config.get("model_type") == "arccse"
    poolings = (_pooling(folder / module["path"]) for module in modules if "Pooling" in module["type"])
    pooling = next(poolings, "none" if modules else "none of its own; mean is taken")
    parameters, size = _weights(folder)
    dimension = config.get("hidden_size") or backbone.get("hidden_size") or backbone.get("dim")
    dense = [module["path"] for module in modules if module["type"].endswith("Dense")]
    for path in dense:
        dimension = read_json(folder / path / "config.json").get("out_features", dimension)
    prompts = {name: text for name, text in (settings.get("prompts") or config.get("prompts") or {}).items() if text}
    layers = backbone.get("num_hidden_layers") or backbone.get("n_layers")
    return {
        "model": "checkpoint of ArcCSE" if own else "sentence-transformers" if modules else "plain encoder",
        "architecture": f"{backbone.get('model_type')}, {layers} layers" if layers else backbone.get("model_type"),
        "modules": kinds,
        "pooling": config.get("pooling") if own else pooling,
        "dimension": dimension,
        "max length": f"{max_length(folder)} tokens" if max_length(folder) else "as long as it takes",
        "normalised": bool(config.get("normalize")) if own else "Normalize" in kinds,
        "similarity": config.get("similarity") if own else settings.get("similarity_fn_name") or "cosine",
        "prompts": [f"{name}: {text!r}" for name, text in prompts.items()],
        "weights": f"{parameters:,} parameters, {size / 1e6:,.1f} MB" if parameters else "not in the folder",
        "trained with": _trained_with(folder, config),
    }


def run_facts(folder: Path) -> Facts:
    """Returns what a run was and how far it came; empty where the folder is none of a run."""
    places = [folder, *checkpoints(folder)]
    status, settings, results = (read_json(record_path(folder, name)) for name in (STATUS, SETTINGS, RESULTS))
    if not status and not settings and len(places) == 1:
        return {}
    state = next((state for place in places if (state := read_json(record_path(place, STATE)))), {})
    data, training, model = (settings.get(group, {}) for group in ("data", "training", "model"))
    done = is_done(folder)
    before, after = metrics_of(results, "before_"), metrics_of(results)
    facts: Facts = {
        "run": "done" if done else "not done",
        "started": status.get("started"),
        "finished": status.get("finished"),
        "command": status.get("command"),
        "hardware": status.get("hardware"),
        "versions": ", ".join(f"{name} {version}" for name, version in status.get("versions", {}).items()),
        "from": model.get("model_name_or_path"),
        "text": data.get("train_file") or data.get("dataset_name"),
        "steps": _steps(state, training, results) if state else None,
        "scores": [
            f"{name}  {before[name]:.4f} -> {value:.4f}" if name in before else f"{name}  {value:.4f}"
            for name, value in after.items()
        ],
        "checkpoints": [place.name for place in places[1:]],
    }
    if not done:
        went = len(places) > 1
        facts["to go on"] = (
            f"the same command with --resume_from_checkpoint True goes on from {places[1].name}"
            if went
            else "there is no checkpoint; --overwrite_output_dir starts anew"
        )
    return {name: value for name, value in facts.items() if value not in (None, "", [])}


def max_length(folder: Path) -> int | None:
    """Returns the tokens that a model reads, as its files say; None where they say nothing."""
    if graph := read_json(folder / ONNX_SETTINGS):
        return graph.get("max_seq_length")
    modules = _modules(folder)
    folder = folder / modules[0]["path"] if modules else folder
    config = read_json(folder / "config.json")
    stated = [
        read_json(folder / "sentence_bert_config.json").get("max_seq_length"),
        config.get("max_seq_length"),
        read_json(folder / "tokenizer_config.json").get("model_max_length"),
        config.get("backbone_config", config).get("max_position_embeddings"),
    ]
    return next((length for length in stated if isinstance(length, int) and 0 < length < 10**9), None)


def _steps(state: Mapping[str, Any], training: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    step, last = state.get("global_step", 0), state.get("max_steps") or 0
    kept = kept_step(state, bool(training.get("load_best_model_at_end")))
    if exported := exported_in_words(results):
        return f"{step:,} of {last:,}; exported is {exported}"
    return f"{step:,} of {last:,}" + (f"; the weights are those of step {kept:,}" if kept != step else "")


def _trained_with(folder: Path, config: Mapping[str, Any]) -> str:
    model = read_json(record_path(folder, SETTINGS)).get("model") or config
    if "angular_margin" in model:
        return ", ".join(
            f"{name.replace('_', ' ')} {model[name]}"
            for name in ("angular_margin", "temperature", "triplet_margin")
            if name in model
        )
    return "README.md says more" if (folder / "README.md").is_file() else "nothing here tells"


def _pooling(folder: Path) -> str:
    config = read_json(folder / "config.json")
    if "pooling_mode" in config:
        mode = config["pooling_mode"]
        return "+".join(mode) if isinstance(mode, list) else str(mode)
    modes = [name.removeprefix("pooling_mode_") for name, value in config.items() if "pooling_mode" in name and value]
    return "+".join(name.removesuffix("_tokens").removesuffix("_token") for name in modes)


def _weights(folder: Path) -> tuple[int, int]:
    """Returns the number of parameters and the bytes of all safetensors files, from their headers."""
    parameters = size = 0
    for path in [*folder.glob("*.safetensors"), *folder.glob("[0-9]*_*/*.safetensors")]:
        try:
            with safe_open(path, "np") as tensors:
                names = tensors.keys()  # it is no dict, and cannot be iterated over
                parameters += sum(math.prod(tensors.get_slice(name).get_shape()) for name in names)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: is no whole safetensors file ({one_line(error)}); copy it again") from error
        size += path.stat().st_size
    return parameters, size


def _health(files: Sequence[RowFile], columns: Sequence[str], model: str, length: int | None) -> Facts:
    from datasets import Dataset
    from transformers import AutoTokenizer

    from ..data.cleaning import RowCleaner
    from ..data.collator import TRIPLET_MIN_TOKENS
    from ..data.health import text_health
    from ..data.tokenization import MAX_SEQ_LENGTH
    from .loading import require_tokenizer

    folder = Path(model).expanduser() if Path(model).expanduser().is_dir() else _find_model(model)
    limit = max_length(folder)
    # What training cuts at by default, and what the encoder reads.
    reads = limit or MAX_SEQ_LENGTH
    lengths = [length] if length else sorted({min(MAX_SEQ_LENGTH, reads), reads})
    rows = list(islice(_texts(files, columns), _MAX_ROWS))
    cleaner = RowCleaner(MIN_CHARS, ())
    kept = [rows[index] for index in cleaner.keep(rows)]
    if not kept:
        raise UserError(f"{files[0].source.where()}: no row can be trained on ({cleaner.counts})")
    modules = _modules(folder)
    encoder = folder / modules[0]["path"] if modules else folder
    try:
        tokenizer = AutoTokenizer.from_pretrained(encoder)
    except (OSError, ValueError) as error:
        raise UserError(f"--model {model}: there is no tokenizer in its folder ({one_line(error)[:200]})") from error
    require_tokenizer(tokenizer, f"--model {model}", read_json(encoder / "config.json").get("vocab_size"))
    texts = Dataset.from_dict(dict(zip(columns, map(list, zip(*kept, strict=True)), strict=True)))
    duplicates = cleaner.counts.duplicate
    seen = [
        text_health(texts, tokenizer, length, triplet_min_tokens=TRIPLET_MIN_TOKENS, duplicates=duplicates)
        for length in lengths
    ]
    looked_at = f"the first {_MAX_ROWS:,} rows: " if len(rows) == _MAX_ROWS else ""
    return {
        "tokenizer": model,
        "cleaning": f"{looked_at}{cleaner.counts}",
        "health": [str(health) for health in seen],
        "warnings": seen[0].warnings(limit),
    }


def _texts(files: Sequence[RowFile], columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yields the rows without surrounding whitespace, "" where there is no text."""
    for file in files:
        for name in columns:
            require_text(name, file.columns, file.source.where(), file.source.where())
        for number, values in file.rows(columns):
            texts = (file.text(value, number, name) for value, name in zip(values, columns, strict=True))
            yield tuple((text or "").lstrip("\ufeff").strip() for text in texts)


def _find_model(name: str) -> Path:
    """Returns the folder of a model that is named by a hub id or as a part of a package."""
    if name.startswith("package:"):
        from .loading import resolve_model_path

        return Path(resolve_model_path(name))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(_DESCRIBED)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"{name}: neither a file of text ({', '.join(KINDS)}), a folder, nor a hub id that can be reached; --pairs "
            "auto reads documents"
        ) from error


def _modules(folder: Path) -> list[dict[str, str]]:
    """Returns the type and the path of each module of sentence-transformers; empty where the folder has none."""
    path = folder / MODULES
    if not path.is_file():
        return []
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
        return [{name: str(module[name]) for name in ("type", "path")} for module in modules]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: holds no list of modules ({one_line(error)}); copy it again") from error


def _lines(value: object) -> list[str]:
    if isinstance(value, list):
        return [str(item) for item in value] or ["none"]
    return [{True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)]
