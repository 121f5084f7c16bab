"""Held-out predictions of any number of runs, averaged: one row per sample, over the runs that held it out.

Shapes: N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlfix_train.errors import DataError, RunError, format_list


@dataclass
class HeldOut:
    """What runs predict for samples they did not train on.

    Attributes:
        sample_ids: ``(N,)``, in the order in which the samples first appear.
        class_names: the C classes, sorted.
        labels: int64 ``(N,)``, given labels as codes, indices into ``class_names``.
        predicted: int64 ``(N,)``, what most runs predict. Ties go to the higher probability, then to the lower code.
        scores: float64 ``(N,)`` each, means over the runs: ``loss`` (nats), ``self_confidence`` (probability of the
            given label), ``margin`` (logits), ``normalized_margin`` (0 to 1, as in cleanlab), ``one_minus_margin`` (1 -
            normalized margin, exact near 0; 1 - self-confidence if the runs have no margins), ``not_self`` (1 -
            self-confidence, exact near 0), ``predicted_prob`` (of ``predicted``, over the runs that predict it and
            record it). NaN where no run records it.
        disagreement: float64 ``(N,)``, share of the runs that do not predict the given label; NaN where the prediction
            of one is unknown.
        n_runs: int64 ``(N,)``, runs that held the sample out.
    """

    sample_ids: pd.Index
    class_names: list[str]
    labels: np.ndarray
    predicted: np.ndarray
    scores: dict[str, np.ndarray]
    disagreement: np.ndarray
    n_runs: np.ndarray

    def __repr__(self) -> str:
        return f"<HeldOut: {len(self):,} samples, {len(self.class_names):,} labels>"

    def __len__(self) -> int:
        return len(self.sample_ids)

    @property
    def given_labels(self) -> np.ndarray:
        """Given labels as text, object ``(N,)``."""
        names: np.ndarray = np.asarray(self.class_names, dtype=object)[self.labels]
        return names

    @property
    def is_unknown(self) -> np.ndarray:
        """Whether no prediction is recorded, bool ``(N,)``: the class name is empty."""
        unknown: np.ndarray = np.asarray(self.class_names, dtype=object)[self.predicted] == ""
        return unknown

    @property
    def is_contradicted(self) -> np.ndarray:
        """Whether a prediction is recorded that is not the given label, bool ``(N,)``."""
        contradicted: np.ndarray = (self.predicted != self.labels) & ~self.is_unknown
        return contradicted

    def rows_of(self, sample_ids: Sequence[str] | np.ndarray | pd.Series) -> np.ndarray:
        """Returns the row of each sample id, int64; -1 for samples that no run held out."""
        return self.sample_ids.get_indexer(pd.Index(np.asarray(sample_ids, dtype=object)))


MEANS = ("loss", "self_confidence", "margin", "one_minus_margin", "not_self")
SUMS = (*MEANS, "runs", "disagreement")


def merge_runs(runs: Iterable[pd.DataFrame], class_names: Sequence[str] = ()) -> HeldOut:
    """Averages predictions over runs, keeping one run in memory at a time.

    Args:
        runs: tables of predictions (see :mod:`mlfix_train.audit.predictions.table`); the columns ``prob``,
            ``label_prob`` and ``margin`` are optional.
        class_names: classes known beforehand; others are added as they appear.

    Raises:
        RunError: No runs, a table without ``pred`` or ``loss``, or runs that give a sample different labels.
        DataError: A loss that is not a finite number.
    """
    codes, conflicting = {str(name): code for code, name in enumerate(dict.fromkeys(class_names))}, set[str]()
    ids, given = pd.Index([], dtype=object), np.empty(0, np.int64)
    sums = {name: np.empty(0) for name in SUMS}
    votes: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for run in runs:
        _check(run)
        label, pred = (_encode(run[name], codes) for name in ("label", "pred"))
        own_ids = run["sample_id"].to_numpy(dtype=object)
        rows = ids.get_indexer(pd.Index(own_ids))
        new = np.flatnonzero(rows < 0)
        if len(new):
            rows[new] = np.arange(len(ids), len(ids) + len(new))
            ids = ids.append(pd.Index(own_ids[new]))
            given = np.concatenate([given, label[new]])
            sums = {name: np.concatenate([values, np.zeros(len(new))]) for name, values in sums.items()}
        conflicting.update(ids[rows[given[rows] != label]])
        wrong = np.where(run["pred"] == "", np.nan, label != pred)
        for name, values in _scores(run, wrong).items():
            np.add.at(sums[name], rows, values)
        votes.append((rows, pred, _column(run, "prob")))
    if not votes:
        raise RunError("there are no predictions to rank", "train a run first")
    if conflicting:
        raise RunError(
            f"the runs disagree on the given label of {len(conflicting):,} sample(s): "
            f"{format_list(sorted(conflicting), 3)}",
            "audit only runs of the same data together; samples that are numbered in each fold need names of their own",
        )
    names = sorted(codes)
    final = np.empty(len(names), np.int64)  # the final code of each provisional one
    final[[codes[name] for name in names]] = np.arange(len(names))
    means = {name: sums[name] / sums["runs"] for name in (*MEANS, "disagreement")}
    means["normalized_margin"] = np.where(np.isnan(means["margin"]), np.nan, 1 - means["one_minus_margin"])
    predicted, means["predicted_prob"] = _majority(votes, final)
    return HeldOut(
        sample_ids=ids,
        class_names=names,
        labels=final[given],
        predicted=predicted,
        disagreement=means.pop("disagreement"),
        scores=means,
        n_runs=sums["runs"].astype(np.int64),
    )


def _check(run: pd.DataFrame) -> None:
    missing = [name for name in ("sample_id", "label", "pred", "loss") if name not in run.columns]
    if missing:
        problem = f"the predictions lack the columns {format_list(missing)}"
        raise RunError(problem, "use predictions as mlfix train writes them")
    bad = run["sample_id"][~np.isfinite(run["loss"].to_numpy(dtype=np.float64))]
    if len(bad):
        raise DataError(
            f"{len(bad):,} predictions have a loss that is not a finite number: {format_list(bad, 3)}",
            "the training diverged: train again with a lower learning rate",
        )


def _encode(labels: pd.Series, codes: dict[str, int]) -> np.ndarray:
    """Returns labels as provisional codes; new labels are added to ``codes``."""
    own, unique = pd.factorize(labels.to_numpy(dtype=object))
    known = np.array([codes.setdefault(str(name), len(codes)) for name in unique], dtype=np.int64)
    return np.asarray(known[own] if len(known) else own)


def _column(run: pd.DataFrame, name: str) -> np.ndarray:
    """Returns a column as float64, NaN if there is none."""
    return run[name].to_numpy(np.float64) if name in run.columns else np.full(len(run), np.nan)


def _scores(run: pd.DataFrame, wrong: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the values of one run to be summed up, float64, one per row; ``wrong`` is NaN where it is unknown."""
    loss = np.maximum(run["loss"].to_numpy(dtype=np.float64), 0.0)
    own = _column(run, "label_prob") if "label_prob" in run.columns else np.exp(-loss)
    margin = _column(run, "margin")
    not_own = -np.expm1(-loss)
    best_other = np.exp(np.minimum(-loss - margin, 0.0))  # since margin = log(own / best other)
    return {
        "loss": loss,
        "self_confidence": own,
        "margin": margin,
        "not_self": not_own,
        "one_minus_margin": np.where(np.isnan(margin), not_own, (not_own + best_other) / 2),
        "runs": np.ones(len(run)),
        "disagreement": wrong,
    }


def _majority(
    votes: list[tuple[np.ndarray, np.ndarray, np.ndarray]], final: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what most runs predict for each sample, and its mean probability over those runs that record one.

    Args:
        votes: of each run: row, provisional code of the prediction, its probability (NaN if not stated).
        final: final code of each provisional one.
    """
    rows = np.concatenate([vote[0] for vote in votes])
    pred = final[np.concatenate([vote[1] for vote in votes])]
    prob = np.concatenate([vote[2] for vote in votes])
    pairs, pair_of_vote = np.unique(rows * len(final) + pred, return_inverse=True)
    size = np.bincount(pair_of_vote)
    stated = np.bincount(pair_of_vote, weights=~np.isnan(prob))
    total = np.bincount(pair_of_vote, weights=np.nan_to_num(prob))
    with np.errstate(invalid="ignore"):
        mean = np.where(stated > 0, total / stated, np.nan)
    certainty = np.where(stated == size, total, np.nan_to_num(mean) * size)
    row, label = np.divmod(pairs, len(final))
    best = np.lexsort((label, -certainty, -size, row))
    first = best[np.unique(row[best], return_index=True)[1]]
    return label[first], mean[first]
