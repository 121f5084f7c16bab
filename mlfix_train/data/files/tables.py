"""Opens the tables that people give: CSV as spreadsheets, pandas and editors write it, and Parquet.

What is certain is read: cells separated by commas, semicolons, tabs or bars, Excel's first line ``sep=;``, byte order
marks, UTF-16 and UTF-32, blanks around cells and names, empty lines, separators at the end of lines, decimal commas.
What is assumed is logged, and what can't be known is an error. Cells stay text as they are written (``007``, ``NA``,
``1.10``); blanks count only inside of quotes.
"""

import codecs
import csv
import gc
import io
import logging
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.data.files.documents import decode_text
from mlfix_train.errors import MlfixError, format_list

log = logging.getLogger(__name__)

PARQUET = (".parquet", ".pq")
SIGNS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
"""Separators of cells and their names."""
UNNAMED = "Unnamed: 0"
"""Name that pandas gives a first column without one, usually the index of a DataFrame."""
OTHER_FILES = (
    (b"pk\x03\x04", "an Excel workbook or a ZIP archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
)
"""How files that are no CSV begin, in lower case."""
BLANKS = " \t\xa0\u3000"
DECIMAL_COMMA = r"[+-]?\d*,?\d+(?:[eE][+-]?\d+)?"
ZERO_FIRST = re.compile(r"[+-]?0\d+")
NO_HEADER = "its first line seems to be data, not names of columns"
SAVE_AGAIN = "save it again as CSV UTF-8"


@dataclass
class Table:
    """An opened table.

    Attributes:
        path: The file.
        frame: Its columns, all text: of a CSV the cells, empty where the file has none; of Parquet the values.
        lines: The line of each row in a CSV, as editors count; ``None`` for Parquet.
        separator: What separates the cells of a CSV.
        first_line: The header as it is written.
    """

    path: Path
    frame: pd.DataFrame
    lines: list[int] | None = None
    separator: str = ""
    first_line: str = ""

    def place(self, row: int) -> str:
        """Returns what errors call a row: ``line 7`` of a CSV, ``row 7`` of a Parquet file."""
        return f"row {row + 1}" if self.lines is None else f"line {self.lines[row]}"

    def repeated(self, values: Sequence[str]) -> list[str]:
        """Returns the values that N rows have more than once, each with the rows: ``a.jpg (line 2, line 7)``."""
        rows: dict[str, list[int]] = {}
        if len(set(values)) < len(values):
            for row, value in enumerate(values):
                rows.setdefault(value, []).append(row)
        return [f"{value} ({format_list(map(self.place, at), 4)})" for value, at in rows.items() if len(at) > 1]

    def text(self, name: str, error_type: type[MlfixError]) -> list[str]:
        """Returns a column as text, missing values as empty; whole numbers that are floats as ``1``, not ``1.0``.

        Raises:
            MlfixError: Of ``error_type``: a value is a list, as in data with several labels per sample.
        """
        if self.lines is not None:
            return list(self.frame[name])
        return column_text(self.frame[name], f"{self.path}: {{place}}", self.place, error_type)

    def read_decimal_commas(self, names: Iterable[str]) -> None:
        """Turns decimal commas of the columns ``names`` into points, unless commas separate the cells."""
        if self.separator in ("", ","):
            return
        changed = []
        for name in names:
            cells = self.frame[name]
            filled = cells[cells != ""]
            if len(filled) and filled.str.contains(",").any() and filled.str.fullmatch(DECIMAL_COMMA).all():
                self.frame[name] = cells.str.replace(",", ".", regex=False).astype(object)
                changed.append(name)
        if changed:
            log.info("%s: commas are read as decimal points in %s", self.path, format_list(changed, 4))

    def leave_out_comments(self, is_value: Callable[[str], bool] = lambda cell: not cell.startswith("# ")) -> None:
        """Leaves out the rows of a CSV whose line begins with a ``#``, unless all do, or it is part of a value.

        Args:
            is_value: Whether a first cell that begins with a ``#`` is meant as it is written; by default if no blank
                follows.
        """
        if self.lines is None or not len(self.frame.columns):
            return
        cells = self.frame.iloc[:, 0].tolist()
        marked = [row for row, cell in enumerate(cells) if cell.startswith("#")]
        comments = [row for row in marked if not is_value(cells[row])]
        if marked and not comments and len(marked) < len(cells):
            shown = format_list((cells[row] for row in marked), 3)
            log.info("%s: %d line(s) begin with a # and are read as values: %s", self.path, len(marked), shown)
        if comments and len(comments) < len(cells):
            lines = format_list((self.lines[row] for row in comments), 3)
            log.info("%s: %d line(s) begin with a # and are left out: line %s", self.path, len(comments), lines)
            self.frame = self.frame.drop(index=comments).reset_index(drop=True)
            left_out = set(comments)
            self.lines = [line for row, line in enumerate(self.lines) if row not in left_out]

    def lacks(self, names: Sequence[str]) -> str:
        """Returns what errors say of missing columns: which, what there is, and whether the header is missing."""
        text = f"lacks the columns {format_list(names)}; it has {format_list(self.frame.columns, 8) or 'none'}"
        return f"{text}: {NO_HEADER}" if self.has_data_first else text

    @property
    def has_data_first(self) -> bool:
        """Whether the first line seems to be data, not names of columns."""
        return bool(re.search(r"\.(jpe?g|png|ppm|bmp|webp|tiff?|gif)\b|^\W*\d+\W|\w/\w*\d", self.first_line.lower()))


def open_table(path: Path, key: str, error_type: type[MlfixError], known: Sequence[str] = ()) -> Table:
    """Opens a CSV or Parquet file.

    Args:
        path: The file; what it is, is told by its content.
        key: What errors call the file, such as ``fixes.path``.
        error_type: Type of the errors.
        known: Names of the columns that the reader knows; they are found in other cases and with blanks, too.

    Raises:
        MlfixError: Of ``error_type``: the file can't be read, has another encoding, a line with more cells than the
            header, a quote that is never closed, or one of the known columns twice.
    """
    check_file(path, key, error_type)
    try:
        with open(path, "rb") as file:
            is_parquet = file.read(4) == b"PAR1" or path.suffix.lower() in PARQUET
        table = _read_parquet(path) if is_parquet else _read_csv(path, error_type, known)
    except OSError as error:
        raise error_type(f"{key}={path} can't be read: {error.strerror or error}", "use a CSV file") from error
    except ValueError as error:
        raise error_type(f"{key}={path} can't be read: {error}", "use a Parquet or CSV file") from error
    _name_columns(table, known, error_type)
    return table


def check_file(path: Path, key: str, error_type: type[MlfixError]) -> None:
    """Raises an error if a table does not exist, or is a folder; the hint names a file in it."""
    if path.is_dir():
        files = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in (*PARQUET, ".csv", ".tsv", ".json"))
        hint = f"set a file in it: {key}={files[0]}" if files else "set a file"
        raise error_type(f"{key}={path} is a folder", hint)
    if not path.exists():
        hint = "check the path: relative ones start at the folder in which the command runs"
        raise error_type(f"{key}={path} does not exist", hint)


