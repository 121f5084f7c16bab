"""What an embedder is, and how a torch function embeds many images in bounded memory.

Shapes: N images of H x W pixels, D features, E dimensions of the embeddings: D without a projection.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mlfix_train.data.loading.transfer import read_ahead, to_host
from mlfix_train.errors import DataError, check_range
from mlfix_train.models.embedding.pca import Projection, distance_error, fit_projection

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""
N_FIT = 4_000
"""Images that a projection is fitted to."""
N_TEST = 1_000
"""Images its error is measured on."""
FIT_BYTES = 1.5e9
"""Most memory for the features of both."""


class Embedder(Protocol):
    """Turns images into embeddings; Euclidean distances between them measure how different images look.

    ``pixels`` is anything that returns uint8 ``(n, H, W, 3)`` for ``pixels[rows]`` and has a ``shape``: a pixel store
    or an array. Embedding is split in two so that exact features can re-rank neighbours found in the projection.

    Attributes:
        name: What reports call it, such as ``pixels, standardized``.
        fingerprint: Hex hash of everything that determines the embeddings: kind, settings, weights.
        n_candidates: Neighbours by the embeddings whose exact distance, between features, decides which are nearest; 0
            if the embeddings decide.
        supports_bfloat16: Whether features may be computed in bfloat16.
        image_size: Side of the images it was made for, px; ``None`` if any will do.
        notes: Figures worth reporting, such as the error of a projection; filled by :meth:`fit`.
    """

    name: str
    fingerprint: str
    n_candidates: int
    supports_bfloat16: bool
    image_size: int | None
    notes: dict[str, Any]

    def fit(self, pixels: Any, rows: np.ndarray, *, seed: int = 0, bfloat16: bool = False) -> None:
        """Learns what has to be learned (visual words, principal components) from a sample of the images."""

    def features(
        self,
        pixels: Any,
        rows: np.ndarray | None = None,
        *,
        batch_size: int = 256,
        bfloat16: bool = False,
        out: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Returns the features of images, ``(n, D)``, written to ``out`` if given."""

    def project(self, features: np.ndarray) -> np.ndarray:
        """Returns the embeddings of features: float32, ``(n, D)`` to ``(n, E)``."""


