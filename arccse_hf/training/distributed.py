"""What processes share: keys, with their gradient, the rows of a batch, and the weights under FSDP."""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import torch
import torch.distributed as dist
import torch.nn.functional as F
from accelerate import FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.utils.data import BatchSampler, Sampler

from ..errors import UserError
from ..inference.process_group import world_size
from .arguments import ArcCSETrainingArguments

logger = logging.getLogger(__name__)


def patient_barrier() -> Callable[[], None]:
    """Returns what the others call to wait for a process that works alone for long; all must call both.

    `--ddp_timeout`, which tells processes that hang, does not bound it.
    """
    if world_size() == 1:
        return lambda: None
    group = dist.new_group(backend="gloo", timeout=timedelta(days=7))
    return lambda: dist.barrier(group)


def gather_keys(keys: Tensor) -> Tensor:
    """The keys of all processes, this process's own first, so that key i stays the positive of row i.

    The gradient flows back to the process that a key came from. Averaging gradients over processes, as DDP does, then
    gives what one process with the whole batch would have, when every process has as many rows.

    Args:
        keys: `[own, dim]`; the number of rows may differ between processes. Every process must call.

    Returns:
        `[all, dim]` in float32.
    """
    keys = keys.float()
    if world_size() == 1:
        return keys
    sizes = torch.zeros(world_size(), dtype=torch.int64, device=keys.device)
    sizes[dist.get_rank()] = len(keys)
    dist.all_reduce(sizes)
    longest = int(sizes.max())
    blocks = _GatherBlocks.apply(F.pad(keys, (0, 0, 0, longest - len(keys))))
    others = [blocks[rank, : sizes[rank]] for rank in range(world_size()) if rank != dist.get_rank()]
    return torch.cat([keys, *others])


class _GatherBlocks(torch.autograd.Function):
    """`[rows, dim]` of each process to `[processes, rows, dim]` on all; gradients are summed on the way back."""

    @staticmethod
    def forward(ctx, block: Tensor) -> Tensor:
        blocks = [torch.empty_like(block) for _ in range(world_size())]
        dist.all_gather(blocks, block.contiguous())
        return torch.stack(blocks)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        # Every process holds part of the gradient of every block, because it used them all.
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[dist.get_rank()]


class EvenlySplitBatchSampler(Sampler[list[int]]):
    """Cuts the batches of all processes into one piece per process, which follow one another.

    The last batch of an epoch is cut as evenly as its rows allow. Fewer rows than there are processes are left out,
    with a warning, because every process needs a row.

    Args:
        sampler: Gives the rows of an epoch in their order. accelerate replaces it by one that all processes seed alike.
        global_batch_size: Rows of a batch of all processes.
        num_processes: How many train together.
    """

    # It has no `batch_size`, which would tell accelerate to fill up the last pieces to that size.

    def __init__(self, sampler: Sampler[int], global_batch_size: int, num_processes: int):
        self.sampler = sampler
        self.global_batch_size = global_batch_size
        self.num_processes = num_processes
        rest = len(sampler) % global_batch_size
        self.left_out = rest if rest < num_processes else 0
        if self.left_out:
            logger.warning(
                "each epoch ends with %d rows, too few for %d processes: they are left out", rest, num_processes
            )

    def __iter__(self) -> Iterator[list[int]]:
        for batch in BatchSampler(self.sampler, self.global_batch_size, drop_last=False):
            if len(batch) >= self.num_processes:
                bounds = [number * len(batch) // self.num_processes for number in range(self.num_processes + 1)]
                yield from (batch[start:end] for start, end in pairwise(bounds))

    def __len__(self) -> int:
        return math.ceil((len(self.sampler) - self.left_out) / self.global_batch_size) * self.num_processes


def require_one_gpu(args: ArcCSETrainingArguments) -> None:
    """Raises UserError where one process sees several GPUs, over which Trainer would spread a batch by itself."""
    if args.n_gpu > 1:
        raise UserError(
            f"one process sees {args.n_gpu} GPUs: start one for each (accelerate launch --multi_gpu "
            f"--num_processes {args.n_gpu} run_arccse.py ...) or let it see only one (CUDA_VISIBLE_DEVICES=0)"
        )


def set_up_fsdp(plugin: FullyShardedDataParallelPlugin, model: nn.Module) -> None:
    """Fills in what to shard, and has mixed precision keep losses, and average gradients, in float32, as DDP does.

    Raises:
        UserError: FSDP 1, whose weights do not show that they are shards; or its own way of computing layers again.
    """
    if plugin.fsdp_version == 1:
        raise UserError("fsdp_version 1: not supported; set fsdp_version: 2, as configs/accelerate/fsdp.yaml does")
    if plugin.activation_checkpointing:
        raise UserError(
            "fsdp_activation_checkpointing: not supported: a layer computed again would have other dropout masks; "
            "leave it out, and give --activation_checkpointing True"
        )
    if plugin.transformer_cls_names_to_wrap is None:
        plugin.transformer_cls_names_to_wrap = _layer_classes(model)
    if isinstance(plugin.mixed_precision_policy, MixedPrecisionPolicy):
        plugin.mixed_precision_policy = replace(
            plugin.mixed_precision_policy, reduce_dtype=torch.float32, output_dtype=None
        )


def _layer_classes(model: nn.Module) -> list[str]:
    """Returns the classes of the layers, which FSDP shards one by one.

    transformers' `_no_split_modules` is often empty, or includes the embeddings, which accelerate shards already.
    """
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList))
    return sorted({type(layer).__name__ for layers in lists for layer in layers})
