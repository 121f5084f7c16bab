"""Boxes of one photo to crops: geometry, wrapping around panoramas, anti-aliased resizing, one decoding a photo."""

from __future__ import annotations

import io
import math
import os
import warnings
from dataclasses import dataclass
from typing import Any

from PIL import Image

from mlfix_train.data.pixels.decode import Box, fit_square, orientation, reason_of, to_rgb
from mlfix_train.data.pixels.spec import ASPECTS
from mlfix_train.errors import ConfigError, check_choice, check_range

FORMATS = ("jpg", "png")
EXIF = ("auto", "apply", "ignore")
IDS = ("keys", "positions")
OVERSAMPLING = 2.0
"""A photo is decoded at a part of its size while every crop is still made from twice its pixels a side or more."""


@dataclass(frozen=True)
class CropSpec:
    """How boxes become crops.

    Args:
        size: side of the crops, pixels; ``None`` keeps each box's own resolution and shape.
        aspect: ``squash`` (stretch to the square, as the published experiment does) or ``pad`` (keep the shape, grey
            margins).
        margin: what is added on each side, as a share of the box's width and height; 0 is the box itself.
        min_side: boxes that have less than so many pixels of width or height inside of the photo are not cropped.
        format: ``jpg`` or ``png`` (lossless).
        quality: of JPEG, 1 to 100; colours are kept at full resolution.
        ids: ``keys``: crops are named by the box's own key in the source (or, where it has none, by where it lies), so
            that reordered or removed annotations leave all other names alone; ``positions``: by its place among the
            photo's boxes, from 0, as the published MTSD crops are.
        exif: whether corners refer to photos turned by their EXIF orientation: ``apply``, ``ignore``, or ``auto``, as
            the format's own tools have it, unless only the other fits the size that the annotations state.
        rescale: photos that are not of the stated size are taken for resized copies, and corners scaled.
        max_megapixels: larger photos are not decoded.
    """

    size: int | None = 40
    aspect: str = "squash"
    margin: float = 0.0
    min_side: float = 1.0
    format: str = "jpg"
    quality: int = 95
    ids: str = "keys"
    exif: str = "auto"
    rescale: bool = False
    max_megapixels: float = 400.0

    def __post_init__(self) -> None:
        check_choice("aspect", self.aspect, ASPECTS)
        check_choice("format", self.format, FORMATS)
        check_choice("ids", self.ids, IDS)
        check_choice("exif", self.exif, EXIF)
        check_range("margin", self.margin, 0, 10)
        check_range("min_side", self.min_side, 0, 10_000)
        check_range("quality", self.quality, 1, 100)
        check_range("max_megapixels", self.max_megapixels, 0.001, 100_000)
        if self.size is not None and (not isinstance(self.size, int) or not 8 <= self.size <= 1024):
            raise ConfigError(f"size={self.size} is out of range", "give the side in pixels, 8 to 1024, or null")


class NotCropped(Exception):  # noqa: N818 - a finding, not a fault
    """A box or photo that gives no crop.

    Args:
        problem: one of :data:`mlfix_train.data.annotations.base.PROBLEMS`.
        detail: what was found, a few words.
    """

    def __init__(self, problem: str, detail: str) -> None:
        super().__init__(problem, detail)
        self.problem, self.detail = problem, detail


@dataclass(frozen=True)
class Placed:
    """Where a box lies in its photo, pixels: as annotated, and as cropped (with the margin, without what is outside).

    ``clipped`` is the share of the annotated area that lies outside of the photo, 0 to 1. In a panorama, right edges
    may exceed the width.
    """

    box: Box
    crop: Box
    clipped: float