def is_json(path: Path) -> bool:
    """Returns whether a file begins as JSON does: with an object, or a list of objects."""
    try:
        with open(path, "rb") as file:
            return re.match(rb"(?:\xef\xbb\xbf)?\s*(\{|\[\s*\{)", file.read(1024)) is not None
    except OSError:
        return False


def _read_parquet(path: Path) -> Table:
    frame = pd.read_parquet(path)
    if not isinstance(frame.index, pd.RangeIndex) or frame.index.name:
        names = [name if name is not None else UNNAMED for name in frame.index.names]
        frame = frame.reset_index(names=names)
    frame.columns = [str(name) for name in frame.columns]
    return Table(path, frame)


@contextmanager
def _without_gc() -> Iterator[None]:
    """Pauses the search for cycles, which takes most of the time where many lists are made; rows have none."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_without_gc()
def _read_csv(path: Path, error_type: type[MlfixError], known: Sequence[str]) -> Table:
    text = _decode(path, error_type)
    separator, start = find_header(text, known)
    if start and not separator:
        log.info("%s: the lines above the header are comments, which are left out", path)
    offset, text = len(text[:start].splitlines()), text[start:]
    first_line = re.search(r"[^\r\n]*\S[^\r\n]*", text)
    first = first_line[0] if first_line else ""
    separator = separator or _find_separator(first, known, path)
    rows, lines = _parse(text, separator, path, offset, error_type)
    if not rows:
        return Table(path, pd.DataFrame(), [], separator)
    header, body, lines = rows[0], rows[1:], lines[1:]
    if _simple(header[0]) in map(_simple, known):
        header[0] = header[0].lstrip("# ")  # as numpy writes a header
    width = max(i for i, name in enumerate(header, start=1) if name)
    if len(header) > width and any(any(cells[width : len(header)]) for cells in body):
        width = len(header)
    comments = [at for at, cells in enumerate(body) if len(cells) == 1 < width and cells[0].startswith("#")]
    if comments:
        log.info("%s: %d line(s) are comments and left out: line %s", path, len(comments), lines[comments[0]])
        left_out = set(comments)
        lines = [line for at, line in enumerate(lines) if at not in left_out]
        body = [cells for at, cells in enumerate(body) if at not in left_out]
    short = [line for line, cells in zip(lines, body, strict=True) if len(cells) < width]
    if short:
        message = "%s: %s line(s) have fewer cells than the header, which are taken as empty: line %s"
        log.info(message, path, f"{len(short):,}", format_list(short, 3))
    body = [
        cells if len(cells) == width else _fit(cells, width, line, path, separator, error_type)
        for line, cells in zip(lines, body, strict=True)
    ]
    columns = zip(*body, strict=True) if body else [()] * width
    names = [name or f"Unnamed: {i}" for i, name in enumerate(header[:width])]
    _check_names(names, known, path, error_type)
    frame = pd.DataFrame({i: pd.Series(cells, dtype=object) for i, cells in enumerate(columns)})
    frame.columns = names
    return Table(path, frame, lines, separator, first)


def _parse(
    text: str, separator: str, path: Path, offset: int, error_type: type[MlfixError]
) -> tuple[list[list[str]], list[int]]:
    """Returns the rows of a CSV that aren't empty, and the line that each ends in."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    rows, lines = list[list[str]](), [offset]
    try:
        for cells in reader:
            if any(cells):
                rows.append(cells)
                lines.append(reader.line_num + offset)
    except csv.Error as error:
        raise error_type(f"{path}: line {reader.line_num + offset}: {error}", "correct the line") from error
    if rows and text.count('"') % 2 and any("\n" in cell or "\r" in cell for cell in rows[-1]):
        raise error_type(
            f"{path}: a quote after line {lines[-2]} is never closed", 'write a quote inside of a cell as ""'
        )
    kept = _quoted_with_blanks(text, separator)
    if kept is not None:
        rows = [[cell if cell in kept else cell.strip() for cell in cells] for cells in rows]
        lines = [0, *(line for line, cells in zip(lines[1:], rows, strict=True) if any(cells))]
        rows = [cells for cells in rows if any(cells)]
    return rows, lines[1:]


