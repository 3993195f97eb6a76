"""What the types of the arguments do not say: ranges, other spellings, and what no run of ArcCSE can have.

`fields.py` puts this into the table that the command line reads, and the arguments check themselves against it.
"""

from ..cli.options import Interval
from ..errors import UserError

_STEPS, _COUNT, _SEED = "(0, 1e9]", "[1, 1000000000]", "[0, 4294967295]"

INTERVALS = {
    # The heads and the triplets.
    "temperature": "[0.001, 100]",
    "angular_margin": "[0, 90)",
    "triplet_margin": "[0, 2)",
    "matryoshka_dims": "[1, 1000000]",
    "matryoshka_weights": "(0, 1e6]",
    "triplet_weight": "[0, 1e6]",
    "small_span_ratio": "(0, 1)",
    "large_span_ratio": "(0, 1)",
    "triplet_min_tokens": "[0, 1000000000]",
    "train_last_layers": "[1, 10000]",
    "lora_r": "[1, 10000]",
    "lora_alpha": "[1, 1000000]",
    "lora_dropout": "[0, 1)",
    "anchor_weight": "[0, 1e6]",
    "false_negative_threshold": "[-1, 1]",
    # Text.
    "max_seq_length": "[3, 1000000]",
    "max_train_samples": _COUNT,
    "streaming_shuffle_buffer": _COUNT,
    "crop_deletion": "[0, 1)",
    "min_chars": "[0, 1000000000]",
    "preprocessing_num_workers": "[1, 1024]",
    "dataloader_num_workers": "[0, 1024]",
    "dataloader_prefetch_factor": "[1, 1000000]",
    # Batches and steps.
    "per_device_train_batch_size": _COUNT,
    "per_device_eval_batch_size": _COUNT,
    "grad_cache_chunk_size": _COUNT,
    "gradient_accumulation_steps": _COUNT,
    "num_train_epochs": "(0, 1e6]",
    "max_steps": f"-1 or {_COUNT}",
    "warmup_steps": "[0, 1e9]",
    "logging_steps": _STEPS,
    "eval_steps": _STEPS,
    "save_steps": _STEPS,
    "eval_delay": "[0, 1e9]",
    "eval_accumulation_steps": _COUNT,
    "torch_empty_cache_steps": _COUNT,
    "save_total_limit": _COUNT,
    "early_stopping_patience": _COUNT,
    # The optimizer.
    "learning_rate": "[0, 1e6]",
    "weight_decay": "[0, 1e6]",
    "adam_beta1": "[0, 1)",
    "adam_beta2": "[0, 1)",
    "adam_epsilon": "(0, 1]",
    "max_grad_norm": "[0, 1e9]",
    "neftune_noise_alpha": "[0, 1e6]",
    # The rest.
    "seed": _SEED,
    "data_seed": _SEED,
    "ddp_bucket_cap_mb": _COUNT,
    "ddp_timeout": _COUNT,
    "local_rank": "[-1, 1000000]",
    "label_smoothing_factor": "[0, 0]",
}
"""The values that a number may have, for every number among the fields: see `Interval`."""

CHOICES = {
    "remove_unused_columns": ("false",),
    "auto_find_batch_size": ("false",),
    "batch_eval_metrics": ("false",),
    "bf16_full_eval": ("false",),
    "fp16_full_eval": ("false",),
    "eval_do_concat_batches": ("true",),
    "use_liger_kernel": ("false",),
    "do_train": ("true",),
    "do_predict": ("false",),
    "dataloader_persistent_workers": ("false",),
    "include_num_input_tokens_seen": ("no", "false"),
    "enable_jit_checkpoint": ("false",),
    "torch_compile_mode": ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
    "debug": ("",),
    "train_sampling_strategy": ("random", "sequential"),
}
"""What a field may be, where ArcCSE allows less than transformers does."""

REFUSED = {"lr_scheduler_type": ("reduce_lr_on_plateau", "greedy")}
"""Choices of transformers that are none here."""

