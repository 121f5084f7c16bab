"""The built-in scores of labels: a function each, in the order of their columns in a ranking.

Scores of held-out predictions are means over the runs that held a sample out. See
:mod:`mlfix_train.audit.scores.registry` for how to add one.
"""

from __future__ import annotations

import numpy as np

from mlfix_train.audit.scores import label_scores
from mlfix_train.audit.scores.registry import Evidence, label_score


@label_score(higher_is_worse=True)
def loss(evidence: Evidence) -> np.ndarray:
    """Cross-entropy of the given label in nats, 0 and up."""
    return evidence.held_out.scores["loss"]


@label_score(higher_is_worse=False)
def margin(evidence: Evidence) -> np.ndarray:
    """Logit of the given label minus the best other logit; NaN if the predictions have no margins."""
    return evidence.held_out.scores["margin"]


@label_score(higher_is_worse=False)
def self_confidence(evidence: Evidence) -> np.ndarray:
    """Probability of the given label, 0 to 1."""
    return evidence.held_out.scores["self_confidence"]


@label_score(higher_is_worse=False)
def normalized_margin(evidence: Evidence) -> np.ndarray:
    """cleanlab's normalized margin, 0 to 1; NaN if the predictions have no margins."""
    return evidence.held_out.scores["normalized_margin"]


@label_score(higher_is_worse=False)
def confident_score(evidence: Evidence) -> np.ndarray | None:
    """Normalized margin relative to each class's confident-learning threshold, 0 to 1; needs all probabilities."""
    if evidence.probabilities is None:
        return None
    thresholds = label_scores.confident_thresholds(evidence.probabilities, evidence.held_out.labels)
    return label_scores.confident_score(evidence.probabilities, evidence.held_out.labels, thresholds)


@label_score(higher_is_worse=False, combine_as="dynamics")
def aum(evidence: Evidence) -> np.ndarray | None:
    """Area under the margin in logits, over runs that trained on the sample (in-sample)."""
    return None if evidence.aum is None or np.isnan(evidence.aum).all() else evidence.aum


@label_score(higher_is_worse=True, combine_as="neighbour")
def neighbour_disagreement(evidence: Evidence) -> np.ndarray | None:
    """Weighted share of similar images from other groups with another label, 0 to 1."""
    return None if evidence.neighbours is None else evidence.neighbours.scores.get("neighbour_disagreement")


@label_score(higher_is_worse=True, combine_as="twin")
def twin_disagreement(evidence: Evidence) -> np.ndarray | None:
    """Weighted share of similar images from any group with another label, 0 to 1; only if there are groups."""
    return None if evidence.neighbours is None else evidence.neighbours.scores.get("twin_disagreement")


@label_score(higher_is_worse=True)
def outlierness(evidence: Evidence) -> np.ndarray | None:
    """Distance to the nearest images relative to the usual one; 1 is usual."""
    return None if evidence.neighbours is None else evidence.neighbours.outlierness


@label_score(higher_is_worse=True)
def disagreement(evidence: Evidence) -> np.ndarray:
    """Share of the runs that predict another label, 0 to 1."""
    return evidence.held_out.disagreement
