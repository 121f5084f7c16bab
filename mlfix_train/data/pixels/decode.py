"""Decodes image files to small uint8 arrays, whatever a file's color space, bit depth, orientation or age.

Worker processes import this module, so it needs no more than numpy and Pillow.
"""

import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from mlfix_train.data.pixels.spec import PixelSpec

DECODER_VERSION = 1
"""Increment when the same file would give other pixels, so that existing stores are rebuilt."""
GREY = 128
"""Value of margins, and of images that can't be read."""

EXIF_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How to turn an image upright, by its EXIF orientation."""

Box = tuple[float, float, float, float]

_open_lock = threading.Lock()


class UnreadableImage(Exception):  # noqa: N818 - a result that is reported, rarely an error
    """An image that can't be decoded; its message is the reason, a few words long."""


class ImageTooLarge(UnreadableImage):
    """An image with more pixels than allowed."""


def decode_image(path: str, size: int, aspect: str = "squash", max_megapixels: float = 200.0) -> np.ndarray:
    """Decodes an image file to a square of RGB pixels, uint8 ``(size, size, 3)``.

    The EXIF orientation is applied, as image viewers do. Transparent pixels are put on white, 16-bit samples are scaled
    by their full range, and the first frame of an animation is taken. Downscaling is anti-aliased (bicubic). ``aspect``
    is that of :class:`mlfix_train.data.pixels.spec.PixelSpec`.

    Raises:
        UnreadableImage: The file is missing, empty, truncated, too large or not an image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_image(path, max_megapixels) as image:
                if image.format == "JPEG" and min(image.size) > 4 * size:
                    image.draft("RGB", (2 * size, 2 * size))  # decodes at 1/2, 1/4 or 1/8 of the size: no visible loss
                turn = orientation(image)
                upright = image if turn is None else image.transpose(turn)
                return np.asarray(fit_square(to_rgb(upright), size, aspect, reducing_gap=3.0))
    except UnreadableImage:
        raise
    except FileNotFoundError:
        raise UnreadableImage("the file is missing") from None
    except Exception as error:  # Pillow raises many types for a damaged file
        raise UnreadableImage(reason_of(path, error)) from error


@contextmanager
def open_image(path: str, max_megapixels: float) -> Iterator[Any]:
    """Opens an image file, not decoding it yet, under a size limit of its own; Pillow's stays as it is for the process.

    Raises:
        ImageTooLarge: The image is larger.
        OSError: The file is missing, or not an image.
    """
    with _open_lock:
        pillow_limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            image = Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = pillow_limit
    with image:
        megapixels = image.width * image.height / 1e6
        if megapixels > max_megapixels:
            raise ImageTooLarge(f"{megapixels:,.0f} megapixels, more than max_megapixels={max_megapixels:g}")
        yield image


def reason_of(path: str, error: BaseException) -> str:
    """Returns in a few words why an image could not be decoded."""
    try:
        with open(path, "rb") as file:
            if not file.read(1):
                return "the file is empty (0 bytes)"
    except OSError as problem:
        return problem.strerror or type(problem).__name__
    return str(error).replace(f" {path!r}", "").strip() or type(error).__name__


def orientation(image: Any) -> Image.Transpose | None:
    """Returns the transpose that turns an image upright by its EXIF orientation; ``None`` if there is nothing to do."""
    if "exif" not in image.info and image.format not in ("TIFF", "WEBP", "PNG"):
        return None
    try:
        return EXIF_TRANSPOSES.get(image.getexif().get(0x0112, 1))
    except Exception:  # a damaged EXIF block does not make the image unreadable
        return None


def to_rgb(image: Image.Image) -> Image.Image:
    """Returns ``image`` as 8-bit RGB."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode == "I":
        wide = np.asarray(image).astype(np.float64)
        if image.mode != "I" or wide.max(initial=0) > 255:  # mode I holds 16 bits by older writers, or 8
            wide = wide / 257.0
        return Image.fromarray(np.clip(wide + 0.5, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UnreadableImage("32-bit float pixels have no known range; save the image with 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        background = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(background, layer).convert("RGB")
    return image.convert("RGB")


def fit_square(
    image: Image.Image, size: int, aspect: str, box: Box | None = None, reducing_gap: float | None = None
) -> Image.Image:
    """Resizes an 8-bit RGB image, or a part of it, to a square of ``size`` pixels; anti-aliased.

    ``aspect`` is ``squash`` (stretch) or ``pad`` (keep the aspect ratio, grey margins), ``box`` the part ``(x_min,
    y_min, x_max, y_max)`` in pixels, fractions allowed. ``reducing_gap``, as in ``PIL.Image.Image.resize``, first
    shrinks by whole factors, to this many times the size: faster and nearly the same.
    """
    if box is None:
        if image.size == (size, size):
            return image
        box = (0, 0, *image.size)
    if aspect == "squash":
        return image.resize((size, size), Image.Resampling.BICUBIC, box, reducing_gap=reducing_gap)
    width, height = box[2] - box[0], box[3] - box[1]
    scale = size / max(width, height)
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    inner = image.resize(shape, Image.Resampling.BICUBIC, box, reducing_gap=reducing_gap)
    canvas = Image.new("RGB", (size, size), (GREY, GREY, GREY))
    canvas.paste(inner, ((size - inner.width) // 2, (size - inner.height) // 2))
    return canvas


@dataclass(frozen=True)
class Chunk:
    """Images to decode, and where their pixels go: the file, the byte of its row 0, and the row of the first image."""

    part: str
    offset: int
    start: int
    paths: Sequence[str]
    spec: PixelSpec

    def __str__(self) -> str:
        return f"{self.paths[0]} to {self.paths[-1]}"


def decode_chunk(chunk: Chunk) -> dict[int, str]:
    """Decodes a chunk and writes its pixels; unreadable images become grey, their rows and reasons are returned."""
    spec = chunk.spec
    pixels = np.full((len(chunk.paths), spec.size, spec.size, 3), GREY, dtype=np.uint8)
    failures = {}
    for row, path in enumerate(chunk.paths):
        try:
            pixels[row] = decode_image(path, spec.size, spec.aspect, spec.max_megapixels)
        except UnreadableImage as error:
            failures[chunk.start + row] = str(error)
    position = chunk.offset + chunk.start * pixels[0].nbytes
    with open(chunk.part, "r+b", buffering=0) as file:
        view = memoryview(pixels.data).cast("B")
        while view:
            written = os.pwrite(file.fileno(), view, position)
            view, position = view[written:], position + written
    return failures
