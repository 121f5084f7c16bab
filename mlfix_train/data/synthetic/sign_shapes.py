"""The faces of the rendered traffic signs, drawn flat and clean.

Coordinates are percentages of the face: x to the right and y down, both 0 to 100. :func:`sign_face` draws a face large
and reduces it; :mod:`mlfix_train.data.synthetic.sign_scenes` adds the street and the camera.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from operator import methodcaller
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont, ImageOps

Color = tuple[int, int, int]
Point = tuple[float, float]

CANVAS = 360
WHITE: Color = (240, 240, 236)
BLACK: Color = (20, 20, 22)
GREY: Color = (92, 92, 94)
YELLOW: Color = (246, 180, 16)
GREEN: Color = (20, 140, 70)


class Style(NamedTuple):
    """How one manufacturer draws signs: the two main colors, the width of a red ring and of digits (1 is usual)."""

    red: Color
    blue: Color
    ring: float
    digits: float


STYLES = (
    Style((196, 20, 32), (18, 76, 164), 12.0, 1.0),
    Style((176, 26, 40), (26, 66, 140), 10.0, 0.9),
    Style((214, 36, 30), (10, 92, 186), 13.5, 1.08),
)


class Pen:
    """Draws on one transparent face, in a manufacturer's ``style``."""

    def __init__(self, style: Style) -> None:
        self.style = style
        self.image = Image.new("RGBA", (CANVAS, CANVAS), (*GREY, 0))
        self._draw = ImageDraw.Draw(self.image)

    @staticmethod
    def _pixels(points: Sequence[Point]) -> list[Point]:
        return [(x * CANVAS / 100, y * CANVAS / 100) for x, y in points]

    def disc(self, x: float, y: float, radius: float, color: Color) -> None:
        """Fills a circle around (x, y)."""
        self._draw.ellipse([*self._pixels([(x - radius, y - radius), (x + radius, y + radius)])], fill=color)

    def polygon(self, points: Sequence[Point], color: Color, rounding: float = 0.0) -> None:
        """Fills a polygon, grown by ``rounding`` on all sides with round corners."""
        self._draw.polygon(self._pixels(points), fill=color)
        if rounding:
            self.line([*points, points[0]], 2 * rounding, color)

    def line(self, points: Sequence[Point], width: float, color: Color) -> None:
        """Draws a path with round corners and ends."""
        self._draw.line(self._pixels(points), fill=color, width=round(width * CANVAS / 100))
        for x, y in points:
            self.disc(x, y, width / 2, color)

    def arrow(self, points: Sequence[Point], width: float, color: Color) -> None:
        """Draws a path whose last point carries an arrow head; the tip lies 1.5 widths beyond it."""
        self.line(points, width, color)
        (x0, y0), (x, y) = points[-2:]
        scale = width / math.hypot(x - x0, y - y0)
        dx, dy = (x - x0) * scale, (y - y0) * scale
        barbs = [(x - 1.35 * dy, y + 1.35 * dx), (x + 1.35 * dy, y - 1.35 * dx)]
        self.polygon([(x + 1.5 * dx, y + 1.5 * dy), *barbs], color)

    def text(self, text: str, x: float, y: float, width: float, height: float, color: Color) -> None:
        """Writes ``text`` stretched to a box of ``width`` by ``height`` around (x, y)."""
        box = _font().getbbox(text)
        mask = Image.new("L", (int(box[2] - box[0]), int(box[3] - box[1])))
        ImageDraw.Draw(mask).text((-box[0], -box[1]), text, fill=255, font=_font())
        mask = mask.resize((round(width * CANVAS / 100), round(height * CANVAS / 100)), Image.Resampling.BICUBIC)
        corner = (round((x - width / 2) * CANVAS / 100), round((y - height / 2) * CANVAS / 100))
        self.image.paste(color, (*corner, corner[0] + mask.width, corner[1] + mask.height), mask)


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    """Returns DejaVu Sans Bold as shipped with matplotlib, so that all machines draw the same digits."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf")), 200)


def _prohibition(pen: Pen) -> None:
    pen.disc(50, 50, 49.5, WHITE)
    pen.disc(50, 50, 48, pen.style.red)
    pen.disc(50, 50, 48 - pen.style.ring, WHITE)


def _mandatory(pen: Pen) -> None:
    pen.disc(50, 50, 49.5, WHITE)
    pen.disc(50, 50, 47, pen.style.blue)


def _warning(pen: Pen, up: bool = True) -> None:
    def corners(side: float, top: float, bottom: float) -> list[Point]:
        low, high = (top, bottom) if up else (100 - top, 100 - bottom)
        return [(50, low), (100 - side, high), (side, high)]

    band = pen.style.ring * 0.8
    pen.polygon(corners(6, 10, 87), WHITE, 5)
    pen.polygon(corners(6, 10, 87), pen.style.red, 3.5)
    pen.polygon(corners(8 + 1.6 * band, 12 + 1.7 * band, 88 - band), WHITE, 1)


def _square(pen: Pen) -> None:
    pen.polygon([(7, 7), (93, 7), (93, 93), (7, 93)], WHITE, 4)
    pen.polygon([(8, 8), (92, 8), (92, 92), (8, 92)], pen.style.blue, 2)


def _end_stripes(pen: Pen) -> None:
    for radius, color in ((49.5, WHITE), (47.5, BLACK), (45.5, WHITE)):
        pen.disc(50, 50, radius, color)
    for shift in (-9, -3, 3, 9):
        pen.line([(20 + shift, 80 + shift), (80 + shift, 20 + shift)], 3, BLACK)


def _car(pen: Pen, x: float, y: float, size: float, color: Color) -> None:
    """Draws a car seen from the front, ``size`` wide, with its wheels on y."""
    pen.line([(x - size * 0.42, y - size * 0.25), (x + size * 0.42, y - size * 0.25)], size * 0.3, color)
    roof = [(x - size * 0.4, y - size * 0.4), (x - size * 0.26, y - size * 0.68), (x + size * 0.26, y - size * 0.68)]
    pen.line([*roof, (x + size * 0.4, y - size * 0.4)], size * 0.12, color)
    for side in (-1, 1):
        pen.line([(x + side * size * 0.38, y - size * 0.12), (x + side * size * 0.38, y)], size * 0.16, color)


def _truck(pen: Pen, x: float, y: float, size: float, color: Color) -> None:
    """Draws a truck seen from the left side, ``size`` wide, with its wheels on y."""
    left, right, top, floor = x - size * 0.15, x + size * 0.5, y - size * 0.75, y - size * 0.15
    pen.polygon([(left, top), (right, top), (right, floor), (left, floor)], color)
    pen.line([(x - size * 0.35, y - size * 0.45), (x - size * 0.35, y - size * 0.25)], size * 0.28, color)
    for wheel in (-0.34, 0.3):
        pen.disc(x + wheel * size, floor, size * 0.14, color)


def _walker(pen: Pen, x: float, y: float, height: float) -> None:
    """Draws a person who walks to the left, with the feet on y."""
    unit = height / 10
    pen.disc(x, y - 9 * unit, 1.15 * unit, BLACK)
    pen.line([(x, y - 7 * unit), (x, y - 4.2 * unit)], 1.9 * unit, BLACK)
    pen.line([(x, y - 4.2 * unit), (x - 1.2 * unit, y - 2.2 * unit), (x - 2.2 * unit, y)], 1.2 * unit, BLACK)
    pen.line([(x, y - 4.2 * unit), (x + 1.2 * unit, y - 2.2 * unit), (x + 2.0 * unit, y)], 1.2 * unit, BLACK)
    pen.line([(x - 2.4 * unit, y - 4.6 * unit), (x, y - 7 * unit), (x + 2.4 * unit, y - 4.8 * unit)], 0.9 * unit, BLACK)


def _speed_limit(pen: Pen, digits: str) -> None:
    _prohibition(pen)
    width, height = (48, 36) if len(digits) == 2 else (58, 31)
    pen.text(digits, 50, 50, width * pen.style.digits, height, BLACK)


def _stop(pen: Pen) -> None:
    for radius, color in ((51.5, WHITE), (48.5, pen.style.red)):
        corners = [math.radians(22.5 + 45 * corner) for corner in range(8)]
        pen.polygon([(50 + radius * math.cos(turn), 50 + radius * math.sin(turn)) for turn in corners], color)
    pen.text("STOP", 50, 50, 72, 30, WHITE)


def _priority_road(pen: Pen) -> None:
    for reach, color in ((49, WHITE), (46, BLACK), (45, WHITE), (31, BLACK), (30, YELLOW)):
        pen.polygon([(50, 50 - reach), (50 + reach, 50), (50, 50 + reach), (50 - reach, 50)], color)


def _roundabout(pen: Pen) -> None:
    _mandatory(pen)
    for start in (20, 140, 260):
        turns = [math.radians(start - step) for step in range(0, 81, 8)]
        pen.arrow([(50 + 27 * math.cos(turn), 50 + 27 * math.sin(turn)) for turn in turns], 8, WHITE)


Step = Callable[[Pen], None]
_disc, _polygon, _line, _arrow, _text = (
    partial(methodcaller, name) for name in ("disc", "polygon", "line", "arrow", "text")
)
_LIMITS = (20, 30, 50, 60, 70, 80, 100, 120)

FACES: dict[str, Sequence[Step]] = {
    **{f"speed-limit-{limit}": [partial(_speed_limit, digits=str(limit))] for limit in _LIMITS},
    "ahead-only": [_mandatory, _arrow([(50, 80), (50, 38)], 13, WHITE)],
    "children-crossing": [_warning, partial(_walker, x=42, y=77, height=29), partial(_walker, x=57, y=77, height=35)],
    "dangerous-curve-right": [_warning, _arrow([(43, 77), (43, 62), (46, 56), (51, 53), (56, 50)], 7, BLACK)],
    "end-of-all-limits": [_end_stripes],
    "end-of-speed-limit-80": [_end_stripes, lambda pen: pen.text("80", 50, 50, 54 * pen.style.digits, 38, GREY)],
    "general-caution": [
        _warning,
        _polygon([(45.5, 37), (54.5, 37), (52, 63), (48, 63)], BLACK, 1),
        _disc(50, 71, 4.5, BLACK),
    ],
    "go-straight-or-right": [
        _mandatory,
        _arrow([(40, 78), (40, 34)], 9, WHITE),
        _arrow([(40, 60), (48, 54), (64, 54)], 9, WHITE),
    ],
    "keep-right": [_mandatory, _arrow([(29, 29), (58, 58)], 12, WHITE)],
    "no-entry": [
        _disc(50, 50, 49.5, WHITE),
        lambda pen: pen.disc(50, 50, 48, pen.style.red),
        _polygon([(16, 42), (84, 42), (84, 58), (16, 58)], WHITE),
    ],
    "no-overtaking": [
        _prohibition,
        lambda pen: _car(pen, 34, 61, 27, pen.style.red),
        partial(_car, x=68, y=61, size=27, color=BLACK),
    ],
    "no-overtaking-trucks": [
        _prohibition,
        lambda pen: _truck(pen, 36, 61, 37, pen.style.red),
        partial(_car, x=68, y=61, size=24, color=BLACK),
    ],
    "no-vehicles": [_prohibition],
    "parking": [_square, _text("P", 50, 50, 44, 62, WHITE)],
    "pedestrian-crossing": [
        _square,
        _polygon([(50, 20), (84, 80), (16, 80)], WHITE, 1),
        partial(_walker, x=50, y=78, height=42),
    ],
    "pedestrians": [_warning, partial(_walker, x=50, y=77, height=40)],
    "priority-at-next-intersection": [
        _warning,
        _arrow([(50, 76), (50, 46)], 9, BLACK),
        _line([(35, 63), (65, 63)], 5, BLACK),
    ],
    "priority-road": [_priority_road],
    "road-narrows-right": [
        _warning,
        _line([(41, 43), (41, 76)], 5, BLACK),
        _line([(52, 43), (52, 54), (62, 66), (62, 76)], 5, BLACK),
    ],
    "road-work": [
        _warning,
        partial(_walker, x=54, y=77, height=36),
        _line([(56, 51), (36, 66)], 2.5, BLACK),
        _polygon([(24, 77), (33, 65), (43, 77)], BLACK),
    ],
    "roundabout": [_roundabout],
    "stop": [_stop],
    "traffic-signals": [
        _warning,
        _polygon([(45, 40), (55, 40), (55, 74), (45, 74)], BLACK, 2),
        lambda pen: pen.disc(50, 43, 4.8, pen.style.red),
        _disc(50, 57, 4.8, YELLOW),
        _disc(50, 71, 4.8, GREEN),
    ],
    "turn-right-ahead": [_mandatory, _arrow([(36, 76), (36, 52), (38, 44), (45, 40), (64, 40)], 11, WHITE)],
    "yield": [partial(_warning, up=False)],
}
"""How each face is drawn, step by step; those of ``MIRRORED`` are mirrored."""

_TURNS = ("dangerous-curve-right", "go-straight-or-right", "keep-right", "turn-right-ahead")
MIRRORED = {name.replace("right", "left"): name for name in _TURNS}

SIGN_CLASSES: tuple[str, ...] = tuple(sorted([*FACES, *MIRRORED]))


@lru_cache(maxsize=512)
def sign_face(name: str, style: int, size: int) -> Image.Image:
    """Returns the clean face of a sign, RGBA and transparent around the plate; it is cached, do not change it.

    ``name`` is one of :data:`SIGN_CLASSES`, ``style`` an index into :data:`STYLES`, ``size`` the side in pixels.
    """
    pen = Pen(STYLES[style])
    for step in FACES[MIRRORED.get(name, name)]:
        step(pen)
    image = ImageOps.mirror(pen.image) if name in MIRRORED else pen.image
    return image.resize((size, size), Image.Resampling.LANCZOS)
