"""What test_distributed.py runs on each process: short trainings, or a gather alone; saves what came out."""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from backbones import tiny_config
from conftest import WORDS
from datasets import Dataset
from transformers import BertTokenizer

from arccse_hf import ArcCSEConfig, ArcCSEForContrastiveLearning
from arccse_hf.arguments import ArcCSETrainingArguments
from arccse_hf.distributed import gather_keys, world_size
from arccse_hf.evaluation import TaskSuite
from arccse_hf.trainer import ArcCSETrainer


class Norms:
    name, headlines = "norms", ("mean", "first")

    def __init__(self, sentences):
        self.sentences = sentences

    def score(self, embeddings):
        norms = np.linalg.norm(embeddings, axis=1)
        return {"mean": float(norms.mean()), "first": float(norms[0])}


def train(folder: Path, mode: str, processes: int) -> dict:
    tokenizer = BertTokenizer(
        vocab={word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    )
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(5, 40, (64, 20), generator=generator).tolist()
    rows = Dataset.from_dict(
        {"anchor": [[2, *row, 3] for row in words], "positive": [[2, *row[5:], 3] for row in words]}
    )
    backbone = tiny_config("bert")
    backbone.hidden_dropout_prob = backbone.attention_probs_dropout_prob = 0.0
    torch.manual_seed(0)
    model = ArcCSEForContrastiveLearning(ArcCSEConfig(backbone_config=backbone, pooling="mean", projection="mlp"))
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    args = ArcCSETrainingArguments(
        output_dir=str(folder / f"{mode}-{processes}"),
        per_device_train_batch_size=16 // processes,
        gradient_accumulation_steps=2,
        max_steps=2,
        logging_steps=2,
        optim="sgd",
        learning_rate=0.1,
        triplet_weight=0.5 if mode == "triplets" else 0.0,
        triplet_min_tokens=10,
        gather_negatives=mode != "local",
        # Batches in order: which rows two processes see together is then what one sees at once.
        train_sampling_strategy="sequential",
        eval_strategy="no",
        eval_on_start=False,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    sentences = [" ".join(WORDS[index - 5] for index in row[: 3 + number]) for number, row in enumerate(words[:5])]
    trainer = ArcCSETrainer(
        model, args, train_dataset=rows, processing_class=tokenizer, eval_suite=TaskSuite([Norms(sentences)])
    )
    trainer.train()
    metrics = {name: value for name, value in trainer.evaluate().items() if "norms" in name}
    log = next(line for line in trainer.state.log_history if "loss" in line)
    return {"weights": model.state_dict(), "start": start, "metrics": metrics, "log": log}


def gather() -> dict:
    rank = torch.distributed.get_rank()
    keys = (10 * rank + torch.arange(6.0 if rank == 0 else 4.0).reshape(-1, 2)).requires_grad_()
    gathered = gather_keys(keys)
    (gathered.sum(1) * torch.arange(1.0, len(gathered) + 1)).sum().backward()
    return {"keys": gathered.detach(), "gradient": keys.grad}


if __name__ == "__main__":
    folder, *modes = sys.argv[1:]
    for mode in modes:
        result = gather() if mode == "gather" else train(Path(folder), mode, int(os.environ["WORLD_SIZE"]))
        name = f"{mode}-{os.environ['WORLD_SIZE']}-{os.environ['RANK']}.pt"
        torch.save({**result, "world_size": world_size()}, Path(folder) / name)
