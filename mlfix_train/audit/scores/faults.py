"""Faults of a data set other than wrong labels: bad images, outliers, and labels that may be one.

None of them counts towards the suspicion: a dark image may have the right label. An image has a fault if its score is
bad in itself, at or above a limit that is the same for all data sets, *and* unusual in its own. It is unusual if few
images reach the limit (where few is told), or if the score is above the outer fence of the scores of its data set: the
third quartile plus three times the interquartile range (Tukey, "Exploratory Data Analysis", 1977, "far out"). So night
scenes are not all dark images, nor are all traffic signs of 32 px blurred.

Shapes: N samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from mlfix_train.audit.scores.overlap import MIN_OVERLAP, overlapping_labels
from mlfix_train.audit.scores.registry import Evidence
from mlfix_train.audit.scores.slices import SCREEN, Slice

FENCE = 3.0
"""Interquartile ranges above the third quartile beyond which a score is unusual."""
LARGEST_SHARE = 0.999
"""Shares are clipped to this before their logit is taken."""
MAX_SUPPORT, SUPPORT_QUANTILE = 0.5, 0.1
"""An outlier is of no class if the label with the highest probability or share of the neighbours' votes has less than
this, and less than this quantile of all samples: models that are unsure of everything say nothing about one image."""


@dataclass(frozen=True)
class FaultKind:
    """A kind of fault of single images.

    Attributes:
        name: as the report and the review page call it.
        score: column of the ranking, higher is worse.
        limit: smallest score that is bad in itself.
        few: share of the images up to which those that reach the limit are unusual, 0 to 1; if more do, or if this is
            0, the fence decides.
        scale: on which the fence is computed: ``linear``, ``log`` (of ratios) or ``logit`` (of shares that spread over
            the whole range).
        description: what the samples are, in a sentence; ``{threshold}`` stands for the score from which they count.
    """

    name: str
    score: str
    limit: float
    description: str
    few: float = 0.0
    scale: str = "linear"


FAULT_KINDS = (
    FaultKind("dark", "darkness", 0.9, "All but 1% of the pixels are darker than {complement} of white.", few=0.05),
    FaultKind(
        "bright", "brightness", 0.9, "All but 1% of the pixels are brighter than {threshold} of white.", few=0.05
    ),
    FaultKind(
        "blurred",
        "blur",
        0.75,
        "Blurring them further would leave {threshold} or more of their contrast between neighbouring pixels.",
        scale="logit",
    ),
    FaultKind("nearly empty", "emptiness", 0.98, "{threshold} or more of the pixels look the same.", few=0.5),
    FaultKind(
        "odd shape",
        "elongation",
        3.0,
        "The longer side is {threshold} or more times the shorter one.",
        few=0.05,
        scale="log",
    ),
    FaultKind(
        "outlier",
        "outlierness",
        3.0,
        "They are {threshold} or more times as far from the most similar images as is usual, and neither predictions "
        "nor similar images agree on a label.",
        scale="log",
    ),
)
OVERLAP, ACROSS = "overlapping labels", "duplicate across the split"


@dataclass(frozen=True, eq=False)
class Fault:
    """What was found of one kind of fault, or of one pair of labels.

    Attributes:
        kind: name of a :class:`FaultKind`, ``duplicate across the split`` or ``overlapping labels``.
        name: the kind, or the two labels.
        score: what it is judged by: a column of the ranking, ``copies`` (near-duplicates on the other side) or
            ``overlap`` (0 to 1).
        threshold: smallest score that counts in this data set.
        rows: int64 ``(M,)``, rows of the ranking, worst first; may be empty.
        values: float64 ``(M,)``, their scores (for labels, the overlap of the pair).
        checked: number of samples that have the score.
        description: what the samples are, in a sentence.
    """

    kind: str
    name: str
    score: str
    threshold: float
    rows: np.ndarray = field(repr=False)
    values: np.ndarray = field(repr=False)
    checked: int
    description: str

    def to_dict(self) -> dict[str, Any]:
        """Returns the fault as ``audit.json`` holds it."""
        return {
            "kind": self.kind,
            "name": self.name,
            "score": self.score,
            "threshold": round(self.threshold, 4),
            "worst": round(float(self.values[0]), 4) if len(self.values) else None,
            "samples": len(self.rows),
            "checked": self.checked,
            "description": self.description,
        }


def fault_threshold(scores: np.ndarray, kind: FaultKind) -> float:
    """Returns the score from which images of a data set have a fault; see the module's docstring.

    Args:
        scores: ``(N,)``, at least one of them finite.
        kind: gives the limits.
    """
    known = scores[np.isfinite(scores)].astype(np.float64)
    if kind.few and (known >= kind.limit).mean() <= kind.few:
        return kind.limit
    scaled = _transform(known, kind.scale)
    first, third = np.quantile(scaled, [0.25, 0.75])
    fence = float(_invert(third + FENCE * (third - first), kind.scale))
    return max(kind.limit, float(np.nextafter(fence, np.inf)))  # what is usual is not beyond the fence


def _transform(scores: np.ndarray, scale: str) -> np.ndarray:
    if scale == "log":
        return np.asarray(np.log(np.maximum(scores, 1e-6)))
    return np.asarray(logit(np.clip(scores, 1 - LARGEST_SHARE, LARGEST_SHARE))) if scale == "logit" else scores


def _invert(value: float, scale: str) -> float:
    if scale == "logit":
        share = float(expit(value))
        return share if share < LARGEST_SHARE else 1.0  # no share is beyond
    return float(np.exp(value)) if scale == "log" else float(value)


def find_faults(
    ranking: pd.DataFrame,
    evidence: Evidence,
    samples: pd.DataFrame | None = None,
    duplicates: pd.Series | None = None,
    kinds: Sequence[FaultKind] = FAULT_KINDS,
) -> list[Fault]:
    """Finds the faults of the ranked samples.

    Args:
        ranking: N rows with the columns of scores.
        evidence: of the same samples.
        samples: sample table, which may hold more samples than are ranked, such as those that models trained on.
        duplicates: near-duplicate group by sample id, -1 for none.
        kinds: the kinds of faults of single images.

    Returns:
        An entry for each kind that could be looked for, in their order, also if nothing was found; one for
        near-duplicates across the split; and one for each pair of labels that may be one, or a single one without
        samples if there is none.
    """
    faults = []
    support = _support(ranking, evidence)
    for kind in kinds:
        scores = (
            ranking[kind.score].to_numpy(dtype=np.float64) if kind.score in ranking else np.full(len(ranking), np.nan)
        )
        checked = int(np.isfinite(scores).sum())
        if not checked:
            continue
        threshold = fault_threshold(scores, kind)
        found = np.nan_to_num(scores, nan=-np.inf) >= threshold
        if kind.score == "outlierness":
            found &= support <= min(MAX_SUPPORT, float(np.quantile(support, SUPPORT_QUANTILE)))
        rows = np.flatnonzero(found)
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        told = {"threshold": _told(threshold, kind), "complement": f"{100 * (1 - threshold):.0f}%"}
        text = kind.description.format(**told)
        faults.append(Fault(kind.name, kind.name, kind.score, threshold, rows, scores[rows], checked, text))
    if samples is not None and duplicates is not None:
        faults += _split_duplicates(ranking, samples, duplicates)
    return faults + _overlaps(ranking, evidence)


def _told(threshold: float, kind: FaultKind) -> str:
    return f"{threshold:.1f}" if kind.scale == "log" else f"{100 * threshold:.0f}%"


def _support(ranking: pd.DataFrame, evidence: Evidence) -> np.ndarray:
    """Returns the support of the best label of each row of the ranking by predictions or similar images, 0 to 1."""
    held = evidence.held_out
    if evidence.probabilities is not None:
        support = evidence.probabilities.max(1).astype(np.float64)
    else:
        support = np.nan_to_num(held.scores["predicted_prob"], nan=0.0)
    if evidence.neighbours is not None:
        support = np.maximum(support, np.nan_to_num(evidence.neighbours.share, nan=0.0))
    return np.asarray(support[held.rows_of(ranking["sample_id"])])


def _split_duplicates(ranking: pd.DataFrame, samples: pd.DataFrame, duplicates: pd.Series) -> list[Fault]:
    """Returns samples with near-duplicates on the other side of the split; nothing if there is one side only.

    Sides are the user's own splits, and the samples that no run held out, which models trained on.
    """
    table = pd.DataFrame({"group": duplicates.reindex(samples.index).fillna(-1).astype(np.int64)})
    ranked = samples.index.isin(ranking["sample_id"])
    table["side"] = [f"{split}/{held}" for split, held in zip(samples["split"], ranked, strict=True)]
    if table["side"].nunique() < 2:
        return []
    in_group = table[table["group"] >= 0].groupby("group")["side"]
    copies = in_group.transform("size") - table[table["group"] >= 0].groupby(["group", "side"])["side"].transform(
        "size"
    )
    scores = copies.reindex(ranking["sample_id"]).fillna(0).to_numpy(dtype=np.float64)
    rows = np.flatnonzero(scores >= 1)
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    text = "They have near-duplicates in another split, or among the samples that the models trained on: a leak."
    return [Fault(ACROSS, ACROSS, "copies", 1.0, rows, scores[rows], len(ranking), text)]


def _overlaps(ranking: pd.DataFrame, evidence: Evidence) -> list[Fault]:
    """Returns the pairs of labels that may be one; nothing without all probabilities."""
    held, probabilities = evidence.held_out, evidence.probabilities
    if probabilities is None:
        return []
    votes = None
    if evidence.neighbours is not None and evidence.groups is None:  # else images of its own group vote, too
        votes = evidence.neighbours.label
    pairs = overlapping_labels(probabilities, held.labels, votes)
    text = "Models that were not told the labels can't tell which of the two a sample was given: they may be one."
    if pairs.empty:
        nothing = np.empty(0, np.int64)
        return [Fault(OVERLAP, OVERLAP, "overlap", MIN_OVERLAP, nothing, nothing.astype(float), len(held), text)]
    given = ranking["given_label"].to_numpy(dtype=object)
    faults = []
    for first, second, overlap in zip(pairs["first"], pairs["second"], pairs["overlap"], strict=True):
        names = [held.class_names[int(code)] for code in (first, second)]
        rows = _alternate(*(np.flatnonzero(given == name) for name in names))
        values = np.full(len(rows), float(overlap))
        faults.append(Fault(OVERLAP, " ↔ ".join(names), "overlap", MIN_OVERLAP, rows, values, len(held), text))
    return faults


def _alternate(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the rows of both, taken in turns."""
    turn = np.concatenate([2 * np.arange(len(first)), 2 * np.arange(len(second)) + 1])
    return np.concatenate([first, second])[np.argsort(turn, kind="stable")]


def fault_slices(faults: Sequence[Fault], ranking: pd.DataFrame) -> list[Slice]:
    """Returns a slice of kind ``fault`` for each fault that was found, worst samples first."""
    suspicion = ranking["suspicion"].to_numpy(dtype=np.float64)
    return [
        Slice(
            "fault",
            fault.name,
            fault.rows,
            float(suspicion[fault.rows].sum()),
            float(suspicion[fault.rows[:SCREEN]].sum()),
            fault.score,
            fault.threshold,
            fault.values,
            fault.description,
        )
        for fault in faults
        if len(fault.rows)
    ]


def fault_names(faults: Sequence[Fault], count: int) -> np.ndarray:
    """Returns the faults of each row of a ranking of ``count`` rows, joined by commas; empty for none."""
    names = np.full(count, "", dtype=object)
    for fault in faults:
        name = fault.kind if fault.kind == fault.name else f"{fault.kind}: {fault.name}"
        names[fault.rows] = [f"{before}, {name}" if before else name for before in names[fault.rows]]
    return names
