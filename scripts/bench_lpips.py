"""Measures LPIPS as an embedding: against the package, and what projection and re-ranking cost.

    python scripts/bench_lpips.py <folder of class folders> [--pairs 1000] [--images 2000] [--size 64]

Trunks have random weights (torchvision's can't be fetched everywhere): exactness and speed do not depend on them. The
package's time for all pairs is that of a sample of pairs, in batches, times their number.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import lpips
import numpy as np
import torch

from mlfix_train.audit.similarity.neighbours import nearest_neighbours, rerank
from mlfix_train.data.pixels.store import PixelSpec, open_store
from mlfix_train.data.readers.folder import read_folder
from mlfix_train.models.embedding.base import compute_features
from mlfix_train.models.embedding.lpips import from_package, resize
from mlfix_train.models.embedding.pca import distance_error, fit_projection
from mlfix_train.models.embedding.settings import TRUNKS


def package(trunk: str) -> Any:
    """Returns the package's own LPIPS with a random trunk."""
    torch.manual_seed(0)
    return lpips.LPIPS(net=trunk, pnet_rand=True, verbose=False)


def exactness(store: Any, trunk: str, pairs: int, size: int, rng: np.random.Generator) -> None:
    """Prints the largest difference over random pairs."""
    model = package(trunk)
    embedding = from_package(model, trunk)
    worst = largest = 0.0
    for start in range(0, pairs, 100):
        count = min(100, pairs - start)
        a, b = (as_images(store[rng.integers(len(store), size=count)], size) for _ in range(2))
        with torch.inference_mode():
            wanted = model(a, b, normalize=True).flatten()
            found = (embedding(a) - embedding(b)).square().sum(1)
        worst, largest = max(worst, float((found - wanted).abs().max())), max(largest, float(wanted.max()))
    print(
        f"{trunk}: largest difference to the package over {pairs:,} pairs {worst:.1e} (promised 1e-5); "
        f"the largest distance is {largest:.3f}",
        flush=True,
    )


def speed(store: Any, trunk: str, images: int, size: int, rng: np.random.Generator) -> None:
    """Prints the time of all pairs, both ways."""
    model = package(trunk)
    embedding = from_package(model, trunk)
    rows = rng.choice(len(store), images, replace=False)
    start = time.perf_counter()
    phi = compute_features(store, lambda x: embedding(resize(x, size)), rows, batch_size=100)
    points = torch.from_numpy(phi)
    distances = torch.cdist(points, points).square()
    ours = time.perf_counter() - start
    sample = 200 if trunk == "vgg" else 400
    first, second = rng.choice(rows, sample), rng.choice(rows, sample)
    a, b = as_images(store[first], size), as_images(store[second], size)
    start = time.perf_counter()
    with torch.inference_mode():
        for k in range(0, sample, 100):
            model(a[k : k + 100], b[k : k + 100], normalize=True)
    per_pair = (time.perf_counter() - start) / sample
    theirs = per_pair * images * (images - 1) / 2
    print(
        f"{trunk}: all pairs of {images:,} images at {size} px in {ours:.1f} s ({phi.shape[1]:,} numbers an image), "
        f"the package pair by pair {theirs:,.0f} s (from {sample} pairs): {theirs / ours:,.0f} times as fast "
        f"(promised 300); largest {float(distances.max()):.3f}",
        flush=True,
    )


def projection(store: Any, trunk: str, size: int, rng: np.random.Generator, images: int = 4000) -> None:
    """Prints what a projection to 128 numbers costs, and what the exact rerank brings back."""
    embedding = from_package(package(trunk), trunk)
    rows = rng.choice(len(store), images, replace=False)
    phi = compute_features(store, lambda x: embedding(resize(x, size)), rows, batch_size=100)
    fitted = fit_projection(phi[1000:], 128)
    error = distance_error(phi[:1000], fitted(phi[:1000]))
    points = fitted(phi)
    truth = nearest_neighbours(phi, 10).index
    plain = nearest_neighbours(points, 10).index
    again = rerank(nearest_neighbours(points, 40), phi.astype(np.float16), 10).index

    def share(found: np.ndarray) -> float:
        return float(np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, truth, strict=True)]))

    print(
        f"{trunk}: {phi.shape[1]:,} numbers to 128 keep {fitted.variance_kept:.1%} of the variance; "
        f"squared distances off by {error['mean']:.2%} on average, {error['p95']:.2%} at the 95th percentile; "
        f"of the 10 nearest of "
        f"{images:,} images {share(plain):.1%} are right, after the exact rerank of 40 candidates in float16 "
        f"{share(again):.1%}",
        flush=True,
    )


def as_images(pixels: np.ndarray, size: int) -> torch.Tensor:
    """Returns pixels as images in 0..1, scaled."""
    return resize(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, size)


def main() -> None:
    """Runs all."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description="Measures LPIPS as an embedding.")
    parser.add_argument("root")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()
    store = open_store(read_folder(options.root), PixelSpec(size=32), Path("outputs/.pixels"))
    rng = np.random.default_rng(0)
    for trunk in TRUNKS:
        exactness(store, trunk, options.pairs, options.size, rng)
    for trunk in TRUNKS:  # VGG at 64 px gives half a million numbers an image
        speed(store, trunk, options.images, 32 if trunk == "vgg" else options.size, rng)
    projection(store, "alex", options.size, rng)


if __name__ == "__main__":
    main()
