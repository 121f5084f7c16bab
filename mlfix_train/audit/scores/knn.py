"""Scores of given labels by the labels of similar images, on plain arrays.

Two questions are asked of each sample. Do similar images from *other* photos or tracks have its label? And do the most
similar images of any photo or track, often near-copies ("twins"), have it?

Shapes: N samples, K neighbours, C classes; labels are int64 codes, 0 to C - 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlfix_train.audit.similarity.neighbours import Neighbours
from mlfix_train.audit.similarity.seriation import relative_distance

K_VOTES = 10
"""Neighbours that vote on a label."""
K_MAX = 48
"""Neighbours that are searched for, at most."""


@dataclass(frozen=True)
class KnnVote:
    """The nearest neighbours of each sample as weighted votes for labels.

    Attributes:
        label: int64 ``(N, K)``, the label of each neighbour.
        weight: float32 ``(N, K)``, 0 where a neighbour has no vote; rows sum to 1, or to 0 if nobody votes.
        count: int64 ``(N,)``, neighbours that vote.
    """

    label: np.ndarray
    weight: np.ndarray
    count: np.ndarray

    def agreement(self, labels: np.ndarray) -> np.ndarray:
        """Returns the weight of the votes for ``labels`` (``(N,)``), float32 0 to 1; 0.5 if nobody votes."""
        agree = (self.weight * (self.label == labels[:, None])).sum(1)
        return np.where(self.count > 0, agree, 0.5).round(6).astype(np.float32)  # rounding errors must not rank

    def majority(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the label with the most weight, int64 ``(N,)``, -1 if nobody votes, and its weight, float32."""
        n, k = self.label.shape
        best, most = np.full(n, -1, np.int64), np.zeros(n, np.float32)
        for column in range(k):
            share = (self.weight * (self.label == self.label[:, column : column + 1])).sum(1)
            better = (share > most + 1e-6) & (self.weight[:, column] > 0)
            best[better], most[better] = self.label[better, column], share[better]
        return best, most


def weighted_knn_vote(
    neighbours: Neighbours,
    labels: np.ndarray,
    groups: np.ndarray | None = None,
    k: int = K_VOTES,
    max_distance: float | None = None,
) -> KnnVote:
    """Lets the nearest neighbours of each sample vote, with Gaussian weights.

    The weight is exp(-(d / d_k)^2 / 2), where d_k is the distance of the farthest neighbour that votes.

    Args:
        neighbours: more neighbours than ``k``, so that enough remain when those of the same group are skipped.
        labels: int64 ``(N,)``; samples with label -1 have no vote.
        groups: int64 ``(N,)``, photo or track of each; neighbours of the same group have no vote. ``None``: all vote.
        k: neighbours that vote, at most.
        max_distance: farther neighbours have no vote.
    """
    votes = labels[neighbours.index] >= 0
    if groups is not None:
        votes &= groups[neighbours.index] != groups[:, None]
    if max_distance is not None:
        votes &= neighbours.distance <= max_distance
    votes &= np.cumsum(votes, 1) <= k
    distance = np.where(votes, neighbours.distance, 0.0)
    scale = np.maximum(distance.max(1, keepdims=True), 1e-12)
    weight = np.where(votes, np.exp(-0.5 * (distance / scale) ** 2), 0.0)
    total = weight.sum(1, keepdims=True)
    weight = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    return KnnVote(labels[neighbours.index], weight.astype(np.float32), votes.sum(1))


@dataclass(frozen=True)
class NeighbourScores:
    """Evidence from similar images about the given labels.

    Attributes:
        votes: votes of similar images of other groups.
        scores: float32 ``(N,)`` each, 0 to 1, higher is worse, NaN if nobody votes: ``neighbour_disagreement`` (of
            other groups) and, if there are groups, ``twin_disagreement`` (of any group).
        label: int64 ``(N,)``, the label with the most votes of both; -1 if nobody votes.
        share: float32 ``(N,)``, its share of the votes, 0 to 1.
        outlierness: float32 ``(N,)``, relative distance to the nearest images; 1 is usual, higher is more unusual.
    """

    votes: KnnVote
    scores: dict[str, np.ndarray]
    label: np.ndarray
    share: np.ndarray
    outlierness: np.ndarray

    def take(self, rows: np.ndarray) -> NeighbourScores:
        """Returns the scores of rows, int64 ``(M,)``; -1 stands for a sample without image, whose scores are NaN."""
        missing = rows < 0

        def pick(values: np.ndarray, default: float) -> np.ndarray:
            return np.where(missing, default, values[rows]).astype(values.dtype)

        scores = {name: pick(values, np.nan) for name, values in self.scores.items()}
        votes = KnnVote(
            np.where(missing[:, None], -1, self.votes.label[rows]),
            np.where(missing[:, None], 0, self.votes.weight[rows]).astype(np.float32),
            pick(self.votes.count, 0),
        )
        return NeighbourScores(votes, scores, pick(self.label, -1), pick(self.share, 0), pick(self.outlierness, np.nan))


def neighbours_needed(groups: np.ndarray | None, k: int = K_VOTES, limit: int = K_MAX) -> int:
    """Returns how many neighbours to search for, so that ``k`` of other groups are among them, at most ``limit``."""
    largest = 1 if groups is None or not len(groups) else int(np.bincount(groups).max())
    return min(limit, k + largest - 1)


def score_neighbours(
    neighbours: Neighbours, labels: np.ndarray, groups: np.ndarray | None = None, k: int = K_VOTES
) -> NeighbourScores:
    """Scores given labels by the labels of their nearest neighbours.

    Args:
        neighbours: :func:`neighbours_needed` neighbours of each of N images.
        labels: int64 ``(N,)``; -1 for images without a label.
        groups: int64 ``(N,)``, photo or track of each; ``None`` if every image is its own group.
        k: neighbours that vote.
    """
    votes_of_others = weighted_knn_vote(neighbours, labels, groups, k)
    sources = {"neighbour_disagreement": votes_of_others}
    if groups is not None:
        sources["twin_disagreement"] = weighted_knn_vote(neighbours, labels, None, k)
    scores = {
        name: np.where(votes.count > 0, 1 - votes.agreement(labels), np.nan).astype(np.float32)
        for name, votes in sources.items()
    }
    pooled = KnnVote(
        np.concatenate([votes.label for votes in sources.values()], 1),
        np.concatenate([votes.weight for votes in sources.values()], 1),
        np.sum([votes.count for votes in sources.values()], axis=0),
    )
    label, share = pooled.majority()
    outlierness = relative_distance(neighbours).astype(np.float32)
    return NeighbourScores(votes_of_others, scores, label, share / len(sources), outlierness)
