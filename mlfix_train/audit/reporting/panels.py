"""Panels: contact sheets of samples with their labels, suspicion and fixes.

Small crops are enlarged to a common size, and every line of text is measured, shortened and clipped, so that no label,
however long and in whatever script, leaves its tile. Only Pillow and NumPy draw; the font is the one in matplotlib.
"""

from __future__ import annotations

import functools
import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, PngImagePlugin

from mlfix_train.audit.reporting.text import font, printable, shorten, shorten_all
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.samples import INVALID
from mlfix_train.errors import DataError, check_range

GROUND, INK, GREY, TRACK, MAT = "#fdfdfc", "#212121", "#686868", "#e2e2e2", "#f0f0ef"
BLUE, VERMILLION, GREEN = "#00629e", "#d55e00", "#007052"  # Okabe-Ito; blue and green darkened to read as text
MARGIN, GUTTER, OVERHANG = 20, 20, 8  # px; text may reach OVERHANG into the gutter
MIN_WIDTH = 440  # px of content, so that the title of a single tile is readable


@dataclass(frozen=True, eq=False)
class Tile:
    """One sample of a panel.

    Attributes:
        image: uint8 pixels ``H,W,3`` of any size.
        given: the given label.
        predicted: the predicted label; shown if it differs from the given one.
        suspicion: 0 to 1, higher is worse; shown as the length of a bar.
        caption: a short remark such as ``loss 5.31``.
        mark: the fix of this sample, if any: ``invalid`` or the new label, shown in place of the prediction.

    Raises:
        DataError: the image is not a uint8 RGB image, or the suspicion is outside 0 to 1.
    """

    image: np.ndarray
    given: str
    predicted: str | None = None
    suspicion: float | None = None
    caption: str = ""
    mark: str | None = None

    def __post_init__(self) -> None:
        shape, dtype = np.shape(self.image), getattr(self.image, "dtype", type(self.image).__name__)
        if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            problem = f"a tile with the label {self.given!r} has an image of shape {shape} and type {dtype}"
            raise DataError(problem, "pass uint8 RGB pixels of shape (height, width, 3), as of image.convert('RGB')")
        if self.suspicion is not None and not -1e-6 <= self.suspicion <= 1 + 1e-6:
            problem = f"a tile with the label {self.given!r} has the suspicion {self.suspicion}"
            raise DataError(problem, "pass a number from 0 to 1 (higher is worse), or None if unknown")

    @property
    def relabeled(self) -> bool:
        """Whether the mark is a new label."""
        return bool(self.mark) and self.mark != INVALID

    @property
    def second_label(self) -> str:
        """The label in the second line: the new label, or else a prediction that differs; empty if neither."""
        if self.relabeled:
            return self.mark or ""
        return self.predicted if self.predicted is not None and self.predicted != self.given else ""


class _Layout:
    """Positions and sizes in px. Elements that no tile of the panel has take no space."""

    def __init__(self, tiles: Sequence[Tile], columns: int, tile_px: int) -> None:
        self.tile, self.columns, self.rows = tile_px, columns, math.ceil(len(tiles) / columns)
        self.cell, self.text = tile_px + GUTTER, tile_px + OVERHANG
        self.font, self.small = font(max(9, round(tile_px * 0.115))), font(max(8, round(tile_px * 0.1)))
        self.line, self.badge = round(self.font.size * 1.4), max(17, round(tile_px * 0.22))
        self.bar = tile_px + 4
        self.given = self.bar + (9 if any(tile.suspicion is not None for tile in tiles) else 1)
        self.second = self.given + self.line
        lines = max((bool(tile.second_label) + bool(tile.caption) for tile in tiles), default=0)
        self.height = self.second + lines * self.line + 14
        self.content = max(MIN_WIDTH, columns * self.cell - GUTTER)


