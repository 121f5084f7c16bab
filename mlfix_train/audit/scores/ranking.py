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
    counts_in_range,
    estimate_wrong_labels,
)
from mlfix_train.audit.scores.registry import SCORES, Evidence
from mlfix_train.audit.scores.suspicion import combine_log_ranks, fit_mixture, sigmoid_between_ranks
from mlfix_train.data.files.atomic import atomic_path

MIN_SAMPLES = 1000
"""Wrong labels are counted from this number of samples on; with fewer, the suspicion only orders them."""


def ranking_columns() -> list[str]:
    """Returns the columns of a ranking, in order."""
    fixed = ["sample_id", "given_label", "predicted_label", "suspicion", "label_score", "is_label_issue", "rank"]
    return [*fixed, "slice", "suggested_label", "evidence", *(score.name for score in SCORES), "runs"]


@dataclass
class Ranking:
    """A ranking and what follows from it.

    Attributes:
        table: rows with :func:`ranking_columns`, most suspicious first.
        kinds: the kinds of evidence that were combined.
        estimate: how many labels are wrong and how far to review; ``None`` if there is one kind of evidence only, or
            fewer than :data:`MIN_SAMPLES` samples.
        confident_issues: number of wrong labels by confident learning; ``None`` without all probabilities.
    """

    table: pd.DataFrame
    kinds: list[str]
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

    With one kind of evidence, the suspicion is that kind's score. Several kinds are combined (see
    :mod:`mlfix_train.audit.scores.suspicion`), and the suspicion estimates the probability that the label is wrong.

    Args:
        evidence: of N samples.
        seed: seed of the intervals.
    """
    held = evidence.held_out
    estimate = None
    others = _other_kinds(evidence)
    if others:
        cells = None
        if evidence.groups is not None:
            cells = np.unique(evidence.groups * len(held.class_names) + held.labels, return_inverse=True)[1]
        models = {name: held.scores[name] for name in ("loss", "one_minus_margin")}
        combined = combine_log_ranks(models, others, cells)
        suspicion, estimate = _calibrate(evidence, combined, seed)
    else:
        combined = suspicion = held.scores["one_minus_margin"]
    by_id = np.empty(len(held), np.int64)
    by_id[np.argsort(held.sample_ids.to_numpy(), kind="stable")] = np.arange(len(held))
    order = np.lexsort((by_id, -held.scores["loss"], -combined))
    table = _table(evidence, combined, suspicion).iloc[order].reset_index(drop=True)
    table["rank"] = np.arange(1, len(table) + 1)
    confident = None
    if evidence.probabilities is not None:
        confident = label_scores.count_label_issues(evidence.probabilities, held.labels)
    return Ranking(table[ranking_columns()], ["held_out", *others], estimate, confident)


def _other_kinds(evidence: Evidence) -> dict[str, np.ndarray]:
    """Returns the scores that are combined with the held-out predictions, by kind of evidence; higher is worse."""
    kinds = {score.combine_as: score.badness(evidence) for score in SCORES if score.combine_as}
    return {kind: values for kind, values in kinds.items() if values is not None}


def _calibrate(evidence: Evidence, combined: np.ndarray, seed: int) -> tuple[np.ndarray, Estimate | None]:
    """Turns combined evidence into suspicions, and estimates the number of wrong labels if there are enough samples.

    If wrong labels are not separated from hard images, their number is between those that are and those that two kinds
    of evidence contradict; the middle is taken.
    """
    held, groups = evidence.held_out, evidence.groups
    classes, contradicted = len(held.class_names), float(max(_contradicted(evidence).sum(), 1))
    if len(held) < MIN_SAMPLES:
        return sigmoid_between_ranks(combined, contradicted / 4, contradicted, contradicted / 2), None
    mixture = fit_mixture(combined)
    counts = bootstrap_counts(combined, mixture, held.labels, classes, groups, seed)
    low, high = np.quantile(counts[0], [0.025, 0.975])
    clear = bool(0 < high <= MAX_INTERVAL_RATIO * low)
    if clear:
        suspicion = mixture.probability(combined)
    else:
        separated = min(max(mixture.count, 0.0), contradicted)
        suspicion = sigmoid_between_ranks(combined, max(separated, 1.0), contradicted, (separated + contradicted) / 2)
        ends = (min(float(low), separated), contradicted)
        counts = counts_in_range(suspicion, ends, held.labels, classes, groups, seed)
    return suspicion, estimate_wrong_labels(suspicion, held.labels, held.class_names, counts, clear)


def _contradicted(evidence: Evidence) -> np.ndarray:
    """Returns whether both sides contradict a label: models that never saw it, and evidence that did; bool ``(N,)``."""
    held = evidence.held_out
    contradicted = np.asarray(held.predicted != held.labels)
    if evidence.aum is not None and not np.isnan(evidence.aum).all():
        contradicted &= evidence.aum < 0
    elif evidence.neighbours is not None:
        contradicted &= np.nan_to_num(list(evidence.neighbours.scores.values())[-1], nan=1.0) > 0.5
    return contradicted


def suggest_labels(evidence: Evidence) -> np.ndarray:
    """Returns the best supported label other than the given one, int64 ``(N,)``; -1 where there is none.

    Candidates are the prediction of the runs (the likeliest other label if there are all probabilities) and the label
    of most neighbours. Each counts with its probability or share of votes.
    """
    held = evidence.held_out
    if evidence.probabilities is not None:
        candidates = [label_scores.best_other(evidence.probabilities, held.labels)]
    else:
        prob = np.nan_to_num(held.scores["predicted_prob"], nan=0.5)
        candidates = [(held.predicted, np.maximum(prob, 1e-6))]
    if evidence.neighbours is not None:
        candidates.append((evidence.neighbours.label, evidence.neighbours.share))
    best, support = np.full(len(held), -1, np.int64), np.zeros(len(held))
    unknown = held.class_names.index("") if "" in held.class_names else -1  # no recorded prediction
    for label, _ in candidates:
        weight = np.sum([np.where(other == label, share, 0.0) for other, share in candidates], axis=0)
        better = (label >= 0) & (label != held.labels) & (label != unknown) & (weight > support)
        best[better], support[better] = label[better], weight[better]
    return best


def _table(evidence: Evidence, combined: np.ndarray, suspicion: np.ndarray) -> pd.DataFrame:
    """Returns the rows of a ranking in the order of the held-out samples, without ranks."""
    held = evidence.held_out
    names = np.asarray(held.class_names, dtype=object)
    suggested = suggest_labels(evidence)
    contradicted = (suggested >= 0) & ((suspicion >= 0.5) | (held.predicted != held.labels))
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
