"""Views: which samples the page shows, in which groups, and in which order.

Shapes: N samples, M of them in a view, G groups.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlfix_train.audit.review.samples import NONE, Samples, natural
from mlfix_train.errors import ConfigError, did_you_mean

SCREEN = 60
"""Samples of a group that a person sees at once; the group is worth as much as these hold suspicion."""
FIRST_BAND = 48
"""Samples in the first band of "similar and suspicious together"; each further band is twice as long."""
SUSPICIOUS = 0.5
BY = ("label", "pair", "all", "random")
WITHIN = ("suspicion", "visual", "both")
GROUPS = ("suspicion", "name")
SHOW = ("all", "marked", "unmarked", "suspicious", "unseen")


@dataclass(frozen=True)
class ViewSpec:
    """What a person asked to see.

    Args:
        by: ``label``, ``pair`` (given and predicted label), ``all`` (one group), ``random`` (a sample of the whole
            data set, in random order), or ``column:<name>`` of the metadata.
        within: order inside a group: ``suspicion`` (most suspicious first), ``visual`` (alike beside alike), or
            ``both`` (bands of falling suspicion, each twice as long as the one before, alike beside alike in each).
        groups: order of the groups: ``suspicion`` (whose first screen holds the most comes first) or ``name``.
        show: ``all``, ``marked``, ``unmarked``, ``suspicious``, ``unseen``.
        search: words that the id or one of the labels has to hold, all of them.
    """

    by: str = "label"
    within: str = "suspicion"
    groups: str = "suspicion"
    show: str = "all"
    search: str = ""

    @classmethod
    def parse(cls, values: Mapping[str, Any], samples: Samples) -> ViewSpec:
        """Checks what a page sent.

        Raises:
            ConfigError: a value that means nothing, with the right ones.
        """
        given = {name: str(values.get(name, getattr(cls, name))) for name in cls.__dataclass_fields__}
        for name, allowed in (("within", WITHIN), ("groups", GROUPS), ("show", SHOW)):
            if given[name] not in allowed:
                raise ConfigError(f"{name}={given[name][:80]!r} is no choice", did_you_mean(given[name][:80], allowed))
        columns = [f"column:{name}" for name in samples.columns]
        if given["by"] not in (*BY, *columns):
            raise ConfigError(f"by={given['by'][:80]!r} is no choice", did_you_mean(given["by"][:80], [*BY, *columns]))
        given["search"] = " ".join(given["search"][:200].split())
        if given["by"] == "random":  # nothing that the audit says may sway the judgement
            given |= {"show": "all", "search": "", "within": "suspicion", "groups": "suspicion"}
        return cls(**given)


@dataclass
class View:
    """Samples in the order in which they are shown.

    Attributes:
        spec: what was asked for.
        rows: int32 ``M``, rows of the samples.
        starts: int64 ``G + 1``, where groups begin in ``rows``.
        given, other: int32 ``G``, labels of a group, :data:`NONE` where it has none.
        names: ``G`` names.
        expected: float ``G``, sum of the suspicion.
    """

    spec: ViewSpec
    rows: np.ndarray
    starts: np.ndarray
    given: np.ndarray
    other: np.ndarray
    names: list[str]
    expected: np.ndarray
    place: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.group_of = np.repeat(np.arange(len(self.names)), np.diff(self.starts)).astype(np.int32)

    @property
    def key(self) -> str:
        """Names the view by its content."""
        digest = hashlib.sha256(repr(self.spec).encode())
        digest.update(self.rows.tobytes())
        return digest.hexdigest()[:20]

    def group(self, number: int) -> np.ndarray:
        """Returns the rows of a group."""
        return np.asarray(self.rows[self.starts[number] : self.starts[number + 1]])


def make_view(
    samples: Samples, spec: ViewSpec, marks: np.ndarray, seen: np.ndarray, drawn: np.ndarray | None = None
) -> View:
    """Picks, groups and orders samples.

    Args:
        samples: N samples.
        spec: what is wanted.
        marks: int32 ``N``, :data:`NONE` where there is no mark.
        seen: bool ``N``.
        drawn: rows of the random sample, in their order.
    """
    rows = np.flatnonzero(_shown(samples, spec, marks, seen)).astype(np.int32)
    if spec.by == "random":
        chosen = np.asarray([] if drawn is None else drawn, np.int32)
        rows = chosen[np.isin(chosen, rows)]
        nothing = np.full(1, NONE, np.int32)
        held = np.array([np.nansum(samples.suspicion[rows])])
        return View(spec, rows, np.array([0, len(rows)]), nothing, nothing, ["Random sample"], held)
    keys, given, other, names = _groups(samples, spec.by, rows)
    suspicion = np.nan_to_num(samples.suspicion[rows], nan=-1)
    ranked = np.lexsort((rows, -suspicion, keys))
    starts = np.searchsorted(keys[ranked], np.arange(len(names) + 1))
    counted = np.maximum(suspicion, 0)
    rank = np.empty(len(rows), np.int64)
    rank[ranked] = np.arange(len(rows)) - np.repeat(starts[:-1], np.diff(starts))
    worth = np.bincount(keys, weights=counted * (rank < SCREEN), minlength=len(names))
    expected = np.bincount(keys, weights=counted, minlength=len(names))
    by_name = sorted(range(len(names)), key=lambda i: (natural(names[i]), i))
    turn = np.empty(len(names), np.int64)
    turn[by_name] = np.arange(len(names))
    sequence = np.lexsort((turn, -np.round(worth, 6))) if spec.groups == "suspicion" else np.argsort(turn)
    new = np.empty(len(names), np.int64)
    new[sequence] = np.arange(len(names))
    inside = _inside(samples, spec, rows, rank, suspicion)
    order = np.lexsort((*inside[::-1], new[keys]))
    sizes = np.diff(starts)[sequence]
    return View(
        spec, rows[order], np.concatenate([[0], np.cumsum(sizes)]), given[sequence], other[sequence],
        [names[i] for i in sequence], expected[sequence],
    )  # fmt: skip


def _shown(samples: Samples, spec: ViewSpec, marks: np.ndarray, seen: np.ndarray) -> np.ndarray:
    shown = {
        "all": lambda: np.ones(len(samples), bool),
        "marked": lambda: marks != NONE,
        "unmarked": lambda: marks == NONE,
        "suspicious": lambda: samples.issue | (np.nan_to_num(samples.suspicion) >= SUSPICIOUS),
        "unseen": lambda: ~seen,
    }[spec.show]()
    for word in re.split(r" +", spec.search.casefold()):
        if not word:
            continue
        fits = np.array([word in name.casefold() for name in samples.labels] + [False])
        found = fits[samples.given] | fits[samples.predicted] | fits[np.where(marks >= 0, marks, NONE)]
        rest = np.flatnonzero(shown & ~found)
        found[rest] = [word in samples.ids[row].casefold() for row in rest]
        shown &= found
    return np.asarray(shown)


def _groups(samples: Samples, by: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Returns the group of each row (numbered without gaps), and the labels and name of each group."""
    given, predicted = samples.given[rows].astype(np.int64), samples.predicted[rows].astype(np.int64)
    width = len(samples.labels) + 1
    if by == "label":
        found, keys = np.unique(given, return_inverse=True)
        first, second = found, np.full(len(found), NONE)
        names = [samples.label(i) or "(no label)" for i in found]
    elif by == "pair":
        found, keys = np.unique((given + 1) * width + predicted + 1, return_inverse=True)
        first, second = found // width - 1, found % width - 1
        names = [_pair(samples, i, j) for i, j in zip(first, second, strict=True)]
    elif by == "all":
        keys = np.zeros(len(rows), np.int64)
        names = ["All samples"] if len(rows) else []
        first = second = np.full(len(names), NONE)
    else:
        codes, texts = samples.columns[by.removeprefix("column:")]
        found, keys = np.unique(codes[rows], return_inverse=True)
        first = second = np.full(len(found), NONE)
        names = [texts[i] for i in found]
    return keys.reshape(-1), first.astype(np.int32), second.astype(np.int32), names


def _pair(samples: Samples, given: int, predicted: int) -> str:
    first = samples.label(given) or "(no label)"
    if predicted < 0:
        return f"{first}, not predicted"
    return f"{first}, predicted so" if given == predicted else f"{first} → {samples.label(predicted)}"


def _inside(
    samples: Samples, spec: ViewSpec, rows: np.ndarray, rank: np.ndarray, suspicion: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Returns the keys that order the rows of a group, the weightiest first."""
    place = samples.label_place if spec.by == "label" else samples.place
    visual = rows if place is None else place[rows]
    if spec.within == "visual":
        return (visual,)
    if spec.within == "suspicion":
        return (-suspicion, visual)
    band = np.floor(np.log2(rank / FIRST_BAND + 1)).astype(np.int64)
    return (band, visual)
