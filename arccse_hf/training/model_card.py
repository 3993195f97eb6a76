"""The README.md of a trained model: how to use it, what trained it, what it scored; with the metadata of model hubs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, try_to_load_from_cache

from ..data.cleaning import CleaningCounts
from ..data.pairs import PairCounts
from ..errors import one_line
from ..evaluation.suite import Task, split_dim
from ..evaluation.tables import dims_table, label
from ..run_folder import CARD
from .arguments import ArcCSETrainingArguments, DataArguments
from .judging import verdict_section
from .model_arguments import ModelArguments
from .provenance import command_line, hardware, package_versions, without_folder
from .verdict import Verdict

TEMPLATE = Path(__file__).with_name("model_card_template.md")

_PAPERS = {
    "ArcCSE": "https://aclanthology.org/2022.acl-long.336/",
    "SimCSE": "https://aclanthology.org/2021.emnlp-main.552/",
}
CITATIONS = {
    "ArcCSE": """@inproceedings{zhang-etal-2022-contrastive,
    title = "A Contrastive Framework for Learning Sentence Representations from Pairwise and Triple-wise Perspective in
             Angular Space",
    author = "Zhang, Yuhao and Zhu, Hongji and Wang, Yongliang and Xu, Nan and Li, Xiaobo and Zhao, Binqiang",
    booktitle = "Proceedings of ACL 2022 (Volume 1: Long Papers)",
    year = "2022",
    url = "https://aclanthology.org/2022.acl-long.336",
}""",
    "SimCSE": """@inproceedings{gao-etal-2021-simcse,
    title = "{S}im{CSE}: Simple Contrastive Learning of Sentence Embeddings",
    author = "Gao, Tianyu and Yao, Xingcheng and Chen, Danqi",
    booktitle = "Proceedings of EMNLP 2021",
    year = "2021",
    url = "https://aclanthology.org/2021.emnlp-main.552",
}""",
}
_POOLING_IN_WORDS = {
    "cls": "the first token of `last_hidden_state`",
    "mean": "the mean of `last_hidden_state` over the attention mask",
    "mean_first_last": "the masked mean of the first and the last of `hidden_states` behind the embeddings, averaged",
    "mean_top2": "the masked mean of the last two `hidden_states`, averaged",
}
_DENSE = ", through the Linear and the Tanh that lie in the folder of the Dense module"
_PROTOCOLS = {
    "sts": 'STS: Spearman\'s correlation of cosines with gold scores, the pairs of all subsets in one ranking ("all").',
    "retrieval": "Retrieval by cosine: each right document of a query is looked for in turn among all but its others.",
    "transfer": "Transfer: accuracy of a logistic regression on the embeddings, as SentEval trains it.",
    "geometry": "Geometry: alignment, uniformity and mean cosine of embeddings of length 1; lower is better.",
}
_TASK_TYPES = {
    "sts": "semantic-similarity",
    "retrieval": "information-retrieval",
    "transfer": "text-classification",
}
"""What hubs call the groups of tasks."""


def model_card(
    model_args: ModelArguments,
    data_args: DataArguments,
    args: ArcCSETrainingArguments,
    *,
    counts: CleaningCounts | PairCounts,
    tasks: Sequence[Task] = (),
    before: Mapping[str, float] | None = None,
    after: Mapping[str, float] | None = None,
    settings: Mapping[str, object] | None = None,
    verdict: Verdict | None = None,
) -> ModelCard:
    """Returns the card of a run. Neither a folder of this machine nor a name of its user stands in it.

    Args:
        model_args: Of the run.
        data_args: Of the run.
        args: Of the run.
        counts: What became of the training rows.
        tasks: What was measured.
        before: Metrics of the untrained encoder, by name; empty where nothing was measured.
        after: The same of the trained one.
        settings: The fields that were given, on the command line or in the recipe; None: the texts were in memory, and
            no command gives this run again.
        verdict: Whether it became better than its base, if that was measured.
    """
    before, after = before or {}, after or {}
    name = args.hub_model_id if args.push_to_hub and args.hub_model_id else Path(args.output_dir).resolve().name
    method = "ArcCSE" if model_args.angular_margin or args.triplet_weight else "SimCSE"
    base = without_folder(model_args.model_name_or_path.split("#")[0])
    assert model_args.pooling is not None  # training has decided it
    return ModelCard.from_template(
        _metadata(model_args, data_args, method, name, tasks, after),
        template_path=str(TEMPLATE),
        title=_text(name),
        method=method,
        paper=_PAPERS[method],
        base=inline_code(base),
        name=json.dumps(name, ensure_ascii=False),
        pooling=_POOLING_IN_WORDS[model_args.pooling] + (_DENSE if model_args.projection == "mlp" else ""),
        data=_data_in_words(data_args, counts),
        settings={setting: _cell(str(value)) for setting, value in _settings(model_args, args).items()},
        command=_fenced(command_line(settings)) if settings else "",
        hardware=hardware(args),
        versions=", ".join(f"{package} {version}" for package, version in package_versions().items()),
        results=[
            (_cell(metric), f"{before[metric]:.4f}" if metric in before else "-", f"{value:.4f}")
            for metric, value in after.items()
            if split_dim(metric)[1] is None
        ],
        dims=dims_table(after),
        truncate_dim=min(model_args.matryoshka_dims, default=None),
        verdict="" if verdict is None else verdict_section(verdict),
        keeps_start=verdict is not None and verdict.keeps_start,
        protocols=[_PROTOCOLS[group] for group in dict.fromkeys(task.group for task in tasks) if group in _PROTOCOLS],
        citation=CITATIONS[method],
    )


def _metadata(
    model_args: ModelArguments,
    data_args: DataArguments,
    method: str,
    name: str,
    tasks: Sequence[Task],
    after: Mapping[str, float],
) -> ModelCardData:
    results = [
        EvalResult(
            task_type=_TASK_TYPES.get(task.group, "sentence-similarity"),
            dataset_type=task.name,
            dataset_name=label(task.name),
            metric_type=metric,
            metric_name=label(metric),
            metric_value=round(after[f"{task.name}_{metric}"], 6),
        )
        for task in tasks
        for metric in task.main_metrics
        if math.isfinite(after.get(f"{task.name}_{metric}", math.nan))
    ]
    base = model_args.model_name_or_path
    on_hub = not base.startswith("package:") and not Path(base).exists()
    dataset = data_args.dataset_name
    public = [] if dataset in (None, "installed-docs") or Path(str(dataset)).exists() else [str(dataset)]
    facts: dict[str, Any] = _facts_of_base(base, model_args.model_revision)
    return ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=["sentence-transformers", "sentence-similarity", "feature-extraction", method.lower()],
        base_model=base if on_hub else None,
        datasets=public or None,
        model_name=name if results else None,
        eval_results=results or None,
        **facts,
    )


def _facts_of_base(base: str, revision: str) -> dict[str, str | list[str]]:
    """Licence and language, which the trained model has from its base, where the base's card is on this machine."""
    path = Path(base, CARD) if Path(base).is_dir() else _cached_card(base, revision)
    if path is None or not path.is_file():
        return {}
    try:
        data = ModelCard.load(path).data
    except (OSError, ValueError, yaml.YAMLError):  # a card that cannot be read says nothing
        return {}
    names = ("language", "license", "license_name", "license_link")
    return {name: value for name in names if (value := data.get(name)) is not None}


