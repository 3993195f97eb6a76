#!/usr/bin/env python
"""Train a sentence encoder with ArcCSE.

    accelerate launch run_arccse.py configs/quickstart.yaml
    accelerate launch run_arccse.py configs/arccse-bert-base.yaml --train_file my_sentences.txt --output_dir out
    torchrun --nproc_per_node 8 run_arccse.py configs/arccse-bert-base.yaml
    python run_arccse.py --help

The script itself is `arccse_hf/training/script.py`; `arccse train` is the same.
"""

from arccse_hf.training.script import cli

if __name__ == "__main__":
    cli()
