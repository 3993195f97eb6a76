"""The command line, `arccse` or `python -m arccse_hf`: finds the verb, and tells mistakes in one line."""

from __future__ import annotations

import argparse
import errno
import os
import select
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from . import __version__
from .cli.command import ArgumentParser, first_sentence, help_format
from .commands import VERBS
from .errors import UserError, did_you_mean, exit_with


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs a command line and ends the process; a `UserError` becomes one line and exit status 2.

    Args:
        argv: What follows the program's name; None: that of this process.

    Example:
        >>> main(["train", "quickstart"])
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    verb = argv[0] if argv else "--help"
    program = f"arccse {verb}" if verb in VERBS else "arccse"
    try:
        try:
            sys.exit(_run(verb, argv[1:]))
        finally:
            sys.stdout.flush()
    except UserError as error:
        exit_with(error, program)
    except KeyboardInterrupt:
        print(f"\n{program}: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        if not output_is_unread():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be written
        sys.exit(128 + signal.SIGPIPE)  # as a process that does not catch the signal
    except OSError as error:  # whoever looks whether a file is there does not expect this
        if error.errno != errno.ENAMETOOLONG:
            raise
        exit_with(UserError(f"{error.filename}: the name is too long for a file or folder"), program)


def output_is_unread() -> bool:
    """Returns whether nobody reads what is printed any more, as after `| head`."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of every command line, which writes the first help and the shells' completions."""
    parser = ArgumentParser(
        prog="arccse",
        description="Train, measure and use sentence encoders.\n\nExample:\n    arccse train quickstart",
        epilog="arccse COMMAND --help explains a command.",
        formatter_class=help_format,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"arccse_hf {__version__}")
    parser.add_argument(
        "--print_completion",
        metavar="SHELL",
        choices=("bash", "zsh", "tcsh"),
        help='For bash: eval "$(arccse --print_completion bash)" in ~/.bashrc. Also zsh and tcsh.',
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for verb, (command, _) in VERBS.items():
        built = command()
        commands.add_parser(
            verb,
            help=first_sentence(built.help),
            parents=[built.parser(for_completion=True)],
            conflict_handler="resolve",
        )
    return parser


def _run(verb: str, argv: Sequence[str]) -> int:
    if verb in VERBS:
        return VERBS[verb][1](argv)
    if not verb.startswith("-"):
        raise UserError(f"{verb}: there is no such command{did_you_mean(verb, VERBS)} ({', '.join(VERBS)})")
    name = verb.replace("-", "_").replace("__", "--", 1)
    _answer(name if verb.startswith("--") else verb, argv)
    return 0


def _answer(name: str, values: Sequence[str]) -> None:
    parser = build_parser()
    given = parser.parse_args([name, *values])
    if given.print_completion:
        import shtab

        print(shtab.complete(parser, given.print_completion))


if __name__ == "__main__":
    main()
