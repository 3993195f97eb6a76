"""Cosines of a fixed sample before and after training: what the pictures of a run need beyond its log."""

import contextlib
import copy
import logging
import os
from collections.abc import Iterator, Sized
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch.utils.data import Dataset
from transformers.integrations import is_deepspeed_zero3_enabled

from ..data.collator import ArcCSECollator
from ..evaluation.metrics import cosine_similarity
from ..evaluation.sts import STSTask
from ..evaluation.suite import TaskSuite
from ..paths import write_json
from .trainer import ArcCSETrainer

logger = logging.getLogger(__name__)

_ROWS = 256
_NEGATIVES = 2048
_PAIRS = 2048  # what an interval between two runs is computed from
_BATCH = 64
_SEED = 0


def save_cosine_sample(trainer: ArcCSETrainer, rows: Dataset, suite: TaskSuite | None, path: str | os.PathLike) -> None:
    """Writes the cosines of a fixed sample of training rows and of scored pairs as JSON.

    The file holds `positives`, `negatives` (a sample), `closer` and `farther` (empty without triplets): cosines as
    training sees them, with dropout and projection, of up to 256 rows that are drawn and masked alike at every call;
    `num_rows`, how many rows are trained on, where that is known; and, where the suite has an STS task, `sts` with its
    `task` name, the `cosines` and gold `scores` of up to 2,048 pairs, and `num_pairs`.

    Training is not affected: random state and the modules' modes are put back. All processes must call, since the
    weights may be sharded over them; the main one writes.

    Args:
        trainer: Before `train` or after it.
        rows: What it trains on.
        suite: Its `eval_suite`, if it has one.
        path: The file to write.
    """
    if is_deepspeed_zero3_enabled() and trainer.deepspeed is None:
        logger.warning(f"No {Path(path).name}: DeepSpeed ZeRO-3 gathers its weights in training only.")
        return
    model = trainer.model
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad(), trainer.accelerator.autocast(), _seeded(model.device):
            sample: dict[str, object] = {**_training_cosines(trainer, rows)}
            task = next((task for task in suite.tasks if isinstance(task, STSTask)), None) if suite else None
            if task is not None:
                sample["sts"] = _sts_cosines(trainer, task)
    finally:
        for module, training in modes:
            module.training = training
    if trainer.is_world_process_zero():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(path), sample, indent=None)


def _training_cosines(trainer: ArcCSETrainer, rows: Dataset) -> dict[str, list[float] | int]:
    # A copy, because the trainer's own stands at some epoch.
    collator = copy.deepcopy(trainer.data_collator)
    if isinstance(collator, ArcCSECollator):
        collator.set_epoch(0)
    trainer.model.train()
    found: dict[str, list[torch.Tensor]] = {"positives": [], "negatives": [], "closer": [], "farther": []}
    size = min(trainer.args.per_device_train_batch_size, _BATCH)
    for indices in _batches(_sample(len(rows), _ROWS), size):
        batch = send_to_device(collator([rows[int(index)] for index in indices]), trainer.model.device)
        outputs = trainer.model(**batch, triplet_dropout=trainer.args.triplet_dropout, sharded=trainer.sharded)
        positive = torch.eye(*outputs.cosines.shape, dtype=torch.bool, device=outputs.cosines.device)
        found["positives"].append(outputs.cosines[positive])
        found["negatives"].append(outputs.cosines[~positive])
        if outputs.triplet_loss is not None:
            found["closer"].append(outputs.closer_cosine)
            found["farther"].append(outputs.farther_cosine)
    cosines = {name: torch.cat(parts).float().cpu().numpy() if parts else [] for name, parts in found.items()}
    cosines["negatives"] = cosines["negatives"][_sample(len(cosines["negatives"]), _NEGATIVES)]
    # The rows given may be a sample of what is trained on, of which a stream does not know the number.
    number = {"num_rows": len(trainer.train_dataset)} if isinstance(trainer.train_dataset, Sized) else {}
    return {name: _rounded(values) for name, values in cosines.items()} | number


def _sts_cosines(trainer: ArcCSETrainer, task: STSTask) -> dict[str, str | list[float] | int]:
    pairs = _sample(len(task.pairs), _PAIRS)
    embeddings = trainer.embed([side[pair] for side in (task.pairs.first, task.pairs.second) for pair in pairs])
    return {
        "task": task.name,
        "cosines": _rounded(cosine_similarity(*np.split(embeddings, 2))),
        "scores": task.references[pairs].tolist(),
        "num_pairs": len(task.pairs),
    }


@contextlib.contextmanager
def _seeded(device: torch.device) -> Iterator[None]:
    """The same dropout masks each time, on the CPU and `device`; both random states are put back."""
    accelerated = device.type != "cpu"
    with torch.random.fork_rng(devices=[device.index or 0] if accelerated else [], device_type=device.type):
        torch.default_generator.manual_seed(_SEED)
        if accelerated:
            torch.get_device_module(device).manual_seed(_SEED)
        yield


def _sample(count: int, size: int) -> np.ndarray:
    """Up to `size` of the indices below `count`, in order, the same in every process and at every call."""
    return np.sort(np.random.default_rng(_SEED).choice(count, size=min(count, size), replace=False))


def _batches(indices: np.ndarray, size: int) -> list[np.ndarray]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 5) for value in values]
