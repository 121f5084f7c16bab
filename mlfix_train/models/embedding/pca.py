"""Projects features to fewer dimensions by principal components, and measures the error of that.

Shapes: N images, M of them a sample, D features, E dimensions after the projection.
"""

from dataclasses import dataclass

import numpy as np
import torch

from mlfix_train.errors import ConfigError, check_range

WHITENING_FLOOR = 0.01
"""Share of the largest variance that whitening adds to each, so that noise is not amplified."""


@dataclass(frozen=True)
class Projection:
    """A linear map from D features to E.

    Attributes:
        mean: Float32 ``(D,)``, subtracted first.
        basis: Float32 ``(D, E)``; the principal components, divided by about their standard deviation if whitened.
        variance_kept: Share of the sample's variance that lies in them, 0 to 1.
    """

    mean: np.ndarray
    basis: np.ndarray
    variance_kept: float

    @property
    def width(self) -> int:
        """Dimensions E."""
        return int(self.basis.shape[1])

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Maps ``(N, D)`` to float32 ``(N, E)``."""
        centered = torch.from_numpy(np.asarray(features, dtype=np.float32) - self.mean)
        return (centered @ torch.from_numpy(self.basis)).numpy()


def fit_projection(sample: np.ndarray, width: int, whiten: bool = False) -> Projection:
    """Finds the principal components of a sample.

    Args:
        sample: ``(M, D)`` features of images drawn at random; M of some thousands is enough.
        width: Number of components, 1 to 65,536; the sample may have fewer.
        whiten: Bring all components to nearly the same standard deviation, so that the few largest (light, position)
            don't drown out the rest; components below a hundredth of the largest variance stay smaller.

    Raises:
        ConfigError: A width out of range, or fewer than two images.
    """
    check_range("width", width, 1, 65_536)
    if len(sample) < 2:
        raise ConfigError(f"{len(sample)} image(s) are too few for a projection", "use two or more, or set width=null")
    x = torch.from_numpy(np.asarray(sample, dtype=np.float32))
    mean = x.mean(0)
    x = x - mean
    wide = len(x) <= x.shape[1]  # the eigenvectors of the smaller Gram matrix give those of the other
    values, vectors = torch.linalg.eigh((x @ x.T if wide else x.T @ x).double())
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    count = min(width, int((values > values[0] * 1e-7).sum())) or 1
    top = values[:count].clamp_min(1e-30).sqrt()
    basis = x.T @ (vectors[:, :count] / top).float() if wide else vectors[:, :count].float()
    if whiten:
        variance = top.square() / len(x)
        basis = basis / (variance + WHITENING_FLOOR * variance[0]).sqrt().float()
    total = float(values.sum())
    variance_kept = float(values[:count].sum()) / total if total > 0 else 1.0
    return Projection(mean.numpy(), np.ascontiguousarray(basis.numpy()), variance_kept)


def distance_error(features: np.ndarray, projected: np.ndarray, pairs: int = 2_000, seed: int = 0) -> dict[str, float]:
    """Measures how far squared distances after a projection are from those before it, on random pairs.

    ``features``, ``(N, D)``, and ``projected``, ``(N, E)``, are of images that the projection was not fitted to.

    Returns:
        ``mean`` and ``p95``: mean and 95th percentile of ``|after - before| / before``, 0 is best; ``nearest``: share
        of each image's 10 nearest that are the same before and after, 0 to 1, 1 is best.
    """
    rng = np.random.default_rng(seed)
    a, b = rng.integers(len(features), size=(2, pairs))
    a, b = a[a != b], b[a != b]
    before = np.square(features[a].astype(np.float64) - features[b]).sum(1)
    after = np.square(projected[a].astype(np.float64) - projected[b]).sum(1)
    error = np.abs(after - before) / np.maximum(before, 1e-30)
    k = min(10, len(features) - 1)
    same = [len(np.intersect1d(x, y)) / k for x, y in zip(_nearest(features, k), _nearest(projected, k), strict=True)]
    return {"mean": float(error.mean()), "p95": float(np.quantile(error, 0.95)), "nearest": float(np.mean(same))}


def _nearest(x: np.ndarray, k: int) -> np.ndarray:
    points = torch.from_numpy(x.astype(np.float32))
    distances = torch.cdist(points, points).fill_diagonal_(torch.inf)
    return np.asarray(distances.topk(k, largest=False).indices)
