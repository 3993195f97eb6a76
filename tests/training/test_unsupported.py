"""Fields of TrainingArguments that would be ignored, or end in a traceback, are refused by name."""

import pytest

from arccse_hf.errors import UserError
from arccse_hf.training.arguments import ArcCSETrainingArguments

REFUSED = [
    ({"do_train": False}, "--do_train False: must be true; to measure without training"),
    ({"neftune_noise_alpha": 0.0}, "--neftune_noise_alpha 0.0: is not supported: .*cut by length"),
    ({"neftune_noise_alpha": 5.0}, "--neftune_noise_alpha 5.0: .*cut by length"),
    ({"do_predict": True}, "--do_predict True"),
    ({"remove_unused_columns": True}, "--remove_unused_columns True"),
    ({"label_smoothing_factor": 0.1}, "--label_smoothing_factor 0.1: must be a number 0; ArcCon.s labels"),
    ({"batch_eval_metrics": True}, "--batch_eval_metrics True"),
    ({"bf16_full_eval": True}, "--bf16_full_eval True: must be false; evaluation has the precision of training"),
    ({"eval_do_concat_batches": False}, "--eval_do_concat_batches False"),
    ({"use_liger_kernel": True}, "--use_liger_kernel True"),
    ({"auto_find_batch_size": True}, "--auto_find_batch_size True: must be false; fewer sentences would be another"),
    ({"enable_jit_checkpoint": True}, "--enable_jit_checkpoint True: .*SIGTERM"),
    ({"debug": "underflow_overflow"}, "--debug underflow_overflow"),
    (
        {"train_sampling_strategy": "group_by_length"},
        "group_by_length: .*random or sequential",
    ),
    ({"report_to": "clearml"}, "--report_to clearml: is not installed; pip install clearml"),
    ({"report_to": ["wandbb"]}, "--report_to wandbb: there is no such tracker; choose from .*wandb"),
    ({"optim": "adamw_bnb_8bit"}, "--optim adamw_bnb_8bit: .*bitsandbytes"),
    ({"optim": "grokadamw"}, "--optim grokadamw: .*pip install grokadamw"),
    ({"optim": "adafactor", "optim_args": "nonsense"}, "--optim_args nonsense"),
    ({"lr_scheduler_kwargs": {"foo": 1}}, "--lr_scheduler_type linear --lr_scheduler_kwargs {'foo': 1}: .*foo"),
    ({"lr_scheduler_type": "reduce_lr_on_plateau"}, "--lr_scheduler_type reduce_lr_on_plateau: is not supported: it"),
    ({"lr_scheduler_type": "greedy"}, "--lr_scheduler_type greedy: is not supported: it would take a better score"),
    ({"optim": "schedule_free_adamw"}, "--optim schedule_free_adamw: is not supported: checkpoints would hold other"),
    (
        {"include_num_input_tokens_seen": "all"},
        "--include_num_input_tokens_seen all: must be no or false; tokens are not",
    ),
    ({"activation_checkpointing": True, "train_last_layers": 1}, "--activation_checkpointing True: does not go with"),
    ({"lr_scheduler_type": "warmup_stable_decay"}, "--lr_scheduler_type warmup_stable_decay"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_what_is_not_supported_is_refused_in_one_line(settings, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        ArcCSETrainingArguments(output_dir=str(tmp_path), use_cpu=True, **settings)
    assert "\n" not in str(error.value)


def test_several_processes_without_an_accelerator_are_told_to_use_the_cpu(tmp_path, monkeypatch):
    """Accelerate would start their group, and take each for one process alone: both would write one folder."""
    monkeypatch.setattr("arccse_hf.training.unsupported.world_size", lambda: 2)
    with pytest.raises(UserError, match="--use_cpu True: is missing: 2 processes were started"):
        ArcCSETrainingArguments(output_dir=str(tmp_path))


def test_what_transformers_has_beyond_the_defaults_stays(tmp_path):
    for settings in (
        {"report_to": "none"},
        {"report_to": "all"},
        {"optim": "sgd"},
        {"optim": "adafactor"},
        {"optim": "rmsprop"},
        {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 2}},
        {"train_sampling_strategy": "sequential"},
    ):
        ArcCSETrainingArguments(output_dir=str(tmp_path), use_cpu=True, **settings)