def _cached_card(name: str, revision: str) -> Path | None:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):  # no id of a hub
        return None
    path = try_to_load_from_cache(name, CARD, revision=revision)
    return Path(path) if isinstance(path, str) else None


def _settings(model_args: ModelArguments, args: ArcCSETrainingArguments) -> dict[str, object]:
    """The settings that decide about the result, as they were in force."""
    objective = f"ArcCon, {model_args.angular_margin:g} degrees" if model_args.angular_margin else "NT-Xent"
    if args.triplet_weight:
        objective += f" + {args.triplet_weight:g} x triplet"
    precision = "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32"
    settings = {
        "objective": objective,
        "temperature": model_args.temperature,
        "pooling": model_args.pooling,
        "projection": model_args.projection,
        "batch": f"{args.per_device_train_batch_size} x {args.world_size} processes x "
        f"{args.gradient_accumulation_steps} accumulation steps",
        "max_seq_length in training": args.max_seq_length,
        "learning rate": f"{args.learning_rate:g}, {getattr(args.lr_scheduler_type, 'value', args.lr_scheduler_type)}",
        "length": f"{args.max_steps} steps" if args.max_steps > 0 else f"{args.num_train_epochs:g} epochs",
        "weights kept": "of the best checkpoint" if args.load_best_model_at_end else "of the last step",
        "precision": precision,
        "seed": args.seed,
    }
    if args.early_stopping_patience is not None:
        settings["length"] += f" at most, until {args.early_stopping_patience} measurements brought nothing better"
    if args.load_best_model_at_end:
        settings["weights kept"] += f" by {args.metric_for_best_model}"
    if args.triplet_weight:
        settings |= {
            "spans": f"{args.small_span_ratio:g} inside {args.large_span_ratio:g} ({args.span_corruption})",
            "triplets": f"from {args.triplet_min_tokens} tokens, dropout {'on' if args.triplet_dropout else 'off'}",
            "triplet margin": model_args.triplet_margin,
        }
    if model_args.matryoshka_dims:
        settings["dimensions trained"] = ", ".join(map(str, model_args.matryoshka_dims))
    if args.anchor_weight:
        settings["anchor weight"] = args.anchor_weight
    if args.train_last_layers is not None:
        settings["layers trained"] = f"the last {args.train_last_layers}"
    if args.lora_r is not None:
        modules = ", ".join(args.lora_target_modules) or "all linear layers"
        settings["LoRA"] = f"rank {args.lora_r}, alpha {args.lora_alpha:g}, on {modules}; merged"
    if args.false_negative_threshold is not None:
        settings["negatives left out"] = f"above a cosine of {args.false_negative_threshold:g} before training"
    return settings


def _data_in_words(data_args: DataArguments, counts: CleaningCounts | PairCounts) -> str:
    sources = [data_args.dataset_name] if data_args.dataset_name else data_args.train_file
    source = inline_code(", ".join(map(without_folder, sources))) if sources else "given in memory"
    if isinstance(counts, PairCounts):
        return f"Text: {source}; {counts}."
    most = data_args.max_train_samples
    used = f" {most:,} of them were drawn at random." if most is not None and most < counts.kept else ""
    return f"Text: {source}; {counts}.{used}"


def _fenced(command: str) -> str:
    """A command as a fenced block of Markdown."""
    fence = "`" * max(3, 1 + _longest_run(command))
    return f"{fence}bash\n{command}\n{fence}"


def inline_code(text: str) -> str:
    """Returns `text` as Markdown code within a line, whatever it holds.

    Example:
        >>> inline_code("a`b|c")
        '``a`b|c``'
    """
    text = one_line(text)
    fence = "`" * (1 + _longest_run(text))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _text(text: str) -> str:
    """A name as plain text: what Markdown or HTML would take for markup is escaped."""
    return re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", escape(one_line(text), quote=False))


def _cell(text: str) -> str:
    return escape(one_line(text), quote=False).replace("|", "\\|")
