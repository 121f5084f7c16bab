"""Held-out predictions of several kinds, pooled: those of runs, of a linear layer, and the votes of similar images.

The pool is a product of the predictions, each raised to its own power (a logarithmic opinion pool, Genest and Zidek,
"Combining probability distributions", 1986):

    log p(c) = w_1 log p_1(c) + w_2 log p_2(c) + ... - normalizer,   w_k >= 0.

The powers are those under which the given labels are likeliest (stacking, Wolpert 1992). No kind has seen the label
that it is judged by, so a kind that can't tell the classes apart gets a power near 0, and one that is too sure of
itself gets a smaller one. A weak prior (normal, mean 1, standard deviation 1) decides where there are few samples. The
powers are fitted twice, the second time without the labels that confident learning doubts.

Shapes: N samples, C classes, K kinds.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mlfix_train.audit.predictions.held_out import HeldOut
from mlfix_train.audit.scores.knn import KnnVote
from mlfix_train.audit.scores.label_scores import confident_thresholds

LogProbabilities = Callable[[np.ndarray], np.ndarray]
"""Maps rows, int64 ``(n,)``, to log-probabilities up to a constant, float32 ``(n, C)``."""

FIT_SAMPLES = 20_000
"""The powers are fitted to a sample of this size."""
BLOCK = 8192
SMALLEST = 1e-20
"""Probabilities are raised to this before their logarithm is taken."""


@dataclass(frozen=True)
class Pool:
    """Pooled predictions.

    Attributes:
        weights: power of each kind.
        loss: float64 ``(N,)``, cross-entropy of the given label, nats, higher is worse.
        other: int64 ``(N,)``, likeliest label other than the given one.
        other_prob: float64 ``(N,)``, its probability.
        doubted: bool ``(N,)``, labels that confident learning counts as wrong: the sample confidently belongs to
            another class, which is also its likeliest.
    """

    weights: dict[str, float]
    loss: np.ndarray
    other: np.ndarray
    other_prob: np.ndarray
    doubted: np.ndarray


def pool_predictions(kinds: Mapping[str, LogProbabilities], labels: np.ndarray, n_classes: int, seed: int = 0) -> Pool:
    """Pools predictions, see the module's docstring; one kind alone is taken as it is.

    Args:
        kinds: log-probabilities of each kind, by models that have not seen the sample.
        labels: int64 ``(N,)``, given labels.
        n_classes: C.
        seed: seed of the sample to which the powers are fitted.
    """
    n = len(labels)
    rows = np.arange(n)
    if n > FIT_SAMPLES:
        rows = np.sort(np.random.default_rng(seed).choice(n, FIT_SAMPLES, replace=False))
    weights = np.ones(1)
    if len(kinds) > 1:
        parts = np.stack([_normalize(kind(rows)) for kind in kinds.values()])
        weights = _fit_weights(parts, labels[rows])
        doubted = _doubted(np.exp(_normalize(np.tensordot(weights, parts, 1))), labels[rows])
        if not doubted.all():
            weights = _fit_weights(parts[:, ~doubted], labels[rows][~doubted])

    def blocks() -> Iterator[tuple[slice, np.ndarray]]:
        for start in range(0, n, BLOCK):
            own = np.arange(start, min(start + BLOCK, n))
            parts = [weight * _normalize(kind(own)) for weight, kind in zip(weights, kinds.values(), strict=True)]
            yield slice(start, start + len(own)), _normalize(np.sum(parts, axis=0))

    loss, other, other_prob = np.empty(n), np.empty(n, np.int64), np.empty(n)
    for part, log_p in blocks():
        each, own = np.arange(len(log_p)), labels[part]
        loss[part] = -log_p[each, own]
        log_p[each, own] = -np.inf
        other[part] = log_p.argmax(1)
        other_prob[part] = np.exp(log_p[each, other[part]])
    counts = np.bincount(labels, minlength=n_classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        thresholds = np.bincount(labels, weights=np.exp(-loss), minlength=n_classes) / counts
    doubted = np.empty(n, bool)
    for part, log_p in blocks():
        doubted[part] = _doubted(np.exp(log_p), labels[part], thresholds)
    names = dict(zip(kinds, (round(float(weight), 4) for weight in weights), strict=True))
    return Pool(names, np.maximum(loss, 0.0), other, other_prob, doubted)


def _normalize(log_p: np.ndarray) -> np.ndarray:
    from scipy.special import logsumexp

    normalized: np.ndarray = log_p - logsumexp(log_p, axis=-1, keepdims=True)
    return normalized


def _doubted(probabilities: np.ndarray, labels: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
    """Returns the labels that confident learning counts as wrong, bool ``(n,)``."""
    limits = confident_thresholds(probabilities, labels) if thresholds is None else thresholds
    reached = np.where(probabilities >= np.nan_to_num(limits, nan=np.inf) - 1e-6, probabilities, -1.0)
    confident, likeliest = reached.argmax(1), probabilities.argmax(1)
    return np.asarray((reached.max(1) >= 0) & (confident != labels) & (likeliest != labels))


def _fit_weights(parts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the powers under which labels are likeliest, ``(K,)``; ``parts`` are log-probabilities ``(K, n, C)``."""
    from scipy.optimize import minimize

    own = parts[:, np.arange(len(labels)), labels]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        from scipy.special import logsumexp

        pooled = np.tensordot(weights.astype(np.float32), parts, 1)
        log_z = logsumexp(pooled, axis=1)
        p = np.exp(pooled - log_z[:, None])
        gradient = np.array([float((p * part).sum(1, dtype=np.float64).mean()) for part in parts]) - own.mean(1)
        prior = (weights - 1) / max(len(labels), 1)
        return float((log_z - weights @ own).mean() + prior @ (weights - 1) / 2), gradient + prior

    start = np.full(len(parts), 1 / len(parts))
    found: np.ndarray = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(parts)).x
    return found


