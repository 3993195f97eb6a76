#!/usr/bin/env python
"""Train a sentence encoder with ArcCSE.

    accelerate launch run_arccse.py configs/quickstart.yaml
    accelerate launch run_arccse.py configs/arccse-bert-base.yaml --train_file my_sentences.txt --output_dir out
    torchrun --nproc_per_node 8 run_arccse.py configs/arccse-bert-base.yaml
    python run_arccse.py --help

It is the same as `arccse train`; the script itself is `arccse_hf/training/script.py`.
"""

import sys

from arccse_hf.__main__ import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
