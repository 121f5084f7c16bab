"""One sample enlarged: read from its file, larger than its tile."""

from collections.abc import Callable

import numpy as np

from mlfix_train.audit.review.sprites import encode_jpeg
from mlfix_train.data.pixels.decode import UnreadableImage, decode_image

MAX_SIDE = 480
"""Largest side of the image, pixels."""


def encode_full_image(path: str, stored: Callable[[], np.ndarray]) -> bytes:
    """Returns an image as a JPEG: upright, uncropped, in a square with grey margins.

    Args:
        path: Image file.
        stored: Returns the pixels ``(H, W, 3)`` to show if the file is missing or damaged.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            side = min(max(image.size), MAX_SIDE)
        pixels = decode_image(path, max(side, 8), "pad")
    except (OSError, UnreadableImage, ValueError):
        pixels = stored()
    return encode_jpeg(pixels, quality=92)
