"""Properties of images that make them bad samples whatever their label: dark, bright, blurred, nearly empty, elongated.

All are computed from pixels as they are stored, that is, as a model sees them: a photo that is blurred at its full size
may be sharp at 64 px. Luma is that of ITU-R BT.601, as in JPEG. Percentiles of the brightness as a measure of exposure,
and the aspect ratio as a sign of a bad crop, are those of Cleanlab's CleanVision (2023).

Shapes: N images of H x W pixels.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.files.system import cpu_count
from mlfix_train.data.pixels.decode import open_image
from mlfix_train.errors import DataError

PROPERTIES = {
    "darkness": "1 minus the luma that 1% of the pixels exceed, 0 to 1.",
    "brightness": "Luma that 1% of the pixels stay below, 0 to 1.",
    "blur": "Share of the contrast of neighbouring pixels that further blurring leaves, 0 to 1.",
    "emptiness": "Share of the pixels that look the same, 0 to 1.",
    "elongation": "Longer side over the shorter one, 1 and up.",
}
"""Columns of :func:`measure_images`, and what they are; of all, higher is worse."""
EXTREME = 0.01
"""Share of the pixels that may be brighter than a dark image, or darker than a bright one."""
UNIFORM_LEVELS = 16
"""Grey levels of 256 that count as one in the emptiness."""
BLOCK_PIXELS = 1 << 20
"""Pixels measured at a time."""
VERSION = 1
"""Increment when the same image would get other values, so that those kept beside a pixel store are measured again."""


def measure_images(images: np.ndarray) -> pd.DataFrame:
    """Measures images by their pixels.

    Args:
        images: uint8 ``(N, H, W, 3)``.

    Returns:
        N rows with the columns :data:`PROPERTIES`, float32, higher is worse. See :func:`exposure`, :func:`blur`,
        :func:`emptiness`; ``elongation`` is the longer side over the shorter one, 1 and up.

    Raises:
        DataError: Other pixels than these.

    Example:
        >>> image = np.zeros((1, 8, 8, 3), np.uint8)
        >>> measure_images(image).iloc[0].tolist()
        [1.0, 0.0, nan, 1.0, 1.0]
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        problem = f"images are {images.dtype} of the shape {images.shape}"
        raise DataError(problem, "pass uint8 pixels of the shape (N, H, W, 3)")
    grey = luma(images)
    dark, bright = exposure(grey)
    height, width = images.shape[1:3]
    elongation = np.full(len(images), max(height, width) / max(min(height, width), 1))
    columns = dict(zip(PROPERTIES, (dark, bright, blur(grey), emptiness(images), elongation), strict=True))
    return pd.DataFrame({name: values.astype(np.float32) for name, values in columns.items()})


def luma(images: np.ndarray) -> np.ndarray:
    """Returns the luma (0.299 R + 0.587 G + 0.114 B) of uint8 images ``(N, H, W, 3)``, uint8 ``(N, H, W)``."""
    red, green, blue = (images[..., channel].astype(np.uint16) for channel in range(3))
    return ((77 * red + 150 * green + 29 * blue + 128) >> 8).astype(np.uint8)


