"""The verbs of `arccse`: the options of each, and the function that does it.

What does the work is imported once the command line is known to be right: help and errors come without torch.
"""

from collections.abc import Callable, Sequence

from ..cli.command import Command
from ..training.config import train_command
from ..training.fields import load_fields
from .encoders import ENCODE, EVALUATE, EXPORT, encode, evaluate, export
from .runs import (
    REPORT,
    report,
    reproduce,
    reproduce_command,
    study,
    study_command,
    train,
    tune,
    tune_command,
)
from .texts import (
    CLUSTER,
    DEMO,
    DUPLICATES,
    INFO,
    MINE,
    SEARCH,
    SIMILARITY,
    cluster,
    demo,
    duplicates,
    info,
    mine,
    search,
    similarity,
)

VERBS: dict[str, tuple[Callable[[], Command], Callable[[Sequence[str]], int]]] = {
    "train": (lambda: train_command(load_fields()), train),
    "evaluate": (lambda: EVALUATE, evaluate),
    "encode": (lambda: ENCODE, encode),
    "export": (lambda: EXPORT, export),
    "search": (lambda: SEARCH, search),
    "demo": (lambda: DEMO, demo),
    "similarity": (lambda: SIMILARITY, similarity),
    "duplicates": (lambda: DUPLICATES, duplicates),
    "cluster": (lambda: CLUSTER, cluster),
    "mine": (lambda: MINE, mine),
    "info": (lambda: INFO, info),
    "report": (lambda: REPORT, report),
    "study": (study_command, study),
    "tune": (tune_command, tune),
    "reproduce": (reproduce_command, reproduce),
}
"""The command line of each verb, and what does it; both take shape when they are asked for."""
