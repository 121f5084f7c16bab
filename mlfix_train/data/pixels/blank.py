"""A look over decoded images that says when nearly all of them are black, white or alike: then they were misread."""

import numpy as np

MAX_BYTES = 1 << 26
"""Bytes of images that are looked at, at most, evenly spread over the data set."""
MAX_IMAGES = 2_000
MIN_IMAGES = 8
"""Fewer images may well be black, white or alike."""
NEARLY_ALL = 0.9
DARK, BRIGHT = 16, 239
"""An image is black if 99% of its values are at most the first, white if they are at least the second, of 255."""
ALIKE = 3.0
"""Largest difference of two images that are alike, in means of 8 x 8 blocks, of 255."""


def rows_to_look_at(count: int, image_bytes: int) -> np.ndarray:
    """Returns the row numbers to look at, of ``count`` images of so many bytes."""
    most = max(MIN_IMAGES, min(MAX_IMAGES, MAX_BYTES // max(image_bytes, 1)))
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64)) if count else np.empty(0, np.int64)


def describe_blank(images: np.ndarray) -> str:
    """Returns a sentence if nearly all images, uint8 ``(N, S, S, 3)``, are black, white or alike; else an empty one."""
    count, side = len(images), images.shape[1]
    if count < MIN_IMAGES:
        return ""
    inner = images[:, side // 4 : side - side // 4, side // 4 : side - side // 4]  # without margins
    black = int((np.mean(inner > DARK, axis=(1, 2, 3)) < 0.01).sum())
    white = int((np.mean(inner < BRIGHT, axis=(1, 2, 3)) < 0.01).sum())
    alike = int(_alike(images).sum())
    total = f"of {count:,} images that were looked at"
    if black >= NEARLY_ALL * count:
        cause = "are they masks with class numbers as pixels, or 16-bit files that use a small part of their range?"
        return f"{black:,} {total} are black: {cause}"
    if white >= NEARLY_ALL * count:
        cause = "are they empty pages, all transparent, or 16-bit files that were clipped when they were converted?"
        return f"{white:,} {total} are white: {cause}"
    if alike >= NEARLY_ALL * count:
        cause = "are they placeholders of downloads that failed, or frames of a still scene?"
        return f"{alike:,} {total} are alike: {cause}"
    return ""


def _alike(images: np.ndarray) -> np.ndarray:
    """Returns which images ``(N,)`` differ little from the median of all."""
    edges = np.linspace(0, images.shape[1], 9).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(images.mean(axis=3, dtype=np.float32), edges, axis=1), edges, axis=2)
    means = (sums / np.add.reduceat(np.add.reduceat(np.ones(images.shape[1:3]), edges, 0), edges, 1)).reshape(-1, 64)
    return np.asarray(np.abs(means - np.median(means, axis=0)).max(axis=1) <= ALIKE)
