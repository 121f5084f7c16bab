"""Decodes image files to small uint8 arrays, whatever a file's color space, bit depth, orientation or age.

Worker processes import this module, so it needs no more than numpy and Pillow.
"""

import io
import os
import re
import struct
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from mlfix_train.data.pixels.containers import is_contained, open_bytes
from mlfix_train.data.pixels.formats import format_hint, is_read, register_heic, sniff_format
from mlfix_train.data.pixels.spec import PixelSpec

DECODER_VERSION = 3
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

FULL_RANGE = 65535
"""White of 16-bit images, unless a data set holds fewer bits (:func:`mlfix_train.data.pixels.depth.white_level`)."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_TEXT_CHUNKS = (b"iTXt", b"zTXt", b"tEXt", b"iCCP")
WIDE_RAWMODES = frozenset({f"{mode};16{order}" for mode in ("RGB", "RGBA", "RGBX") for order in "BLN"} | {"LA;16B"})
"""How Pillow calls color samples of 16 bits, of which it keeps 8; grey ones it keeps."""
ANIMATED_FORMATS = ("GIF", "WEBP", "PNG", "TIFF", "AVIF")

Box = tuple[float, float, float, float]

_open_lock = threading.Lock()


class UnreadableImage(Exception):  # noqa: N818 - a result that is reported, rarely an error
    """An image that can't be decoded; its message is the reason, a few words long."""


class ImageTooLarge(UnreadableImage):
    """An image with more pixels than allowed."""


@dataclass
class ImageFacts:
    """What decoding an image found out, for notes on a data set."""

    animated: bool = False


