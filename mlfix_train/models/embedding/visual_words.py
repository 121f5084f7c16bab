"""The bag of visual words: the published way to tell how alike two images are, kept to be compared with.

Features of a network's middle stage at every place of its grid are brought to length 1 and clustered; an image is the
set of the clusters ("words") of its places, a vector of zeros and ones. REFERENCE of the method: Collabora's MLfix
(2022), after Sivic and Zisserman 2003, "Video Google: a text retrieval approach to object matching in videos".

Shapes: N images, C channels, W words.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mlfix_train.errors import DataError, check_range

PLACES = 50_000
"""Places, at most, that words are learnt from."""


def place_features(grid: Tensor) -> Tensor:
    """Returns the features of all places of a grid ``N,C,h,w`` at length 1, ``N,h*w,C``."""
    return F.normalize(grid.float().flatten(2).transpose(1, 2), dim=2)


def learn_words(places: np.ndarray, count: int = 1024, rounds: int = 20, seed: int = 0) -> np.ndarray:
    """Clusters the features of places by k-means (scipy's).

    Args:
        places: ``P,C`` features of length 1.
        count: words; fewer where there are fewer places.
        rounds: of k-means.
        seed: of the first centres.

    Returns:
        float32 ``W,C`` centres.

    Raises:
        DataError: no places.
    """
    import warnings

    from scipy.cluster.vq import kmeans2

    check_range("words", count, 1, 1_000_000)
    if not len(places):
        raise DataError("there are no places to learn visual words from", "give images")
    rng = np.random.default_rng(seed)
    sample = places[rng.choice(len(places), min(len(places), PLACES), replace=False)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty cluster stays where it was, and no place takes its word
        centres, _ = kmeans2(sample, min(count, len(sample)), iter=rounds, minit="points", rng=rng)
    return np.ascontiguousarray(centres, dtype=np.float32)


def bag_of_words(grids: Callable[[Tensor], Tensor], words: np.ndarray) -> Callable[[Tensor], Tensor]:
    """Returns a function from images to their bags, ``N,3,H,W`` to ``N,W`` of zeros and ones.

    Args:
        grids: maps images to ``N,C,h,w``.
        words: ``W,C``.
    """
    centres = torch.from_numpy(words)

    def bag(images: Tensor) -> Tensor:
        places = place_features(grids(images)).cpu()
        gaps = centres.square().sum(1) - 2 * places @ centres.T
        found = torch.zeros(len(places), len(centres))
        return found.scatter_(1, gaps.argmin(2), 1.0)

    return bag
