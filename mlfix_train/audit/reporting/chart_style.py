"""The style that all charts share: size, fonts, colors, row labels, and saving.

Figures are objects on an Agg canvas (never pyplot), so drawing neither needs nor changes global state.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlfix_train.audit.reporting.text import font, printable, shorten, shorten_all
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
WIDTH = 8.0  # inches
INK, GREY, RULE, SPINE = "#212121", "#686868", "#e2e2e2", "#9a9a9a"
FONT = "DejaVu Sans"
# Okabe and Ito, "Color Universal Design" (2008), https://jfly.uni-koeln.de/color/; markers differ, too.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")


def new_figure(height: float, title: str, note: str, width: float = WIDTH) -> tuple[Figure, Axes]:
    """Returns a white figure (size in inches) with a title, a grey note and one axes; nothing will be cut off."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(rect=(0.01, 0.015, 0.98, 0.985 - 0.62 / height))
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    style: dict[str, Any] = {"family": FONT, "parse_math": False, "ha": "left", "va": "baseline"}
    x, room = 0.15 / width, width - 0.3
    figure.text(x, 1 - 0.30 / height, fit(title, 13, room, bold=True), size=13, weight="bold", color=INK, **style)
    figure.text(x, 1 - 0.52 / height, fit(note, 9.5, room), size=9.5, color=GREY, **style)
    axes = figure.add_subplot(facecolor="white")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SPINE)
    axes.tick_params(labelsize=8.5, labelcolor=INK, color=SPINE, labelfontfamily=FONT)
    axes.set_axisbelow(True)
    axes.ticklabel_format(axis="x", useOffset=False)
    return figure, axes


def label_rows(axes: Axes, names: list[str], size: float) -> None:
    """Labels the rows 0, 1, ... from the top; ``size`` in points."""
    short = shorten_all(names, 2.7 * DPI, font(round(size * DPI / 72)))
    axes.set_yticks(range(len(names)), [short[name] for name in names], fontsize=size, family=FONT, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.hlines(range(len(names)), 0, 1, transform=axes.get_yaxis_transform(), color=RULE, linewidth=0.6, zorder=0)


def annotate_row(axes: Axes, row: int, text: str) -> None:
    """Writes text to the right of a row."""
    place = axes.get_yaxis_transform()
    axes.text(1.015, row, text, size=8.5, color=INK, family=FONT, transform=place, va="center", ha="left")


def label_axes(axes: Axes, x: str, y: str = "") -> None:
    """Labels the axes."""
    style: dict[str, Any] = {"size": 9.5, "color": INK, "family": FONT, "parse_math": False}
    axes.set_xlabel(fit(x, 9.5, 5.5), **style)
    axes.set_ylabel(printable(y), **style)


def label_percent_axis(axes: Axes, text: str) -> None:
    """Labels an axis of percentages; where it ends short of 0 or 100, a break marks it and the label says where."""
    low, high = axes.get_xlim()
    for place, short in ((0.0, low > 0), (1.0, high < 100)):
        if short:
            style: dict[str, Any] = {"size": 9, "color": GREY, "family": FONT, "va": "center", "ha": "center"}
            axes.text(place, 0.0, "//", transform=axes.transAxes, clip_on=False, **style)
    if low > 0:
        text += f"; the axis starts at {low:.3g}%"
    elif high < 100:
        text += f"; the axis ends at {high:.3g}%"
    label_axes(axes, text)


def fit(text: str, points: float, inches: float, bold: bool = False) -> str:
    """Shortens text in the middle to a width in inches."""
    return shorten(text, inches * DPI, font(round(points * DPI / 72), bold))


def check_lengths(**arrays: np.ndarray) -> None:
    """Raises a DataError unless all arrays are one-dimensional, of one length, and not empty."""
    shapes = {name: array.shape for name, array in arrays.items()}
    first = next(iter(shapes.values()))
    if len(set(shapes.values())) > 1 or len(first) != 1 or not first[0]:
        problem = f"a chart got arrays of the shapes {', '.join(f'{name} {shape}' for name, shape in shapes.items())}"
        raise DataError(problem, "pass non-empty one-dimensional arrays of the same length")


def check_values(name: str, values: np.ndarray, low: float, high: float, hint: str) -> None:
    """Raises a DataError for the first value that is NaN or outside ``low`` to ``high``."""
    bad = np.flatnonzero(~((values >= low) & (values <= high)))
    if bad.size:
        more = f" (and {bad.size - 1:,} more)" if bad.size > 1 else ""
        raise DataError(f"{name}[{bad[0]}] is {values[bad[0]]}{more}", hint)


def save(figure: Figure, path: str | os.PathLike[str], svg: str | os.PathLike[str] | None = None) -> Path:
    """Writes a figure to ``path`` and, if given, to ``svg``, as PNG or, where a name ends in ``.svg``, as SVG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    layout, canvas = figure.get_layout_engine(), figure.canvas
    if layout is not None:  # savefig would draw each format once more, only for the layout
        layout.execute(figure)
        figure.set_layout_engine("none")
    for target in (path,) if svg is None else (path, svg):
        with atomic_path(target) as temporary:
            if Path(target).suffix == ".svg":
                FigureCanvasSVG(figure).print_svg(temporary, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
                figure.set_dpi(DPI)  # SVG has its own
            else:
                FigureCanvasAgg(figure).print_png(temporary, metadata={"Software": None})  # type: ignore[no-untyped-call]
    figure.set_canvas(canvas)
    return Path(path)
