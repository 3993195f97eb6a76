"""`train`: from texts in memory to an exported model, in one call."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum

from datasets import Dataset

from ..cli.options import Settings
from ..data.training_texts import texts_as_dataset
from .config import parse_arguments
from .script import TrainResult, run


def train(
    texts: Dataset | Iterable[str] | Iterable[Sequence[str]],
    model: str,
    output_dir: str | os.PathLike,
    **settings: object,
) -> TrainResult:
    """Fine-tunes an encoder on texts, measures it and exports it, as `arccse train` does.

    Args:
        texts: Sentences; (anchor, positive) pairs; (anchor, positive, hard negative) triples; or a Dataset of such
            columns. Empty, very short and duplicate rows are dropped, and counted in the log.
        model: Encoder to start from: a hub id, a folder, or `package:NAME/PATH`.
        output_dir: Folder for the model, which `SentenceTransformer` and `AutoModel` open.
        settings: Any field of `ModelArguments`, `DataArguments` and `ArcCSETrainingArguments` by its name, as a recipe
            has it; None leaves its default.

    Returns:
        The folder, and the scores before and after training where `eval_data` or `eval_tasks` say what to measure.

    Raises:
        UserError: There is no such setting, its value is impossible, or the texts are none; nothing is trained then.

    Example:
        >>> result = train(sentences, "bert-base-uncased", "out", eval_data="scored.csv", num_train_epochs=3)
        >>> result.before["scored_spearman"], result.after["scored_spearman"]
    """
    given = {"model_name_or_path": model, "output_dir": output_dir, **settings}
    # As text, so that one table checks names, types and choices.
    as_text: Settings = {
        name: [_as_text(item) for item in value] if isinstance(value, list | tuple) else _as_text(value)
        for name, value in given.items()
        if value is not None
    }
    return run(*parse_arguments(as_text, texts_given=True), texts=texts_as_dataset(texts))


def _as_text(value: object) -> str:
    if isinstance(value, Mapping):
        return json.dumps(value)
    return str(value.value if isinstance(value, Enum) else value)
