"""Rows of a CSV file with their line numbers, so that errors can name the line."""

import csv
import io
from pathlib import Path

from mlfix_train.errors import MlfixError


def read_rows(path: Path, key: str, error_type: type[MlfixError]) -> list[tuple[int, list[str]]]:
    """Returns the rows of a CSV file (UTF-8) as (number of their last line, cells).

    Raises:
        MlfixError: Of ``error_type``: the file, which errors call ``key``, can't be read, is not UTF-8, or not CSV.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise error_type(f"{key}={path} can't be read: {error.strerror}", "use a CSV file") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        encoding = "UTF-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "not UTF-8"
        line = error.object[: error.start].count(b"\n") + 1
        problem = f"{path}: line {line} is {encoding} (byte 0x{error.object[error.start]:02x})"
        raise error_type(problem, "save the file again as CSV UTF-8") from error
    if "\x00" in text:
        raise error_type(f"{path} contains NUL characters: it is not a CSV file", "save it again as CSV UTF-8")
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        return [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise error_type(f"{path}: line {reader.line_num}: {error}", "correct the line") from error
