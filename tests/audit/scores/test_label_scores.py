"""Scores of given labels against cleanlab's and against loops."""

from __future__ import annotations

import numpy as np
import pytest

from mlfix_train.audit.predictions.held_out import merge_runs
from mlfix_train.audit.predictions.table import predictions_table
from mlfix_train.audit.scores import label_scores as scores
from mlfix_train.errors import DataError


def problem(n: int = 600, classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels, a tenth of them wrong; class 3 is one that the model is seldom sure of."""
    rng = np.random.default_rng(seed)
    true = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), true] += np.where(true == 3, 1.0, 3.0)
    p = np.exp(logits)
    labels = np.where(rng.random(n) < 0.1, rng.integers(classes, size=n), true)
    return p / p.sum(1, keepdims=True), labels


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scores_are_cleanlabs(seed: int) -> None:
    rank = pytest.importorskip("cleanlab.rank")
    p, labels = problem(seed=seed)
    for name, ours in (("self_confidence", scores.self_confidence), ("normalized_margin", scores.normalized_margin)):
        theirs = rank.get_label_quality_scores(labels, p, method=name)
        np.testing.assert_allclose(ours(p, labels), theirs, atol=1e-7)
    held = merge_runs([predictions_table([f"s{i}" for i in range(600)], labels, np.log(p), list("abcde"))])
    theirs = rank.get_label_quality_scores(labels, p, method="normalized_margin")
    np.testing.assert_allclose(held.scores["normalized_margin"], theirs, atol=1e-6)
    np.testing.assert_allclose(held.scores["self_confidence"], p[np.arange(600), labels], atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_thresholds_and_the_confident_joint_are_cleanlabs(seed: int) -> None:
    count = pytest.importorskip("cleanlab.count")
    p, labels = problem(seed=seed)
    limits = scores.confident_thresholds(p, labels)
    np.testing.assert_allclose(limits, count.get_confident_thresholds(labels, p), atol=1e-9)
    joint = scores.confident_joint(labels, scores.confident_labels(p, limits), 5)
    np.testing.assert_array_equal(joint, count.compute_confident_joint(labels, p, calibrate=False))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_count_of_confident_learning_is_cleanlabs(seed: int) -> None:
    count = pytest.importorskip("cleanlab.count")
    p, labels = problem(seed=seed)
    wanted = count.num_label_issues(labels, p, estimation_method="off_diagonal")
    assert scores.count_label_issues(p, labels) == wanted > 20


def test_confident_score_orders_like_cleanlabs_adjusted_margin() -> None:
    rank = pytest.importorskip("cleanlab.rank")
    p, labels = problem()
    theirs = rank.get_label_quality_scores(labels, p, method="normalized_margin", adjust_pred_probs=True)
    ours = scores.confident_score(p, labels, scores.confident_thresholds(p, labels))
    order = np.argsort(ours, kind="stable")
    assert (np.diff(theirs[order]) > -1e-5).all()
    assert ((ours >= 0) & (ours <= 1)).all()


def test_best_other_against_a_loop() -> None:
    p, labels = problem(50)
    for block in (7, 1 << 15):
        other, best = scores.best_other(p, labels, block)
        for i in range(50):
            rest = {j: p[i, j] for j in range(5) if j != labels[i]}
            assert other[i] == max(rest, key=lambda j: rest[j])
            assert best[i] == pytest.approx(rest[other[i]], rel=1e-5)


def test_a_label_that_no_sample_bears_has_no_threshold() -> None:
    p, labels = problem(50)
    limits = scores.confident_thresholds(p, np.where(labels == 2, 0, labels))
    assert np.isnan(limits[2])
    assert 2 not in scores.confident_labels(p, limits)
    assert np.isfinite(scores.confident_score(p, np.where(labels == 2, 0, labels), limits)).all()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([0.5, 0.4, 0.3], "row 3 is not a probability distribution: sum 1.2"),
        ([1.2, -0.2, 0.0], "lowest -0.2"),
        ([np.nan, 0.5, 0.5], "row 3"),
        ([0, 0, 0], "sum 0"),
    ],
)
def test_rows_that_are_no_probabilities_are_named(row: list[float], words: str) -> None:
    p = np.full((6, 3), 1 / 3)
    scores.check_probabilities(p.astype(np.float16))
    p[3] = row
    with pytest.raises(DataError, match=f"runs/p.npy.*{words}"):
        scores.check_probabilities(p, "runs/p.npy")


def test_probabilities_of_another_shape() -> None:
    with pytest.raises(DataError, match=r"shape \(4,\)"):
        scores.check_probabilities(np.ones(4))
    with pytest.raises(DataError, match=r"shape \(4, 1\)"):
        scores.check_probabilities(np.ones((4, 1)))