def fit_image(pixels: np.ndarray, size: int) -> Image.Image:
    """Returns the pixels (uint8 ``H,W,3``) scaled to fit a square of ``size`` px, with their aspect ratio.

    Crops of 32 px are most legible when enlarged with Lanczos and slightly sharpened: nearest-neighbor steps break the
    strokes of digits. Enlarged more than six times, square pixels are the honest picture.
    """
    height, width = pixels.shape[:2]
    scale = size / max(height, width)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if scale > 6:
        return image.resize(shape, Image.Resampling.NEAREST)
    image = image.resize(shape, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return image.filter(ImageFilter.UnsharpMask(radius=1.2, percent=60, threshold=0)) if scale > 1.25 else image


def draw_panel(
    tiles: Sequence[Tile],
    title: str,
    subtitle: str = "",
    columns: int | None = None,
    tile_px: int = 96,
    max_tiles: int = 108,
) -> Image.Image:
    """Draws a contact sheet, row by row in the order of ``tiles``; an empty one states that there are no samples.

    Args:
        tiles: the samples, in order.
        title: the headline.
        subtitle: a grey line beneath it; the number of samples is added.
        columns: tiles in a row; by default a landscape sheet of at most 12.
        tile_px: side of an image in px, 32 to 1024; the text scales with it.
        max_tiles: number of samples drawn at most; the subtitle says if there are more.

    Returns:
        An RGB image, with the full ``Title`` and ``Description`` in its ``info`` for :func:`save_panel`.

    Raises:
        ConfigError: a size is out of range.
    """
    check_range("tile_px", tile_px, 32, 1024)
    check_range("max_tiles", max_tiles, 1, 100_000)
    shown, total = tiles[:max_tiles], len(tiles)
    note = f"{total:,} sample{'s' if total > 1 else ''}" if total else "no samples"
    if total > max_tiles:
        note = f"first {max_tiles:,} of {total:,}"
    if columns is None:
        columns = min(12, math.ceil(math.sqrt(2 * max(1, len(shown)))))
    check_range("columns", columns, 1, 10_000)
    columns = min(columns, max(1, len(shown)))
    layout = _Layout(shown, columns, tile_px)
    head, legend = MARGIN + 62, _legend(shown, layout)
    height = head + layout.rows * layout.height + (legend.height if legend else 0) + MARGIN - 8
    panel = Image.new("RGB", (layout.content + 2 * MARGIN, height), GROUND)
    draw_head(panel, title, subtitle, note)
    room = layout.text - _width("→ ", layout.font)
    texts = (text for tile in shown for text in (tile.given, tile.second_label) if text)
    labels = shorten_all(texts, room, layout.font)
    for number, tile in enumerate(shown):
        row, column = divmod(number, columns)
        _draw_tile(panel, MARGIN + column * layout.cell, head + row * layout.height, tile, labels, layout)
    if legend:
        panel.paste(legend, (MARGIN, head + layout.rows * layout.height))
    return panel


def save_panel(image: Image.Image, path: str | os.PathLike[str]) -> Path:
    """Writes ``image`` as PNG atomically, creating the folders it needs; returns the path."""
    info = PngImagePlugin.PngInfo()
    for key in ("Title", "Description"):
        if image.info.get(key):
            info.add_itxt(key, image.info[key])
    with atomic_path(path) as temporary:
        # Against compress_level=4, Z_RLE takes about half the time for panels of photos; files are 4% larger.
        image.save(temporary, format="PNG", pnginfo=info, compress_level=1, compress_type=zlib.Z_RLE)
    return Path(path)


def _width(text: str, font: ImageFont.FreeTypeFont) -> int:
    return math.ceil(font.getlength(text))


@functools.lru_cache(maxsize=4096)
def _text(text: str, width: int, height: int, font: ImageFont.FreeTypeFont, color: str) -> Image.Image:
    """One line of text as an image of its own, so that nothing is drawn beyond ``width`` and ``height``."""
    line = Image.new("RGB", (width, height), GROUND)
    ImageDraw.Draw(line).text((0, round(height * 0.76)), text, fill=color, font=font, anchor="ls")
    return line


@functools.lru_cache(maxsize=16)
def _badge(invalid: bool, size: int) -> Image.Image:
    """A disc with a cross (invalid) or a check mark (relabeled), with a white rim to stand out on any image."""
    big = 4 * size
    badge = Image.new("RGBA", (big, big))
    pen = ImageDraw.Draw(badge)
    pen.ellipse((0, 0, big - 1, big - 1), fill="white")
    pen.ellipse((0.09 * big, 0.09 * big, 0.91 * big, 0.91 * big), fill="#b03e00" if invalid else GREEN)
    cross = [[(0.33, 0.33), (0.67, 0.67)], [(0.33, 0.67), (0.67, 0.33)]]
    for stroke in cross if invalid else [[(0.29, 0.52), (0.44, 0.67), (0.72, 0.36)]]:
        pen.line([(x * big, y * big) for x, y in stroke], fill="white", width=round(0.11 * big), joint="curve")
    return badge.resize((size, size), Image.Resampling.LANCZOS)


def draw_head(panel: Image.Image, title: str, subtitle: str, note: str) -> None:
    """Draws a headline and a grey line below it at the top of a sheet, shortened to its width; the note stays whole."""
    width, bold, plain = panel.width - 2 * MARGIN, font(18, bold=True), font(13)
    panel.paste(_text(shorten(title, width, bold), width, 26, bold, INK), (MARGIN, MARGIN - 4))
    lead = shorten(subtitle, width - _width(f" · {note}", plain), plain) + " · " if subtitle else ""
    panel.paste(_text(lead + note, width, 20, plain, GREY), (MARGIN, MARGIN + 24))
    panel.info.update(Title=printable(title), Description=" · ".join(filter(None, (printable(subtitle), note))))


def _draw_tile(panel: Image.Image, x: int, y: int, tile: Tile, labels: dict[str, str], layout: _Layout) -> None:
    side, pen = layout.tile, ImageDraw.Draw(panel)
    image = fit_image(tile.image, side)
    pen.rectangle((x, y, x + side - 1, y + side - 1), fill=MAT)
    panel.paste(image, (x + (side - image.width) // 2, y + (side - image.height) // 2))
    if tile.mark:
        badge = _badge(tile.mark == INVALID, layout.badge)
        panel.paste(badge, (x + side - badge.width + 4, y - 4), badge)
    if tile.suspicion is not None:
        pen.rectangle((x, y + layout.bar, x + side - 1, y + layout.bar + 3), fill=TRACK)
        if length := round(side * min(1.0, max(0.0, tile.suspicion))):
            pen.rectangle((x, y + layout.bar, x + length - 1, y + layout.bar + 3), fill=VERMILLION)
    given = labels.get(tile.given, "")
    panel.paste(_text(given, layout.text, layout.line, layout.font, GREY if tile.mark else INK), (x, y + layout.given))
    if tile.mark and given:
        middle = y + layout.given + round(layout.line * 0.52)
        pen.line((x, middle, x + _width(given, layout.font), middle), fill=GREY)
    below = y + layout.second
    if tile.second_label:
        indent, (sign, color) = _width("→ ", layout.font), ("✓", GREEN) if tile.relabeled else ("→", BLUE)
        panel.paste(_text(sign, indent, layout.line, layout.font, color), (x, below))
        line = _text(labels[tile.second_label], layout.text - indent, layout.line, layout.font, color)
        panel.paste(line, (x + indent, below))
        below += layout.line
    if tile.caption:
        caption = shorten(tile.caption, layout.text, layout.small)
        panel.paste(_text(caption, layout.text, layout.line, layout.small, GREY), (x, below))


def _legend(tiles: Sequence[Tile], layout: _Layout) -> Image.Image | None:
    """Returns the legend at the bottom, or ``None`` if the tiles need none."""
    small, bar = font(11), Image.new("RGB", (28, 4), TRACK)
    bar.paste(VERMILLION, (0, 0, 18, 4))
    signs = [
        (bar, "suspicion, 0 to 1", any(tile.suspicion is not None for tile in tiles)),
        (
            _text("→", 12, 17, small, BLUE),
            "suggested label",
            any(tile.second_label and not tile.relabeled for tile in tiles),
        ),
        (_badge(False, 17), "new label", any(tile.relabeled for tile in tiles)),
        (_badge(True, 17), "invalid", any(tile.mark == INVALID for tile in tiles)),
    ]
    strip, x = Image.new("RGB", (layout.content, 24), GROUND), 0
    for sign, text, used in signs:
        if not used:
            continue
        strip.paste(sign, (x, 12 - sign.height // 2), sign if sign.mode == "RGBA" else None)
        strip.paste(_text(text, _width(text, small), 17, small, GREY), (x + sign.width + 5, 3))
        x += sign.width + 5 + _width(text, small) + 22
    return strip if x else None
