"""Opens YAML and JSON: names as they are written, keys that stand twice and syntax errors by line and column."""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from mlfix_train.errors import DataError

NULL = ("", "~", "null", "Null", "NULL")
"""How YAML writes that there is no value."""
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""The mark at the beginning of a file, and its encoding; UTF-32 comes first, whose mark begins like UTF-16's."""
WHITESPACE = " \t\r\n"
_decoder = json.JSONDecoder()


def decode_text(raw: bytes) -> tuple[str, str, bytes]:
    """Returns the text of a file without byte order mark, its encoding, and the mark (often empty).

    Without a mark it is UTF-8, or UTF-16 or UTF-32 if every other byte of the beginning is zero.

    Raises:
        UnicodeDecodeError: it is not valid in its encoding.
    """
    for mark, encoding in BYTE_ORDER_MARKS:
        if raw.startswith(mark):
            return raw[len(mark) :].decode(encoding), encoding, mark
    encoding = json.detect_encoding(raw)
    return raw.decode(encoding), encoding, b""


class RepeatedKeyError(ValueError):
    """A key that stands twice in a mapping, and the two lines."""

    def __str__(self) -> str:
        key, first, second = self.args
        return f"the key {key!r} stands in line {first} and in line {second}"


class _NamesLoader(yaml.BaseLoader):  # type: ignore[misc] # PyYAML has no types
    """PyYAML's loader that leaves scalars as text, but for keys that stand twice, which are errors."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        marks: dict[str, Any] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is not text", key.start_mark)
            first = marks.setdefault(key.value, key.start_mark)
            if first is not key.start_mark:
                raise RepeatedKeyError(key.value, first.line + 1, key.start_mark.line + 1)
        return dict(super().construct_mapping(node, deep))


def read_yaml(path: Path) -> Any:
    """Reads a YAML file in which every scalar stays text as it is written: ``020``, ``1.10``, ``no``, ``~``.

    Raises:
        DataError: it can't be read, is not valid YAML, or has a key twice; names the line and column.
    """
    try:
        text, *_ = decode_text(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}", "check the path and its permissions") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problem = f"{path}: line {line} is not {error.encoding.upper()} (byte 0x{error.object[error.start]:02x})"
        raise DataError(problem, "save the file again as UTF-8") from error
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path) -> Any:
    """Parses the text of a YAML file; see :func:`read_yaml`."""
    try:
        return yaml.load(text, _NamesLoader)  # noqa: S506 - it builds nothing but text, lists and mappings
    except RepeatedKeyError as error:
        raise DataError(f"{path}: {error}", "remove or rename one of them") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        reason = f"{error.context}, {error.problem}" if error.context else str(error.problem)
        raise DataError(f"{path} is not valid YAML: {place}{reason}", "correct the line") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        problem = f"line {line}, column {column}: the character #x{ord(text[error.position]):04x} is not allowed"
        raise DataError(f"{path} is not valid YAML: {problem}", "remove the character") from error


class RefusedJsonError(ValueError):
    """JSON that Python reads, and we don't."""


def read_json(path: str | Path, allow_nan: bool = False, exact: bool = False) -> tuple[Any, str]:
    """Returns the content of a file and an empty string, or ``None`` and why not; see :func:`parse_json`."""
    try:
        return parse_json(Path(path).read_bytes(), allow_nan, exact)
    except FileNotFoundError:
        return None, "the file is missing"
    except IsADirectoryError:
        return None, "it is a folder"
    except OSError as error:
        return None, error.strerror or type(error).__name__


def parse_json(raw: bytes, allow_nan: bool = False, exact: bool = False) -> tuple[Any, str]:  # noqa: PLR0911
    """Returns what JSON holds and an empty string, or ``None`` and why it can't be read.

    Args:
        raw: in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.
        allow_nan: whether NaN and Infinity, which are no JSON, are read.
        exact: numbers with a decimal point or exponent are returned as text, as they are written (``1.10``).
    """
    text = ""

    def refuse(name: str) -> None:
        raise RefusedJsonError(f"it contains {name} in {_place(text, _position_of_constant(text))}, which is no JSON")

    def to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) != len(pairs):
            raise RefusedJsonError(_repeated_key(text))
        return content

    hooks: dict[str, Any] = {"object_pairs_hook": to_dict}
    hooks |= {} if allow_nan else {"parse_constant": refuse}
    hooks |= {"parse_float": str} if exact else {}
    try:
        text, *_ = decode_text(raw)
        return json.loads(text, **hooks), ""
    except UnicodeDecodeError as error:
        return None, f"it is not {error.encoding.upper()} (byte {error.start})"
    except RecursionError:
        return None, "it is nested too deeply"
    except json.JSONDecodeError as error:
        if not error.doc.strip():
            return None, "it is empty"
        if _is_cut_off(error):
            return None, f"it is cut off in line {error.doc.rstrip().count(chr(10)) + 1}"
        return None, f"it is not valid JSON: {error.msg} in line {error.lineno}, column {error.colno}"
    except RefusedJsonError as error:
        return None, str(error)
    except ValueError as error:
        return None, f"it can't be read: {error}"


def _is_cut_off(error: json.JSONDecodeError) -> bool:
    """Returns whether JSON is valid up to its end, which comes too early."""
    rest = error.doc[error.pos :].strip()
    in_word = any(word.startswith(rest) for word in ("true", "false", "null", "-"))
    return in_word or error.msg.startswith("Unterminated string") or rest == "\\"


def _position_of_constant(text: str) -> int:
    """Returns where the first NaN or Infinity outside of strings begins."""
    tokens = re.finditer(r'"(?:[^"\\]|\\.)*"|-?(?:NaN|Infinity)', text, re.S)
    return next((token.start() for token in tokens if not token[0].startswith('"')), 0)


def _place(text: str, at: int) -> str:
    return f"line {text.count(chr(10), 0, at) + 1}, column {at - text.rfind(chr(10), 0, at)}"


def _repeated_key(text: str) -> str:
    """Returns the message on the first key that stands twice in an object."""
    stack = [skip_whitespace(text, 0)]
    while stack:
        at = stack.pop()
        seen: dict[str, int] = {}
        for key, key_at, value_at, *_ in _entries(text, at):
            if text[at] == "{" and seen.setdefault(key, key_at) != key_at:
                lines = (text.count("\n", 0, place) + 1 for place in (seen[key], key_at))
                return f"{RepeatedKeyError(key, *lines)}; remove one of them"
            if text[value_at] in "{[":
                stack.append(value_at)
    return "a key stands twice in an object"


def skip_whitespace(text: str, at: int) -> int:
    """Returns the position of the next character of JSON that is not blank."""
    while at < len(text) and text[at] in WHITESPACE:
        at += 1
    return at


def _entries(text: str, at: int) -> Iterator[tuple[str, int, int, int, Any]]:
    closing = {"{": "}", "[": "]"}[text[at]]
    at = skip_whitespace(text, at + 1)
    while text[at] != closing:
        key, key_at = "", at
        if closing == "}":
            key, at = _decoder.raw_decode(text, at)
            at = skip_whitespace(text, skip_whitespace(text, at) + 1)
        value, end = _decoder.raw_decode(text, at)
        yield key, key_at, at, end, value
        at = skip_whitespace(text, end)
        at = skip_whitespace(text, at + 1) if text[at] == "," else at


def entries(text: str, at: int) -> Iterator[tuple[str, int, int, Any]]:
    """Yields key (empty in a list), start, end and value of each entry of the object or list that begins at ``at``."""
    for key, _, start, end, value in _entries(text, at):
        yield key, start, end, value
