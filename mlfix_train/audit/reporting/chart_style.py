"""Figures: the blank sheet that all charts begin with, their colours, names of rows and numbers beside them.

Figures are objects on an Agg canvas (never pyplot), so that drawing neither needs nor changes any global state.
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
INK, GREY, RULE = "#212121", "#686868", "#e2e2e2"
# Okabe and Ito, "Color Universal Design" (2008), https://jfly.uni-koeln.de/color/; a marker beside each for grey-scale.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")


def blank(height: float, title: str, note: str, width: float = WIDTH) -> tuple[Figure, Axes]:
    """A white figure (inches) with a headline, a grey note and one axes, laid out so that nothing is cut off."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(rect=(0.01, 0.015, 0.98, 0.985 - 0.62 / height))
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    family: dict[str, Any] = {"family": "DejaVu Sans", "parse_math": False, "ha": "left", "va": "baseline"}
    headline = cut(title, 13, width - 0.3, bold=True)
    figure.text(0.15 / width, 1 - 0.30 / height, headline, size=13, weight="bold", color=INK, **family)
    figure.text(0.15 / width, 1 - 0.52 / height, cut(note, 9.5, width - 0.3), size=9.5, color=GREY, **family)
    axes = figure.add_subplot(facecolor="white")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9a9a9a")
    axes.tick_params(labelsize=8.5, labelcolor=INK, color="#9a9a9a", labelfontfamily="DejaVu Sans")
    axes.set_axisbelow(True)
    return figure, axes


def row_names(axes: Axes, names: list[str], size: float) -> None:
    """Names the rows 0, 1, ... from the top."""
    forms = shorten_all(names, 2.7 * DPI, font(round(size * DPI / 72)))
    short = [forms[name] for name in names]
    axes.set_yticks(range(len(names)), short, fontsize=size, family="DejaVu Sans", parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.hlines(range(len(names)), 0, 1, transform=axes.get_yaxis_transform(), color=RULE, linewidth=0.6, zorder=0)


def beside(axes: Axes, row: int, words: str) -> None:
    """Writes a number to the right of a row."""
    place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "ha": "left"}
    axes.text(1.015, row, words, size=8.5, color=INK, family="DejaVu Sans", **place)


def axis_labels(axes: Axes, x: str, y: str) -> None:
    """Names the axes."""
    style: dict[str, Any] = {"size": 9.5, "color": INK, "family": "DejaVu Sans", "parse_math": False}
    axes.set_xlabel(cut(x, 9.5, 4.0), **style)
    axes.set_ylabel(printable(y), **style)


def cut(text: str, points: float, inches: float, bold: bool = False) -> str:
    """Shortens text in the middle to a width in inches."""
    return shorten(text, inches * DPI, font(round(points * DPI / 72), bold))


def decimals(value: float) -> str:
    """Returns a number with two decimals, or three digits where two decimals say nothing."""
    return f"{value:.2f}" if 0.01 <= abs(value) < 1e5 or value == 0 else f"{value:.3g}"


def check_lengths(**arrays: np.ndarray) -> None:
    """Raises a DataError unless all arrays are one-dimensional, of one length, and not empty."""
    shapes = {name: array.shape for name, array in arrays.items()}
    first = next(iter(shapes.values()))
    if len(set(shapes.values())) > 1 or len(first) != 1 or not first[0]:
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise DataError(
            f"a chart got arrays of the shapes {told}", "give one-dimensional arrays of one length, not empty"
        )


def check_values(name: str, values: np.ndarray, low: float, high: float, hint: str) -> None:
    """Raises a DataError for the first value that is NaN or out of ``low`` to ``high``."""
    bad = np.flatnonzero(~((values >= low) & (values <= high)))
    if bad.size:
        more = f" (and {bad.size - 1:,} more)" if bad.size > 1 else ""
        raise DataError(f"{name}[{bad[0]}] is {values[bad[0]]}{more}", hint)


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Writes a figure as PNG or, where ``path`` ends in ``.svg``, as SVG; returns the path."""
    kind = "svg" if Path(path).suffix == ".svg" else "png"
    metadata: dict[str, Any] = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=DPI, metadata=metadata)
        figure.set_layout_engine("none")  # a second format has the same layout
    return Path(path)


def save_both(figure: Figure, path: str | os.PathLike[str], vector: str | os.PathLike[str] | None) -> Path:
    """Writes a figure to ``path`` and, where ``vector`` names a file, there as well; returns the first path."""
    written = save(figure, path)
    if vector is not None:
        save(figure, vector)
    return written
