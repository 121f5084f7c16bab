"""The samples of a review as arrays, small enough for hundreds of thousands of them.

Shapes: N samples, C labels.
"""

import re
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.data.samples import COLUMNS as TABLE_COLUMNS
from mlfix_train.data.samples import find_names, label_list, string_array

NONE = -1  # code of a missing label, row or mark
FAULT = "other faults"
"""Column of the faults that the audit found beside wrong labels; a view that groups by it shows only these samples."""
N_TYPICAL = 8  # typical images of each label
N_CANDIDATES = 64
"""Typical images are chosen from this many of the least suspicious samples of a label (or a quarter, if more)."""
CHUNK = 1 << 16  # ids that are hashed at a time
N_BINS, MAX_NUMBERS = 10, 30
"""A numeric column with more than ``MAX_NUMBERS`` values is cut into ``N_BINS`` bins with equally many samples."""
RANKED_COLUMNS = ("given_label", "predicted_label", "suggested_label", "suspicion", "is_label_issue")
"""Columns of a ranking that are used here, beside ``sample_id`` and the single scores."""
FAULT_COLUMN = "fault"  # of a ranking
NOT_SCORES = ("suspicion", "label_score")
"""Numeric columns of a ranking that are not single scores; all others are shown as details of a sample."""


@dataclass
class Samples:
    """Samples of a review: arrays ``(N,)``, codes and positions int32, scores float32.

    No Python object is kept for a sample: a million of them take about 250 MB.
    """

    ids: Any  # array of pandas' type str, as paths
    paths: Any  # image files
    labels: list[str]  # names of the C labels; new ones are appended
    given: np.ndarray  # codes of the given labels, NONE where unlabeled
    predicted: np.ndarray  # codes of the labels predicted by held-out models, NONE outside the audit
    suggested: np.ndarray  # codes of the labels that the audit suggests; the given label where it agrees
    suspicion: np.ndarray  # 0 to 1, higher is more likely wrong; NaN outside the audit
    rank: np.ndarray  # int32, by falling suspicion from 0; NONE outside the audit
    is_label_issue: np.ndarray  # bool, whether the audit flags the label
    calibrated: bool  # whether suspicion is a probability, so that its sum estimates a number of wrong labels
    groups: np.ndarray  # codes of the photo or track
    columns: dict[str, tuple[np.ndarray, list[str]]]  # metadata and FAULT: name to codes and the text of each code
    scores: dict[str, np.ndarray]  # single scores of the audit by name
    numbers: dict[str, np.ndarray] = field(default_factory=dict)  # numeric metadata by name, float64
    position: np.ndarray | None = None  # in the visual order of all images
    label_position: np.ndarray | None = None  # in the visual order of the label's images
    outlier_score: np.ndarray | None = None  # higher is less like the label's other images

    def __post_init__(self) -> None:
        starts = range(0, max(len(self.ids), 1), CHUNK)  # a few at a time: their texts take memory
        hashes = np.concatenate([_hashes(self.ids[start : start + CHUNK].tolist()) for start in starts])
        self._by_hash = np.argsort(hashes, kind="stable").astype(np.int32)  # rows
        self._hashes = hashes[self._by_hash]
        self._known: dict[str, int] = {}  # rows of ids that were asked for one by one
        self.code = {name: number for number, name in enumerate(self.labels)}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def audited(self) -> bool:
        """Whether there is an audit."""
        return bool(np.isfinite(self.suspicion).any())

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """Returns the row numbers of ids, int64, :data:`NONE` for unknown ids."""
        hashes, rows = _hashes(ids), np.full(len(ids), NONE, np.int64)
        starts, ends = (np.searchsorted(self._hashes, hashes, side) for side in ("left", "right"))
        while len(left := np.flatnonzero((starts < ends) & (rows == NONE))):  # once more for each equal hash
            candidates = self._by_hash[starts[left]]
            is_same = [name == ids[number] for name, number in zip(self.names(candidates), left.tolist(), strict=True)]
            rows[left[is_same]] = candidates[is_same]
            starts[left] += 1
        return rows

    def names(self, rows: np.ndarray | Sequence[int]) -> list[str]:
        """Returns the ids of rows."""
        names: list[str] = self.ids[np.asarray(rows, np.int64)].tolist()
        return names

    def row(self, name: str) -> int:
        """Returns the row number of an id, :data:`NONE` for an unknown one."""
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = int(self.rows([name])[0])
        return found

    def remember(self, names: Sequence[str]) -> None:
        """Looks up ids that :meth:`row` is asked for later, all at once."""
        self._known.update(zip(names, self.rows(names).tolist(), strict=True))

    def add_label(self, name: str) -> int:
        """Adds a label unless it is there, and returns its code; safe to call from several threads."""
        with self._lock:
            if name not in self.code:
                self.labels.append(name)  # first, so that a code always has a name
                self.code[name] = len(self.labels) - 1
            return self.code[name]

    def label(self, code: int) -> str:
        """Returns the label with a code, empty for :data:`NONE`."""
        return self.labels[code] if code >= 0 else ""

    def place(self, order: pd.DataFrame) -> None:
        """Takes a visual order, indexed by ``sample_id``; images that are not in it come last."""
        at, last = find_names(self.ids, order.index), np.iinfo(np.int32).max
        scores = order["label_outlier_score"].fillna(order["outlier_score"])
        self.outlier_score = _join(_floats(scores), at, np.nan)
        positions = (order[name].fillna(last).to_numpy(np.int64) for name in ("position", "label_position"))
        self.position, self.label_position = (_join(values, at, last).astype(np.int32) for values in positions)

    def details(self, row: int) -> Mapping[str, float | str]:
        """Returns the scores and metadata of one sample, in the order of the table."""
        scores = {name: float(f"{values[row]:.4g}") for name, values in self.scores.items() if np.isfinite(values[row])}
        texts = {name: texts[codes[row]] for name, (codes, texts) in self.columns.items() if texts[codes[row]]}
        return {**scores, **texts}