def place_box(corners: Box, width: int, height: int, panorama: bool, spec: CropSpec) -> Placed:
    """Finds the part of a photo that a box takes in.

    Args:
        corners: ``x_min, y_min, x_max, y_max``, pixels at their outer edges; finite.
        width: of the photo, pixels.
        height: of the photo, pixels.
        panorama: the photo's left and right edges meet.
        spec: margin and smallest side.

    Raises:
        NotCropped: swapped corners, no area, outside, too small.
    """
    x0, y0, x1, y1 = corners
    shown = f"x {x0:g} to {x1:g}, y {y0:g} to {y1:g}"
    if x1 < x0 or y1 < y0:
        raise NotCropped("swapped corners", shown)
    if x1 == x0 or y1 == y0:
        raise NotCropped("no area", shown)
    area = (x1 - x0) * (y1 - y0)
    panorama = panorama and x0 < width and x1 > 0
    if panorama:
        turn = width if x0 < 0 else 0  # one that begins left of the left edge begins at the right
        x0, x1 = x0 + turn, min(x1 + turn, x0 + turn + width)
    inner = (x0 if panorama else max(x0, 0.0), max(y0, 0.0), x1 if panorama else min(x1, float(width)), min(y1, height))
    if inner[2] <= inner[0] or inner[3] <= inner[1]:
        raise NotCropped("outside", f"{shown} in a photo of {width} x {height}")
    if min(inner[2] - inner[0], inner[3] - inner[1]) < spec.min_side:
        raise NotCropped("too small", f"{inner[2] - inner[0]:.3g} x {inner[3] - inner[1]:.3g} pixels")
    clipped = max(0.0, 1 - (inner[2] - inner[0]) * (inner[3] - inner[1]) / area)
    dx, dy = spec.margin * (x1 - x0), spec.margin * (y1 - y0)
    left, right = x0 - dx, x1 + dx
    if not panorama:
        left, right = max(left, 0.0), min(right, float(width))
    elif right - left > width:
        left, right = (x0 + x1 - width) / 2, (x0 + x1 + width) / 2
    crop = (left, max(y0 - dy, 0.0), right, min(y1 + dy, float(height)))
    return Placed((x0, y0, x1, y1), crop, round(clipped, 6) if clipped > 1e-9 else 0.0)


def cut(image: Image.Image, box: Box, spec: CropSpec) -> Image.Image:
    """Cuts a box out of a photo and resizes it, anti-aliased and to the fraction of a pixel.

    What lies beyond the left or right edge is taken from the other side, as in a panorama.
    """
    x0, x1 = math.floor(box[0]), math.ceil(box[2])
    y0, y1 = max(0, math.floor(box[1])), min(image.height, math.ceil(box[3]))
    if spec.size is None:  # whole pixels, the nearest
        x1, y1 = max(round(box[2]), x0 + 1), min(max(round(box[3]), y0 + 1), image.height)
        x0, y0 = min(round(box[0]), x1 - 1), min(round(box[1]), y1 - 1)
    if x0 >= 0 and x1 <= image.width:
        strip = image.crop((x0, y0, x1, y1))
    else:
        strip = Image.new("RGB", (x1 - x0, y1 - y0))
        for turn in (-1, 0, 1):  # the same photo once more on either side
            shift = turn * image.width
            left, right = max(x0, shift), min(x1, shift + image.width)
            if right > left:
                strip.paste(image.crop((left - shift, y0, right - shift, y1)), (left - x0, 0))
    if spec.size is None:
        return strip
    inner = (box[0] - x0, max(0.0, box[1] - y0), min(box[2] - x0, strip.width), min(box[3] - y0, strip.height))
    return fit_square(strip, spec.size, spec.aspect, inner)


def reduction(placed: list[Placed], spec: CropSpec) -> int:
    """Returns by how much a photo's sides may be reduced when it is decoded: 1, 2, 4 or 8."""
    if spec.size is None or not placed:
        return 1
    sides = [(p.crop[2] - p.crop[0], p.crop[3] - p.crop[1]) for p in placed]
    gap = min((min(side) if spec.aspect == "squash" else max(side)) for side in sides) / spec.size
    return next((factor for factor in (8, 4, 2) if gap >= OVERSAMPLING * factor), 1)


def crop_photo(job: dict[str, Any], spec: CropSpec) -> list[list[Any]]:
    """Crops the boxes of one photo.

    Args:
        job: ``path``; ``width`` and ``height`` as stated (0: unknown); ``panorama``; ``shares`` and ``upright``, see
            :class:`mlfix_train.data.annotations.base.Annotations`; ``boxes``, a list of ``[corners, file]``
            (where the crop goes), and ``wraps``, whether each crosses the edge of a panorama.
        spec: how.

    Returns:
        For each box ``[box, clipped, photo width, photo height]``, or ``[problem, detail]``.

    Raises:
        OSError: a crop can't be written.
    """
    try:
        return _crop_photo(job, spec)
    except NotCropped as found:
        return [[found.problem, found.detail]] * len(job["boxes"])


