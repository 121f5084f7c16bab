"""Projection by principal components, and its error."""

from __future__ import annotations

import numpy as np
import pytest

from mlfix_train.errors import ConfigError
from mlfix_train.models.embedding.pca import distance_error, fit_projection


@pytest.mark.parametrize("shape", [(40, 200), (300, 20)])
def test_a_projection_is_that_of_the_svd(shape: tuple[int, int]) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32) * np.linspace(3, 0.1, shape[1]) + 5
    found = fit_projection(x, 8)
    centered = x.astype(np.float64) - x.mean(0)
    _, s, axes = np.linalg.svd(centered, full_matrices=False)
    wanted = centered @ axes[:8].T
    ours = found(x)
    assert np.abs(ours) == pytest.approx(np.abs(wanted), abs=1e-2)
    assert found.variance_kept == pytest.approx((s[:8] ** 2).sum() / (s**2).sum(), rel=1e-4) and found.width == 8
    white = fit_projection(x, 8, whiten=True)(x)
    variance = s[:8] ** 2 / len(x)
    assert white.std(0) == pytest.approx(np.sqrt(variance / (variance + 0.01 * variance[0])), rel=1e-2)


def test_a_full_projection_keeps_distances_and_a_narrow_one_says_what_it_costs() -> None:
    x = np.random.default_rng(1).normal(size=(500, 30)).astype(np.float32)
    full = distance_error(x, fit_projection(x, 30)(x))
    assert full["mean"] < 1e-4 and full["nearest"] > 0.99
    narrow = distance_error(x, fit_projection(x, 5)(x))
    before = ((x[:100, None] - x[None, 100:200]) ** 2).sum(2)
    p = fit_projection(x, 5)(x)
    after = ((p[:100, None] - p[None, 100:200]) ** 2).sum(2)
    assert narrow["mean"] == pytest.approx((np.abs(after - before) / before).mean(), abs=0.03)
    assert narrow["nearest"] < 0.6 and narrow["p95"] > narrow["mean"]


def test_equal_images_project_and_a_single_one_is_refused() -> None:
    same = np.ones((10, 6), np.float32)
    assert np.isfinite(fit_projection(same, 3, whiten=True)(same)).all()
    with pytest.raises(ConfigError, match="1 image"):
        fit_projection(same[:1], 3)
