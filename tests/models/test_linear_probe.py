"""The linear layer is scikit-learn's logistic regression, fitted on the other folds."""

import numpy as np
import pytest

from mlfix_train.errors import DataError
from mlfix_train.models import linear_probe
from mlfix_train.models.linear_probe import OutOfFoldProbe


def problem(n: int = 400, d: int = 12, c: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(c, size=n)
    features = rng.normal(size=(c, d))[labels] * 0.7 + rng.normal(size=(n, d)) * np.linspace(0.2, 3, d)
    return features.astype(np.float32), labels, np.arange(n) % 3


def test_each_fold_is_predicted_as_scikit_learn_does():
    from sklearn.linear_model import LogisticRegression

    features, labels, folds = problem()
    found = OutOfFoldProbe(features, labels, 4, folds).fit(strength=1e-3).logits
    x = features.astype(np.float64) - features.mean(0)
    x /= np.sqrt(np.square(x).sum(1).mean())  # mean squared length 1
    for fold in range(3):
        train = folds != fold
        reference = LogisticRegression(C=1 / (1e-3 * train.sum()), tol=1e-8, max_iter=2000).fit(x[train], labels[train])
        wanted = reference.predict_log_proba(x[~train])
        own = found[~train] - np.log(np.exp(found[~train]).sum(1, keepdims=True))
        np.testing.assert_allclose(own, wanted, atol=0.02)


def test_samples_left_out_are_not_learned_from_but_predicted():
    features, labels, folds = problem()
    keep = np.random.default_rng(1).random(400) < 0.7
    found = OutOfFoldProbe(features, labels, 4, folds).fit(keep, strength=1e-3).logits
    flipped = np.where(keep, labels, (labels + 1) % 4)
    again = OutOfFoldProbe(features, flipped, 4, folds).fit(keep, strength=1e-3).logits
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, again, atol=1e-3)


def test_the_strength_is_that_of_the_lowest_held_out_loss():
    features, labels, folds = problem(d=60, n=200)
    labels = np.where(np.random.default_rng(2).random(200) < 0.3, (labels + 1) % 4, labels)
    probe = OutOfFoldProbe(features, labels, 4, folds)
    chosen = probe.fit()
    losses = {strength: probe.fit(strength=strength).loss for strength in linear_probe.STRENGTHS}
    assert chosen.loss <= min(losses.values()) + 0.01
    assert losses[min(losses)] > chosen.loss + 0.05, "60 features of 200 samples, some mislabelled, need a penalty"


def test_many_classes_are_fitted_to_principal_components(monkeypatch):
    features, labels, folds = problem(d=40)
    monkeypatch.setattr(linear_probe, "MIN_WIDTH", 10)
    monkeypatch.setattr(linear_probe, "MAX_WORK", 1.0)
    probe = OutOfFoldProbe(features, labels, 4, folds)
    assert probe.width == 10
    assert np.isfinite(probe.fit(strength=1e-3).logits).all()


def test_a_label_with_one_sample_and_one_without_any():
    features, labels, folds = problem()
    labels[0] = 4
    found = OutOfFoldProbe(features, labels, 6, folds).fit(strength=1e-3).logits
    assert found.shape == (400, 6) and np.isfinite(found).all()


def test_bad_features_are_named():
    features, labels, folds = problem()
    features[17, 3] = np.nan
    with pytest.raises(DataError, match="first in row 17"):
        OutOfFoldProbe(features, labels, 4, folds)
    with pytest.raises(DataError, match="the same features"):
        OutOfFoldProbe(np.ones_like(features), labels, 4, folds)
    with pytest.raises(DataError, match="one fold"):
        OutOfFoldProbe(problem()[0], labels, 4, np.zeros(400, int))
