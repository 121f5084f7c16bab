"""One sample, looked at more closely: its file, not its tile."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np

from mlfix_train.data.pixels.decode import UnreadableImage, decode_image

SIZE = 480
"""Side of the picture, pixels, at most."""


def large_picture(path: str, stored: Callable[[], np.ndarray]) -> bytes:
    """Returns an image, upright, whole, in a square with grey margins, as a JPEG.

    Args:
        path: of the file.
        stored: gives the pixels ``H,W,3`` that are shown if the file is gone or damaged by now.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            side = min(max(image.size), SIZE)
        pixels = decode_image(path, max(side, 8), "pad")
    except (OSError, UnreadableImage, ValueError):
        pixels = stored()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=92, subsampling=0)
    return file.getvalue()
