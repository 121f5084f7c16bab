"""The registry of label scores: every score that a ranking shows, and the evidence it is computed from.

**Add a score here**: one function and its entry in the list below. From your own code, register it before you audit::

    register_score(LabelScore("brightness", my_function, False, "Share of bright pixels, 0 to 1."))

Its name becomes a column of the ranking; with ``combine_as`` it also counts towards the suspicion. Scores of held-out
predictions are means over the runs that held a sample out. Shapes: N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlfix_train.audit.predictions.held_out import HeldOut
from mlfix_train.audit.scores.knn import NeighbourScores
from mlfix_train.audit.scores.label_scores import confident_score, confident_thresholds


@dataclass(frozen=True)
class Evidence:
    """Everything labels can be judged by; all arrays have one row per held-out sample.

    Attributes:
        held_out: held-out predictions, averaged over runs.
        aum: float ``(N,)``, area under the margin in training; NaN where a sample was never trained on.
        neighbours: scores by the labels of similar images.
        probabilities: float ``(N, C)``, mean held-out probabilities.
        groups: int64 ``(N,)``, photo or track of each sample; ``None`` if every sample is its own group.
    """

    held_out: HeldOut
    aum: np.ndarray | None = None
    neighbours: NeighbourScores | None = None
    probabilities: np.ndarray | None = None
    groups: np.ndarray | None = None


@dataclass(frozen=True)
class LabelScore:
    """A score of given labels.

    Attributes:
        name: column of the ranking.
        compute: returns one number per held-out sample ``(N,)``, NaN for none; ``None`` without its evidence.
        higher_is_worse: whether high or low values speak against the label.
        description: what it measures, its unit and range.
        combine_as: kind of evidence as which it counts towards the suspicion; empty: it is only shown.
    """

    name: str
    compute: Callable[[Evidence], np.ndarray | None]
    higher_is_worse: bool
    description: str
    combine_as: str = ""

    def badness(self, evidence: Evidence) -> np.ndarray | None:
        """Returns the score turned so that higher is worse, float ``(N,)``; ``None`` without its evidence."""
        values = self.compute(evidence)
        return values if values is None or self.higher_is_worse else -values


def _held_out(name: str) -> Callable[[Evidence], np.ndarray]:
    return lambda evidence: evidence.held_out.scores[name]


def _neighbours(name: str) -> Callable[[Evidence], np.ndarray | None]:
    return lambda evidence: None if evidence.neighbours is None else evidence.neighbours.scores.get(name)


def _confident_score(evidence: Evidence) -> np.ndarray | None:
    if evidence.probabilities is None:
        return None
    labels = evidence.held_out.labels
    return confident_score(evidence.probabilities, labels, confident_thresholds(evidence.probabilities, labels))


def _aum(evidence: Evidence) -> np.ndarray | None:
    return None if evidence.aum is None or np.isnan(evidence.aum).all() else evidence.aum


def _outlierness(evidence: Evidence) -> np.ndarray | None:
    return None if evidence.neighbours is None else evidence.neighbours.outlierness


SCORES: list[LabelScore] = [
    LabelScore("loss", _held_out("loss"), True, "Cross-entropy of the given label in nats."),
    LabelScore("margin", _held_out("margin"), False, "Logit of the given label minus the best other logit."),
    LabelScore("self_confidence", _held_out("self_confidence"), False, "Probability of the given label, 0 to 1."),
    LabelScore("normalized_margin", _held_out("normalized_margin"), False, "cleanlab's normalized margin, 0 to 1."),
    LabelScore("confident_score", _confident_score, False, "Margin over the confident-learning thresholds, 0 to 1."),
    LabelScore("aum", _aum, False, "Area under the margin in logits, by runs trained on the sample.", "dynamics"),
    LabelScore(
        "neighbour_disagreement",
        _neighbours("neighbour_disagreement"),
        True,
        "Weighted share of similar images of other groups that have another label, 0 to 1.",
        "neighbour",
    ),
    LabelScore(
        "twin_disagreement",
        _neighbours("twin_disagreement"),
        True,
        "Weighted share of similar images of any group that have another label, 0 to 1; only if there are groups.",
        "twin",
    ),
    LabelScore("outlierness", _outlierness, True, "Distance to the nearest images; 1 is usual."),
    LabelScore(
        "disagreement",
        lambda evidence: evidence.held_out.disagreement,
        True,
        "Share of the runs predicting another label.",
    ),
]
"""All scores, in the order of the columns of a ranking."""


def register_score(score: LabelScore) -> None:
    """Adds a score to all rankings made from now on.

    Raises:
        ValueError: A score of this name exists.
    """
    if any(score.name == other.name for other in SCORES):
        raise ValueError(f"a label score named {score.name!r} is already registered")
    SCORES.append(score)
