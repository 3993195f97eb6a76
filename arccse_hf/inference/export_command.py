"""`arccse export`: any encoder or checkpoint as a finished sentence-transformers folder, or as an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..data.installed_docs import docstring_corpus
from ..errors import UserError
from ..evaluation.suite import TaskSuite
from ..evaluation.tables import ResultTable, print_table, table_console
from ..evaluation.tasks import load_tasks
from .evaluate import embed_suite
from .export import share_weights
from .loading import without_loading_bar
from .new_folder import new_folder, require_unused
from .onnx import GRAPH, QUANTIZED_GRAPH, GraphCheck, OnnxEncoder, export_onnx
from .open import Encoder, load_encoder

_CHECKED_SENTENCES = 200


def export_and_print(
    name: str,
    output_dir: Path,
    *,
    to: str = "sentence-transformers",
    quantize: bool = False,
    pooling: str | None = None,
    eval_tasks: Sequence[str] = (),
    eval_data: str | None = None,
) -> int:
    """Writes the encoder, prints how the result compares, and returns the exit status 0.

    Args:
        name: See `load_encoder`; a checkpoint of a run that was stopped will do.
        output_dir: A folder that does not exist or is empty.
        to: "sentence-transformers" or "onnx".
        quantize: Whether to write an int8 graph too.
        pooling: Instead of the model's own.
        eval_tasks: What to score the model and each graph on; see `load_tasks`.
        eval_data: See `load_tasks`.

    Raises:
        UserError: There is no such model, it has weights that are not finite, the folder is in use or cannot be
            written, or the graph differs from the model.
    """
    require_unused(output_dir, "--output_dir")
    suite = TaskSuite(load_tasks(list(eval_tasks), eval_data)) if eval_tasks else None
    encoder = load_encoder(name, pooling=pooling)
    if isinstance(encoder.model, OnnxEncoder):
        raise UserError(f"MODEL {name}: is an ONNX graph already; give the folder that it was made from")
    broken = next((weight for weight, values in encoder.model.named_parameters() if not values.isfinite().all()), None)
    if broken:
        raise UserError(f"MODEL {name}: the weight {broken} has values that are not finite; give another checkpoint")
    encoder.model.to("cpu")
    if to == "onnx":
        graphs = [GRAPH, QUANTIZED_GRAPH] if quantize else [GRAPH]
        # Sentences that every machine has: the docstrings of the numerical library underneath.
        sentences = docstring_corpus(["numpy"]).sentences[:_CHECKED_SENTENCES]
        checks = export_onnx(encoder.model, output_dir, sentences, quantize=quantize)
        print_table(_table(checks, _scores(encoder, output_dir, suite, graphs) if suite else []), table_console())
        for graph in graphs:
            opens = output_dir if graph == GRAPH else output_dir / graph
            print(f"written: {output_dir / graph}, which --model {opens} opens")
    else:
        with new_folder(output_dir, "--output_dir") as staging:
            with without_loading_bar():
                encoder.model.save(str(staging), create_model_card=False)
            share_weights(staging)
        print(f"written: {output_dir}")
    return 0


def _scores(encoder: Encoder, output_dir: Path, suite: TaskSuite, graphs: Sequence[str]) -> list[dict[str, float]]:
    encoders = [encoder, *(load_encoder(str(output_dir / graph)) for graph in graphs)]
    return [suite.flatten(suite.score(embed_suite(each, suite, show_progress=False)[1])) for each in encoders]


def _table(checks: Sequence[GraphCheck], scores: Sequence[dict[str, float]]) -> ResultTable:
    """Returns one column per graph, so that any number of metrics fits a terminal."""
    rows = [
        ["MB", *(f"{check.megabytes:.1f}" for check in checks)],
        ["least cosine", *(f"{check.min_cosine:.6f}" for check in checks)],
        ["mean cosine", *(f"{check.mean_cosine:.6f}" for check in checks)],
        ["sentences/s", *(f"{check.sentences_per_second:,.0f}" for check in checks)],
        *([metric, *(f"{each[metric]:.4f}" for each in scores)] for metric in (scores[0] if scores else ())),
    ]
    return ResultTable("compared with PyTorch", ["weights", *(check.name for check in checks)], rows, set())
