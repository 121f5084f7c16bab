"""What the review page shows: the samples as arrays, small enough for hundreds of thousands of them.

Shapes: N samples, C labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from mlfix_train.data.samples import COLUMNS as TABLE_COLUMNS
from mlfix_train.data.samples import label_list

NONE = -1
"""Code of a label that isn't there."""
REFERENCES = 8
"""Typical images that stand for a label."""
AMONG = 64
"""How many of a label's least suspicious samples its typical images are chosen from."""
BINS, MOST_NUMBERS = 10, 30
"""A column of more than so many different numbers is cut into so many bins of equal size."""
SCORES = ("loss", "self_confidence", "aum", "neighbour_disagreement", "twin_disagreement", "outlierness",
          "disagreement", "evidence", "rank")  # fmt: skip


@dataclass
class Samples:
    """Samples of a review.

    Attributes:
        ids: ``N`` sample ids.
        paths: ``N`` image files.
        labels: names of the C labels.
        given: int32 ``N``, codes of the given labels, :data:`NONE` where unlabelled.
        predicted: int32 ``N``, what held-out models predict; :data:`NONE` where no audit speaks of the sample.
        suggested: int32 ``N``, what the audit suggests, the given label where it agrees.
        suspicion: float32 ``N``, 0 to 1, higher is worse; NaN where no audit speaks of the sample.
        issue: bool ``N``, whether the audit calls the label rather wrong than right, with another to suggest.
        calibrated: whether the suspicion is a probability, so that its sum counts wrong labels.
        place, label_place: int32 ``N``, places in the visual order of all images and of the label's; ``None`` without.
        unlikeness: float32 ``N``, how unlike the label's other images it is; ``None`` without an order.
        groups: int32 ``N``, photo or track.
        columns: metadata: name to codes (int32 ``N``) and the names of the codes.
        scores: single scores of the audit, float32 ``N`` each.
    """

    ids: np.ndarray
    paths: np.ndarray
    labels: list[str]
    given: np.ndarray
    predicted: np.ndarray
    suggested: np.ndarray
    suspicion: np.ndarray
    issue: np.ndarray
    calibrated: bool = False
    place: np.ndarray | None = None
    label_place: np.ndarray | None = None
    unlikeness: np.ndarray | None = None
    groups: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    columns: dict[str, tuple[np.ndarray, list[str]]] = field(default_factory=dict)
    scores: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.row = {name: number for number, name in enumerate(self.ids.tolist())}
        self.code = {name: number for number, name in enumerate(self.labels)}

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def audited(self) -> bool:
        """Whether there is an audit."""
        return bool(np.isfinite(self.suspicion).any())

    def add_label(self, name: str) -> int:
        """Takes a label up that no sample bears yet; returns its code."""
        if name not in self.code:
            self.code[name] = len(self.labels)
            self.labels.append(name)
        return self.code[name]

    def label(self, code: int) -> str:
        """Returns the name of a label's code, empty for :data:`NONE`."""
        return self.labels[code] if code >= 0 else ""


def make_samples(
    table: pd.DataFrame,
    ranking: pd.DataFrame | None = None,
    order: pd.DataFrame | None = None,
    calibrated: bool = False,
) -> Samples:
    """Brings a sample table, a ranking and an order together.

    Args:
        table: sample table of N samples.
        ranking: of ``mlfix audit``; rows of other samples, and rows whose given label is no longer the sample's, are
            left out.
        order: of ``mlfix sort``, indexed by ``sample_id``; images that it lacks come last.
        calibrated: whether the audit's suspicion is a probability.
    """
    n = len(table)
    ranked = None
    labels = label_list(table)
    if ranking is not None:
        ranked = ranking.drop_duplicates("sample_id").set_index("sample_id").reindex(table.index)
        stale = ranked["given_label"].notna() & (ranked["given_label"] != table["label"])
        ranked = ranked.mask(stale)
        named = {*ranked["predicted_label"].dropna(), *ranked["suggested_label"].dropna()} - {""}
        labels = sorted({*labels, *map(str, named)})
    codes = pd.Index(labels)

    def coded(values: pd.Series) -> np.ndarray:
        return np.asarray(codes.get_indexer(pd.Index(values.to_numpy(dtype=object))), np.int32)

    given = coded(table["label"])
    nothing = np.full(n, NONE, np.int32)
    samples = Samples(
        ids=table.index.to_numpy(dtype=object), paths=table["path"].to_numpy(dtype=object), labels=labels, given=given,
        predicted=nothing if ranked is None else coded(ranked["predicted_label"]),
        suggested=nothing.copy() if ranked is None else coded(ranked["suggested_label"]),
        suspicion=np.full(n, np.nan, np.float32) if ranked is None else _numbers(ranked["suspicion"]),
        issue=np.zeros(n, bool) if ranked is None else ranked["is_label_issue"].eq(True).to_numpy(dtype=bool),
        calibrated=calibrated and ranked is not None,
        groups=pd.factorize(table["group"])[0].astype(np.int32),
        columns=_columns(table),
        scores={} if ranked is None else _scores(ranked),
    )  # fmt: skip
    if order is not None:
        placed = order.reindex(table.index)
        samples.place, samples.label_place = _places(placed["position"]), _places(placed["label_position"])
        unlikeness = placed["label_outlier_score"].fillna(placed["outlier_score"])
        samples.unlikeness = _numbers(unlikeness)
    return samples