def decode_image(
    path: str,
    size: int,
    aspect: str = "squash",
    max_megapixels: float = 200.0,
    white: int = FULL_RANGE,
    facts: ImageFacts | None = None,
) -> np.ndarray:
    """Decodes an image file to a square of RGB pixels, uint8 ``(size, size, 3)``.

    The EXIF orientation is applied, as image viewers do. Transparent pixels are put on white, 16-bit samples are scaled
    so that ``white`` becomes 255, CMYK is converted by its profile, and the first frame of an animation is taken.
    Downscaling is anti-aliased (bicubic). ``aspect`` is that of :class:`mlfix_train.data.pixels.spec.PixelSpec`;
    ``facts`` is filled in.

    Raises:
        UnreadableImage: The file is missing, empty, truncated, too large or not an image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_image(path, max_megapixels) as image:
                if image.format == "JPEG" and min(image.size) > 4 * size:
                    image.draft("RGB", (2 * size, 2 * size))  # decodes at 1/2, 1/4 or 1/8 of the size: no visible loss
                turn, is_done = exif_turn(image)
                upright = load_rgb(image, None if is_done else turn, white)
                if facts is not None and image.format in ANIMATED_FORMATS:
                    with suppress(Exception):  # damaged behind the first frame
                        facts.animated = bool(getattr(image, "is_animated", False))
                return np.asarray(fit_square(upright, size, aspect, reducing_gap=3.0))
    except UnreadableImage:
        raise
    except FileNotFoundError:
        raise UnreadableImage("the file is missing") from None
    except Exception as error:  # Pillow raises many types for a damaged file
        raise UnreadableImage(reason_of(path, error)) from error


@contextmanager
def open_image(path: str, max_megapixels: float) -> Iterator[Any]:
    """Opens an image file, not decoding it yet, under a size limit of its own; Pillow's stays as it is for the process.

    So does its limit on text in PNG: text and color profiles are not looked at.

    Raises:
        ImageTooLarge: The image is larger.
        OSError: The file is missing, or not an image.
    """
    with _open_lock:
        pillow_limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            image: Any = _open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = pillow_limit
    with image:
        megapixels = image.width * image.height / 1e6
        if megapixels > max_megapixels:
            raise ImageTooLarge(f"{megapixels:,.0f} megapixels, more than max_megapixels={max_megapixels:g}")
        image.stored_tile = list(image.tile)  # gone once the image is decoded
        if image.format == "PNG":
            image.load_end = partial(_ignore_large_text, image.load_end)
        yield image


def _open(path: str) -> Image.Image:
    contained = is_contained(path)
    try:
        image = Image.open(open_bytes(path) if contained else path)
        if contained:
            image.filename = path  # as it is for files
        return image
    except UnidentifiedImageError:
        with open_bytes(path) as file:
            head = file.read(64)
        if sniff_format(head) == "HEIC" and register_heic():
            return Image.open(open_bytes(path) if contained else path)
        raise
    except ValueError:  # text or a color profile that is larger than Pillow allows
        with open_bytes(path) as file:
            content = file.read()
        if not content.startswith(PNG_SIGNATURE):
            raise
        return Image.open(io.BytesIO(_without_text(content)))


def _ignore_large_text(load_end: Any) -> None:
    """Reads what comes behind the pixels of a PNG; text that is larger than Pillow allows is of no interest."""
    with suppress(ValueError):
        load_end()


def _without_text(png: bytes) -> bytes:
    """Returns a PNG without its chunks of text and color profile."""
    parts, place = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while place + 8 <= len(png):
        (length,) = struct.unpack_from(">I", png, place)
        if png[place + 4 : place + 8] not in PNG_TEXT_CHUNKS:
            parts.append(png[place : place + 12 + length])
        place += 12 + length
    return b"".join(parts)


def reason_of(path: str, error: BaseException) -> str:
    """Returns in a few words why an image could not be decoded."""
    try:
        with open_bytes(path) as file:
            head = file.read(64)
            if not head:
                return "the file is empty (0 bytes)"
    except OSError as problem:
        return problem.strerror or str(problem) or type(problem).__name__
    if isinstance(error, UnidentifiedImageError) and (kind := sniff_format(head)):
        if is_read(kind):
            return f"its content is {kind}, but cut short or damaged"
        return f"its content is {kind}: {format_hint(kind)}"
    text = re.sub(r" <_io\.BytesIO object at \w+>", "", str(error))
    return text.replace(f" {path!r}", "").strip() or type(error).__name__


def orientation(image: Any) -> Image.Transpose | None:
    """Returns the transpose that turns an image upright by its EXIF orientation; ``None`` if there is nothing to do."""
    if "exif" not in image.info and image.format not in ("TIFF", "WEBP", "PNG"):
        return None
    try:
        return EXIF_TRANSPOSES.get(image.getexif().get(0x0112, 1))
    except Exception:  # a damaged EXIF block does not make the image unreadable
        return None


def exif_turn(image: Any) -> tuple[Image.Transpose | None, bool]:
    """Returns :func:`orientation`, and whether Pillow has applied it, as newer ones do to TIFF when it is decoded."""
    turn = orientation(image)
    if turn is None or image.format != "TIFF":
        return turn, False
    image.load()
    return turn, orientation(image) is None


def load_rgb(image: Any, turn: Image.Transpose | None = None, white: int = FULL_RANGE) -> Image.Image:
    """Decodes an opened image, turns it, and returns it as 8-bit RGB; ``white`` as in :func:`to_rgb`."""
    if white < FULL_RANGE and (wide := read_wide(image)) is not None and wide.ndim == 3:
        levels = _to_8_bits(wide, white)
        image = Image.fromarray(levels)
    image.load()  # the caller may close the file
    return to_rgb(image if turn is None else image.transpose(turn), white)


def read_wide(image: Any) -> np.ndarray | None:
    """Returns the samples of an image of :func:`open_image` if they have 16 bits, else ``None``.

    Grey ones are ``(H, W)``, colored ones ``(H, W, 3)`` or ``(H, W, 4)`` with alpha: uint16, or int32 where the file's
    are.
    """
    if not is_wide(image):
        return None
    if image.mode.startswith("I"):
        return np.asarray(image)
    tiles = getattr(image, "stored_tile", image.tile)
    (rawmode,) = {_rawmode(tile) for tile in tiles}
    if rawmode == "LA;16B":  # 4 bytes, read as four channels
        with open_image(image.filename, np.inf) as layers:
            layers.tile = [tile._replace(args=_swap(tile.args, "RGBA")) for tile in tiles]
            parts = np.asarray(layers).astype(np.uint16)
        return np.asarray(parts[..., [0, 0, 0, 2]] * 256 + parts[..., [1, 1, 1, 3]])
    # Of two bytes Pillow keeps the high one; read in the other byte order, that is the low one.
    other = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}[rawmode[-1]]
    with open_image(image.filename, np.inf) as low:
        low.tile = [tile._replace(args=_swap(tile.args, rawmode[:-1] + other)) for tile in tiles]
        return np.asarray(np.asarray(image).astype(np.uint16) * 256 + np.asarray(low))


def is_wide(image: Any) -> bool:
    """Returns whether the samples of an image of :func:`open_image` are integers of 16 or 32 bits."""
    if image.mode.startswith("I"):
        return True
    rawmodes = {_rawmode(tile) for tile in getattr(image, "stored_tile", ())}
    return len(rawmodes) == 1 and rawmodes <= WIDE_RAWMODES and bool(getattr(image, "filename", ""))


def _rawmode(tile: Any) -> str:
    """Returns how a block of a file is laid out, such as ``RGB;16B``."""
    args = tile[3]
    return str(args[0] if isinstance(args, tuple) and args else args)


def _swap(args: Any, rawmode: str) -> Any:
    return (rawmode, *args[1:]) if isinstance(args, tuple) else rawmode


def _to_8_bits(wide: np.ndarray, white: int) -> np.ndarray:
    low, high = (int(wide.min()), int(wide.max())) if wide.size else (0, 0)
    if low < 0 or high > FULL_RANGE:
        problem = f"32-bit pixels from {low:,} to {high:,} are beyond the 0 to 65,535 of 16 bits"
        raise UnreadableImage(f"{problem}; save the image with 8 or 16 bits")
    return np.clip(wide * (255.0 / white) + 0.5, 0, 255).astype(np.uint8)


def to_rgb(image: Image.Image, white: int = FULL_RANGE) -> Image.Image:
    """Returns ``image`` as 8-bit RGB; of 16-bit grey, ``white`` and above become 255."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode == "I":
        wide = np.asarray(image)
        if image.mode == "I" and white == FULL_RANGE and wide.max(initial=0) <= 255:
            white = 255  # mode I holds 16 bits by older writers, or 8
        return Image.fromarray(_to_8_bits(wide, white)).convert("RGB")
    if image.mode == "F":
        raise UnreadableImage("32-bit float pixels have no known range; save the image with 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        background = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(background, layer).convert("RGB")
    if image.mode == "CMYK" and (profile := image.info.get("icc_profile")):
        with suppress(ImageCms.PyCMSError, OSError, ValueError):  # a damaged profile, or of other colors
            converted = ImageCms.applyTransform(image, _cmyk_transform(profile))
            if converted is not None:
                return converted
    return image.convert("RGB")


@lru_cache(maxsize=8)
def _cmyk_transform(profile: bytes) -> ImageCms.ImageCmsTransform:
    """Returns the transform from CMYK of a profile to sRGB, relative colorimetric with black point compensation.

    Raises:
        PyCMSError: The profile is damaged, or not of CMYK.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "CMYK", "RGB", intent, flags)


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
    white: int = FULL_RANGE

    def __str__(self) -> str:
        return f"{self.paths[0]} to {self.paths[-1]}"


def decode_chunk(chunk: Chunk) -> tuple[dict[int, str], list[int]]:
    """Decodes a chunk and writes its pixels; unreadable images become grey.

    Returns:
        Rows of unreadable images with their reasons, and rows of animated images.
    """
    spec = chunk.spec
    pixels = np.full((len(chunk.paths), spec.size, spec.size, 3), GREY, dtype=np.uint8)
    failures, animated = {}, []
    for row, path in enumerate(chunk.paths):
        facts = ImageFacts()
        try:
            pixels[row] = decode_image(path, spec.size, spec.aspect, spec.max_megapixels, chunk.white, facts)
        except UnreadableImage as error:
            failures[chunk.start + row] = str(error)
        if facts.animated:
            animated.append(chunk.start + row)
    position = chunk.offset + chunk.start * pixels[0].nbytes
    with open(chunk.part, "r+b", buffering=0) as file:
        view = memoryview(pixels.data).cast("B")
        while view:
            written = os.pwrite(file.fileno(), view, position)
            view, position = view[written:], position + written
    return failures, animated
