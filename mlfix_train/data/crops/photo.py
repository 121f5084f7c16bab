"""One photo decoded once, its boxes cut out, resized and written. Runs in worker processes."""

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from mlfix_train.data.crops.geometry import Box, NotCropped, Placement, decode_reduction, place_box
from mlfix_train.data.crops.spec import CropSpec
from mlfix_train.data.pixels.decode import (
    EXIF_TRANSPOSES,
    FULL_RANGE,
    ImageTooLarge,
    exif_turn,
    fit_square,
    load_rgb,
    open_image,
    reason_of,
)

PHOTO_PROBLEMS = ("photo missing", "photo unreadable", "photo too large", "size mismatch")
"""Problems of a whole photo, which may be gone at the next call."""
SIDEWAYS = {transpose for orientation, transpose in EXIF_TRANSPOSES.items() if orientation >= 5}
"""Transposes that swap width and height."""
TURNED_BACK = {
    Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
}
"""Transposes that undo others; those that are not in it undo themselves."""


@dataclass(frozen=True)
class PhotoJob:
    """What to crop out of one photo: its row in :class:`Annotations`, and N boxes.

    ``wraps`` is whether each box crosses the edge of a panorama, ``crops`` its file below the folder of crops.
    """

    name: str
    path: str
    width: int
    height: int
    panorama: bool
    normalized: bool
    exif_applied: bool
    boxes: list[Box]
    wraps: list[bool]
    crops: list[str]


class BoxOutcome(NamedTuple):
    """The outcome of one box: the annotated box in pixels, or the problem why there is no crop.

    ``exif`` is, for photos that EXIF turns, whether boxes refer to the turned photo: ``apply`` or ``ignore`` where the
    stated size tells, ``open`` where it doesn't (a half turn, or no size); else empty.
    """

    x_min: float = 0.0
    y_min: float = 0.0
    x_max: float = 0.0
    y_max: float = 0.0
    clipped: float = 0.0
    photo_width: int = 0
    photo_height: int = 0
    problem: str = ""
    detail: str = ""
    exif: str = ""


def crop_photos(jobs: list[PhotoJob], spec: CropSpec, out: Path, white: int = FULL_RANGE) -> list[list[BoxOutcome]]:
    """Crops some photos, see :func:`crop_photo`."""
    return [crop_photo(job, spec, out, white) for job in jobs]


def crop_photo(job: PhotoJob, spec: CropSpec, out: Path, white: int = FULL_RANGE) -> list[BoxOutcome]:
    """Crops the boxes of one photo below ``out``, where the folders of ``job.crops`` exist: one outcome per box.

    Of 16-bit photos ``white`` becomes 255, see :func:`mlfix_train.data.pixels.depth.white_level`.

    Raises:
        OSError: a crop can't be written.
    """
    try:
        with open_image(job.path, spec.max_megapixels) as image:
            turn, width, height, exif = _orient(image, job, spec)
            outcomes, placements = _place_boxes(job, width, height, spec)
            outcomes = [outcome._replace(exif=exif) for outcome in outcomes] if exif else outcomes
            pixels = _decode(image, turn, placements, spec, white) if placements else None
    except NotCropped as reason:
        return _no_crops(job, reason.problem, reason.detail)
    except FileNotFoundError:
        return _no_crops(job, "photo missing", job.path)
    except ImageTooLarge as error:
        return _no_crops(job, "photo too large", f"{job.path}: {error}")
    except Exception as error:  # Pillow raises many types for a damaged file
        return _no_crops(job, "photo unreadable", f"{job.path}: {reason_of(job.path, error)}")
    for place, placement in placements.items():
        assert pixels is not None
        sx, sy = pixels.width / width, pixels.height / height  # below 1 if decoded at reduced size
        x0, y0, x1, y1 = (round(edge, 6) for edge in placement.crop)
        box = (round(x0 * sx, 6), round(y0 * sy, 6), round(x1 * sx, 6), round(y1 * sy, 6))
        write_crop(cut(pixels, box, spec), out / job.crops[place], spec)
    return outcomes


def _no_crops(job: PhotoJob, problem: str, detail: str) -> list[BoxOutcome]:
    return [BoxOutcome(problem=problem, detail=detail)] * len(job.boxes)


