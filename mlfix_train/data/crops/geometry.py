"""The position of a box in its photo: clipped at the edges, widened by a margin, wrapped around in panoramas."""

from collections.abc import Iterable
from dataclasses import dataclass

from mlfix_train.data.crops.spec import CropSpec

Box = tuple[float, float, float, float]
"""``x_min, y_min, x_max, y_max`` in pixels, at the outer edges."""

MIN_OVERSAMPLING = 2.0
"""Source pixels per pixel of a crop, along each axis, that decoding at reduced size has to leave."""


class NotCropped(Exception):  # noqa: N818 - an outcome, not an error
    """A box or photo without a crop, with its problem (see ``docs/reference.md``) and what was found."""

    def __init__(self, problem: str, detail: str) -> None:
        super().__init__(problem, detail)
        self.problem, self.detail = problem, detail


@dataclass(frozen=True)
class Placement:
    """The position of a box in its photo.

    Args:
        box: as annotated.
        crop: what is cut out: with the margin, without what lies outside the photo. In a panorama, the right edges of
            both may exceed the photo's width.
        clipped: fraction of the annotated area that lies outside the photo, 0 to 1.
    """

    box: Box
    crop: Box
    clipped: float


def place_box(corners: Box, width: int, height: int, panorama: bool, spec: CropSpec) -> Placement:
    """Finds the part of a photo (pixels) that a box covers; NotCropped if it has no area, or is outside or small."""
    x0, y0, x1, y1 = corners
    shown = f"x {x0:g} to {x1:g}, y {y0:g} to {y1:g}"
    if x1 <= x0 or y1 <= y0:
        raise NotCropped("swapped corners" if x1 < x0 or y1 < y0 else "no area", shown)
    area = (x1 - x0) * (y1 - y0)
    wraps = panorama and x0 < width and x1 > 0
    if wraps:
        shift = width if x0 < 0 else 0  # a box that starts left of the left edge starts at the right
        x0, x1 = x0 + shift, min(x1 + shift, x0 + shift + width)
    left, right = (x0, x1) if wraps else (max(x0, 0.0), min(x1, float(width)))
    top, bottom = max(y0, 0.0), min(y1, float(height))
    if right <= left or bottom <= top:
        raise NotCropped("outside", f"{shown} in a photo of {width} x {height}")
    if min(right - left, bottom - top) < spec.min_side:
        raise NotCropped("too small", f"{right - left:.3g} x {bottom - top:.3g} pixels")
    clipped = max(0.0, 1 - (right - left) * (bottom - top) / area)
    dx, dy = spec.margin * (x1 - x0), spec.margin * (y1 - y0)
    left, right = x0 - dx, x1 + dx
    if not wraps:
        left, right = max(left, 0.0), min(right, float(width))
    elif right - left > width:
        left, right = (x0 + x1 - width) / 2, (x0 + x1 + width) / 2
    crop = (left, max(y0 - dy, 0.0), right, min(y1 + dy, float(height)))
    return Placement((x0, y0, x1, y1), crop, round(clipped, 6) if clipped > 1e-9 else 0.0)


def decode_reduction(placements: Iterable[Placement], spec: CropSpec) -> int:
    """Returns the factor by which the sides of a photo may be reduced in decoding: 1, 2, 4 or 8."""
    sides = [(p.crop[2] - p.crop[0], p.crop[3] - p.crop[1]) for p in placements]
    if spec.size is None or not sides:
        return 1
    shrinking = min((min(side) if spec.aspect == "squash" else max(side)) for side in sides) / spec.size
    return next((factor for factor in (8, 4, 2) if shrinking >= MIN_OVERSAMPLING * factor), 1)
