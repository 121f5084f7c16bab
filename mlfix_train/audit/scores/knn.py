"""Scores of given labels by the labels of images that look alike, on plain arrays.

Two questions are asked. Do images of *other* photos or tracks that look alike bear this label? And do images that are
almost the same picture, of whatever photo or track, bear it?

Shapes: N samples, K neighbours, C labels; labels are numbers 0 to C - 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlfix_train.audit.similarity.neighbours import Neighbours
from mlfix_train.audit.similarity.seriation import relative_distance


@dataclass(frozen=True)
class Votes:
    """The neighbours of each sample as votes for labels.

    Attributes:
        label: int64 ``N,K``, the label of each neighbour.
        weight: float32 ``N,K``, 0 where a neighbour does not count; rows sum to 1, or to 0 where nobody votes.
        count: int64 ``N``, neighbours that count.
    """

    label: np.ndarray
    weight: np.ndarray
    count: np.ndarray

    def share(self, labels: np.ndarray) -> np.ndarray:
        """Returns the weight of the neighbours that bear ``labels`` (``N``), 0 to 1; 0.5 where nobody votes."""
        agree = (self.weight * (self.label == labels[:, None])).sum(1)
        return np.where(self.count > 0, agree, 0.5).round(6).astype(np.float32)  # rounding must not rank

    def winner(self, classes: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the label with the most weight, int64 ``N`` (-1 where nobody votes), and its weight."""
        n, k = self.label.shape
        best, most = np.full(n, -1, np.int64), np.zeros(n, np.float32)
        for column in range(k):
            share = (self.weight * (self.label == self.label[:, column : column + 1])).sum(1)
            better = (share > most + 1e-6) & (self.weight[:, column] > 0)
            best[better], most[better] = self.label[better, column], share[better]
        return best, most


def cast_votes(
    found: Neighbours, labels: np.ndarray, groups: np.ndarray | None = None, k: int = 10, reach: float | None = None
) -> Votes:
    """Lets each sample's nearest neighbours vote, nearer ones more.

    Weights fall off as exp(-(d / d_k)^2 / 2), d_k the distance of the last that counts.

    Args:
        found: more neighbours than ``k``, so that some are left when a group is passed over.
        labels: ``N`` labels, -1 for none.
        groups: ``N`` numbers of photos or tracks; neighbours of one's own group don't vote. ``None``: all may.
        k: neighbours that vote, at most.
        reach: distance beyond which none votes.
    """
    counts = labels[found.index] >= 0  # what bears no label has no vote
    if groups is not None:
        counts &= groups[found.index] != groups[:, None]
    if reach is not None:
        counts &= found.distance <= reach
    counts &= np.cumsum(counts, 1) <= k
    distance = np.where(counts, found.distance, 0.0)
    scale = np.maximum(distance.max(1, keepdims=True), 1e-12)
    weight = np.where(counts, np.exp(-0.5 * (distance / scale) ** 2), 0.0)
    total = weight.sum(1, keepdims=True)
    weight = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    return Votes(labels[found.index], weight.astype(np.float32), counts.sum(1))


@dataclass(frozen=True)
class NeighbourScores:
    """What images that look alike say of the given labels.

    Attributes:
        scores: float32 ``N`` each, 0 to 1, higher is worse, NaN where nobody votes: ``neighbour_disagreement`` (of
            other groups) and, where there are groups, ``twin_disagreement`` (of whatever group).
        label: int64 ``N``, the label with the most votes of both; -1 where nobody votes.
        share: float32 ``N``, its share of the votes, 0 to 1.
        outlierness: float32 ``N``, distance to the nearest images, 1 is usual, higher is stranger.
    """

    scores: dict[str, np.ndarray]
    label: np.ndarray
    share: np.ndarray
    outlierness: np.ndarray


def neighbours_wanted(groups: np.ndarray | None, k: int = 10, most: int = 48) -> int:
    """Returns how many neighbours to look for, so that ``k`` of other groups are among them, ``most`` at most."""
    largest = 1 if groups is None or not len(groups) else int(np.bincount(groups).max())
    return min(most, k + largest - 1)


def score_neighbours(
    found: Neighbours, labels: np.ndarray, classes: int, groups: np.ndarray | None = None, k: int = 10
) -> NeighbourScores:
    """Scores given labels by their neighbours'.

    Args:
        found: neighbours of each of N images, :func:`neighbours_wanted` of them.
        labels: int64 ``N``.
        classes: C.
        groups: int64 ``N``, photo or track of each; ``None`` where every image stands for itself.
        k: neighbours that vote.
    """
    others = cast_votes(found, labels, groups, k)
    voices = {"neighbour_disagreement": others}
    if groups is not None:
        voices["twin_disagreement"] = cast_votes(found, labels, None, k)
    scores = {
        name: np.where(votes.count > 0, 1 - votes.share(labels), np.nan).astype(np.float32)
        for name, votes in voices.items()
    }
    both = list(voices.values())
    together = Votes(
        np.concatenate([votes.label for votes in both], 1),
        np.concatenate([votes.weight for votes in both], 1),
        np.sum([votes.count for votes in both], axis=0),
    )
    label, share = together.winner(classes)
    strange = relative_distance(found).astype(np.float32)
    return NeighbourScores(scores, label, share / len(both), strange)
