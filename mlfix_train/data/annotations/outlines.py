"""The box around an outline: polygons, run-length encoded masks and rotated boxes."""

import math
from collections.abc import Sequence
from typing import Any

from mlfix_train.data.annotations.base import number

Corners = tuple[float, float, float, float]
"""``x_min, y_min, x_max, y_max``, at the outer edges."""


def around_points(xs: Sequence[Any], ys: Sequence[Any]) -> Corners | None:
    """Returns the box around N points, N at least 2; ``None`` if a coordinate is not a finite number."""
    values = [[number(value) for value in side] for side in (xs, ys)]
    if min(map(len, values)) < 2 or len(xs) != len(ys) or not all(math.isfinite(v) for side in values for v in side):
        return None
    return min(values[0]), min(values[1]), max(values[0]), max(values[1])


def around_segmentation(segmentation: Any) -> Corners | None:
    """Returns the box around COCO's ``segmentation``: polygons ``[[x, y, x, y, ...], ...]`` or an RLE; else ``None``.

    One flat polygon and lists of points are understood, too.
    """
    if isinstance(segmentation, dict):
        return around_rle(segmentation)
    if not isinstance(segmentation, list) or not segmentation:
        return None
    if not all(isinstance(part, list) for part in segmentation):
        segmentation = [segmentation]
    elif all(len(part) == 2 for part in segmentation):
        segmentation = [[value for point in segmentation for value in point]]
    boxes = [around_points(part[::2], part[1::2]) for part in segmentation if part]
    known = [box for box in boxes if box is not None]
    if not known or len(known) != len(boxes):
        return None
    x_min, y_min, x_max, y_max = zip(*known, strict=True)
    return min(x_min), min(y_min), max(x_max), max(y_max)


def around_rle(mask: dict[str, Any]) -> Corners | None:
    """Returns the box around a mask, ``{"size": [height, width], "counts": [...]}`` or ``counts`` as text.

    Runs go down the columns and begin with one of zeros. Source: ``maskApi`` of pycocotools, whose text has numbers of
    5 bits a character, from the third on as differences from the last but one.
    """
    size, counts = mask.get("size"), mask.get("counts")
    if isinstance(counts, str):
        counts = _decode_counts(counts)
    if not isinstance(size, list) or len(size) != 2 or not isinstance(counts, list):
        return None
    if not all(isinstance(value, int) and value >= 0 for value in (*size, *counts)):
        return None
    height, width = size
    at, columns, rows = 0, list[int](), list[int]()
    for place, count in enumerate(counts):
        if place % 2 and count:
            first, last = at, at + count - 1
            columns += [first // height, last // height] if height else []
            rows += [first % height, last % height] if first // height == last // height else [0, height - 1]
        at += count
    if at > height * width or not columns:
        return None
    return float(min(columns)), float(min(rows)), max(columns) + 1.0, max(rows) + 1.0


def _decode_counts(text: str) -> list[int] | None:
    counts: list[int] = []
    value, shift = 0, 0
    for char in text:
        bits = ord(char) - 48
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value, shift = 0, 0
    return counts


def around_rotated(x: float, y: float, width: float, height: float, angle: float) -> Corners:
    """Returns the box around a rectangle with the middle ``x, y`` that is rotated by ``angle`` radians."""
    dx = (abs(width * math.cos(angle)) + abs(height * math.sin(angle))) / 2
    dy = (abs(width * math.sin(angle)) + abs(height * math.cos(angle))) / 2
    return x - dx, y - dy, x + dx, y + dy


def around_ellipse(x: float, y: float, rx: float, ry: float, angle: float) -> Corners:
    """Returns the box around an ellipse with the middle ``x, y`` and two radii that is rotated by ``angle`` radians."""
    dx = math.hypot(rx * math.cos(angle), ry * math.sin(angle))
    dy = math.hypot(rx * math.sin(angle), ry * math.cos(angle))
    return x - dx, y - dy, x + dx, y + dy
