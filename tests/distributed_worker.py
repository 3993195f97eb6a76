"""What test_distributed.py runs on each process: short trainings, or a gather alone; saves what came out."""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from backbones import WORDS, tiny_config, tiny_tokenizer
from datasets import Dataset
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from arccse_hf import ArcCSEConfig, ArcCSEForContrastiveLearning
from arccse_hf.evaluation.suite import TaskSuite
from arccse_hf.inference.process_group import world_size
from arccse_hf.model.adapters import plain_state_dict
from arccse_hf.sentence_transformers import ArcConLoss, CachedArcConLoss
from arccse_hf.training.arguments import ArcCSETrainingArguments
from arccse_hf.training.distributed import gather_keys
from arccse_hf.training.trainer import ArcCSETrainer

PROCESSES = int(os.environ.get("WORLD_SIZE", "1"))
STEPS = 3
LEARNING_RATE = 0.01

# The rows of each process in each micro-step, where a test deals them out itself: never as many on both, and in the
# third one only the first process has texts long enough for a triplet. Two micro-steps are a step; the last is alone.
UNEVEN = [
    (range(0, 11), range(11, 16)),
    (range(16, 19), range(19, 32)),
    (range(40, 50), range(32, 38)),
    (range(50, 54), range(54, 64)),
    (range(0, 5), range(5, 7)),
]


LORA = {"lora_r": 4}
MODES = {
    "pairs": {"gradient_accumulation_steps": 2},
    "triplets": {"triplet_weight": 0.5},
    "uneven": {"gradient_accumulation_steps": 2, "triplet_weight": 0.5},
    "uneven-cached": {"gradient_accumulation_steps": 2, "triplet_weight": 0.5, "grad_cache_chunk_size": 5},
    # With triplets in the right order, which get no backward pass: others on each process, and as many calls.
    "uneven-order": {"gradient_accumulation_steps": 2, "triplet_weight": 5.0},
    "uneven-order-cached": {"gradient_accumulation_steps": 2, "triplet_weight": 5.0, "grad_cache_chunk_size": 5},
    "uneven-local": {"gather_negatives": False},
    "uneven-lora": {"gradient_accumulation_steps": 2, "triplet_weight": 0.5, **LORA},
    "uneven-lora-cached": {"gradient_accumulation_steps": 2, "triplet_weight": 0.5, "grad_cache_chunk_size": 5, **LORA},
    # Trainer's own loader: batches of 16, 16 and 11 rows, of which the last is a step of its own.
    "last": {"gradient_accumulation_steps": 2, "triplet_weight": 0.5, "dataloader_drop_last": False},
}


class Norms:
    name, main_metrics = "norms", ("mean", "first")

    def __init__(self, sentences):
        self.sentences = sentences

    def score(self, embeddings):
        norms = np.linalg.norm(embeddings, axis=1)
        return {"mean": float(norms.mean()), "first": float(norms[0])}


class UnevenTrainer(ArcCSETrainer):
    def get_train_dataloader(self):
        batches = [joined(parts) if PROCESSES == 1 else list(parts[self.args.process_index]) for parts in UNEVEN]
        return DataLoader(self.train_dataset, batch_sampler=batches, collate_fn=self.data_collator)


class CountReductions(TrainerCallback):
    """Counts how often DDP reduces gradients; a model this small is reduced at once."""

    def __init__(self, trainer):
        self.trainer, self.count = trainer, 0

    def on_train_begin(self, args, state, control, **kwargs):
        if PROCESSES > 1:
            self.trainer.model_wrapped.register_comm_hook(None, self.reduce)

    def reduce(self, group, bucket):
        self.count += 1
        return allreduce_hook(group, bucket)


def joined(parts):
    return [row for part in parts for row in part]


def tiny_model(triplet_margin=0.3):
    backbone = tiny_config("bert")
    backbone.hidden_dropout_prob = backbone.attention_probs_dropout_prob = 0.0
    backbone.initializer_range = 0.5  # so that sentences differ from the start
    torch.manual_seed(0)
    config = ArcCSEConfig(backbone_config=backbone, pooling="mean", projection="mlp", triplet_margin=triplet_margin)
    model = ArcCSEForContrastiveLearning(config)
    # A new projection would bring them together again. By this seed, processes differ in the triplets that have a loss.
    torch.manual_seed(3)
    model.base_model.projection.dense.reset_parameters()
    return model


