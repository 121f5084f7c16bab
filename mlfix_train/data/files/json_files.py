"""Writes JSON, and changes single values of a file without touching the rest."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.files.documents import decode_text, entries, skip_whitespace


def write_json(path: Path, content: Any) -> None:
    """Writes a file atomically; what JSON has no type for becomes text."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False, default=str), encoding="utf-8")


class JsonPatch:
    """Changes to the text of a JSON file; everything else stays byte for byte, in the file's own encoding."""

    def __init__(self, path: Path) -> None:
        self.text, self._encoding, self._mark = decode_text(path.read_bytes())
        self.sections = {key: start for key, start, *_ in entries(self.text, skip_whitespace(self.text, 0))}
        self._edits: list[tuple[int, int, str]] = []

    def listed(self, section: str) -> list[tuple[int, int, Any]]:
        """Returns start, end and value of the elements of a top-level list."""
        return [entry[1:] for entry in entries(self.text, self.sections[section])]

    def relabel(self, section: str, keys: Sequence[str], member: str, changes: Mapping[str, object]) -> None:
        """Changes the ``member`` of a list's elements, given their keys; ``None`` removes an element.

        The comma and whitespace that belong to it go with it.
        """
        spans = self.listed(section)
        removed = {place for place, key in enumerate(keys) if key in changes and changes[key] is None}
        first_kept = next((place for place in range(len(spans)) if place not in removed), None)
        if removed and first_kept is None:
            self._edits.append((spans[0][0], spans[-1][1], ""))
            return
        for place, (key, (start, end, _)) in enumerate(zip(keys, spans, strict=True)):
            if place in removed and place > (first_kept or 0):  # with the separator before it
                self._edits.append((spans[place - 1][1], end, ""))
            elif place in removed:
                self._edits.append((start, spans[place + 1][0], ""))
            elif key in changes:
                new = self._dump(changes[key])
                self._edits += [(at, to, new) for name, at, to, _ in entries(self.text, start) if name == member]

    def append(self, section: str, values: Sequence[Mapping[str, Any]]) -> None:
        """Appends elements to a list, separated as its last two are."""
        spans = self.listed(section)
        separator = self.text[spans[-2][1] : spans[-1][0]] if len(spans) > 1 else ", "
        at = spans[-1][1] if spans else self.sections[section] + 1
        added = separator.join(map(self._dump, values))
        self._edits.append((at, at, separator + added if spans else added))

    def _dump(self, value: object) -> str:
        return json.dumps(value, ensure_ascii=self.text.isascii())

    def write(self, target: Path) -> None:
        """Writes the changed text."""
        pieces, at = [], 0
        for begin, end, replacement in sorted(self._edits):
            pieces += [self.text[at:begin], replacement]
            at = end
        pieces.append(self.text[at:])
        with atomic_path(target) as temporary:
            temporary.write_bytes(self._mark + "".join(pieces).encode(self._encoding))