def _decode(path: Path, error_type: type[MlfixError]) -> str:
    """Returns the text of a CSV file.

    Its encoding is UTF-8, or UTF-16 or UTF-32 if a byte order mark or zero bytes say so.
    """
    raw = path.read_bytes()
    for start, kind in OTHER_FILES:
        if raw[: len(start)].lower() == start:
            raise error_type(f"{path} is {kind}, not a CSV file", SAVE_AGAIN)
    if path.suffix.lower() in (".json", ".jsonl") or is_json(path):
        raise error_type(f"{path} is JSON, not a CSV file", "write it as CSV or Parquet: pandas.DataFrame(...).to_csv")
    try:
        text, encoding, mark = decode_text(raw)
    except UnicodeDecodeError as error:
        shown, line = _encoding_name(error.encoding), error.object[: error.start].count(b"\n") + 1
        byte = f"byte 0x{error.object[error.start] if error.start < len(error.object) else 0:02x}"
        problem = f"{path}: line {line} is not {shown} ({byte})"
        around = error.object[max(error.start - 12, 0) : error.start + 13]
        word = re.search(r"\w*[^\x00-\x7f]\w*", around.decode("cp1252", "replace"))
        is_plain = shown == "UTF-8" and not raw.startswith(codecs.BOM_UTF8)
        guess = f"; in Windows-1252 it would be {word[0]!r}" if word and is_plain else ""
        if is_plain and b"\0" in raw:
            raise error_type(f"{problem}, but may be UTF-16 without a byte order mark", SAVE_AGAIN) from error
        raise error_type(problem + guess, f"{SAVE_AGAIN} (or: iconv -f WINDOWS-1252 -t UTF-8)") from error
    if "\x00" in text:
        problem = f"{path} contains NUL characters: it is not a CSV file, or UTF-16 without a byte order mark"
        raise error_type(problem, SAVE_AGAIN)
    if encoding != "utf-8":
        log.info("%s is %s%s", path, _encoding_name(encoding), "" if mark else ", without a byte order mark")
    return text