def make_samples(
    table: pd.DataFrame,
    ranking: pd.DataFrame | None = None,
    order: pd.DataFrame | None = None,
    calibrated: bool = False,
) -> Samples:
    """Joins a sample table with the ranking of an audit and a visual order, indexed by ``sample_id``.

    Rows of a ranking whose given label is no longer the sample's are left out; images that are not in the order come
    last. ``calibrated``: whether the audit's suspicion is a probability.
    """
    ids = string_array(table.index)
    ranked = pd.DataFrame(columns=["sample_id", *RANKED_COLUMNS]) if ranking is None else ranking
    at = find_names(ids, ranked["sample_id"])  # place of each sample in the ranking, NONE outside it
    given_label, known = ranked["given_label"], label_list(table)
    now, then = find_names(table["label"], known), _join(_codes(given_label, known), at, NONE)
    at[_join(given_label.notna().to_numpy(bool), at, False) & ((now != then) | (then < 0))] = NONE
    used = np.zeros(len(ranked), bool)
    used[at[at >= 0]] = True
    suggestions = [ranked[name] for name in ("predicted_label", "suggested_label")]
    named = {str(name) for values in suggestions for name in pd.Series(values[used].unique()).dropna()} - {""}
    labels = sorted({*known, *named})
    predicted, suggested = (_join(_codes(values, labels), at, NONE).astype(np.int32) for values in suggestions)
    groups, names = pd.factorize(table["group"])
    suspicion = _join(pd.to_numeric(ranked["suspicion"], errors="coerce").to_numpy(np.float64), at, np.nan)
    numeric = {str(name): ranked[name] for name in ranked.select_dtypes("number") if name not in NOT_SCORES}
    scores = {name: _join(_floats(values), at, np.nan) for name, values in numeric.items()}
    samples = Samples(
        ids=ids,
        paths=string_array(table["path"]),
        labels=labels,
        given=find_names(table["label"], labels).astype(np.int32),
        predicted=predicted,
        suggested=suggested,
        suspicion=suspicion.astype(np.float32),
        rank=_ranks(suspicion, at),
        is_label_issue=_join(ranked["is_label_issue"].eq(True).to_numpy(dtype=bool), at, False),
        calibrated=calibrated and ranking is not None,
        groups=groups.astype(np.int32),
        columns=_metadata(table.drop(columns="group") if len(names) == len(table) else table),
        numbers=_numbers(table),
        scores={name: values for name, values in scores.items() if not np.isnan(values).all()},
    )
    if FAULT_COLUMN in ranked:
        codes, faults = pd.factorize(ranked[FAULT_COLUMN].fillna("").astype(str))
        codes, texts = _join(codes, at, len(faults)).astype(np.int32), [*map(str, faults), ""]
        if any(texts[code] for code in np.unique(codes)):
            samples.columns = {FAULT: (codes, texts), **samples.columns}
    if order is not None:
        samples.place(order)
    return samples


