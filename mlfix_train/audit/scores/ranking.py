"""Rankings: the samples ordered by all the evidence against their labels, the most suspicious first.

Columns of a ranking, one row per sample:

- ``sample_id``, ``given_label``, ``predicted_label`` (of most runs that held the sample out);
- ``suspicion`` (0 to 1, higher is worse) and ``label_score`` (1 - suspicion, as in cleanlab);
- ``is_label_issue``: the suspicion is at least 0.5, and another label is suggested;
- ``rank`` from 1, ``slice`` (``given → suggested``);
- ``suggested_label``: by all evidence; the given label if nothing contradicts it;
- ``evidence``: all kinds combined, higher is worse;
- one column for each of :data:`mlfix_train.audit.scores.registry.SCORES`; empty where its evidence is missing;
- ``runs``: how many runs held the sample out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mlfix_train.audit.predictions.held_out import merge_runs
from mlfix_train.audit.scores import label_scores
from mlfix_train.audit.scores.estimates import (
    MAX_INTERVAL_RATIO,
    Estimate,
    bootstrap_counts,
    estimate_wrong_labels,
)
from mlfix_train.audit.scores.registry import SCORES, Evidence
from mlfix_train.audit.scores.suspicion import combine_log_ranks, fit_mixture, suspicion_by_rank
from mlfix_train.data.files.atomic import atomic_path

MIN_SAMPLES = 1000
"""Wrong labels are counted from this number of samples on; with fewer, the suspicion only orders them."""
SMALL_CHANCE = 0.01
"""Labels with a smaller chance by all predictions are called issues where nothing better is known."""


def ranking_columns() -> list[str]:
    """Returns the columns of a ranking, in order."""
    fixed = ["sample_id", "given_label", "predicted_label", "suspicion", "label_score", "is_label_issue", "rank"]
    return [*fixed, "slice", "suggested_label", "evidence", *(score.name for score in SCORES), "runs"]


@dataclass
class Ranking:
    """A ranking and what follows from it.

    Attributes:
        table: rows with :func:`ranking_columns`, most suspicious first.
        kinds: weight of each kind of evidence; see :mod:`mlfix_train.audit.scores.pooling` and ``suspicion``.
        estimate: how many labels are wrong and how far to review; ``None`` where that can't be told without judging
            some: wrong labels don't stand apart, or there are fewer than :data:`MIN_SAMPLES` samples.
        confident_issues: number of wrong labels by confident learning; ``None`` without all probabilities.
    """

    table: pd.DataFrame
    kinds: dict[str, float]
    estimate: Estimate | None = None
    confident_issues: int | None = None


def rank_samples(runs: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Ranks samples by held-out predictions alone: by the mean normalized margin over the runs that held them out.

    The suspicion is 1 - normalized margin (1 - self-confidence if the predictions have no margins).

    Args:
        runs: one or more tables of predictions (see :mod:`mlfix_train.audit.predictions.table`).

    Returns:
        One row per sample with :func:`ranking_columns`, most suspicious first.

    Raises:
        RunError: No runs, or runs that give a sample different labels.
        DataError: A loss that is not a finite number.
    """
    return rank(Evidence(merge_runs(runs))).table


def rank(evidence: Evidence, seed: int = 0) -> Ranking:
    """Ranks samples by all the evidence there is.

    Predictions that have not seen the label are pooled (see :mod:`mlfix_train.audit.scores.pooling`) and combined with
    evidence that has (see :mod:`mlfix_train.audit.scores.suspicion`). The suspicion is the probability that the label
    is wrong if there is an ``estimate``; else it only orders the samples.

    Args:
        evidence: of N samples.
        seed: seed of the intervals.
    """
    held = evidence.held_out
    others, cells = _other_kinds(evidence), None
    if evidence.groups is not None:
        cells = np.unique(evidence.groups * len(held.class_names) + held.labels, return_inverse=True)[1]
    shares, total = evidence.pool.weights, sum(evidence.pool.weights.values()) or 1.0
    # Dynamics count as much as what else the networks of the runs say
    worth = {"dynamics": (shares.get(evidence.predictor, 0.0) + shares.get("run_probe", 0.0)) / total}
    loss = evidence.pool.loss
    if evidence.unlearned is not None:
        loss = np.where(evidence.unlearned, np.nan, loss)
    combined, weights = combine_log_ranks(loss, others, cells, worth)
    suspicion, estimate = _calibrate(evidence, combined, bool(others), seed)
    by_id = np.empty(len(held), np.int64)
    by_id[np.argsort(held.sample_ids.to_numpy(), kind="stable")] = np.arange(len(held))
    order = np.lexsort((by_id, -evidence.pool.loss, -combined))
    table = _table(evidence, combined, suspicion).iloc[order].reset_index(drop=True)
    table["rank"] = np.arange(1, len(table) + 1)
    confident = None
    if evidence.probabilities is not None:
        confident = label_scores.count_label_issues(evidence.probabilities, held.labels)
    return Ranking(table[ranking_columns()], {**evidence.pool.weights, **weights}, estimate, confident)