class TorchEmbedder(ABC):
    """Base class of embedders: a subclass defines how a batch of images becomes features.

    Example::

        class MeanColor(TorchEmbedder):
            def compute(self, images):
                return images.mean((2, 3))

        embedder = MeanColor("mean color", width=None)
        embedder.fit(pixels, rows)
        embeddings = embedder.project(embedder.features(pixels, rows))

    Args:
        name: What reports call it.
        width: Dimensions E that embeddings are projected to by PCA, at most; ``None`` keeps all.
        whiten: Give all principal components nearly the same standard deviation.
        unit_length: Scale embeddings to length 1, so that distances are those of the cosine.
        n_candidates: See :class:`Embedder`.
        image_size: Side of the images it was made for, px.
        device: Where features are computed.
        settings: What else determines the features; goes into the fingerprint, as JSON.

    Raises:
        ConfigError: A width out of range.
    """

    def __init__(
        self,
        name: str,
        *,
        width: int | None = 128,
        whiten: bool = False,
        unit_length: bool = True,
        n_candidates: int = 0,
        image_size: int | None = None,
        device: str = "cpu",
        settings: Any = None,
    ) -> None:
        if width is not None:
            check_range("width", width, 1, 65_536)
        self.name, self.width, self.whiten, self.unit_length = name, width, whiten, unit_length
        self.n_candidates, self.image_size, self.device = n_candidates, image_size, device
        self.supports_bfloat16 = not (n_candidates or whiten)
        self.projection: Projection | None = None
        self.notes: dict[str, Any] = {}
        kind = f"{type(self).__module__}.{type(self).__qualname__}"
        parts = [kind, width, whiten, unit_length, n_candidates, image_size, settings]
        self.fingerprint = hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()

    @abstractmethod
    def compute(self, images: Tensor) -> Tensor:
        """Maps float images in 0..1 ``(n, 3, H, W)`` to features ``(n, D)``, both on ``device``."""

    def features(self, pixels: Any, rows: np.ndarray | None = None, **options: Any) -> np.ndarray:
        """Returns the features of images, ``(n, D)``; options are those of :func:`compute_features`."""
        return compute_features(pixels, self.compute, rows, device=self.device, **options)

    def fit(self, pixels: Any, rows: np.ndarray, *, seed: int = 0, bfloat16: bool = False) -> None:
        """Fits the projection to a sample of the images in ``rows``, and measures its error on others of them."""
        if self.width is None or len(rows) < 3:
            return
        rng = np.random.default_rng(seed)
        drawn = rng.choice(rows, min(len(rows), N_FIT + N_TEST), replace=False)
        length = self.features(pixels, drawn[:1], bfloat16=bfloat16).shape[1]
        if length <= self.width and not self.whiten:
            return
        count = min(len(drawn), max(64, min(N_FIT + N_TEST, int(FIT_BYTES / (4 * length)))))
        self._fit_projection(self.features(pixels, np.sort(drawn[:count]), bfloat16=bfloat16)[rng.permutation(count)])

    def fit_to_features(self, features: np.ndarray, seed: int = 0) -> None:
        """Fits the projection to features ``(N, D)`` that have been computed, instead of :meth:`fit`."""
        count, length = min(len(features), N_FIT + N_TEST), features.shape[1]
        if self.width is None or len(features) < 3 or (length <= self.width and not self.whiten):
            return
        rows = np.random.default_rng(seed).choice(len(features), count, replace=False)
        self._fit_projection(np.asarray(features[np.sort(rows)], np.float32)[np.argsort(np.argsort(rows))])

    def _fit_projection(self, features: np.ndarray) -> None:
        """Fits the projection to shuffled features, and measures its error on a fifth of them."""
        count, length = features.shape
        n_test = max(2, count // 5)
        assert self.width is not None
        self.projection = fit_projection(features[n_test if count - n_test >= 2 else 0 :], self.width, self.whiten)
        if self.whiten:
            self.notes["variance_kept"] = round(self.projection.variance_kept, 4)
            return
        error = distance_error(features[:n_test], self.projection(features[:n_test]))
        self.notes["projection"] = {
            "from": length,
            "to": self.projection.width,
            "variance_kept": round(self.projection.variance_kept, 4),
            "squared_distance_error_mean": round(error["mean"], 5),
            "squared_distance_error_p95": round(error["p95"], 5),
            "nearest_10_kept": round(error["nearest"], 4),
            "measured_on": n_test,
        }

    def project(self, features: np.ndarray) -> np.ndarray:
        """Returns the embeddings of features: float32, ``(n, D)`` to ``(n, E)``; after :meth:`fit`."""
        embeddings = self.projection(features) if self.projection else np.asarray(features, dtype=np.float32)
        return unit_rows(embeddings) if self.unit_length else embeddings


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Returns ``(n, E)`` with rows scaled to length 1, float32; a row of zeros stays."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def compute_features(
    pixels: Any,
    network: Callable[[Tensor], Tensor],
    rows: np.ndarray | None = None,
    *,
    batch_size: int = 256,
    device: str = "cpu",
    bfloat16: bool = False,
    out: np.ndarray | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Returns the features of images, ``(N, D)``, computed batch by batch.

    Args:
        pixels: Returns uint8 ``(n, H, W, 3)`` for ``pixels[rows]``, such as a pixel store or an array.
        network: Maps float images in 0..1 ``(n, 3, H, W)`` to features ``(n, D)``.
        rows: Which images, ``(N,)``; all by default.
        batch_size: Images at a time.
        device: Of the network.
        bfloat16: Let autocast compute in bfloat16.
        out: Array ``(N, D)`` to write to and to return, such as a memory map; a new float32 one by default.
        progress: Called after each batch.

    Raises:
        DataError: There are no images, they are too small for the network, or a feature is NaN or infinite; the error
            names the row.
    """
    numbers = np.arange(len(pixels)) if rows is None else np.asarray(rows)
    if not len(numbers):
        raise DataError("there are no images to embed", "use a folder or slice with images")
    on_gpu = torch.device(device).type == "cuda"

    def read(start: int) -> Tensor:
        images = torch.from_numpy(np.ascontiguousarray(pixels[numbers[start : start + batch_size]]))
        return images.pin_memory() if on_gpu else images

    def keep(start: int, features: np.ndarray) -> None:
        nonlocal out
        batch = numbers[start : start + batch_size]
        invalid = ~np.isfinite(features).all(1)
        if invalid.any():
            hint = "it diverged in training, or its weights are damaged: train it again, or use another network"
            raise DataError(f"the network returns NaN or infinity for the image in row {batch[invalid.argmax()]}", hint)
        if out is None:
            out = np.empty((len(numbers), features.shape[1]), np.float32)
        out[start : start + len(batch)] = features
        if progress:
            progress(start + len(batch), len(numbers))

    starts = range(0, len(numbers), batch_size)
    pending: tuple[int, Callable[[], Tensor]] | None = None
    # A GPU computes a batch while the next one is read and the features of the one before are copied and kept.
    for start, pixels_read in zip(starts, read_ahead(read, starts) if on_gpu else map(read, starts), strict=True):
        images = pixels_read.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)
        features = to_host(_run(network, images, device, bfloat16))
        if not on_gpu:
            keep(start, features().numpy())
            continue
        if pending is not None:
            keep(pending[0], pending[1]().numpy())
        pending = start, features
    if pending is not None:
        keep(pending[0], pending[1]().numpy())
    assert out is not None
    return out


def _run(network: Callable[[Tensor], Tensor], images: Tensor, device: str, bfloat16: bool) -> Tensor:
    try:
        with torch.inference_mode(), torch.autocast(device.split(":", maxsplit=1)[0], torch.bfloat16, enabled=bfloat16):
            return network(images).float()
    except RuntimeError as error:
        if "too small" not in str(error) and "smaller" not in str(error):
            raise
        problem = f"the network cannot take images of {images.shape[-1]} px: {error}"
        raise DataError(problem, "set a larger pixels.size") from error
