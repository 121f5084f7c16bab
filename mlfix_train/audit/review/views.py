"""Views: which samples the page shows, in which groups and in which order.

Shapes: N samples, M of them in a view, G groups.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd

from mlfix_train.audit.review.filters import ColumnFilter, parse_filters
from mlfix_train.audit.review.marks import INVALID_CODE
from mlfix_train.audit.review.requests import RequestError
from mlfix_train.audit.review.samples import FAULT, NONE, Samples, natural_sort_key
from mlfix_train.errors import check_choice

SCREEN_SIZE = 60  # samples of a group seen at once; groups are ordered by the suspicion that these hold
FIRST_BAND = 48  # samples in the first band of the order "both"; each further band is twice as long
MIN_SUSPICION = 0.5  # samples at least this suspicious are shown by the filter "suspicious"
GROUP_BY = ("label", "pair", "suggested", "all", "random")
SIMILAR = "similar:"
"""Before a row number, a value of ``group_by``: the images most like that one."""
SORT_BY = ("suspicion", "visual", "both")
GROUP_ORDERS = ("suspicion", "name")
FILTERS = ("all", "marked", "unmarked", "suspicious", "unreviewed")


@dataclass(frozen=True)
class ViewSpec:
    """What to show.

    Args:
        group_by: ``label``, ``pair`` (given and predicted label), ``suggested`` (given and suggested label), ``all``
            (one group), ``random`` (the sample to judge, in random order), ``column:<name>`` of the metadata, or
            ``similar:<row>`` (the images most like one, nearest first).
        sort_by: Order inside a group: ``suspicion`` (most suspicious first), ``visual`` (similar images side by side),
            or ``both`` (bands of falling suspicion, each twice as long as the one before, in visual order inside).
        group_order: ``suspicion`` (the groups whose first screen holds most suspicion first) or ``name``.
        filter: ``all``, ``marked`` (a new label or invalid), ``unmarked`` (no answer), ``suspicious``, ``unreviewed``.
        search: Words that the id or one of the labels must contain, all of them.
        min_suspicion: The least suspicion, 0 to 1.
        columns: Filters on columns, see :mod:`mlfix_train.audit.review.filters`.
        area: A lasso on the map of all images, see :meth:`mlfix_train.audit.review.image_map.ImageMap.inside`.
    """

    group_by: str = "label"
    sort_by: str = "suspicion"
    group_order: str = "suspicion"
    filter: str = "all"
    search: str = ""
    min_suspicion: float = 0.0
    columns: tuple[ColumnFilter, ...] = ()
    area: str = ""

    @classmethod
    def parse(cls, payload: Mapping[str, Any], samples: Samples) -> Self:
        """Checks what a page sent.

        Raises:
            ConfigError: An unknown value, with the closest valid one.
            RequestError: A value of another type, or a filter on a column that does not exist.
        """
        names = ("group_by", "sort_by", "group_order", "filter", "search")
        values: dict[str, Any] = {name: str(payload.get(name, getattr(cls, name)))[:200] for name in names}
        similar_to = values["group_by"].removeprefix(SIMILAR)
        if similar_to == values["group_by"] or not similar_to.isdecimal() or int(similar_to) >= len(samples):
            check_choice("group_by", values["group_by"], [*GROUP_BY, *(f"column:{name}" for name in samples.columns)])
        check_choice("sort_by", values["sort_by"], SORT_BY)
        check_choice("group_order", values["group_order"], GROUP_ORDERS)
        check_choice("filter", values["filter"], FILTERS)
        values["search"] = " ".join(values["search"].split())
        if values["group_by"] == "random":  # the audit must not bias the reviewer
            return cls(group_by="random")
        least, area = payload.get("min_suspicion", 0), payload.get("area", "")
        if type(least) not in (int, float) or not 0 <= least <= 1:
            raise RequestError("min_suspicion is not a number from 0 to 1")
        if not isinstance(area, str):
            raise RequestError("area is not a text")
        return cls(**values, min_suspicion=least, columns=parse_filters(payload.get("columns", {}), samples), area=area)

    @property
    def similar_to(self) -> int | None:
        """Row of the image whose like are shown; ``None`` in other views."""
        return int(self.group_by.removeprefix(SIMILAR)) if self.group_by.startswith(SIMILAR) else None

    @property
    def stays_the_same(self) -> bool:
        """Whether neither marks nor judgements nor embeddings that appear later change what the view shows."""
        changes = self.group_by == "random" or self.similar_to is not None or self.filter not in ("all", "suspicious")
        return not (changes or self.search or self.min_suspicion or self.columns or self.area)


@dataclass
class View:
    """Samples in the order in which they are shown."""

    spec: ViewSpec
    rows: np.ndarray  # int32 (M,), rows of the samples
    starts: np.ndarray  # int64 (G + 1,), where each group begins in rows
    given: np.ndarray  # int32 (G,), label code of each group, NONE where it has none
    other: np.ndarray  # the same of the predicted label
    names: list[str]  # of the G groups
    expected: np.ndarray  # float (G,), sum of the suspicion

    def __post_init__(self) -> None:
        # int32 (M,), group of each row
        self.group_of = np.repeat(np.arange(len(self.names), dtype=np.int32), np.diff(self.starts))
        self._total: tuple[np.ndarray, np.ndarray] | None = None  # the values and result of the last :meth:`total`

    @cached_property
    def key(self) -> str:
        """Name of the view, a hash of its content."""
        digest = hashlib.sha256(repr(self.spec).encode())
        digest.update(self.rows.tobytes())
        return digest.hexdigest()[:20]

    @cached_property
    def _group_by_row(self) -> np.ndarray:
        groups = np.full(int(self.rows.max(initial=NONE)) + 1, NONE, np.int32)
        groups[self.rows] = self.group_of
        return groups

    def groups_of(self, rows: np.ndarray) -> np.ndarray:
        """Returns the group of each of ``rows`` (ascending), :data:`NONE` for those that are not in the view."""
        groups = np.full(len(rows), NONE, np.int32)
        inside = rows[: np.searchsorted(rows, len(self._group_by_row))]
        groups[: len(inside)] = self._group_by_row[inside]
        return groups

    def total(self, values: np.ndarray) -> np.ndarray:
        """Returns the sum of ``values`` ``(N,)`` in each group, NaN left out, float64 ``(G,)``; the last is kept."""
        if self._total is None or self._total[0] is not values:
            weights = np.nan_to_num(values[self.rows].astype(np.float64))
            self._total = values, np.bincount(self.group_of, weights, len(self.names))
        return self._total[1]

    def group(self, number: int) -> np.ndarray:
        """Returns the rows of a group."""
        return np.asarray(self.rows[self.starts[number] : self.starts[number + 1]])


def make_view(
    samples: Samples,
    spec: ViewSpec,
    marks: np.ndarray,
    reviewed: np.ndarray,
    listed: np.ndarray | None = None,
    narrowed: np.ndarray | None = None,
) -> View:
    """Selects, groups and orders samples.

    ``marks`` (int32) and ``reviewed`` (bool) are ``(N,)``; ``listed`` are the rows of the sample to judge, or of
    similar images, in order; ``narrowed``, bool ``(N,)``, are the samples that the filters beside ``filter`` and
    ``search`` leave.
    """
    shown = _filter(samples, spec, marks, reviewed)
    if narrowed is not None:
        shown &= narrowed
    if spec.group_by == "random" or spec.similar_to is not None:
        rows = np.asarray([] if listed is None else listed, np.int32)
        name = "Sample to judge"
        if spec.similar_to is not None:
            rows = rows[shown[rows]]
            name = f"Most like {samples.ids[spec.similar_to]}"
        missing = np.full(1, NONE, np.int32)
        expected = np.array([np.nansum(samples.suspicion[rows])])
        return View(spec, rows, np.array([0, len(rows)]), missing, missing, [name], expected)
    rows = np.flatnonzero(shown).astype(np.int32)
    if spec.group_by == f"column:{FAULT}":
        codes, texts = samples.columns[FAULT]
        rows = rows[np.array([bool(text) for text in texts])[codes[rows]]]
    keys, given, other, names = _groups(samples, spec.group_by, rows)
    suspicion = np.nan_to_num(samples.suspicion[rows], nan=-1)

    # Rank of each row inside its group, by suspicion.
    by_suspicion = np.lexsort((rows, -suspicion, keys))
    starts = np.searchsorted(keys[by_suspicion], np.arange(len(names) + 1))
    rank = np.empty(len(rows), np.int64)
    rank[by_suspicion] = np.arange(len(rows)) - np.repeat(starts[:-1], np.diff(starts))

    # Order of the groups.
    weights = np.maximum(suspicion, 0)
    expected = np.bincount(keys, weights=weights, minlength=len(names))
    first_screen = np.bincount(keys, weights=weights * (rank < SCREEN_SIZE), minlength=len(names))
    by_name = np.array(sorted(range(len(names)), key=lambda i: (natural_sort_key(names[i]), i)), np.int64)
    name_rank = np.argsort(by_name)
    order = np.lexsort((name_rank, -np.round(first_screen, 6))) if spec.group_order == "suspicion" else by_name
    group_rank = np.argsort(order)

    rows_order = np.lexsort((*_sort_keys(samples, spec, rows, rank, suspicion)[::-1], group_rank[keys]))
    starts = np.concatenate([[0], np.cumsum(np.diff(starts)[order])])
    names = [names[i] for i in order]
    return View(spec, rows[rows_order], starts, given[order], other[order], names, expected[order])


def _filter(samples: Samples, spec: ViewSpec, marks: np.ndarray, reviewed: np.ndarray) -> np.ndarray:
    """Returns bool ``(N,)``, which samples are shown."""
    shown = {
        "all": np.ones(len(samples), bool),
        "marked": (marks >= 0) | (marks == INVALID_CODE),
        "unmarked": marks == NONE,
        "suspicious": samples.is_label_issue | (np.nan_to_num(samples.suspicion) >= MIN_SUSPICION),
        "unreviewed": ~reviewed,
    }[spec.filter]
    for typed in spec.search.split():
        word = typed.casefold()
        label_matches = np.array([word in name.casefold() for name in samples.labels] + [False])  # code -1: no label
        matches = label_matches[samples.given] | label_matches[samples.predicted]
        matches |= label_matches[np.where(marks >= 0, marks, NONE)]
        for text in {typed, word}:
            matches |= pd.Series(samples.ids).str.contains(text, case=False, regex=False).to_numpy(bool)
        shown = shown & matches
    return np.asarray(shown)


def _groups(samples: Samples, group_by: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Returns the group of each row, int64 ``(M,)``, and the given label, other label and name of each group."""
    given = samples.given[rows].astype(np.int64)
    if group_by == "label":
        first, keys = np.unique(given, return_inverse=True)
        second = np.full(len(first), NONE)
        names = [samples.label(i) or "(no label)" for i in first]
    elif group_by in ("pair", "suggested"):
        other = samples.predicted if group_by == "pair" else samples.suggested
        width = len(samples.labels) + 1
        pairs, keys = np.unique((given + 1) * width + other[rows] + 1, return_inverse=True)
        first, second = pairs // width - 1, pairs % width - 1
        kind = "prediction" if group_by == "pair" else "suggestion"
        names = [_pair_name(samples, i, j, kind) for i, j in zip(first, second, strict=True)]
    elif group_by == "all":
        keys = np.zeros(len(rows), np.int64)
        names = ["All samples"] if len(rows) else []
        first = second = np.full(len(names), NONE)
    else:
        codes, texts = samples.columns[group_by.removeprefix("column:")]
        values, keys = np.unique(codes[rows], return_inverse=True)
        first = second = np.full(len(values), NONE)
        names = [texts[i] for i in values]
    return keys.reshape(-1), first.astype(np.int32), second.astype(np.int32), names


def _pair_name(samples: Samples, given: int, other: int, kind: str) -> str:
    label, agrees = samples.label(given) or "(no label)", given == other
    if other < 0 or agrees:
        return f"{label}, {f'no {kind}' if other < 0 else f'{kind} agrees'}"
    return f"{label} → {samples.label(other)}"


def _sort_keys(
    samples: Samples, spec: ViewSpec, rows: np.ndarray, rank: np.ndarray, suspicion: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Returns the sort keys of the rows of a group, the primary one first."""
    position = samples.label_position if spec.group_by == "label" else samples.position
    visual = rows if position is None else position[rows]
    if spec.sort_by == "visual":
        return (visual,)
    if spec.sort_by == "suspicion":
        return (-suspicion, visual)
    band = np.floor(np.log2(rank / FIRST_BAND + 1)).astype(np.int64)
    return (band, visual)