def _other_kinds(evidence: Evidence) -> dict[str, np.ndarray]:
    """Returns the scores that are combined with the held-out predictions, by kind of evidence; higher is worse."""
    kinds = {score.combine_as: score.oriented(evidence) for score in SCORES if score.combine_as}
    return {kind: values for kind, values in kinds.items() if values is not None}


def _calibrate(evidence: Evidence, combined: np.ndarray, others: bool, seed: int) -> tuple[np.ndarray, Estimate | None]:
    """Turns combined evidence into suspicions, and estimates the number of wrong labels where they stand apart.

    They stand apart if several kinds of evidence make a bump in the histogram whose size the bootstrap confirms. If
    not, the suspicion only orders the labels: it is 0.5 at the rank that says how many labels the pooled predictions
    leave nearly no chance.
    """
    held, groups, pool = evidence.held_out, evidence.groups, evidence.pool
    if others and len(held) >= MIN_SAMPLES:
        mixture = fit_mixture(combined)
        counts = bootstrap_counts(combined, mixture, held.labels, len(held.class_names), groups, seed)
        low, high = np.quantile(counts[0], [0.025, 0.975])
        if 0 < high <= MAX_INTERVAL_RATIO * low:
            suspicion = mixture.probability(combined)
            return suspicion, estimate_wrong_labels(suspicion, held.labels, held.class_names, counts)
    n_issues = float(max(((pool.loss > -np.log(SMALL_CHANCE)) & (pool.other_prob > 0.5)).sum(), 1))
    return suspicion_by_rank(combined, n_issues), None


def suggest_labels(evidence: Evidence) -> np.ndarray:
    """Returns the likeliest label other than the given one, by all predictions pooled, int64 ``(N,)``; -1 for none."""
    names = evidence.held_out.class_names
    unknown = names.index("") if "" in names else -1  # no recorded prediction
    return np.where(evidence.pool.other == unknown, -1, evidence.pool.other)


def _table(evidence: Evidence, combined: np.ndarray, suspicion: np.ndarray) -> pd.DataFrame:
    """Returns the rows of a ranking in the order of the held-out samples, without ranks."""
    held = evidence.held_out
    names = np.asarray(held.class_names, dtype=object)
    suggested = suggest_labels(evidence)
    likelier = np.log(np.maximum(evidence.pool.other_prob, 1e-300)) > -evidence.pool.loss
    if evidence.is_recorded_only:
        likelier = held.is_contradicted
    contradicted = (suggested >= 0) & ((suspicion >= 0.5) | likelier)
    suggested = np.where(contradicted, suggested, held.labels)
    scores = {score.name: score.values(evidence) for score in SCORES}
    table = pd.DataFrame(
        {
            "sample_id": held.sample_ids.to_numpy(),
            "given_label": names[held.labels],
            "predicted_label": names[held.predicted],
            "suspicion": suspicion,
            "label_score": 1 - suspicion,
            "is_label_issue": (suspicion >= 0.5) & (suggested != held.labels),
            "suggested_label": names[suggested],
            "evidence": combined,
            **{name: np.full(len(held), np.nan) if values is None else values for name, values in scores.items()},
            "runs": held.n_runs,
        }
    )
    table["slice"] = table["given_label"].astype(str) + " → " + table["suggested_label"].astype(str)
    return table


def write_ranking(ranking: pd.DataFrame, path: str | Path) -> Path:
    """Writes a ranking as CSV, atomically; returns the path."""
    with atomic_path(path) as temporary:
        ranking.to_csv(temporary, index=False, float_format="%.9g")
    return Path(path)
