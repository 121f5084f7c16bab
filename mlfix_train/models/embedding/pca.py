"""Projects long embeddings to a chosen width by their principal components, and measures what that costs.

Shapes: N images, M of them a sample, D features, K the width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mlfix_train.errors import ConfigError, check_range

FLOOR = 0.01
"""Share of the largest variance that whitening adds to each, so that noise is not blown up."""


@dataclass(frozen=True)
class Projection:
    """A linear map from D features to K.

    Attributes:
        mean: float32 D, taken off first.
        basis: float32 ``D,K``; the principal components, divided by (about) their deviation if ``whitened``.
        kept: share of the sample's variance that lies in them, 0 to 1.
        whitened: whether all components have nearly the same deviation.
    """

    mean: np.ndarray
    basis: np.ndarray
    kept: float
    whitened: bool

    @property
    def width(self) -> int:
        """K."""
        return int(self.basis.shape[1])

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Maps ``N,D`` to float32 ``N,K``."""
        centred = torch.from_numpy(np.asarray(features, dtype=np.float32) - self.mean)
        projected: np.ndarray = (centred @ torch.from_numpy(self.basis)).numpy()
        return projected


def fit_projection(sample: np.ndarray, width: int, whiten: bool = False) -> Projection:
    """Finds the principal components of a sample.

    Args:
        sample: ``M,D`` features of images drawn at random; M of some thousands is enough.
        width: components kept; fewer where the sample has no more.
        whiten: bring all components to nearly the same deviation, so that the few largest (light, position) don't drown
            the rest; components below a hundredth of the largest variance stay smaller.

    Raises:
        ConfigError: a width below 1, or fewer than two images.
    """
    check_range("width", width, 1, 65_536)
    if len(sample) < 2:
        raise ConfigError(f"a projection of {len(sample)} image(s)", "bring two or more, or set width=null")
    x = torch.from_numpy(np.asarray(sample, dtype=np.float32))
    mean = x.mean(0)
    x = x - mean
    # The smaller of the two Gram matrices; its eigenvectors lead to those of the other.
    short = len(x) <= x.shape[1]
    gram = (x @ x.T if short else x.T @ x).double()
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    count = min(width, int((values > values[0] * 1e-7).sum())) or 1
    top = values[:count].clamp_min(1e-30).sqrt()
    basis = x.T @ (vectors[:, :count] / top).float() if short else vectors[:, :count].float()
    if whiten:
        variance = top.square() / len(x)
        basis = basis / (variance + FLOOR * variance[0]).sqrt().float()
    total = float(values.sum())
    kept = float(values[:count].sum()) / total if total > 0 else 1.0
    return Projection(mean.numpy(), np.ascontiguousarray(basis.numpy()), kept, whiten)


def distance_error(features: np.ndarray, projected: np.ndarray, pairs: int = 2_000, seed: int = 0) -> dict[str, float]:
    """Measures how far squared distances after a projection are from those before it, on random pairs.

    Args:
        features: ``N,D``, of images that the projection was not fitted to.
        projected: ``N,K`` of the same images.
        pairs: how many.
        seed: of the pairs.

    Returns:
        ``mean`` and ``p95``: mean and 95th percentile of ``|after - before| / before``, 0 is best; ``nearest``: share
        of the 10 nearest among these images that are the same before and after, 1 is best.
    """
    rng = np.random.default_rng(seed)
    a, b = rng.integers(len(features), size=(2, pairs))
    a, b = a[a != b], b[a != b]
    before = np.square(features[a].astype(np.float64) - features[b]).sum(1)
    after = np.square(projected[a].astype(np.float64) - projected[b]).sum(1)
    share = np.abs(after - before) / np.maximum(before, 1e-30)
    k = min(10, len(features) - 1)
    same = [len(np.intersect1d(x, y)) / k for x, y in zip(_near(features, k), _near(projected, k), strict=True)]
    return {"mean": float(share.mean()), "p95": float(np.quantile(share, 0.95)), "nearest": float(np.mean(same))}


def _near(x: np.ndarray, k: int) -> np.ndarray:
    gaps = torch.cdist(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(x.astype(np.float32)))
    return np.asarray(gaps.fill_diagonal_(torch.inf).topk(k, largest=False).indices.numpy())