def _join(values: np.ndarray, at: np.ndarray, missing: float) -> np.ndarray:
    """Returns ``values[at]``, and ``missing`` where ``at`` is :data:`NONE`."""
    return np.asarray(np.append(values, np.asarray(missing, values.dtype))[at])


def _codes(values: pd.Series, labels: Sequence[str]) -> np.ndarray:
    """Returns the codes of labels, int64, :data:`NONE` for other ones."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return _join(find_names(values.cat.categories, labels), values.cat.codes.to_numpy(), NONE)
    return find_names(values, labels)


def _ranks(suspicion: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Returns the place of each sample in the ranking, equally suspicious ones as there; int32, from 0."""
    ranks = np.full(len(suspicion), NONE, np.int32)
    order = np.lexsort((at, -suspicion))[: np.isfinite(suspicion).sum()]  # NaN comes last
    ranks[order] = np.arange(len(order))
    return ranks


def _floats(values: pd.Series) -> np.ndarray:
    return pd.to_numeric(values, errors="coerce").to_numpy(np.float32)


def _hashes(names: Collection[str]) -> np.ndarray:
    return np.fromiter(map(hash, names), np.int64, len(names))


def _metadata(table: pd.DataFrame) -> dict[str, tuple[np.ndarray, list[str]]]:
    """Encodes the columns that samples can be grouped by: split, group and metadata."""
    found = {}
    further = [name for name in table.columns if name not in TABLE_COLUMNS]
    for name in [*(name for name in ("split", "group") if name in table), *further]:
        values = table[name]
        try:
            unique = values.nunique()
        except TypeError:  # lists and other unhashable values
            values = values.astype(str)
            unique = values.nunique()
        if unique < 2:
            continue
        if pd.api.types.is_numeric_dtype(values) and values.dtype != bool and unique > MAX_NUMBERS:
            bins = pd.qcut(values, N_BINS, duplicates="drop", precision=4)
            values = bins.map(lambda bin: f"{bin.left:.4g} to {bin.right:.4g}", na_action="ignore").astype(object)
        codes, uniques = pd.factorize(values, sort=False)
        texts = [str(int(value) if isinstance(value, float) and value.is_integer() else value) for value in uniques]
        if (codes < 0).any():
            codes, texts = np.where(codes < 0, len(texts), codes), [*texts, "(empty)"]
        found[str(name)] = (codes.astype(np.int32), [text or "(empty)" for text in texts])
    return found


def _numbers(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Returns the numeric metadata, which have more than one value."""
    frame = table.drop(columns=[name for name in TABLE_COLUMNS if name in table]).select_dtypes("number")
    return {str(name): frame[name].to_numpy(np.float64) for name in frame if frame[name].nunique() > 1}


def natural_sort_key(name: str) -> list[tuple[int, int, str]]:
    """Returns a sort key that puts ``limit 20`` before ``limit 100``."""
    parts = (part for part in re.split(r"([0-9]+)", name) if part)
    return [(0, int(part), "") if part.isascii() and part.isdecimal() else (1, 0, part.casefold()) for part in parts]


def typical_images(samples: Samples) -> np.ndarray:
    """Chooses images that show what each label looks like: row numbers, int32 ``(C, 8)``, padded with :data:`NONE`.

    They are the most ordinary of the label's least suspicious samples, at most one per track or photo where there are
    enough of these.
    """
    typical = np.full((len(samples.labels), N_TYPICAL), NONE, np.int32)
    order = np.lexsort((np.arange(len(samples)), np.nan_to_num(samples.suspicion, nan=0.5), samples.given))
    ends = np.searchsorted(samples.given[order], np.arange(len(samples.labels) + 1))
    for label in range(len(samples.labels)):
        rows = order[ends[label] : ends[label + 1]]
        rows = rows[: max(N_CANDIDATES, len(rows) // 4)]
        if samples.outlier_score is not None:
            outlier_score = np.nan_to_num(samples.outlier_score[rows], nan=np.inf)
            rows = rows[np.argsort(outlier_score, kind="stable")]
        elif len(rows) > N_CANDIDATES:  # evenly spaced
            rows = rows[np.linspace(0, len(rows) - 1, N_CANDIDATES).astype(int)]
        _, first = np.unique(samples.groups[rows], return_index=True)
        is_first = np.zeros(len(rows), bool)
        is_first[first] = True
        chosen = np.concatenate([rows[is_first], rows[~is_first]])[:N_TYPICAL]
        typical[label, : len(chosen)] = chosen
    return typical
