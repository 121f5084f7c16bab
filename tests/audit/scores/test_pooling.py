"""Pooled predictions: weights by how well the given labels are predicted, and nothing lost by a blind kind."""

import numpy as np

from mlfix_train.audit.predictions.held_out import merge_runs
from mlfix_train.audit.predictions.table import predictions_table
from mlfix_train.audit.scores import label_scores, pooling
from mlfix_train.audit.scores.knn import KnnVote

N, C = 1500, 5


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def predictions(seed: int, quality: float, labels: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return log_softmax(quality * np.eye(C)[labels] + rng.normal(size=(len(labels), C)))


def problem(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns given and true labels."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(C, size=N)
    wrong = rng.random(N) < 0.06
    return np.where(wrong, (truth + rng.integers(1, C, size=N)) % C, truth), truth


def average_precision(score: np.ndarray, wrong: np.ndarray) -> float:
    hits = wrong[np.argsort(-score, kind="stable")]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


def pool(kinds: dict[str, np.ndarray], labels: np.ndarray) -> pooling.Pool:
    return pooling.pool_predictions({name: pooling.of_logits(x) for name, x in kinds.items()}, labels, C)


def test_weights_are_those_of_a_conditional_logit():
    given, truth = problem()
    a, b = predictions(1, 2.5, truth), predictions(2, 1.5, truth)
    found = pool({"a": a, "b": b}, given)
    from scipy.optimize import minimize

    kept = ~pool({"a": a, "b": b}, given).doubted

    def loss(weights: np.ndarray, rows: np.ndarray) -> float:
        pooled = log_softmax(weights[0] * a[rows] + weights[1] * b[rows])
        return -pooled[np.arange(len(rows)), given[rows]].sum() + np.square(np.array(weights) - 1).sum() / 2

    first = minimize(loss, [0.5, 0.5], args=(np.arange(N),), method="Nelder-Mead").x
    pooled = np.exp(log_softmax(first[0] * a + first[1] * b))
    confident = label_scores.confident_labels(pooled, label_scores.confident_thresholds(pooled, given))
    doubted = (confident >= 0) & (confident != given) & (pooled.argmax(1) != given)
    wanted = minimize(loss, [0.5, 0.5], args=(np.flatnonzero(~doubted),), method="Nelder-Mead").x
    np.testing.assert_allclose(list(found.weights.values()), wanted, rtol=0.02)
    own = -log_softmax(wanted[0] * a + wanted[1] * b)[np.arange(N), given]
    np.testing.assert_allclose(found.loss, own, rtol=0.05, atol=0.02)
    assert kept.mean() > 0.8


def test_two_kinds_find_more_than_each_and_a_blind_one_does_no_harm():
    given, truth = problem()
    wrong = given != truth
    kinds = {"a": predictions(1, 2.5, truth), "b": predictions(2, 2.0, truth)}
    single = [average_precision(pool({name: x}, given).loss, wrong) for name, x in kinds.items()]
    both = pool(kinds, given)
    assert average_precision(both.loss, wrong) > max(single)
    blind = pool({**kinds, "blind": predictions(3, 0.0, truth)}, given)
    assert blind.weights["blind"] < 0.05
    assert average_precision(blind.loss, wrong) > average_precision(both.loss, wrong) - 0.005
    assert (both.other == truth)[wrong].mean() > 0.8


def test_few_samples_keep_the_weights_near_one():
    truth = np.arange(12) % C
    found = pool({"a": predictions(1, 9.0, truth), "b": predictions(2, 0.0, truth)}, truth)
    assert 0.5 < found.weights["a"] < 1.5 and 0 <= found.weights["b"] < 1.2


def test_one_kind_alone_is_taken_as_it_is():
    given, truth = problem()
    a = predictions(1, 2.0, truth)
    found = pool({"a": a}, given)
    np.testing.assert_allclose(found.loss, -a[np.arange(N), given], rtol=1e-4, atol=1e-5)
    others = a.copy()
    others[np.arange(N), given] = -np.inf
    assert (found.other == others.argmax(1)).all()
    np.testing.assert_allclose(found.other_prob, np.exp(others.max(1)), rtol=1e-4)
    assert found.doubted.sum() == label_scores.count_label_issues(np.exp(a), given)


def test_votes_count_by_their_weight_and_nobodys_say_nothing():
    votes = KnnVote(np.array([[0, 1], [1, -1]]), np.array([[0.75, 0.25], [0.0, 0.0]], np.float32), np.array([2, 0]))
    found = pooling.of_votes(votes, 3)(np.arange(2))
    np.testing.assert_allclose(np.exp(found[0]), [1.0, 0.5, 0.25])
    assert np.ptp(found[1]) == 0


def test_what_runs_record_stands_for_all_probabilities():
    given, truth = problem()
    logits = predictions(4, 2.0, truth)
    names = [f"class {code}" for code in range(C)]
    held = merge_runs([predictions_table([str(row) for row in range(N)], given, logits, names)], names)
    p = np.exp(log_softmax(pooling.of_held_out(held)(np.arange(N))))
    np.testing.assert_allclose(p[np.arange(N), given], np.exp(logits[np.arange(N), given]), rtol=1e-4)
    differs = logits.argmax(1) != given
    np.testing.assert_allclose(p.max(1)[differs], np.exp(logits.max(1))[differs], rtol=1e-4)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
