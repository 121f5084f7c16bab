"""One image file to one small uint8 array, whatever the file's colour space, depth, orientation or age."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from PIL import Image

DECODER_VERSION = 1
"""Goes up when the same file would give other pixels, so that stores made before are built anew."""

ASPECTS = ("squash", "pad")
GREY = 128
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How to set a picture upright, by its EXIF orientation."""


class UnreadableImage(Exception):  # noqa: N818 - a finding, not a fault
    """An image that can't be decoded; its message is the reason, a few words long."""


def decode_image(path: str, size: int, aspect: str = "squash", max_megapixels: float = 200.0) -> np.ndarray:
    """Decodes an image file to a square of RGB pixels.

    The EXIF orientation is applied, as picture viewers do. Transparent pixels lie on white; 16-bit samples are scaled
    by their full range; of an animation the first frame counts. Shrinking is anti-aliased (bicubic).

    Args:
        path: the file.
        size: side of the result, pixels.
        aspect: ``squash`` or ``pad``, see :class:`mlfix_train.data.pixels.store.PixelSpec`.
        max_megapixels: larger images are not decoded.

    Returns:
        uint8 array ``size,size,3``.

    Raises:
        UnreadableImage: the file is missing, empty, cut short, too large or no image.
    """
    Image.MAX_IMAGE_PIXELS = None  # the limit is ours, below
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                megapixels = image.width * image.height / 1e6
                if megapixels > max_megapixels:
                    raise UnreadableImage(
                        f"{megapixels:,.0f} megapixels, over pixels.max_megapixels={max_megapixels:g}"
                    )
                if image.format == "JPEG" and min(image.size) > 4 * size:
                    image.draft("RGB", (2 * size, 2 * size))  # decodes at 1/2, 1/4 or 1/8 of the size: no visible loss
                return np.asarray(fit_square(to_rgb(upright(image)), size, aspect, gap=3.0))
    except UnreadableImage:
        raise
    except FileNotFoundError:
        raise UnreadableImage("the file is missing") from None
    except Exception as error:  # Pillow's readers raise many kinds over a damaged file
        raise UnreadableImage(reason_of(path, error)) from error


def reason_of(path: str, error: BaseException) -> str:
    """Says in a few words why an image could not be decoded."""
    try:
        with open(path, "rb") as file:
            if not file.read(1):
                return "the file is empty (0 bytes)"
    except OSError as problem:
        return problem.strerror or type(problem).__name__
    return str(error).replace(f" {path!r}", "").strip() or type(error).__name__


def upright(image: Any) -> Image.Image:
    """Applies the EXIF orientation, where there is one that can be read."""
    turn = orientation(image)
    return image if turn is None else image.transpose(turn)


def orientation(image: Any) -> Image.Transpose | None:
    """Returns what sets a picture upright by its EXIF orientation; ``None`` where it stands upright."""
    if "exif" not in image.info and image.format not in ("TIFF", "WEBP", "PNG"):
        return None
    try:
        return TURNS.get(image.getexif().get(0x0112, 1))
    except Exception:  # a damaged block: the picture itself is none the worse
        return None


def to_rgb(image: Image.Image) -> Image.Image:
    """Returns ``image`` as 8-bit RGB."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode == "I":
        wide = np.asarray(image).astype(np.float64)
        if image.mode != "I" or wide.max(initial=0) > 255:  # mode I: an older writer's 16 bits, or 8
            wide = wide / 257.0
        return Image.fromarray(np.clip(wide + 0.5, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UnreadableImage("32-bit float pixels have no known range; save the image with 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        over = image.convert("RGBA")
        ground = Image.new("RGBA", over.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, over).convert("RGB")
    return image.convert("RGB")


Box = tuple[float, float, float, float]


def fit_square(
    image: Image.Image, size: int, aspect: str, box: Box | None = None, gap: float | None = None
) -> Image.Image:
    """Resizes an image, or the part of it in ``box`` (x, y, x, y, whole pixels or not), to a square; anti-aliased.

    Args:
        image: 8-bit RGB.
        size: side of the result, pixels.
        aspect: ``squash`` (stretch) or ``pad`` (keep the shape, grey margins).
        box: by default the whole image.
        gap: shrink in two steps, the first of whole pixels, which leaves so many times the size; quicker and nearly
            the same. By default in one.
    """
    if box is None:
        if image.size == (size, size):
            return image
        box = (0, 0, *image.size)
    if aspect == "squash":
        return image.resize((size, size), Image.Resampling.BICUBIC, box, reducing_gap=gap)
    width, height = box[2] - box[0], box[3] - box[1]
    scale = size / max(width, height)
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    inner = image.resize(shape, Image.Resampling.BICUBIC, box, reducing_gap=gap)
    canvas = Image.new("RGB", (size, size), (GREY, GREY, GREY))
    canvas.paste(inner, ((size - inner.width) // 2, (size - inner.height) // 2))
    return canvas