def _encoding_name(encoding: str) -> str:
    return encoding.upper().removesuffix("-LE").removesuffix("-BE")


def _simple(name: str) -> str:
    """Returns a key that is the same for ``Sample ID`` and ``sample_id``."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())


def find_header(text: str, known: Sequence[str]) -> tuple[str, int]:
    """Returns the separator that Excel's first line ``sep=;`` names, and where the header begins.

    Lines above it that begin with a # are comments, unless they have more of the ``known`` names than what follows.
    """
    named = re.match(r"[ \t]*\"?sep=(.)\"?[ \t]*(?:\r\n|\r|\n|$)", text, re.IGNORECASE)
    if named:
        return named[1], named.end()
    wanted, at = {_simple(name) for name in known}, 0
    while comment := re.compile(r"\s*#([^\r\n]*)(?:\r\n|\r|\n|$)").match(text, at):
        following = re.compile(r"\s*([^\r\n]*)").match(text, comment.end())
        lines = comment[1], following[1] if following else ""
        mine, next_line = (len(wanted & {_simple(cell) for cell in re.split(r"[,;\t|]", line)}) for line in lines)
        if mine > next_line or not lines[1]:
            break
        at = comment.end()
    return "", at


def _find_separator(header: str, known: Sequence[str], path: Path) -> str:
    """Returns the separator that finds the most known names in the header, else the most names."""
    wanted = {_simple(name) for name in known}
    best, most = ",", (-1, -1)
    for sign in SIGNS:
        names = next(csv.reader([header], delimiter=sign, skipinitialspace=True), [])
        found = (sum(_simple(name) in wanted for name in names), len(names))
        if found > most:
            best, most = sign, found
    if best != "," and path.suffix.lower() not in (".tsv", ".tab"):
        log.info("%s: its cells are separated by %ss", path, SIGNS[best])
    return best


def _quoted_with_blanks(text: str, separator: str) -> set[str] | None:
    """Returns the cells that have blanks inside of their quotes; ``None`` if there are no blanks around any cell."""
    blanks = [blank for blank in BLANKS if blank != separator and blank in text]
    edges = (separator, "\n", "\r", '"')
    ends = (text[:1], text[-1:])
    if not any(
        blank in ends or any(blank + edge in text or edge + blank in text for edge in edges) for blank in blanks
    ):
        return None
    quoted = (found.replace('""', '"') for found in re.findall(r'"((?:[^"]|"")*)"', text))
    return {cell for cell in quoted if cell != cell.strip()}


def _fit(
    cells: list[str], width: int, line: int, path: Path, separator: str, error_type: type[MlfixError]
) -> list[str]:
    """Returns as many cells as the header has; empty ones beyond it don't count."""
    if len(cells) > width and any(cells[width:]):
        problem = f"{path}: line {line} has {len(cells)} cells, the header {width}: {separator.join(cells)[:120]!r}"
        sign = SIGNS.get(separator, repr(separator))
        example = f'"a{separator}b.jpg"'
        raise error_type(problem, f"put values that contain a {sign} in double quotes: {example}")
    return cells[:width] if len(cells) >= width else cells + [""] * (width - len(cells))