def _crop_photo(job: dict[str, Any], spec: CropSpec) -> list[list[Any]]:
    path, turn = str(job["path"]), None
    image = _open(path, spec)
    with image:
        try:
            turn, width, height = _oriented(image, job, spec)
            found, placed = _place_all(job, width, height, spec)
            factor = reduction(list(placed.values()), spec)
            if image.format == "JPEG" and factor > 1:
                image.draft("RGB", (math.ceil(image.width / factor), math.ceil(image.height / factor)))
            if placed:
                image.load()
            pixels = to_rgb(image if turn is None else image.transpose(turn)) if placed else None
        except NotCropped:
            raise
        except Exception as error:  # Pillow's readers raise many kinds over a damaged file
            raise NotCropped("photo unreadable", f"{path}: {reason_of(path, error)}") from error
    for place, where in placed.items():
        assert pixels is not None
        sx, sy = pixels.width / width, pixels.height / height
        x0, y0, x1, y1 = (round(edge, 6) for edge in where.crop)
        box = (round(x0 * sx, 6), round(y0 * sy, 6), round(x1 * sx, 6), round(y1 * sy, 6))
        write_crop(cut(pixels, box, spec), str(job["boxes"][place][1]), spec)
    return found


def _open(path: str, spec: CropSpec) -> Image.Image:
    Image.MAX_IMAGE_PIXELS = None  # the limit is ours, below
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(path)
    except FileNotFoundError:
        raise NotCropped("photo missing", path) from None
    except Exception as error:  # as above
        raise NotCropped("photo unreadable", f"{path}: {reason_of(path, error)}") from error
    megapixels = image.width * image.height / 1e6
    if megapixels > spec.max_megapixels:
        image.close()
        raise NotCropped(
            "photo too large", f"{path}: {megapixels:,.0f} megapixels, max_megapixels={spec.max_megapixels:g}"
        )
    return image


def _oriented(image: Image.Image, job: dict[str, Any], spec: CropSpec) -> tuple[Any, int, int]:
    """Returns how the photo has to be turned, and its width and height then.

    Raises:
        NotCropped: it is not of the size that the annotations state.
    """
    turn = orientation(image)
    sideways = turn in (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270, Image.Transpose.TRANSPOSE,
                        Image.Transpose.TRANSVERSE)  # fmt: skip
    sizes = {False: image.size, True: image.size[::-1] if sideways else image.size}
    stated = (int(job["width"]), int(job["height"]))
    apply = bool(job["upright"]) if spec.exif == "auto" else spec.exif == "apply"
    if all(stated) and stated != sizes[apply]:
        if spec.exif == "auto" and stated == sizes[not apply]:
            apply = not apply
        elif not spec.rescale:
            width, height = sizes[apply]
            detail = f"{job['path']} has {width} x {height} pixels, the annotations say {stated[0]} x {stated[1]}"
            raise NotCropped("other size", detail)
    return (turn if apply else None), *sizes[apply]


def _place_all(
    job: dict[str, Any], width: int, height: int, spec: CropSpec
) -> tuple[list[list[Any]], dict[int, Placed]]:
    """Returns what is to be said of each box, and where those lie that can be cropped."""
    sx, sy = (float(width), float(height)) if job["shares"] else (1.0, 1.0)
    if spec.rescale and not job["shares"] and job["width"] and job["height"]:
        sx, sy = width / job["width"], height / job["height"]
    found: list[list[Any]] = []
    placed: dict[int, Placed] = {}
    for place, (corners, _) in enumerate(job["boxes"]):
        x0, y0, x1, y1 = corners
        panorama = bool(job["panorama"] or job["wraps"][place])
        try:
            where = place_box((x0 * sx, y0 * sy, x1 * sx, y1 * sy), width, height, panorama, spec)
        except NotCropped as reason:
            found.append([reason.problem, reason.detail])
            continue
        placed[place] = where
        found.append([[round(value, 4) for value in where.box], where.clipped, width, height])
    return found, placed


def write_crop(crop: Image.Image, path: str, spec: CropSpec) -> None:
    """Writes a crop.

    Straight to its place, which is several times quicker than beside it and moved: a crop counts as made only when the
    note of its photo is on disk, after it, and one that was cut short is made again.
    """
    buffer = io.BytesIO()
    if spec.format == "png":
        crop.save(buffer, "PNG", compress_level=3)
    else:
        crop.save(buffer, "JPEG", quality=spec.quality, subsampling=0)
    try:
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
        with open(target, "wb", buffering=0) as file:
            content = buffer.getbuffer()
            while content:
                content = content[file.write(content) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
