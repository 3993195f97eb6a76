"""`arccse export`: any encoder or checkpoint as a finished sentence-transformers folder, or as an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..data.installed_docs import docstring_corpus
from ..errors import UserError
from ..evaluation.suite import TaskSuite
from ..evaluation.tasks import load_tasks
from .embed import embed
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
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if to == "onnx":
        # Sentences that every machine has: the docstrings of the numerical library underneath.
        sentences = docstring_corpus(["numpy"]).sentences[:_CHECKED_SENTENCES]
        checks = export_onnx(encoder.model, output_dir, sentences, quantize=quantize)
        console.print(_table(checks, _scores(encoder, output_dir, suite, quantize) if suite else []))
    else:
        with new_folder(output_dir, "--output_dir") as staging:
            with without_loading_bar():
                encoder.model.save(str(staging), create_model_card=False)
            share_weights(staging)
    console.print(f"written: {output_dir}")
    return 0


def _scores(encoder: Encoder, output_dir: Path, suite: TaskSuite, quantize: bool) -> list[dict[str, float]]:
    names = [GRAPH, QUANTIZED_GRAPH] if quantize else [GRAPH]
    encoders = [encoder, *(load_encoder(str(output_dir / graph)) for graph in names)]
    return [suite.flatten(suite.score(embed(each, suite.sentences))) for each in encoders]


def _table(checks: Sequence[GraphCheck], scores: Sequence[dict[str, float]]) -> Table:
    metrics = list(scores[0]) if scores else []
    table = Table("weights", "MB", "least cosine", "mean cosine", "sentences/s", *metrics)
    for number, check in enumerate(checks):
        values = [f"{scores[number][metric]:.4f}" for metric in metrics]
        speed = f"{check.sentences_per_second:,.0f}"
        table.add_row(
            check.name, f"{check.megabytes:.1f}", f"{check.min_cosine:.6f}", f"{check.mean_cosine:.6f}", speed, *values
        )
    return table