def _numbers(values: pd.Series) -> np.ndarray:
    return pd.to_numeric(values, errors="coerce").to_numpy(np.float32)


def _scores(ranked: pd.DataFrame) -> dict[str, np.ndarray]:
    found = {name: _numbers(ranked[name]) for name in SCORES if name in ranked.columns}
    return {name: values for name, values in found.items() if np.isfinite(values).any()}


def _places(values: pd.Series) -> np.ndarray:
    """Returns places as int32; what has none comes last."""
    return values.fillna(np.iinfo(np.int32).max).to_numpy(np.int64).astype(np.int32)


def _columns(table: pd.DataFrame) -> dict[str, tuple[np.ndarray, list[str]]]:
    """Codes what samples can be grouped by: split, group, and the metadata."""
    found = {}
    names = ["split", "group", *(name for name in table.columns if name not in TABLE_COLUMNS)]
    for name in names:
        values = table[name]
        try:
            number = values.nunique()
        except TypeError:  # lists and the like
            values = values.astype(str)
            number = values.nunique()
        if number < 2 or (name == "group" and number == len(table)):
            continue
        if pd.api.types.is_numeric_dtype(values) and values.dtype != bool and number > MOST_NUMBERS:
            values = _binned(values)
        codes, uniques = pd.factorize(values, sort=False)
        texts = [_text(value) for value in uniques]
        if (codes < 0).any():
            codes, texts = np.where(codes < 0, len(texts), codes), [*texts, "(empty)"]
        found[str(name)] = (codes.astype(np.int32), texts)
    return found


def _binned(values: pd.Series) -> pd.Series:
    cut = pd.qcut(values, BINS, duplicates="drop", precision=4)
    return cut.map(lambda bin: f"{bin.left:.4g} to {bin.right:.4g}", na_action="ignore").astype(object)


def _text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) or "(empty)"


def natural(name: str) -> list[tuple[int, int, str]]:
    """Returns a key that sorts ``limit 20`` before ``limit 100``."""
    return [(0, int(part), "") if part.isdecimal() and part.isascii() else (1, 0, part.casefold())
            for part in re.split(r"([0-9]+)", name) if part]  # fmt: skip


def typical_images(samples: Samples, count: int = REFERENCES) -> np.ndarray:
    """Chooses images that show what a label looks like: among its least suspicious the ones most like the others, at
    most one a track or photo where there are enough of these.

    Args:
        samples: N samples of C labels.
        count: images a label.

    Returns:
        int32 ``C,count``, row numbers; -1 where there are no more.
    """
    found = np.full((len(samples.labels), count), NONE, np.int32)
    order = np.lexsort((np.arange(len(samples)), np.nan_to_num(samples.suspicion, nan=0.5), samples.given))
    ends = np.searchsorted(samples.given[order], np.arange(len(samples.labels) + 1))
    for label in range(len(samples.labels)):
        rows = order[ends[label] : ends[label + 1]]
        rows = rows[: max(AMONG, len(rows) // 4)]
        if samples.unlikeness is not None:
            strange = np.nan_to_num(samples.unlikeness[rows], nan=np.inf)
            rows = rows[np.argsort(strange, kind="stable")]
        elif len(rows) > AMONG:  # spread over them all
            rows = rows[np.linspace(0, len(rows) - 1, AMONG).astype(int)]
        _, first = np.unique(samples.groups[rows], return_index=True)
        own = np.zeros(len(rows), bool)
        own[first] = True
        chosen = np.concatenate([rows[own], rows[~own]])[:count]
        found[label, : len(chosen)] = chosen
    return found


def rows_of(samples: Samples, ids: Sequence[str]) -> np.ndarray:
    """Returns the row numbers of ids, -1 for those that aren't there."""
    return np.fromiter((samples.row.get(name, NONE) for name in ids), np.int64, len(ids))


def facts_of(samples: Samples, row: int) -> Mapping[str, float | str]:
    """Returns what is known of one sample beside its labels: single scores and metadata, in the order of the table."""
    scores: dict[str, float | str] = {
        name: float(f"{values[row]:.4g}") for name, values in samples.scores.items() if np.isfinite(values[row])
    }
    return {**scores, **{name: texts[codes[row]] for name, (codes, texts) in samples.columns.items()}}
