"""Reading evaluation data: SentEval's folders, and the user's own tables."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import UserError

SENTEVAL_HELP = (
    "give the SentEval folder that holds STS/, SICK/, MR/ ... (data/downstream after SentEval's "
    "get_transfer_data.bash), or the word hub for the STS sets"
)
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json")


def find_senteval_file(data: str | Path | None, relative: str) -> Path:
    """Return the file `relative` (such as `SICK/SICK_trial.txt`) of the SentEval folder `data`.

    `data` holds STS/, SICK/ and the others itself, in one of its subfolders, or in data/downstream.

    Raises:
        UserError: There is no such file; the message names it and says how to get it.
    """
    if data is None:
        raise UserError(
            f"no evaluation data given (--data, in training --eval_data) to read {relative} from: {SENTEVAL_HELP}"
        )
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
        UserError: The file can't be read in that encoding.
    """
    try:
        text = path.read_bytes().decode(encoding)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} isn't {encoding} text (byte {error.start}): save it as {encoding}") from None
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def tokens_joined(text: str) -> str:
    """SentEval splits its sentences at blanks and encoders join them with one; without a word it is a full stop."""
    return " ".join(text.split()) or "."


def parse_score(text: object, where: str, low: float = float("-inf"), high: float = float("inf")) -> float:
    """A finite number between `low` and `high`, or a UserError that begins with `where` (file and line)."""
    try:
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise UserError(f"{where}: the score {text!r} isn't a number") from None
    if not (low <= value <= high and abs(value) != float("inf")):
        wanted = f"between {low:g} and {high:g}" if abs(low) != float("inf") else "a finite number"
        raise UserError(f"{where}: the score {text!r} must be {wanted}")
    return value


def check_count(what: str, found: int, official: int, path: Path | str) -> None:
    """Refuse a set of another size than the official one: its score couldn't be compared with anybody's."""
    if found != official:
        raise UserError(f"{what} has {found} scored rows in {path}, the official set has {official}: fetch it again")


def read_table(path: Path) -> tuple[list[str], Iterator[tuple[str, dict[str, object]]]]:
    """Read a .csv, .tsv (header line, fields quoted as usual) or .jsonl (one object a line).

    Returns:
        The column names, and an iterator of (`"file:line"`, row) pairs.

    Raises:
        UserError: No such file, another suffix, not UTF-8, empty, or a malformed row (named by file and line).
    """
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise UserError(f"{path}: own evaluation data must end in {', '.join(TABLE_SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"evaluation data {path}: there is no such file; check the path")
    lines = read_lines(path)
    lines = [lines[0].removeprefix("\ufeff"), *lines[1:]] if lines else []
    rows = _json_rows(path, lines) if path.suffix.lower() in (".jsonl", ".json") else _csv_rows(path, lines)
    first = next(rows, None)
    if first is None:
        raise UserError(f"{path} is empty: it holds no row")

    def all_rows() -> Iterator[tuple[str, dict[str, object]]]:
        yield first
        yield from rows

    return list(first[1]), all_rows()


def _csv_rows(path: Path, lines: Sequence[str]) -> Iterator[tuple[str, dict[str, object]]]:
    reader = csv.reader(
        (line + "\n" for line in lines), delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True
    )
    header: list[str] | None = None
    try:
        for row in reader:
            if not any(field.strip() for field in row):
                continue
            if header is None:
                header = [name.strip() for name in row]
                continue
            if len(row) != len(header):
                raise UserError(f"{path}:{reader.line_num}: {len(row)} fields, the header has {len(header)}")
            yield f"{path}:{reader.line_num}", dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: malformed row ({error})") from None


def _json_rows(path: Path, lines: Sequence[str]) -> Iterator[tuple[str, dict[str, object]]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{number}: not a JSON object on one line ({error.msg})") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: expected a JSON object, got {type(row).__name__}")
        yield f"{path}:{number}", row


def column(columns: Sequence[str], accepted: Sequence[str]) -> str | None:
    """The first of the `accepted` names among `columns`, whatever their case."""
    by_lower = {name.lower(): name for name in columns}
    return next((by_lower[name] for name in accepted if name in by_lower), None)


def text_field(row: dict[str, object], name: str, where: str) -> str:
    """The text in column `name`, or a UserError where it is missing, no string, or blank."""
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: column {name!r} must hold text, got {value!r}")
    return value.strip()
