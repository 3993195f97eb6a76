"""Mistakes that the person at the keyboard can fix, how a command ends with one, and text that fits one line."""

import difflib
import os
import re
import sys
from collections.abc import Iterable
from typing import NoReturn

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class UserError(ValueError):
    """Something the user gave is wrong.

    The message is one line that names the argument, the value it had and the way out; line breaks become spaces. The
    command line prints that line without a traceback and exits with status 2.
    """

    def __init__(self, message: object = ""):
        super().__init__(" ".join(str(message).splitlines()))


def printable(text: str) -> str:
    """Returns a text as one line without control characters, which could command the terminal."""
    return "".join(character if character.isprintable() else " " for character in one_line(text))


def one_line(text: object) -> str:
    """Returns `text` without colours, with every run of whitespace, line breaks included, as one space."""
    return " ".join(_COLOUR.sub("", str(text)).split())


def without_surrogates(text: str) -> str:
    """Returns `text` with each half of a surrogate pair, which tokenizers and Arrow refuse, as "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Returns "; did you mean --learning_rate?", or "" where no known name is near.

    Args:
        name: What was given.
        known: The names that exist.
        prefix: Written before the nearest name: "--" for options.
    """
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{nearest[0]}?" if nearest else ""


def exit_with(error: UserError, program: str) -> NoReturn:
    """Prints an error as one line, on the first process of each machine, and ends this process with status 2.

    Args:
        error: What went wrong.
        program: What stands before the message: "arccse train".
    """
    if os.environ.get("LOCAL_RANK", "0") == "0":
        # PyTorch raises a dataloader worker's error again with the worker's traceback, which ends with the message.
        print(f"{program}: error: {one_line(str(error).rpartition('UserError: ')[2])}", file=sys.stderr)
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        # The other processes may wait for this one in a collective, so their group cannot be ended in order; left to
        # the interpreter's end, its threads abort the process now and then.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(2)
    sys.exit(2)
