"""Mosaics: hundreds of images of a slice on one sheet, in order, without words: what an eye runs over."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from mlfix_train.audit.reporting.panels import GROUND, MARGIN, VERMILLION, draw_title, fit
from mlfix_train.errors import check_range

MOST = 2_000
"""Images on a sheet."""
SIDE = 40
"""px of an image on a sheet."""


def thin_out(count: int, most: int = MOST) -> np.ndarray:
    """Returns which places of an order of ``count`` images a sheet of ``most`` shows: all, or as many evenly spread."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))


def draw_mosaic(
    images: np.ndarray,
    title: str,
    note: str = "",
    strange: np.ndarray | None = None,
    columns: int | None = None,
    side: int = SIDE,
) -> Image.Image:
    """Draws images row by row.

    Args:
        images: uint8 ``n,H,W,3``, in order; may be none.
        title: the headline.
        note: a grey line beneath it.
        strange: n booleans: which get a frame.
        columns: images in a row; by default a sheet of about 4 by 3.
        side: px of an image.

    Returns:
        An RGB image.

    Raises:
        ConfigError: a size out of range.
    """
    check_range("side", side, 8, 512)
    n = len(images)
    columns = columns or max(12, math.ceil(math.sqrt(n * 4 / 3)))
    columns = max(1, min(columns, max(n, 12)))
    rows = math.ceil(n / columns)
    cell, head = side + 2, MARGIN + 62
    sheet = Image.new("RGB", (max(440, columns * cell) + 2 * MARGIN, head + rows * cell + MARGIN), GROUND)
    draw_title(sheet, title, note, sheet.width - 2 * MARGIN)
    for number, pixels in enumerate(images):
        row, column = divmod(number, columns)
        x, y = MARGIN + column * cell, head + row * cell
        if strange is not None and strange[number]:
            sheet.paste(VERMILLION, (x - 2, y - 2, x + side + 2, y + side + 2))
        tile = fit(pixels, side)
        sheet.paste(tile, (x + (side - tile.width) // 2, y + (side - tile.height) // 2))
    return sheet
