"""At what size images are worth storing, by the sizes of their files."""

import logging

import numpy as np
import pandas as pd

from mlfix_train.data.pixels.decode import open_image
from mlfix_train.data.pixels.spec import PixelSpec

log = logging.getLogger(__name__)

N_LOOKED_AT = 256
"""Images whose size is looked up, at most, evenly spread over the table."""
MIN_SIZE = 8
"""Smallest side of a store, px; see :class:`PixelSpec`."""


def stored_size(table: pd.DataFrame, input_size: int) -> int:
    """Returns the side at which to store images for a network that scales them to ``input_size`` px.

    It is the network's, or less where the images are smaller: the median of the larger side of up to 256 of them, since
    enlarging them adds nothing that the network could not add itself.
    """
    size = max(MIN_SIZE, min(input_size, typical_size(table) or input_size))
    if size < input_size:
        log.info("the images are stored at %d px, as large as they are, and scaled up to %d px", size, input_size)
    return size


def typical_size(table: pd.DataFrame) -> int | None:
    """Returns the median of the larger side, px, of up to 256 images of a table; ``None`` if all are unreadable.

    Only headers are read; unreadable images don't count.
    """
    rows = np.unique(np.linspace(0, max(len(table) - 1, 0), min(len(table), N_LOOKED_AT)).astype(int))
    sides = []
    for path in table["path"].iloc[rows]:
        try:
            with open_image(str(path), PixelSpec.max_megapixels) as image:
                sides.append(max(image.size))
        except Exception:  # noqa: S112 - Pillow raises many types for a damaged file
            continue
    return int(np.median(sides)) if sides else None
