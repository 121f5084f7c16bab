"""Rankings: samples, the least believable label first, by all the evidence there is.

Columns of a ranking, a row a sample:

- ``sample_id``, ``given_label``, ``predicted_label`` (by most runs that held it out), ``suggested_label`` (by all
  evidence; the given one where nothing speaks against it);
- ``suspicion`` (0 to 1, higher is worse) and ``label_score`` (1 - suspicion, as in cleanlab);
- ``is_label_issue``: rather wrong than right by the suspicion, and another label is suggested;
- ``rank`` from 1, ``slice`` (``given → suggested``);
- single scores: ``evidence`` (of all kinds, higher is worse), ``loss`` (nats), ``margin`` (logits),
  ``self_confidence``, ``normalized_margin``, ``confident_score`` (0 to 1, lower is worse; the last needs whole
  probabilities), ``aum`` (logits, lower is worse; in-sample), ``neighbour_disagreement``, ``twin_disagreement`` (0 to
  1, higher is worse), ``outlierness`` (1 is usual, higher is stranger), ``disagreement`` (share of runs that predict
  another label); empty where there is no such evidence;
- ``runs``: how many held it out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.audit.predictions.held_out import HeldOut, merge_runs
from mlfix_train.audit.scores import label_scores
from mlfix_train.audit.scores.estimates import CLEAR, review_yield, resample_counts, spread_counts, wrong_labels
from mlfix_train.audit.scores.knn import NeighbourScores
from mlfix_train.audit.scores.suspicion import between, combine, fit_mixture, probability
from mlfix_train.data.files.atomic import atomic_path

COLUMNS = (
    "sample_id", "given_label", "predicted_label", "suspicion", "label_score", "is_label_issue", "rank", "slice",
    "suggested_label", "evidence", "loss", "margin", "self_confidence", "normalized_margin", "confident_score", "aum",
    "neighbour_disagreement", "twin_disagreement", "outlierness", "disagreement", "runs",
)  # fmt: skip
ENOUGH = 1000
"""Samples from which on wrong labels are counted; of fewer the suspicion is an order, and no count."""


@dataclass
class Evidence:
    """What there is to judge labels by, beside held-out predictions; arrays have a row a held-out sample.

    Attributes:
        aum: float ``N``, area under the margin in training, NaN where a sample was never trained on.
        neighbours: what images that look alike say.
        probabilities: ``N,C`` mean held-out probabilities.
        groups: int64 ``N``, photo or track of each.
    """

    aum: np.ndarray | None = None
    neighbours: NeighbourScores | None = None
    probabilities: np.ndarray | None = None
    groups: np.ndarray | None = None


@dataclass
class Ranking:
    """A ranking and what follows from it.

    Attributes:
        table: rows with :data:`COLUMNS`, most suspicious first.
        kinds: the kinds of evidence that were combined.
        estimates: how many labels are wrong and how far looking pays; empty where it can't be said.
        order: int64 ``N``, row of each rank in the order of the held-out samples.
        confident: wrong labels by confident learning; ``None`` without whole probabilities.
    """

    table: pd.DataFrame
    kinds: list[str]
    estimates: dict[str, Any] = field(default_factory=dict)
    order: np.ndarray | None = None
    confident: int | None = None


def rank_samples(runs: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Ranks samples by held-out predictions alone: by the mean normalised margin over the runs that held them out.

    ``suspicion`` is 1 - normalised margin (1 - self-confidence where the predictions hold no margins).

    Args:
        runs: one or more tables of predictions (see :mod:`mlfix_train.audit.predictions.table`).

    Returns:
        One row a sample with :data:`COLUMNS`, most suspicious first.

    Raises:
        RunError: no runs, or two runs that give one sample different labels.
        DataError: a loss that is no number.
    """
    return rank(merge_runs(runs)).table


def rank(held: HeldOut, evidence: Evidence | None = None, seed: int = 0) -> Ranking:
    """Ranks samples by all the evidence there is.

    With one kind of evidence the suspicion is that kind's score. With several, they are combined (see
    :mod:`mlfix_train.audit.scores.suspicion`), and the suspicion is the estimated probability that the label is wrong.

    Args:
        held: held-out predictions of N samples.
        evidence: further kinds, rows as in ``held``.
        seed: of the intervals.
    """
    more = evidence or Evidence()
    kinds = _kinds(held, more)
    estimates: dict[str, Any] = {}
    if len(kinds) == 1:
        strength = suspicion = held.scores["doubt"]
    else:
        cells = None
        if more.groups is not None:
            cells = np.unique(more.groups * len(held.names) + held.labels, return_inverse=True)[1]
        models = {name: held.scores[name] for name in ("loss", "doubt")}
        strength = combine(models, {name: kinds[name] for name in list(kinds)[1:]}, cells)
        suspicion, estimates = _estimate(held, more, strength, seed)
    table = _table(held, more, strength, suspicion, suggest(held, more))
    tie = np.empty(len(held), np.int64)
    tie[np.argsort(held.ids.to_numpy(), kind="stable")] = np.arange(len(held))
    order = np.lexsort((tie, -held.scores["loss"], -strength))
    table = table.iloc[order].reset_index(drop=True)
    table["rank"] = np.arange(1, len(table) + 1)
    if estimates:
        estimates["review_yield"] = review_yield(suspicion[order])
    confident = None
    if more.probabilities is not None:
        confident = label_scores.count_confident(more.probabilities, held.labels)
    return Ranking(table[list(COLUMNS)], list(kinds), estimates, order, confident)


