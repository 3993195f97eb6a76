"""The one exception for mistakes that the person at the keyboard can mend."""


class UserError(ValueError):
    """Something the user gave is wrong.

    The message is one line that names the argument, the value it had and the way out. The command line prints that
    line without a traceback and exits with status 2.
    """


def one_line(text: object) -> str:
    """`text` with every run of whitespace, line breaks included, as one space."""
    return " ".join(str(text).split())
