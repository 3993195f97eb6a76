"""The README.md of a trained model: how to use it, what trained it, what it scored."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from ..data.cleaning import CleaningCounts
from .arguments import ArcCSETrainingArguments, DataArguments, ModelArguments

_CARD = """---
{front_matter}---

# {title}

A sentence encoder: texts to vectors of one space, for search, deduplication and clustering. It was trained with
[ArcCSE](https://aclanthology.org/2022.acl-long.336/) from `{base}`.

## Use

```python
from sentence_transformers import SentenceTransformer

embeddings = SentenceTransformer("{output_dir}").encode(["one text", "another text"])  # compare by cosine
```

Or with transformers alone: `AutoModel.from_pretrained("{output_dir}")`, then {pooling}.

## Training

{data}

| setting | value |
|---|---|
{settings}

## Results

{results}

## Citation

```bibtex
@inproceedings{{zhang-etal-2022-contrastive,
    title = "A Contrastive Framework for Learning Sentence Representations from Pairwise and Triple-wise Perspective in
             Angular Space",
    author = "Zhang, Yuhao and Zhu, Hongji and Wang, Yongliang and Xu, Nan and Li, Xiaobo and Zhao, Binqiang",
    booktitle = "Proceedings of ACL 2022 (Volume 1: Long Papers)",
    year = "2022",
    url = "https://aclanthology.org/2022.acl-long.336",
}}
```
"""

_POOLING_IN_WORDS = {
    "cls": "the first token of `last_hidden_state`",
    "mean": "the mean of `last_hidden_state` over the attention mask",
    "mean_first_last": "the masked mean of the first and the last of `hidden_states` behind the embeddings, averaged",
    "mean_top2": "the masked mean of the last two `hidden_states`, averaged",
}
_DENSE = ", through the Linear and the Tanh that lie in the folder of the Dense module"


def model_card(
    model_args: ModelArguments,
    data_args: DataArguments,
    args: ArcCSETrainingArguments,
    *,
    counts: CleaningCounts,
    before: Mapping[str, float],
    after: Mapping[str, float],
) -> str:
    """The card's text, with the front matter that model hubs read.

    Args:
        model_args: of the run.
        data_args: of the run.
        args: of the run.
        counts: what became of the training rows.
        before: metrics of the untrained encoder, by name; empty where nothing was measured.
        after: the same of the trained one.
    """
    base = model_args.model_name_or_path.split("#")[0]
    objective = f"ArcCon, {model_args.angular_margin:g} degrees" if model_args.angular_margin else "NT-Xent"
    if args.triplet_weight:
        objective += f" + {args.triplet_weight:g} x triplet"
    settings = {
        "objective": objective,
        "temperature": model_args.temperature,
        "pooling": model_args.pooling,
        "projection": model_args.projection or "default of the pooling",
        "batch": f"{args.per_device_train_batch_size} x {args.world_size} processes x "
        f"{args.gradient_accumulation_steps} accumulation steps",
        "max_seq_length in training": args.max_seq_length,
        "learning rate": f"{args.learning_rate:g}, {getattr(args.lr_scheduler_type, 'value', args.lr_scheduler_type)}",
        "length": f"{args.max_steps} steps" if args.max_steps > 0 else f"{args.num_train_epochs:g} epochs",
        "seed": args.seed,
    }
    if args.triplet_weight:
        settings |= {
            "spans": f"{args.small_span_ratio:g} inside {args.large_span_ratio:g} ({args.span_corruption})",
            "triplets": f"from {args.triplet_min_tokens} tokens, dropout {'on' if args.triplet_dropout else 'off'}",
            "triplet margin": model_args.triplet_margin,
        }
    source = data_args.dataset_name or ", ".join(Path(file).name for file in data_args.train_file)
    used = f" {data_args.max_train_samples:,} of them were drawn at random." if data_args.max_train_samples else ""
    return _CARD.format(
        front_matter=_front_matter(base),
        title=args.output_dir.rstrip("/").split("/")[-1],
        base=base,
        output_dir=args.output_dir,
        pooling=_POOLING_IN_WORDS[model_args.pooling] + (_DENSE if model_args.projection == "mlp" else ""),
        data=f"Text: `{source}`; {counts}.{used}",
        settings="\n".join(f"| {name} | {value} |" for name, value in settings.items()),
        results=_results(before, after),
    )


def _front_matter(base: str) -> str:
    tags = ["sentence-transformers", "sentence-similarity", "feature-extraction", "arccse"]
    fields = {"library_name": "sentence-transformers", "pipeline_tag": "sentence-similarity", "tags": tags}
    if not base.startswith(("package:", "/", ".")):
        fields["base_model"] = base
    return yaml.safe_dump(fields, sort_keys=False)


def _results(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    if not after:
        return "Nothing was measured in this run."
    lines = ["| metric | before | after |", "|---|---|---|"]
    for name, value in after.items():
        lines.append(f"| {name} | {format(before[name], '.4f') if name in before else ''} | {value:.4f} |")
    return "\n".join(lines)