def _check_names(names: list[str], known: Sequence[str], path: Path, error_type: type[MlfixError]) -> None:
    """Checks that no known column is there twice, and numbers others, as pandas does."""
    counts = Counter(names)
    repeated = [name for name, count in counts.items() if count > 1]
    if not repeated:
        return
    for name in repeated:
        if name in known:
            columns = format_list([i for i, other in enumerate(names, start=1) if other == name])
            raise error_type(f"{path} has {counts[name]} columns called {name!r} ({columns})", "rename all but one")
    log.info("%s has several columns called %s; they are numbered", path, format_list(repeated, 4))
    seen = Counter[str]()
    for i, name in enumerate(names):
        names[i] = f"{name}.{seen[name]}" if seen[name] else name
        seen[name] += 1


def _name_columns(table: Table, known: Sequence[str], error_type: type[MlfixError]) -> None:
    """Gives known columns their name if it is written in another way, and Parquet's unnamed index that of the ids."""
    frame = table.frame
    renamed: dict[str, str] = {}
    for name in known:
        same = [other for other in frame.columns if other != name and _simple(other) == _simple(name)]
        if name in frame.columns or not same:
            continue
        if len(same) > 1:
            problem = f"{table.path}: the column {name!r} may be any of {format_list(map(repr, same))}"
            raise error_type(problem, f"call one of them {name}")
        if same[0] not in known:
            renamed[same[0]] = name
    if table.lines is None and UNNAMED in frame.columns and "sample_id" in known and "sample_id" not in frame.columns:
        renamed[UNNAMED] = "sample_id"
    if renamed:
        pairs = format_list((f"{old!r} as {new!r}" for old, new in renamed.items()), 4)
        log.info("%s: columns are read %s", table.path, pairs)
        table.frame = frame.rename(columns=renamed)


def column_text(
    values: pd.Series, source: str, place: Any = lambda row: f"row {row + 1}", error_type: type[MlfixError] = MlfixError
) -> list[str]:
    """Returns values as text, missing ones as empty; whole numbers that are floats as ``1``, bytes as their text.

    Args:
        values: Of any type.
        source: What errors call a value; ``{place}`` in it is the row.
        place: Names a row, by its number from 0.
        error_type: Type of the errors.

    Raises:
        MlfixError: Of ``error_type``: a value is a list.
    """
    if pd.api.types.is_integer_dtype(values.dtype) and not values.hasnans:
        return [str(value) for value in values.tolist()]
    items = values.tolist()
    if not values.hasnans and pd.api.types.infer_dtype(values, skipna=False) == "string":
        return items
    for row, value in enumerate(items):
        if isinstance(value, (list, tuple, set, dict, np.ndarray)):
            where = source.format(place=place(row))
            shown = list(value) if not isinstance(value, dict) else value
            problem = f"{where} has the {values.name} {str(shown)[:80]}, which is not text"
            raise error_type(problem, "give each sample one text; data with several labels per sample is not supported")
    numbers = [value for value in items if isinstance(value, float) and not math.isnan(value)]
    whole = all(value.is_integer() for value in numbers)
    return [_cell_text(value, whole) for value in items]


def _cell_text(value: Any, whole: bool) -> str:
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return ""
    if isinstance(value, float) and whole and abs(value) < 2**53:
        return str(int(value))
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def infer_types(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns a table of text with numbers and booleans for columns of nothing else, and empty cells as missing.

    Numbers with a leading zero, such as ``007``, are names and stay text.
    """
    return pd.DataFrame({name: _infer(frame[name]) for name in frame.columns}, index=frame.index)


def _infer(cells: pd.Series) -> pd.Series:
    values = cells.tolist()
    filled = [value for value in values if value != ""]
    if not filled:
        return pd.Series(np.nan, index=cells.index)
    has_gaps = len(filled) < len(values)
    if _may_be_number(filled[0]):
        numbers = pd.to_numeric(cells.where(cells != "", None) if has_gaps else cells, errors="coerce")
        is_name = (ZERO_FIRST.fullmatch(value) for value in filled if value[0] in "0+-")
        if numbers.notna().sum() == len(filled) and not any(is_name):
            return numbers
    truth: Mapping[str, bool] = {"true": True, "false": False}
    if filled[0].lower() in truth and {value.lower() for value in set(filled)} <= set(truth):
        answers = cells.map(lambda value: truth.get(value.lower(), np.nan))
        return answers if has_gaps else answers.astype(bool)
    return cells.where(cells != "", np.nan) if has_gaps else cells


def _may_be_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
