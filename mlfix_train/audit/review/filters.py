"""Filters on columns: numbers in a range, values of a category, or a text; of the audit's table and the user's own.

A page describes a filter as JSON, by the name of its column: ``{"from": 0.5, "to": 2}`` (one of them may be missing),
``{"values": ["rain", "snow"]}`` or ``{"contains": "night"}``. Shapes: N samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlfix_train.audit.review.marks import INVALID_CODE, KEEP_CODE, UNSURE_CODE
from mlfix_train.audit.review.requests import RequestError
from mlfix_train.audit.review.samples import NONE, Samples
from mlfix_train.errors import did_you_mean

MAX_VALUES = 200
"""A category with more values is filtered by a part of its text; so many values a filter may name."""
MAX_TEXT = 200
ANSWER = "answer"
ANSWERS = {"none": NONE, "invalid": INVALID_CODE, "unsure": UNSURE_CODE, "kept as given": KEEP_CODE}
"""Values of the column :data:`ANSWER`, beside "new label"."""
LABELS = {"given label": "given", "predicted label": "predicted", "suggested label": "suggested"}
"""Columns of labels, and their names in :class:`~mlfix_train.audit.review.samples.Samples`."""


@dataclass(frozen=True)
class ColumnFilter:
    """A filter on one column. Samples without a number are not in a range."""

    column: str
    low: float = -np.inf
    high: float = np.inf
    values: tuple[str, ...] | None = None
    contains: str = ""

    def matches(self, samples: Samples, marks: np.ndarray) -> np.ndarray:
        """Returns bool ``(N,)``, which samples are shown; ``marks`` are int32 ``(N,)``."""
        numbers = _numbers(samples).get(self.column)
        if numbers is not None:
            return np.asarray((numbers >= self.low) & (numbers <= self.high))
        codes, texts = _category(samples, marks, self.column)
        if self.values is not None:
            values = set(self.values)
            chosen = [text in values for text in texts]
        else:
            chosen = [self.contains.casefold() in text.casefold() for text in texts]
        matches: np.ndarray = np.array([*chosen, False])[codes]  # code -1: no label
        return matches


def describe_columns(samples: Samples) -> list[dict[str, Any]]:
    """Returns the columns that can be filtered: ``name``; ``low`` and ``high``, or ``values``, or neither (a text)."""
    found: dict[str, dict[str, Any]] = {}
    for name, numbers in _numbers(samples).items():
        known = numbers[np.isfinite(numbers)]
        if len(known):
            found[name] = {"name": name, "low": float(f"{known.min():.4g}"), "high": float(f"{known.max():.4g}")}
    for name in [ANSWER, *_label_columns(samples), *samples.columns]:
        if name not in found:
            codes, texts = _category(samples, np.zeros(0, np.int32), name)
            used = np.flatnonzero(np.bincount(codes[codes >= 0])).tolist()
            values = texts if name == ANSWER else [texts[code] for code in used[: MAX_VALUES + 1]]
            found[name] = {"name": name, **({"values": values} if len(values) <= MAX_VALUES else {})}
    first = [ANSWER, *_label_columns(samples)]
    return [*(found[name] for name in first), *(one for name, one in found.items() if name not in first)]


def parse_filters(payload: Any, samples: Samples) -> tuple[ColumnFilter, ...]:
    """Checks the filters that a page sent, by column.

    Raises:
        RequestError: A column that does not exist, with the closest one, or a filter that is none.
    """
    if not isinstance(payload, Mapping) or len(payload) > MAX_VALUES:
        raise RequestError("columns is not an object of filters by column")
    numeric = _numbers(samples)
    names = [ANSWER, *_label_columns(samples), *samples.columns, *numeric]
    found = []
    for name, one in payload.items():
        if name not in names:
            raise RequestError(f"there is no column {str(name)[:80]!r} to filter", did_you_mean(str(name)[:80], names))
        if not isinstance(one, Mapping):
            raise RequestError(f"the filter of column {name} is not an object")
        found.append(_parse_range(name, one) if name in numeric else _parse_category(name, one))
    return tuple(sorted(found, key=lambda one: one.column))


def _parse_range(name: str, one: Mapping[str, Any]) -> ColumnFilter:
    low, high = one.get("from", -np.inf), one.get("to", np.inf)
    if not all(type(end) in (int, float) and not np.isnan(end) for end in (low, high)):
        raise RequestError(f"column {name}: from and to are not numbers", "leave out the end that is open")
    return ColumnFilter(name, float(low), float(high))


def _parse_category(name: str, one: Mapping[str, Any]) -> ColumnFilter:
    values, contains = one.get("values"), one.get("contains", "")
    if values is not None:
        if not isinstance(values, list) or len(values) > MAX_VALUES or not all(isinstance(x, str) for x in values):
            raise RequestError(f"column {name}: values is not a list of at most {MAX_VALUES} texts")
        return ColumnFilter(name, values=tuple(sorted(set(values))))
    if not isinstance(contains, str) or not 0 < len(contains) <= MAX_TEXT:
        raise RequestError(f"column {name} needs values, or a text that it contains of at most {MAX_TEXT} characters")
    return ColumnFilter(name, contains=contains)


def _numbers(samples: Samples) -> dict[str, np.ndarray]:
    return {**samples.scores, **samples.numbers}


def _label_columns(samples: Samples) -> list[str]:
    return [name for name, attribute in LABELS.items() if (getattr(samples, attribute) >= 0).any()]


def _category(samples: Samples, marks: np.ndarray, name: str) -> tuple[np.ndarray, list[str]]:
    """Returns the codes ``(N,)`` of a column and the text of each code."""
    if name == ANSWER:
        codes = np.full(len(marks), len(ANSWERS))
        for code, answer in enumerate(ANSWERS.values()):
            codes[marks == answer] = code
        return codes, [*ANSWERS, "new label"]
    if name in LABELS:
        return getattr(samples, LABELS[name]), samples.labels
    return samples.columns[name]