def rows(hard_negatives, count=64):
    """Rows of 9 to 20 words; those from 32 to 39 have 9."""
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(5, 40, (64, 20), generator=generator)[:count].tolist()
    anchors = [row[: 9 + (5 * number % 12 if number // 8 != 4 else 0)] for number, row in enumerate(words)]
    columns = {"anchor": anchors, "positive": [row[4:] for row in words]}
    if hard_negatives:
        columns["negative"] = [row[::-1] for row in words]
    return Dataset.from_dict({name: [[2, *row, 3] for row in texts] for name, texts in columns.items()})


def arguments(folder, mode):
    return ArcCSETrainingArguments(
        output_dir=str(Path(folder) / f"{mode}-{PROCESSES}"),
        **{"triplet_weight": 0.0, "max_steps": STEPS, **MODES[mode]},
        per_device_train_batch_size=16 // PROCESSES,
        triplet_min_tokens=13,
        logging_steps=1,
        optim="sgd",
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        # Batches in order: which rows two processes see together is then what one sees at once.
        train_sampling_strategy="sequential",
        eval_strategy="no",
        eval_on_start=False,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )


def train(folder, mode):
    tokenizer = tiny_tokenizer()
    model = tiny_model(triplet_margin=0.0 if "order" in mode else 0.3)
    sentences = [" ".join(WORDS[: 3 + number]) for number in range(5)]
    trainer = (UnevenTrainer if mode.startswith("uneven") else ArcCSETrainer)(
        model,
        arguments(folder, mode),
        train_dataset=rows(hard_negatives=mode not in ("pairs", "triplets"), count=43 if mode == "last" else 64),
        processing_class=tokenizer,
        eval_suite=TaskSuite([Norms(sentences)]),
    )
    counter = CountReductions(trainer)
    trainer.add_callback(counter)
    calls, costly, may_cost = [], [], model.triplet_head.may_cost
    model.register_forward_hook(lambda module, given, output: calls.append(output.arccon_loss))
    model.triplet_head.may_cost = lambda triplets: costly.append(may_cost(triplets)) or costly[-1]
    trainer.train()
    result = {"calls": len(calls), "costly": [(int(found.sum()), len(found)) for found in costly]}
    metrics = {name: value for name, value in trainer.evaluate().items() if "norms" in name}
    log = [line for line in trainer.state.log_history if "loss" in line]
    weights = {name: weight.clone() for name, weight in plain_state_dict(model).items()}
    random = torch.rand(1).item()
    result |= {"weights": weights, "metrics": metrics, "log": log, "reductions": counter.count, "random": random}
    return result


def order(folder):
    """The anchors that this process trains on in each of two epochs of shuffled rows, in each of two calls."""
    args = arguments(folder, "pairs")
    args.max_steps, args.num_train_epochs, args.train_sampling_strategy = -1, 2, "random"
    args.gradient_accumulation_steps = 1
    trainer = ArcCSETrainer(
        tiny_model(), args, train_dataset=rows(hard_negatives=False), processing_class=tiny_tokenizer()
    )
    epochs, compute_loss = [], trainer.compute_loss

    def spy(model, inputs, *args, **kwargs):
        pair = inputs["pair"]
        anchors = [
            ids[mask.bool()].tolist()
            for ids, mask in zip(pair["input_ids"][:, 0], pair["attention_mask"][:, 0], strict=True)
        ]
        epochs[-2:][int(trainer.state.epoch or 0)] += anchors
        return compute_loss(model, inputs, *args, **kwargs)

    trainer.compute_loss = spy
    for _ in range(2):
        epochs += [[], []]
        trainer.train()
    return epochs


def gather():
    rank = torch.distributed.get_rank()
    keys = (10 * rank + torch.arange(6.0 if rank == 0 else 4.0).reshape(-1, 2)).requires_grad_()
    gathered = gather_keys(keys)
    (gathered.sum(1) * torch.arange(1.0, len(gathered) + 1)).sum().backward()
    return {"keys": gathered.detach(), "gradient": keys.grad}


class Projection(nn.Module):
    """An encoder of rows of numbers, as small as one can be."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.weight = nn.Parameter(torch.randn(6, 4, generator=generator))

    def forward(self, features):
        return {"sentence_embedding": features["input_ids"] @ self.weight}


def arccon(kind, columns, wrap=lambda model: model):
    """A loss for sentence-transformers on columns `[rows, 6]`, and its gradient; `wrap` is DDP where there is one."""
    model = wrap(Projection())
    cached = {"mini_batch_size": 3} if kind is CachedArcConLoss else {}
    loss = kind(model, margin_degrees=12.0, temperature=0.1, gather_across_devices=True, **cached)
    value = loss([{"input_ids": column} for column in columns])
    value.backward()
    return {"loss": value.detach(), "gradient": next(model.parameters()).grad}


def arccon_columns():
    """Anchors, positives and negatives: 10 rows of each."""
    return torch.randn(3, 10, 6, generator=torch.Generator().manual_seed(1))


def arccon_here():
    """Both losses on this process's half of the rows."""
    half = arccon_columns().chunk(PROCESSES, dim=1)[torch.distributed.get_rank()]
    return {
        f"{kind.__name__}-{len(columns)}": arccon(kind, columns, DistributedDataParallel)
        for kind in (ArcConLoss, CachedArcConLoss)
        for columns in (half[:2], half)
    }


if __name__ == "__main__":
    import distributed_faults

    folder = sys.argv[1]
    # Training arguments start the process group, which `gather` needs.
    results = {mode: train(folder, mode) for mode in MODES} | {"gather": gather(), "order": order(folder)}
    results["arccon"] = arccon_here()
    results["faults"] = distributed_faults.run(folder)
    results["world_size"] = world_size()
    torch.save(results, Path(folder) / f"{torch.distributed.get_rank()}.pt")
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()  # left to the interpreter's end, it aborts the process now and then
