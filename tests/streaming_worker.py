"""What test_streaming.py runs on each of two processes: the rows that the trainer's dataloader gives; a training."""

import itertools
import json
import sys
from pathlib import Path

import torch
from backbones import tiny_config, tiny_tokenizer

from arccse_hf import ArcCSEConfig, ArcCSEForContrastiveLearning
from arccse_hf.data.streaming import TextStream
from arccse_hf.inference.process_group import world_size
from arccse_hf.training.arguments import ArcCSETrainingArguments
from arccse_hf.training.trainer import ArcCSETrainer

BATCHES = 12  # of 4 rows: more than an epoch of either process, and the rows do not fill whole batches


def trainer_on(files: list[str], folder: Path, workers: int, save_strategy: str = "no", **kwargs) -> ArcCSETrainer:
    tokenizer = tiny_tokenizer()
    args = ArcCSETrainingArguments(
        output_dir=str(folder / "out"),
        per_device_train_batch_size=4,
        max_steps=BATCHES,
        logging_steps=BATCHES,
        triplet_min_tokens=6,
        dataloader_num_workers=workers,
        eval_strategy="no",
        eval_on_start=False,
        save_strategy=save_strategy,
        save_steps=7,
        use_cpu=True,
        disable_tqdm=True,
    )
    stream = TextStream(
        tokenizer,
        32,
        train_file=files,
        shuffle_buffer=10,
        process_index=args.process_index,
        num_processes=args.world_size,
    )
    torch.manual_seed(0)
    model = ArcCSEForContrastiveLearning(ArcCSEConfig(backbone_config=tiny_config("bert")))
    return ArcCSETrainer(model, args, train_dataset=stream, processing_class=tokenizer, **kwargs)


def rows_seen(folder: Path, files: list[str], workers: int) -> dict:
    trainer = trainer_on(files, folder, workers, data_collator=lambda rows: {"rows": rows})
    batches = [batch["rows"] for batch in itertools.islice(trainer.get_train_dataloader(), BATCHES)]
    counts = trainer.train_dataset.report_counts(trainer.accelerator)
    return {"batches": batches, "read": counts.read}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    one, four = [str(folder / "all.txt")], [str(file) for file in sorted(folder.glob("part*.txt"))]
    result = {
        "one file": rows_seen(folder, one, workers=0),
        "one file, two workers": rows_seen(folder, one, workers=2),
        "four files, two workers": rows_seen(folder, four, workers=2),
    }
    trainer = trainer_on(one, folder, workers=0)
    trainer.train()
    rank = torch.distributed.get_rank()
    torch.save(trainer.model.state_dict(), folder / f"weights-{rank}.pt")
    for name, checkpoint in (("whole", None), ("resumed", str(folder / "out" / "checkpoint-7"))):
        run = trainer_on(four, folder, workers=2, save_strategy="steps")
        run.train(resume_from_checkpoint=checkpoint)
        torch.save(run.model.state_dict(), folder / f"{name}-{rank}.pt")
        result |= {f"readers entered, {name}": sorted(run.train_dataset._entered)}
    result |= {"world_size": world_size(), "steps": trainer.state.global_step}
    (folder / f"result-{rank}.json").write_text(json.dumps(result))
    trainer.end()
