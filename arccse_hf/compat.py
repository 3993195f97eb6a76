"""Private interfaces of other libraries that this package cannot do without, each with its reason.

No other file uses one. `tests/test_compat.py` fails where a new version of a library changes what stands here.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator
from ssl import SSLError
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import Request, urlopen

if TYPE_CHECKING:
    from datasets import Dataset
    from torch.utils.data import Sampler
    from transformers import Trainer


logger = logging.getLogger(__name__)


@functools.cache
def use_caches_where_hub_is_out_of_reach() -> None:
    """Asks the hub once; where it does not answer, what is in the caches is used, and what is not there fails at once.

    The libraries would try each file that a model may have six times, for half a minute. Their switch is an environment
    variable, which they read when they are imported.
    """
    import datasets
    from huggingface_hub import constants, is_offline_mode

    if is_offline_mode():
        return
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=10).close()
    except HTTPError:  # an answer all the same
        return
    except OSError as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, SSLError):  # the libraries may know the certificate
            return
        logger.warning(f"the hub ({constants.ENDPOINT}) cannot be reached ({reason}): what is in its cache is used")
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True


@contextlib.contextmanager
def without_zero3_init() -> Iterator[None]:
    """Loads unpartitioned weights even under DeepSpeed ZeRO-3; `Trainer` partitions them later.

    transformers can forget its DeepSpeed configuration by a public function, but has none that returns it, so that it
    could be set again.
    """
    from transformers.integrations import deepspeed

    config = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = config


def train_sampler(trainer: Trainer) -> Sampler | None:
    """Returns the order of the training rows by `train_sampling_strategy`; None for a stream.

    `Trainer.get_train_dataloader`, which is made to be overridden, gets it from there.
    """
    return trainer._get_train_sampler()


def train_batch_size(trainer: Trainer) -> int:
    """Returns the rows per process and batch: those of the arguments, or fewer with `auto_find_batch_size`."""
    return trainer._train_batch_size


def dataset_fingerprint(dataset: Dataset) -> str:
    """Returns the hash of a dataset's rows and of all that was done to them.

    `Dataset.map` makes its cache key of this and of a hash of the function. `tokenize_texts` makes a key of its own,
    because the hash of a tokenizer changes with what it tokenised before.
    """
    return dataset._fingerprint


def reset_fsspec_lock() -> None:
    """Has fsspec make a new lock in a forked process, which lacks the thread that may hold the old one."""
    import fsspec.asyn

    fsspec.asyn.reset_lock()


HOOKS = {
    "Trainer._save_checkpoint": "a checkpoint is staged, sealed and only then put in its place",
    "Trainer._init_training_state": "a resumed run finds its best checkpoint, and takes this run's steps to measure at",
    "Trainer._evaluate": "a resumed run does not measure once more what its checkpoint holds",
    "Trainer._get_output_dir": "the staging folder, while a checkpoint is written",
    "Trainer._push_from_checkpoint": "what `_save_checkpoint` does at its end, with the checkpoint in its place",
    "Trainer._save_rng_state": "what else a process keeps of itself: where it is in its stream",
    "Trainer._load_rng_state": "dropout goes on where it was, behind the first batch of a stream that is entered",
    "Trainer._save": "the adapters inside a model (LoRA) are saved beside its weights",
    "Trainer._load_from_checkpoint": "they are what a run goes on from",
    "Trainer._load_best_model": "checksums are compared before weights are loaded; adapters are loaded by peft",
    "Trainer._determine_best_metric": "a metric that is not finite never chooses the best checkpoint",
    "Trainer._run_epoch": "a run that had ended trains no step more; lack of memory ends in one line",
    "Trainer._get_grad_norm": "the last thing before the optimizer's step, where a loss that is not finite is noticed",
    "Trainer._maybe_log_save_evaluate": "the place between two steps, where a signal is answered",
    "Trainer._hp_search_setup": "a trial that changes what was read when the trainer was made is refused",
    "Trainer._initial_global_step": "whether any step was trained since the run was resumed",
    "PreTrainedConfig._attn_implementation": "which attention is in force; `model/` must read it itself",
    "PreTrainedModel._supports_attention_backend": "whether another attention can be put there",
}
"""Private names that subclasses override, or that other files must read themselves, each with its reason."""