def _estimate(held: HeldOut, more: Evidence, strength: np.ndarray, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Returns suspicions, and how many labels are wrong; nothing of the latter where there are too few samples.

    ``clear`` tells whether wrong labels stand apart, so that they can be counted; otherwise the number lies between
    what stands out and what is contradicted by two kinds of evidence, and half-way is taken.
    """
    classes, contradicted = len(held.names), float(max(_contradicted(held, more).sum(), 1))
    if len(held) < ENOUGH:
        return between(strength, contradicted / 4, contradicted, contradicted / 2), {}
    mixture = fit_mixture(strength)
    draws = resample_counts(strength, mixture, held.labels, classes, more.groups, seed)
    low, high = np.quantile(draws[0], [0.025, 0.975])
    clear = bool(0 < high <= CLEAR * low)
    if clear:
        suspicion = probability(mixture.log_odds(strength))
    else:
        standing = min(max(mixture.count, 0.0), contradicted)
        suspicion = between(strength, max(standing, 1.0), contradicted, (standing + contradicted) / 2)
        ends = (min(float(low), standing), contradicted)
        draws = spread_counts(suspicion, ends, held.labels, classes, more.groups, seed)
    return suspicion, {"clear": clear, **wrong_labels(suspicion, held.labels, held.names, draws, not clear)}


def _contradicted(held: HeldOut, more: Evidence) -> np.ndarray:
    """Returns whether both sides contradict a label: models that never saw it, and what has seen it; ``N`` booleans."""
    otherwise = held.predicted != held.labels
    if more.aum is not None and not np.isnan(more.aum).all():
        found: np.ndarray = otherwise & (more.aum < 0)
        return found
    assert more.neighbours is not None
    votes = np.nan_to_num(list(more.neighbours.scores.values())[-1], nan=1.0)
    return np.asarray(otherwise & (votes > 0.5))


def _kinds(held: HeldOut, more: Evidence) -> dict[str, np.ndarray]:
    """Returns one score for each kind of evidence, higher is worse."""
    kinds = {"held_out": held.scores["doubt"]}
    if more.aum is not None and not np.isnan(more.aum).all():
        kinds["dynamics"] = -more.aum
    if more.neighbours is not None:
        kinds |= {name.split("_")[0]: scores for name, scores in more.neighbours.scores.items()}
    return kinds


def suggest(held: HeldOut, more: Evidence) -> np.ndarray:
    """Returns for each sample the label beside the given one that most speaks for, int64 ``N``; -1 where none does.

    Candidates are the runs' prediction, the likeliest other label of the whole probabilities, and the label of most
    neighbours; each brings its probability or share of votes.
    """
    candidates: list[tuple[np.ndarray, np.ndarray]] = []
    if more.probabilities is not None:
        candidates.append(label_scores.best_other(more.probabilities, held.labels))
    else:
        prob = np.nan_to_num(held.scores["predicted_prob"], nan=0.5)
        candidates.append((held.predicted, np.maximum(prob, 1e-6)))
    if more.neighbours is not None:
        candidates.append((more.neighbours.label, more.neighbours.share))
    best, most = np.full(len(held), -1, np.int64), np.zeros(len(held))
    for label, _ in candidates:
        weight = np.sum([np.where(other == label, share, 0.0) for other, share in candidates], axis=0)
        better = (label >= 0) & (label != held.labels) & (weight > most)
        best[better], most[better] = label[better], weight[better]
    return best


def _table(
    held: HeldOut, more: Evidence, strength: np.ndarray, suspicion: np.ndarray, suggested: np.ndarray
) -> pd.DataFrame:
    names = np.asarray([*held.names, ""], dtype=object)
    doubted = (suggested >= 0) & ((suspicion >= 0.5) | (held.predicted != held.labels))
    suggestion = np.where(doubted, suggested, held.labels)
    nothing = np.full(len(held), np.nan)
    near = more.neighbours
    confident = nothing
    if more.probabilities is not None:
        limits = label_scores.confident_thresholds(more.probabilities, held.labels)
        confident = label_scores.confident_score(more.probabilities, held.labels, limits)
    votes = {} if near is None else near.scores
    table = pd.DataFrame(
        {
            "sample_id": held.ids.to_numpy(),
            "given_label": names[held.labels],
            "predicted_label": names[held.predicted],
            "suggested_label": names[suggestion],
            "suspicion": suspicion,
            "label_score": 1 - suspicion,
            "is_label_issue": (suspicion >= 0.5) & (suggestion != held.labels),
            "evidence": strength,
            **{name: held.scores[name] for name in ("loss", "margin", "self_confidence", "normalized_margin")},
            "confident_score": confident,
            "aum": nothing if more.aum is None else more.aum,
            **{name: votes.get(name, nothing) for name in ("neighbour_disagreement", "twin_disagreement")},
            "outlierness": nothing if near is None else near.outlierness,
            "disagreement": held.disagreement,
            "runs": held.runs,
        }
    )
    table["slice"] = table["given_label"].astype(str) + " → " + table["suggested_label"].astype(str)
    return table


def write_ranking(ranking: pd.DataFrame, path: str | Path) -> Path:
    """Writes a ranking as CSV, atomically; returns the path."""
    with atomic_path(path) as temporary:
        ranking.to_csv(temporary, index=False, float_format="%.9g")
    return Path(path)
