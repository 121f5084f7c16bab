"""Ids of rows that refer to each other, which tools write as numbers, text or floats (``1``, ``"1"``, ``1.0``)."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

Id = int | float | str
"""What may be an id in JSON."""


def is_id(value: Any) -> bool:
    """Returns whether a value of JSON can be an id: text that is not empty, or a finite number."""
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def id_text(value: Id) -> str:
    """Returns an id as text; ``1``, ``1.0``, ``"1"`` and ``"1.0"`` are the same."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return re.sub(r"(?<=\d)\.0+$", "", text)


class IdIndex:
    """Finds ids as they are written, or otherwise by their digits, where only one id has them.

    Args:
        ids: the ids that others refer to.
    """

    def __init__(self, ids: Iterable[Id]) -> None:
        self._ids = set(ids)
        counts = Counter(map(id_text, self._ids))
        self._by_text = {id_text(value): value for value in self._ids if counts[id_text(value)] == 1}
        self.by_digits = 0
        """References that were found by their digits alone: text for a number, or a number for text."""

    def find(self, value: Any) -> Id | None:
        """Returns the id that a reference means, or ``None``."""
        if not is_id(value):
            return None
        given: Id = value
        if given in self._ids:
            return given
        found = self._by_text.get(id_text(given))
        self.by_digits += found is not None
        return found


class UniqueKeys:
    """Text keys of rows from ids that may be missing or repeat: the place in the file then tells rows apart."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self.repeated = list[str]()
        """The ids of rows that had one which an earlier row has."""

    def add(self, value: Any, place: int, missing: str = "#") -> str:
        """Returns the key of the next row: its id; ``<missing><place>`` without one, ``<id>#<place>`` if it repeats."""
        if not is_id(value):
            key = f"{missing}{place}"
        else:
            key = id_text(value)
            if key in self._seen:
                self.repeated.append(key)
                key = f"{key}#{place}"
        self._seen.add(key)
        return key