REASONS = {
    "lr_scheduler_type": "reduce_lr_on_plateau and greedy would take a better score for a worse one",
    "label_smoothing_factor": "ArcCon's labels are positions, which are not smoothed",
    "remove_unused_columns": "the collator reads columns that the model's forward has not",
    "bf16_full_eval": "evaluation has the precision of training; arccse evaluate --dtype measures in another",
    "fp16_full_eval": "evaluation has the precision of training; arccse evaluate --dtype measures in another",
    "auto_find_batch_size": "fewer sentences would be another task; --grad_cache_chunk_size fits any batch into memory",
    "batch_eval_metrics": "a correlation is one of all pairs, not of a batch",
    "eval_do_concat_batches": "a correlation is one of all pairs, not of a batch",
    "use_liger_kernel": "it replaces losses and layers of language models",
    "dataloader_persistent_workers": "a resumed run would draw other dropout masks than one that was never stopped",
    "neftune_noise_alpha": "its noise would depend on how a batch is cut by length",
    "do_predict": "there is nothing to predict; arccse encode embeds files of text",
    "include_num_input_tokens_seen": "tokens are not counted; rows per second stand in the log",
    "enable_jit_checkpoint": "on SIGTERM a checkpoint is written anyway",
    "do_train": "to measure without training there is arccse evaluate",
    "debug": "its hooks do not know the outputs of this model",
    "train_sampling_strategy": "a batch is cut by length within each step already",
}
"""Why a field allows less than it seems to."""

ALIASES = {"model_name_or_path": ("model",)}
OLD_NAMES = {"cosine_samples": ("snapshots",)}
COMMAS = ("eval_tasks", "lora_target_modules", "pair_weights")
"""Of the fields of text, those whose values have no commas: commas separate them."""

SUGGESTIONS = {
    "batch_size": "per_device_train_batch_size",
    "train_batch_size": "per_device_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "lr": "learning_rate",
    "margin": "angular_margin",
    "tau": "temperature",
    "epochs": "num_train_epochs",
    "steps": "max_steps",
    "warmup_ratio": "warmup_steps",
    "max_length": "max_seq_length",
    "pooler_type": "pooling",
    "mlp_only_train": "it is --projection mlp_train_only here",
    "do_mlm": "masked words are no objective here; leave it out",
    "mlm_weight": "masked words are no objective here; leave it out",
    "hard_negative_weight": "hard negatives weigh as much as others; leave it out",
    "pad_to_max_length": "a batch is padded to its longest text; leave it out",
    "evaluation_strategy": "eval_strategy",
    "data": "train_file",
    "tasks": "eval_tasks",
    "workers": "dataloader_num_workers",
    "patience": "early_stopping_patience",
    "direction": "the metric decides whether more is better; --greater_is_better sets it",
    "trust_remote_code": "encoders that bring their own code are not supported: their checkpoints would not open again",
}
"""Names that people try, and the field that they mean or the way out."""

COMMON_TRAINER_FIELDS = (
    "output_dir learning_rate num_train_epochs max_steps per_device_train_batch_size gradient_accumulation_steps "
    "warmup_steps lr_scheduler_type weight_decay max_grad_norm bf16 fp16 torch_compile seed logging_steps "
    "eval_strategy eval_steps save_strategy save_steps save_total_limit metric_for_best_model load_best_model_at_end "
    "resume_from_checkpoint report_to dataloader_num_workers use_cpu"
).split()
"""Of the fields that transformers has, those that help explains; the others are listed by name."""


def check_rules(arguments: object) -> None:
    """Raises UserError where a field of `arguments` has a value that the rules leave out.

    Args:
        arguments: An instance of one of the dataclasses of `arguments.py`; None and missing fields are passed over.
    """
    for name, text in INTERVALS.items():
        given, allowed = getattr(arguments, name, None), Interval(text)
        for value in given if isinstance(given, list) else [] if given is None else [given]:
            if isinstance(value, bool) or not isinstance(value, int | float) or value not in allowed:
                raise UserError(f"--{name} {value}: must be a number {allowed}{_because(name)}")
    for name, choices in CHOICES.items():
        value = getattr(arguments, name, None)
        if value is None or value == []:
            continue
        if str(value).lower() not in choices:
            raise UserError(f"--{name} {value}: must be {' or '.join(choices) or 'left out'}{_because(name)}")


def _because(name: str) -> str:
    return f"; {REASONS[name]}" if name in REASONS else ""
