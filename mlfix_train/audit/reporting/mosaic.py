"""Mosaics: hundreds of images on one sheet, in order and without text, to scan at a glance."""

import math

import numpy as np
from PIL import Image

from mlfix_train.audit.reporting.panels import GROUND, MARGIN, VERMILLION, draw_head, fit_image
from mlfix_train.audit.reporting.text import font, printable, shorten
from mlfix_train.errors import check_range

MAX_IMAGES = 2_000
"""Number of images on a sheet."""
SIDE = 40
"""Side of an image on a sheet, px."""


def thin_out(count: int, limit: int = MAX_IMAGES) -> np.ndarray:
    """Returns the positions of ``count`` ordered images that a sheet shows: all, or ``limit`` evenly spaced ones."""
    if count <= limit:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, limit).round().astype(np.int64))


def draw_mosaic(
    images: np.ndarray,
    title: str,
    note: str = "",
    framed: np.ndarray | None = None,
    columns: int | None = None,
    side: int = SIDE,
) -> Image.Image:
    """Draws images row by row.

    Args:
        images: uint8 ``(n, H, W, 3)``, in order; n may be 0.
        title: the headline.
        note: a grey line below it.
        framed: ``(n,)`` booleans: which images get a frame.
        columns: images in a row; by default the sheet is about 4 by 3.
        side: side of an image in px, 8 to 512.

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
    draw_head(sheet, title, "", shorten(note, sheet.width - 2 * MARGIN, font(13)))
    sheet.info["Description"] = printable(note)
    for number, pixels in enumerate(images):
        row, column = divmod(number, columns)
        x, y = MARGIN + column * cell, head + row * cell
        if framed is not None and framed[number]:
            sheet.paste(VERMILLION, (x - 2, y - 2, x + side + 2, y + side + 2))
        tile = fit_image(pixels, side)
        sheet.paste(tile, (x + (side - tile.width) // 2, y + (side - tile.height) // 2))
    return sheet
