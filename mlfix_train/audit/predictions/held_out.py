"""Held-out predictions of any set of runs, brought together: one row a sample, averaged over the runs that held it out.

Shapes: N samples, C labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlfix_train.errors import DataError, RunError, format_list


@dataclass
class HeldOut:
    """What runs said of samples that they did not train on.

    Attributes:
        ids: ``N`` sample ids, in the order in which they were met.
        names: the ``C`` labels, sorted.
        labels: int64 ``N``, given labels as numbers into ``names``.
        predicted: int64 ``N``, what most runs predict (ties: the surest, then the first of the alphabet).
        scores: float64 ``N`` each, means over the runs: ``loss`` (nats), ``self_confidence`` (probability of the given
            label), ``margin`` (logits), ``normalized_margin`` (0 to 1, cleanlab's), ``doubt`` (1 - normalised margin,
            precise near 0; 1 - self-confidence where the runs say no margin), ``predicted_prob`` (of the prediction,
            of the runs that made it). Margins and ``predicted_prob`` are NaN where the runs don't say.
        disagreement: float64 ``N``, share of the runs that predict another label than the given one.
        runs: int64 ``N``, runs that held the sample out.
    """

    ids: pd.Index
    names: list[str]
    labels: np.ndarray
    predicted: np.ndarray
    scores: dict[str, np.ndarray]
    disagreement: np.ndarray
    runs: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


class _Labels:
    """Numbers for labels, given as they turn up."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}

    def encode(self, values: pd.Series) -> np.ndarray:
        codes, unique = pd.factorize(values.to_numpy(dtype=object))
        known = np.array([self.codes.setdefault(str(name), len(self.codes)) for name in unique], dtype=np.int64)
        return known[codes] if len(known) else codes

    def sorted_names(self) -> tuple[list[str], np.ndarray]:
        """Returns the names in order, and the new number of each old one."""
        names = sorted(self.codes)
        order = np.empty(len(names), np.int64)
        order[[self.codes[name] for name in names]] = np.arange(len(names))
        return names, order


SUMS = ("loss", "self_confidence", "margin", "doubt", "runs", "wrong")


def merge_runs(runs: Iterable[pd.DataFrame], names: Sequence[str] = ()) -> HeldOut:
    """Averages predictions over runs, one run in memory at a time.

    The normalised margin follows from loss and margin: the best other probability is exp(-loss - margin).

    Args:
        runs: tables of predictions (see :mod:`mlfix_train.audit.predictions.table`); ``prob``, ``label_prob`` and ``margin``
            may be missing.
        names: labels that are known beforehand; others are added.

    Raises:
        RunError: no runs, a table without ``pred`` or ``loss``, or two runs that give one sample different labels.
        DataError: a loss that is no number.
    """
    known, torn = _Labels(), set()
    known.encode(pd.Series(list(names), dtype=object))
    ids, given = pd.Index([], dtype=object), np.empty(0, np.int64)
    sums = {name: np.empty(0) for name in SUMS}
    votes: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for run in runs:
        _check(run)
        label, pred = known.encode(run["label"]), known.encode(run["pred"])
        rows = ids.get_indexer(pd.Index(run["sample_id"].to_numpy(dtype=object)))
        fresh = np.flatnonzero(rows < 0)
        if len(fresh):
            rows[fresh] = np.arange(len(ids), len(ids) + len(fresh))
            ids = ids.append(pd.Index(run["sample_id"].to_numpy(dtype=object)[fresh]))
            given = np.concatenate([given, label[fresh]])
            sums = {name: np.concatenate([values, np.zeros(len(fresh))]) for name, values in sums.items()}
        torn.update(ids[rows[given[rows] != label]])
        for name, values in _scores(run, label != pred).items():
            np.add.at(sums[name], rows, values)
        prob = run["prob"].to_numpy(np.float64) if "prob" in run.columns else np.full(len(run), np.nan)
        votes.append((rows, pred, prob))
    if not votes:
        raise RunError("there are no predictions to rank", "train a run first")
    if torn:
        raise RunError(
            f"the runs disagree on the given label of {len(torn):,} sample(s): {format_list(sorted(torn), 3)}",
            "rank only runs of one data set together",
        )
    labels, order = known.sorted_names()
    count = np.maximum(sums["runs"], 1)
    predicted, prob = _vote(votes, len(ids), order)
    means = {name: sums[name] / count for name in SUMS[:4]}
    means["normalized_margin"] = np.where(np.isnan(means["margin"]), np.nan, 1 - means["doubt"])
    return HeldOut(
        ids, labels, order[given], predicted, {**means, "predicted_prob": prob}, sums["wrong"] / count,
        sums["runs"].astype(np.int64),
    )  # fmt: skip


def _check(run: pd.DataFrame) -> None:
    missing = [name for name in ("sample_id", "label", "pred", "loss") if name not in run.columns]
    if missing:
        raise RunError(
            f"the predictions lack the columns {format_list(missing)}", "rank the predictions of mlfix train"
        )
    bad = run["sample_id"][~np.isfinite(run["loss"].to_numpy(dtype=np.float64))]
    if len(bad):
        raise DataError(f"{len(bad):,} predictions have a loss that is no number: {format_list(bad, 3)}", "train again")


def _scores(run: pd.DataFrame, wrong: np.ndarray) -> dict[str, np.ndarray]:
    loss = np.maximum(run["loss"].to_numpy(dtype=np.float64), 0.0)
    own = run["label_prob"].to_numpy(np.float64) if "label_prob" in run.columns else np.exp(-loss)
    margin = run["margin"].to_numpy(np.float64) if "margin" in run.columns else np.full(len(run), np.nan)
    not_own = -np.expm1(-loss)
    doubt = np.where(np.isnan(margin), not_own, (not_own + np.exp(np.minimum(-loss - margin, 0.0))) / 2)
    return {
        "loss": loss, "self_confidence": own, "margin": margin, "doubt": doubt,
        "runs": np.ones(len(run)), "wrong": wrong.astype(np.float64),
    }  # fmt: skip


def _vote(
    votes: list[tuple[np.ndarray, np.ndarray, np.ndarray]], count: int, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the most frequent prediction of each sample (of several, the one of highest summed probability)."""
    rows = np.concatenate([vote[0] for vote in votes])
    pred = order[np.concatenate([vote[1] for vote in votes])]
    prob = np.concatenate([vote[2] for vote in votes])
    pair, place = np.unique(rows * len(order) + pred, return_inverse=True)
    size = np.bincount(place)
    total = np.bincount(place, weights=np.nan_to_num(prob))
    row, label = np.divmod(pair, len(order))
    best = np.lexsort((label, -total, -size, row))
    first = best[np.unique(row[best], return_index=True)[1]]
    mean = np.where(np.isnan(prob).all(), np.nan, total[first] / size[first])
    assert len(first) == count
    return label[first], mean
