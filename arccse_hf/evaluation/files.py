"""Reading evaluation data: SentEval's folders, and the user's own tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..data.files import KINDS, check_file, file_kind, open_file
from ..errors import UserError

SENTEVAL_HELP = (
    "give the SentEval folder that holds STS/, SICK/, MR/ ... (data/downstream after SentEval's "
    "get_transfer_data.bash), or the word hub for the STS sets"
)
OPTION = "evaluation data"
"""What errors call the user's own files, which come from `--eval_tasks` or `--eval_data`."""


def find_senteval_file(data: str | Path | None, relative: str) -> Path:
    """Returns the file `relative` (such as `SICK/SICK_trial.txt`) of the SentEval folder `data`.

    `data` holds STS/, SICK/ and the others itself, in one of its subfolders, or in data/downstream.

    Raises:
        UserError: There is no such file; the message names it and says how to get it.
    """
    if data is None:
        raise UserError(f"no evaluation data given (--eval_data) to read {relative} from: {SENTEVAL_HELP}")
    root = Path(data).expanduser()
    if not root.is_dir():
        raise UserError(f"evaluation data {data}: there is no such folder to read {relative} from: {SENTEVAL_HELP}")
    candidates = [
        root,
        root / "data" / "downstream",
        root / "downstream",
        *sorted(p for p in root.iterdir() if p.is_dir()),
    ]
    for candidate in candidates:
        if (candidate / relative).is_file():
            return candidate / relative
    raise UserError(f"evaluation data {data}: {root / relative} is missing; {SENTEVAL_HELP}")


def read_lines(path: Path, encoding: str = "utf-8") -> list[str]:
    """The lines of a text file without their ends. Only newlines end one: latin-1 files hold other separators as text.

    Raises:
        UserError: The file cannot be read in that encoding.
    """
    try:
        text = path.read_bytes().decode(encoding)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not {encoding} text (byte {error.start}): save it as {encoding}") from None
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def tokens_joined(text: str) -> str:
    """SentEval splits its sentences at blanks and encoders join them with one; without a word it is a full stop."""
    return " ".join(text.split()) or "."


def parse_score(text: object, where: str, low: float = float("-inf"), high: float = float("inf")) -> float:
    """A finite number between `low` and `high`, or a UserError that begins with `where` (file and line)."""
    try:
        value = float(text)  # type: ignore[arg-type]
    except OverflowError:
        value = float("inf")  # an integer of hundreds of digits
    except (TypeError, ValueError):
        raise UserError(f"{where}: the score {str(text)[:40]!r} is not a number") from None
    if not (low <= value <= high and abs(value) != float("inf")):
        wanted = f"between {low:g} and {high:g}" if abs(low) != float("inf") else "a finite number"
        raise UserError(f"{where}: the score {str(text)[:40]!r} must be {wanted}")
    return value


def check_count(what: str, found: int, official: int, path: Path | str) -> None:
    """Refuses a set of another size than the official one: its score could not be compared with anybody's."""
    if found != official:
        raise UserError(f"{what} has {found} scored rows in {path}, the official set has {official}: fetch it again")


def is_table(name: str | Path) -> bool:
    """Returns whether a name ends as files of rows do."""
    return file_kind(str(name)) in KINDS


def read_table(path: Path) -> tuple[list[str], Iterator[tuple[str, dict[str, object]]]]:
    """Reads the user's own evaluation data, by the rules of `arccse_hf.data.files`.

    Returns:
        The column names, and an iterator of rows, each with where it stands for the errors. A row of blanks alone,
        which spreadsheets leave behind, is none.

    Raises:
        UserError: No such file, not readable, empty, or (while rows are read) a malformed row.
    """
    check_file(str(path), OPTION)
    file = open_file(str(path), OPTION)
    file.require_rows()
    columns = list(file.columns)

    def rows() -> Iterator[tuple[str, dict[str, object]]]:
        for number, values in file.rows(columns):
            row = {
                name: file.text(value, number, name) if isinstance(value, str) else value
                for name, value in zip(columns, values, strict=True)
            }
            if not all(value is None or (isinstance(value, str) and not value.strip()) for value in values):
                yield file.source.where(number), row

    return columns, rows()


def text_field(row: dict[str, object], name: str, where: str) -> str:
    """Returns the text in column `name`; raises UserError where it is missing, no string, or blank."""
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: column {name} must hold text, not {str(value)[:80]!r}")
    return value.strip()
