"""The verbs of `arccse`: the options of each, and the function that does it.

What does the work is imported once the command line is known to be right: help and errors come without torch.
"""

from collections.abc import Callable, Sequence

from ..cli.command import Command
from ..training.config import train_command
from ..training.fields import load_fields
from . import encoders, runs, texts

VERBS: dict[str, tuple[Callable[[], Command], Callable[[Sequence[str]], int]]] = {
    "train": (lambda: train_command(load_fields()), runs.train),
    "evaluate": (lambda: encoders.EVALUATE, encoders.evaluate),
    "encode": (lambda: encoders.ENCODE, encoders.encode),
    "export": (lambda: encoders.EXPORT, encoders.export),
    "search": (lambda: texts.SEARCH, texts.search),
    "demo": (lambda: texts.DEMO, texts.demo),
    "similarity": (lambda: texts.SIMILARITY, texts.similarity),
    "duplicates": (lambda: texts.DUPLICATES, texts.duplicates),
    "cluster": (lambda: texts.CLUSTER, texts.cluster),
    "mine": (lambda: texts.MINE, texts.mine),
    "info": (lambda: texts.INFO, texts.info),
    "report": (lambda: runs.REPORT, runs.report),
    "study": (runs.study_command, runs.study),
    "tune": (runs.tune_command, runs.tune),
    "reproduce": (runs.reproduce_command, runs.reproduce),
}
"""The command line of each verb, and what does it; both take shape when they are asked for."""