def _orient(image: Image.Image, job: PhotoJob, spec: CropSpec) -> tuple[Image.Transpose | None, int, int, str]:
    """Returns how the photo has to be rotated, its width and height after that, and what its size tells of EXIF."""
    turn, is_done = exif_turn(image)
    other = image.size[::-1] if turn in SIDEWAYS else image.size
    sizes = {is_done: image.size, not is_done: other}
    stated = (job.width, job.height)
    apply = job.exif_applied if spec.exif == "auto" else spec.exif == "apply"
    if all(stated) and stated != sizes[apply]:
        if spec.exif == "auto" and stated == sizes[not apply]:
            apply = not apply
        elif not spec.rescale:
            width, height = sizes[apply]
            detail = f"{job.path} has {width} x {height} pixels, the annotations state {stated[0]} x {stated[1]}"
            raise NotCropped("size mismatch", detail)
    exif = ""
    if turn is not None and spec.exif == "auto":
        fits = [key for key, size in (("apply", sizes[True]), ("ignore", sizes[False])) if stated == size]
        exif = fits[0] if len(fits) == 1 else "open"
    if apply == is_done:
        turn = None
    elif is_done:  # as it is stored
        turn = TURNED_BACK.get(turn, turn) if turn else None
    return turn, *sizes[apply], exif


def _place_boxes(
    job: PhotoJob, width: int, height: int, spec: CropSpec
) -> tuple[list[BoxOutcome], dict[int, Placement]]:
    """Returns the outcome of each box, and the placements of those that can be cropped, by box number."""
    sx, sy = (float(width), float(height)) if job.normalized else (1.0, 1.0)
    if spec.rescale and not job.normalized and job.width and job.height:
        sx, sy = width / job.width, height / job.height
    outcomes, placements = list[BoxOutcome](), dict[int, Placement]()
    for place, corners in enumerate(job.boxes):
        panorama = job.panorama or job.wraps[place]
        scaled = (corners[0] * sx, corners[1] * sy, corners[2] * sx, corners[3] * sy)
        try:
            placements[place] = placement = place_box(scaled, width, height, panorama, spec)
            x0, y0, x1, y1 = (round(edge, 4) for edge in placement.box)
            outcomes.append(BoxOutcome(x0, y0, x1, y1, placement.clipped, width, height))
        except NotCropped as reason:
            outcomes.append(BoxOutcome(problem=reason.problem, detail=reason.detail))
    return outcomes, placements


def _decode(
    image: Image.Image, turn: Image.Transpose | None, placements: dict[int, Placement], spec: CropSpec, white: int
) -> Image.Image:
    """Returns the pixels of an opened photo, rotated and as RGB; a JPEG possibly at reduced size."""
    factor = decode_reduction(placements.values(), spec)
    if image.format == "JPEG" and factor > 1:
        image.draft("RGB", (math.ceil(image.width / factor), math.ceil(image.height / factor)))
    return load_rgb(image, turn, white)


def cut(image: Image.Image, box: Box, spec: CropSpec) -> Image.Image:
    """Cuts a box out of a photo and resizes it, anti-aliased and with subpixel precision.

    What lies beyond the left or right edge is taken from the other side, as in a panorama.
    """
    x0, x1 = math.floor(box[0]), math.ceil(box[2])
    y0, y1 = max(0, math.floor(box[1])), min(image.height, math.ceil(box[3]))
    if spec.size is None:  # the nearest whole pixels
        x1, y1 = max(round(box[2]), x0 + 1), min(max(round(box[3]), y0 + 1), image.height)
        x0, y0 = min(round(box[0]), x1 - 1), min(round(box[1]), y1 - 1)
    if x0 >= 0 and x1 <= image.width:
        strip = image.crop((x0, y0, x1, y1))
    else:
        strip = Image.new("RGB", (x1 - x0, y1 - y0))
        for shift in (-image.width, 0, image.width):  # the same photo again on either side
            left, right = max(x0, shift), min(x1, shift + image.width)
            if right > left:
                strip.paste(image.crop((left - shift, y0, right - shift, y1)), (left - x0, 0))
    if spec.size is None:
        return strip
    inner = (box[0] - x0, max(0.0, box[1] - y0), min(box[2] - x0, strip.width), min(box[3] - y0, strip.height))
    return fit_square(strip, spec.size, spec.aspect, inner)


def write_crop(crop: Image.Image, path: Path, spec: CropSpec) -> None:
    """Writes a crop directly to its place, which is several times faster than an atomic write.

    A crop counts only once the journal entry of its photo is on disk, and is made again if it was interrupted before.
    """
    buffer = io.BytesIO()
    if spec.format == "png":
        crop.save(buffer, "PNG", compress_level=3)
    else:
        crop.save(buffer, "JPEG", quality=spec.quality, subsampling=0)
    try:
        path.write_bytes(buffer.getbuffer())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
