"""What dataloaders of training have in common."""

from __future__ import annotations

import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader
from transformers import TrainingArguments


def loader_options(args: TrainingArguments) -> dict[str, object]:
    """Returns the `dataloader_...` settings as arguments of a `DataLoader`."""
    return {
        "num_workers": args.dataloader_num_workers,
        "pin_memory": args.dataloader_pin_memory,
        "multiprocessing_context": args.dataloader_multiprocessing_context,
        "prefetch_factor": args.dataloader_prefetch_factor,
        "in_order": args.dataloader_in_order,
    }


def prepare_share(loader: DataLoader, args: TrainingArguments, device: torch.device) -> DataLoader:
    """Returns what `Trainer.get_train_dataloader` wants, of a loader that gives this process's share alone."""
    # Told of one process, because accelerate would shard the share a second time.
    return prepare_data_loader(
        loader,
        device=device,
        num_processes=1,
        process_index=0,
        put_on_device=True,
        dispatch_batches=False,
        non_blocking=args.accelerator_config.non_blocking,
    )
