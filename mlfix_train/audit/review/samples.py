"""The samples of a review as arrays, small enough for hundreds of thousands of them.

Shapes: N samples, C labels.
"""

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from mlfix_train.data.samples import COLUMNS as TABLE_COLUMNS
from mlfix_train.data.samples import label_list

NONE = -1  # code of a missing label, row or mark
FAULT = "other faults"
"""Column of the faults that the audit found beside wrong labels; a view that groups by it shows only these samples."""
N_TYPICAL = 8  # typical images of each label
N_CANDIDATES = 64
"""Typical images are chosen from this many of the least suspicious samples of a label (or a quarter, if more)."""
N_BINS, MAX_NUMBERS = 10, 30
"""A numeric column with more than ``MAX_NUMBERS`` values is cut into ``N_BINS`` bins with equally many samples."""
RANKED_COLUMNS = ("given_label", "predicted_label", "suggested_label", "suspicion", "is_label_issue")
"""Columns of a ranking that are used here, beside ``sample_id`` and the single scores."""
NOT_SCORES = ("suspicion", "label_score")
"""Numeric columns of a ranking that are not single scores; all others are shown as details of a sample."""


@dataclass
class Samples:
    """Samples of a review: arrays ``(N,)``, codes and positions int32, scores float32."""

    ids: np.ndarray
    paths: np.ndarray  # image files
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
        self.row = {name: number for number, name in enumerate(self.ids.tolist())}
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
        return np.fromiter((self.row.get(name, NONE) for name in ids), np.int64, len(ids))

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
    nothing = pd.DataFrame(columns=["sample_id", *RANKED_COLUMNS])
    ranked = nothing if ranking is None else ranking.drop_duplicates("sample_id")
    ranked = ranked.set_index("sample_id").reindex(table.index)
    ranked = ranked.mask(ranked["given_label"].notna() & (ranked["given_label"] != table["label"]))
    named = {*ranked["predicted_label"].dropna(), *ranked["suggested_label"].dropna()} - {""}
    labels = sorted({*label_list(table), *map(str, named)})
    index = pd.Index(labels)

    def encode(values: pd.Series) -> np.ndarray:
        return np.asarray(index.get_indexer(pd.Index(values.to_numpy(dtype=object))), np.int32)

    numeric = ranked.select_dtypes("number").dropna(axis="columns", how="all")
    samples = Samples(
        ids=table.index.to_numpy(dtype=object),
        paths=table["path"].to_numpy(dtype=object),
        labels=labels,
        given=encode(table["label"]),
        predicted=encode(ranked["predicted_label"]),
        suggested=encode(ranked["suggested_label"]),
        suspicion=_floats(ranked["suspicion"]),
        rank=_ranks(ranking, ranked),
        is_label_issue=ranked["is_label_issue"].eq(True).to_numpy(dtype=bool),
        calibrated=calibrated and ranking is not None,
        groups=pd.factorize(table["group"])[0].astype(np.int32),
        columns=_metadata(table),
        numbers=_numbers(table),
        scores={str(name): _floats(numeric[name]) for name in numeric if name not in NOT_SCORES},
    )
    if "fault" in ranked and ranked["fault"].fillna("").ne("").any():
        codes, texts = pd.factorize(ranked["fault"].fillna("").astype(str), sort=False)
        samples.columns = {FAULT: (codes.astype(np.int32), list(texts)), **samples.columns}
    if order is not None:
        placed = order.reindex(table.index)
        samples.position, samples.label_position = _positions(placed["position"]), _positions(placed["label_position"])
        samples.outlier_score = _floats(placed["label_outlier_score"].fillna(placed["outlier_score"]))
    return samples


def _ranks(ranking: pd.DataFrame | None, ranked: pd.DataFrame) -> np.ndarray:
    """Returns the place of each sample in the ranking, equally suspicious ones as there; int32, from 0."""
    ranks = np.full(len(ranked), NONE, np.int32)
    if ranking is not None:
        suspicion = pd.to_numeric(ranked["suspicion"], errors="coerce").to_numpy(np.float64)
        place = pd.Index(ranking["sample_id"].drop_duplicates()).get_indexer(ranked.index)
        order = np.lexsort((place, -suspicion))[: np.isfinite(suspicion).sum()]  # NaN comes last
        ranks[order] = np.arange(len(order))
    return ranks


def _floats(values: pd.Series) -> np.ndarray:
    return pd.to_numeric(values, errors="coerce").to_numpy(np.float32)


def _positions(values: pd.Series) -> np.ndarray:
    """Returns positions as int32; images without one come last."""
    return values.fillna(np.iinfo(np.int32).max).to_numpy(np.int64).astype(np.int32)


def _metadata(table: pd.DataFrame) -> dict[str, tuple[np.ndarray, list[str]]]:
    """Encodes the columns that samples can be grouped by: split, group and metadata."""
    found = {}
    for name in ["split", "group", *(name for name in table.columns if name not in TABLE_COLUMNS)]:
        values = table[name]
        try:
            unique = values.nunique()
        except TypeError:  # lists and other unhashable values
            values = values.astype(str)
            unique = values.nunique()
        if unique < 2 or (name == "group" and unique == len(table)):
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