def exposure(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measures how dark and how bright images are.

    Args:
        grey: luma, uint8 ``(N, H, W)``.

    Returns:
        ``darkness``, 0 to 1: 1 minus the luma that 1% of the pixels exceed; 1 if all are black. ``brightness``, 0 to 1:
        the luma that 1% of the pixels stay below; 1 if all are white.
    """
    cumulative = np.cumsum(_histograms(grey), axis=1)
    total = cumulative[:, -1:]
    low = (cumulative <= EXTREME * total).sum(1)
    high = (cumulative < (1 - EXTREME) * total).sum(1)
    return 1 - high / 255, low / 255


def emptiness(images: np.ndarray) -> np.ndarray:
    """Returns the share of the pixels that look the same, 0 to 1; 1 for an image of one color.

    It is the largest share of pixels within 16 of 256 levels, in the color channel where it is least; such a range
    absorbs noise and compression artifacts.

    Args:
        images: uint8 ``(N, H, W, 3)``.
    """
    shares = []
    for channel in range(3):
        cumulative = np.cumsum(_histograms(images[..., channel]), axis=1)
        windows = cumulative[:, UNIFORM_LEVELS - 1 :].copy()
        windows[:, 1:] -= cumulative[:, :-UNIFORM_LEVELS]
        shares.append(windows.max(1) / np.maximum(cumulative[:, -1], 1))
    least: np.ndarray = np.min(shares, axis=0)
    return least


def _histograms(values: np.ndarray) -> np.ndarray:
    """Returns the histogram of each image of uint8 ``(N, H, W)``, int64 ``(N, 256)``."""
    n = len(values)
    bins = values.reshape(n, -1) + 256 * np.arange(n)[:, None]
    return np.bincount(bins.ravel(), minlength=256 * n).reshape(n, 256)


def blur(grey: np.ndarray) -> np.ndarray:
    """Returns how blurred images are, 0 to 1; NaN for an image without edges above its noise.

    The measure of Crete et al. ("The Blur Effect: Perception and Estimation with a New No-Reference Perceptual Blur
    Metric", 2007): an image is blurred once more, along rows and along columns, by the mean of a window; the score is
    the share of the differences between neighbouring pixels that this leaves, in the direction where it is larger. Such
    a share does not depend on the contrast. For it not to depend on the noise, pixels are first averaged across the
    direction with the weights of Sobel, and differences are reduced by twice the noise, which is estimated by the
    median absolute diagonal Haar coefficient (Donoho and Johnstone, "Ideal Spatial Adaptation by Wavelet Shrinkage",
    1994). The window is a seventh of the image, about the 9 pixels of the paper at 64 px.

    Args:
        grey: luma, uint8 ``(N, H, W)``.
    """
    from scipy import ndimage

    y = grey.astype(np.float32)
    threshold = 2 * _noise(y)[:, None, None]
    shares = []
    for axis in (1, 2):
        window = 2 * (y.shape[axis] // 14) + 1
        if window < 3:
            continue
        edges = ndimage.convolve1d(y, [0.25, 0.5, 0.25], axis=3 - axis, mode="nearest")
        before = np.abs(np.diff(edges, axis=axis))
        after = np.abs(np.diff(ndimage.uniform_filter1d(edges, window, axis=axis, mode="nearest"), axis=axis))
        before = np.maximum(before - threshold, 0)
        total, lost = before.sum((1, 2)), np.maximum(before - after, 0).sum((1, 2))
        shares.append(np.where(total > before[0].size * 0.01, 1 - lost / np.maximum(total, 1e-6), np.nan))
    if not shares:
        return np.full(len(y), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN: no edges in either direction
        return np.asarray(np.nanmax(shares, axis=0))


def _noise(y: np.ndarray) -> np.ndarray:
    """Returns the standard deviation of the noise of images, float ``(N,)``, in grey levels."""
    height, width = y.shape[1] // 2 * 2, y.shape[2] // 2 * 2
    y = y[:, :height, :width]
    diagonal = (y[:, ::2, ::2] - y[:, 1::2, ::2] - y[:, ::2, 1::2] + y[:, 1::2, 1::2]) / 2
    if not diagonal.size:
        return np.zeros(len(y))
    return np.asarray(np.median(np.abs(diagonal), axis=(1, 2)) / 0.6745)


def measure_samples(
    pixels: Any,
    samples: pd.DataFrame,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> pd.DataFrame:
    """Measures the images of samples, in blocks; those of a pixel store only once.

    Args:
        pixels: images, rows as in ``samples``: a pixel store, or anything whose ``pixels[rows]`` is uint8 ``(n, H, W,
            3)``. Margins that a store added to keep the aspect ratio don't count.
        samples: sample table. The elongation is that of the box where it has the columns of ``mlfix crop``, else that
            of the image file, where it exists.
        progress: called with (images measured, images in total).
        workers: threads; by default one per core.

    Returns:
        Columns as of :func:`measure_images`, indexed by sample id; NaN for images that can't be read.
    """
    folder = getattr(pixels, "folder", None)
    kept = None if folder is None else Path(folder) / f"image-properties-{VERSION}.parquet"
    if kept is not None:
        with contextlib.suppress(OSError, ValueError):
            found = pd.read_parquet(kept)
            if len(found) == len(samples) and list(found.columns) == list(PROPERTIES):
                return _with_box_shapes(found.set_axis(samples.index), samples)
    workers = workers or cpu_count()
    table = pd.DataFrame(np.nan, index=samples.index, columns=list(PROPERTIES), dtype=np.float32)
    readable = np.flatnonzero(~samples.index.isin(getattr(pixels, "unreadable", {})))
    sizes = np.full((len(samples), 2), np.nan)
    with ThreadPoolExecutor(workers) as pool:
        paths = samples["path"].to_numpy()[readable]
        blocks = [paths[start : start + 256] for start in range(0, len(paths), 256)]
        sizes[readable] = np.reshape(list(itertools.chain.from_iterable(pool.map(_file_sizes, blocks))), (-1, 2))
        padded = getattr(pixels, "info", {}).get("spec", {}).get("aspect") == "pad"
        done, values = 0, table.to_numpy(copy=True)
        for rows, measured in _map_blocks(pool, pixels, readable, sizes if padded else None):
            values[rows] = measured
            done += len(rows)
            if progress:
                progress(done, len(readable))
    known = ~np.isnan(sizes[:, 0])
    values[known, list(PROPERTIES).index("elongation")] = sizes[known].max(1) / sizes[known].min(1).clip(1)
    table = pd.DataFrame(values, index=samples.index, columns=list(PROPERTIES))
    if kept is not None:
        with contextlib.suppress(OSError), atomic_path(kept) as temporary:  # a read-only cache is measured each time
            table.reset_index(drop=True).to_parquet(temporary)
    return _with_box_shapes(table, samples)


def _map_blocks(
    pool: ThreadPoolExecutor, pixels: Any, rows: np.ndarray, sizes: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields blocks of rows and what was measured of them."""
    if not len(rows):
        return
    height, width = pixels[rows[:1]].shape[1:3]
    size = max(1, BLOCK_PIXELS // (height * width))

    def measure(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = pixels[block]
        if sizes is None:
            return block, measure_images(images).to_numpy()
        return block, _measure_padded(images, sizes[block])

    yield from pool.map(measure, [rows[start : start + size] for start in range(0, len(rows), size)])


def _measure_padded(images: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Measures images without their margins; ``sizes`` are widths and heights of the files, ``(n, 2)``."""
    side, values = images.shape[1], np.empty((len(images), len(PROPERTIES)), np.float32)
    scale = side / np.nanmax(np.nan_to_num(sizes, nan=1.0), axis=1, keepdims=True)
    inner = np.maximum(1, np.round(np.nan_to_num(sizes, nan=1.0) * scale)).astype(int)
    for width, height in np.unique(inner, axis=0):
        rows = np.flatnonzero((inner == (width, height)).all(1))
        left, top = (side - width) // 2, (side - height) // 2
        values[rows] = measure_images(images[rows, top : top + height, left : left + width]).to_numpy()
    return values


def _file_sizes(paths: Iterable[str]) -> list[tuple[float, float]]:
    return [_file_size(path) for path in paths]


def _file_size(path: str) -> tuple[float, float]:
    """Returns width and height of an image file, by its header; NaN if it can't be read."""
    try:
        with open_image(os.fspath(path), np.inf) as image:
            return float(image.width), float(image.height)
    except Exception:  # Pillow raises many types for a damaged file
        return np.nan, np.nan


def _with_box_shapes(table: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """Replaces the elongation of crops, which are squares, by that of their boxes."""
    if not {"x_min", "photo_width", "aspect"} <= set(samples.columns):
        return table
    aspect = pd.to_numeric(samples["aspect"], errors="coerce").to_numpy(dtype=np.float64)
    aspect = np.where(aspect > 0, aspect, np.nan)
    known = ~np.isnan(aspect)
    elongation = table["elongation"].to_numpy(copy=True)
    elongation[known] = np.maximum(aspect, 1 / aspect)[known]
    return table.assign(elongation=elongation.astype(np.float32))
