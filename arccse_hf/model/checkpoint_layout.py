"""What sentence-transformers needs beside the weights of a checkpoint to embed as the exported folder will."""

import json
import os
from pathlib import Path

from .configuration_arccse import ArcCSEConfig


def write_layout(folder: str | os.PathLike, config: ArcCSEConfig) -> None:
    """Writes sentence-transformers' files, so that `SentenceTransformer(folder)` gives `ArcCSEModel`'s embeddings.

    Without them it would take the mean of the token embeddings, whatever the pooling is.

    Args:
        folder: Of the checkpoint.
        config: Of its model.
    """
    modules = ["sentence_transformers.models.Transformer"]
    if config.normalize:
        modules.append("sentence_transformers.models.Normalize")
    files = {
        "modules.json": [
            {
                "idx": number,
                "name": str(number),
                "path": f"{number}_{name.rpartition('.')[2]}" * bool(number),
                "type": name,
            }
            for number, name in enumerate(modules)
        ],
        "sentence_bert_config.json": {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}},
            "module_output_name": "sentence_embedding",
            **({"max_seq_length": config.max_seq_length} if config.max_seq_length else {}),
        },
        "config_sentence_transformers.json": {
            "prompts": config.prompts or {},
            "default_prompt_name": config.default_prompt_name,
            "similarity_fn_name": config.similarity,
        },
    }
    for name, content in files.items():
        Path(folder, name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
