"""JSON read with the reason where it can't be, and changed in single places with all else left as it is written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlfix_train.data.files.atomic import atomic_path

BLANK = " \t\r\n"
_decoder = json.JSONDecoder()


def read_json(path: str | Path) -> tuple[Any, str]:
    """Returns what a file holds and an empty reason, or ``None`` and why it can't be read."""
    try:
        return json.loads(Path(path).read_bytes().decode("utf-8-sig")), ""
    except FileNotFoundError:
        return None, "the file is missing"
    except OSError as error:
        return None, error.strerror or type(error).__name__
    except UnicodeDecodeError as error:
        return None, f"it is not UTF-8 (byte {error.start})"
    except RecursionError:
        return None, "it is nested too deeply"
    except json.JSONDecodeError as error:
        if not error.doc.strip():
            return None, "it is empty"
        return None, f"it is no JSON: {error.msg} in line {error.lineno}, column {error.colno}"
    except ValueError as error:
        return None, f"it can't be read: {error}"


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in BLANK:
        at += 1
    return at


def members(text: str, at: int) -> Iterator[tuple[str, int, int]]:
    """Yields key, start and end of the value of each member of the object that begins at ``at``."""
    at = _skip(text, at + 1)
    while text[at] != "}":
        key, at = _decoder.raw_decode(text, at)
        start = _skip(text, _skip(text, at) + 1)
        _, end = _decoder.raw_decode(text, start)
        yield key, start, end
        at = _skip(text, end)
        at = _skip(text, at + 1) if text[at] == "," else at


def elements(text: str, at: int) -> Iterator[tuple[int, int, Any]]:
    """Yields start, end and value of each element of the list that begins at ``at``."""
    at = _skip(text, at + 1)
    while text[at] != "]":
        value, end = _decoder.raw_decode(text, at)
        yield at, end, value
        at = _skip(text, end)
        at = _skip(text, at + 1) if text[at] == "," else at


class JsonPatch:
    """Changes to a JSON file's text, made in single places; everything else stays as it is written, byte for byte.

    Args:
        path: the file, UTF-8.
    """

    def __init__(self, path: Path) -> None:
        raw = path.read_bytes()
        self.mark = b"\xef\xbb\xbf" if raw.startswith(b"\xef\xbb\xbf") else b""
        self.text = raw[len(self.mark) :].decode()
        self.sections = {key: (start, end) for key, start, end in members(self.text, _skip(self.text, 0))}
        self._edits: list[tuple[int, int, str]] = []

    def listed(self, section: str) -> list[tuple[int, int, Any]]:
        """Returns start, end and value of the elements of a list at the top."""
        return list(elements(self.text, self.sections[section][0]))

    def put(self, start: int, key: str, value: Any) -> None:
        """Gives a member of the object that begins at ``start`` another value."""
        for name, begin, end in members(self.text, start):
            if name == key:
                self._edits.append((begin, end, json.dumps(value, ensure_ascii=self.text.isascii())))

    def remove(self, spans: list[tuple[int, int, Any]], places: set[int]) -> None:
        """Takes elements out of a list, with the comma and the blanks that belong to them.

        Args:
            spans: from :meth:`listed`.
            places: which of them.
        """
        kept = [place for place in range(len(spans)) if place not in places]
        if places and not kept:
            self._edits.append((spans[0][0], spans[-1][1], ""))
            return
        for place in sorted(places):
            begin, end, _ = spans[place]
            if kept and place > kept[0]:  # with what parts it from the one before
                begin = spans[place - 1][1]
            elif kept:
                end = spans[place + 1][0]
            self._edits.append((begin, end, ""))

    def append(self, section: str, values: Sequence[Mapping[str, Any]]) -> None:
        """Adds elements at the end of a list, parted as its last two are."""
        spans = self.listed(section)
        words = [json.dumps(value, ensure_ascii=self.text.isascii()) for value in values]
        if not spans:
            start = self.sections[section][0]
            self._edits.append((start + 1, start + 1, ", ".join(words)))
            return
        between = self.text[spans[-2][1] : spans[-1][0]] if len(spans) > 1 else ", "
        at = spans[-1][1]
        self._edits.append((at, at, "".join(between + word for word in words)))

    def write(self, target: Path) -> None:
        """Writes the changed text."""
        pieces, at = [], 0
        for begin, end, words in sorted(self._edits):
            pieces += [self.text[at:begin], words]
            at = end
        pieces.append(self.text[at:])
        with atomic_path(target) as temporary:
            temporary.write_bytes(self.mark + "".join(pieces).encode())