def of_probabilities(probabilities: np.ndarray) -> LogProbabilities:
    """Returns a kind of predictions from probabilities ``(N, C)``."""
    return lambda rows: np.log(np.maximum(np.asarray(probabilities[rows], np.float32), SMALLEST))


def of_logits(logits: np.ndarray) -> LogProbabilities:
    """Returns a kind of predictions from logits ``(N, C)``."""
    return lambda rows: np.asarray(logits[rows], np.float32)


def of_votes(votes: KnnVote, n_classes: int) -> LogProbabilities:
    """Returns a kind of predictions from the votes of similar images; each class gets half a vote on top."""
    k = max(votes.label.shape[1], 1)

    def log_probabilities(rows: np.ndarray) -> np.ndarray:
        counted = np.zeros((len(rows), n_classes), np.float32)
        each = np.broadcast_to(np.arange(len(rows))[:, None], votes.label[rows].shape)
        has_label = votes.label[rows] >= 0
        np.add.at(counted, (each[has_label], votes.label[rows][has_label]), votes.weight[rows][has_label])
        log_p: np.ndarray = np.log(counted + 0.5 / k)
        return log_p

    return log_probabilities


def of_held_out(held: HeldOut) -> LogProbabilities:
    """Returns a kind of predictions from what runs recorded without all probabilities.

    The given label and the predicted one have theirs; what is left is shared evenly by the others.
    """
    n_classes = len(held.class_names)

    def log_probabilities(rows: np.ndarray) -> np.ndarray:
        given, predicted = held.labels[rows], held.predicted[rows]
        rest = held.scores["not_self"][rows]
        own = 1 - rest
        differs = predicted != given
        top = np.nan_to_num(held.scores["predicted_prob"][rows], nan=0.0)
        top = np.where(differs, np.minimum(np.maximum(top, np.maximum(own, rest / (n_classes - 1))), rest), 0.0)
        others = max(n_classes - 2, 1)
        shared = np.where(differs, (rest - top) / others, rest / (n_classes - 1))
        p = np.repeat(shared[:, None], n_classes, 1)
        each = np.arange(len(rows))
        p[each[differs], predicted[differs]] = top[differs]
        p[each, given] = own
        log_p: np.ndarray = np.log(np.maximum(p, SMALLEST)).astype(np.float32)
        return log_p

    return log_probabilities


def of_recorded(held: HeldOut, kind: str) -> Pool:
    """Returns the predictions of runs as they are, where there is nothing to pool and not all probabilities are known.

    ``other`` is -1 where the given label is predicted.
    """
    differs = held.predicted != held.labels
    other_prob = np.where(differs, np.nan_to_num(held.scores["predicted_prob"], nan=0.0), 0.0)
    not_self = np.asarray(held.scores["not_self"], np.float64)
    loss = np.where(not_self < 1, -np.log1p(-np.minimum(not_self, 1 - 1e-16)), -np.log(SMALLEST))  # of the mean
    return Pool({kind: 1.0}, loss, np.where(differs, held.predicted, -1), other_prob, differs)
