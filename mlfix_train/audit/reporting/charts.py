"""Charts of an audit: the losses of a run, the error of every label, the error of every run by arm."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from mlfix_train.audit.reporting import chart_style as figures
from mlfix_train.audit.reporting.chart_style import INK, MARKERS, PALETTE, RULE
from mlfix_train.errors import DataError, check_range

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOSS_FLOOR, LOSS_CEILING = 1e-6, 1e3  # nats; what lies beyond is counted in the outermost bins


def wilson_interval(errors: np.ndarray, counts: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lower and upper bound of Wilson's interval of a proportion.

    Args:
        errors: how many of ``counts`` are errors; a mean over runs need not be whole.
        counts: how many there are, at least 1.
        level: confidence, between 0 and 1.

    Returns:
        Two arrays of proportions, 0 to 1.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    counts = np.asarray(counts, dtype=float)
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    share = np.asarray(errors, dtype=float) / counts
    centre = (share + z2 / (2 * counts)) / (1 + z2 / counts)
    half = np.sqrt(z2 * (share * (1 - share) / counts + z2 / (4 * counts**2))) / (1 + z2 / counts)
    return np.clip(centre - half, 0.0, share), np.clip(centre + half, share, 1.0)


def loss_histogram(losses: np.ndarray, wrong: np.ndarray, path: str | os.PathLike[str], title: str) -> Path:
    """Draws how the losses of samples spread, apart for those whose prediction agrees with the given label.

    Both axes are logarithmic: a few samples of high loss stay visible beside thousands of low.

    Args:
        losses: loss of every sample in nats, ``N``, 0 to infinity.
        wrong: whether its prediction disagrees with its given label, bool ``N``.
        path: the PNG file to write.
        title: the headline.

    Raises:
        DataError: if a loss is NaN or negative, there is none, or the lengths differ.
    """
    losses, wrong = np.asarray(losses, dtype=float), np.asarray(wrong, dtype=bool)
    figures.check_lengths(losses=losses, wrong=wrong)
    hint = "a loss is 0 nats or more: look for diverged or half-precision runs"
    figures.check_values("losses", losses, 0.0, np.inf, hint)
    clipped = np.clip(losses, LOSS_FLOOR, LOSS_CEILING)
    high = max(1, math.ceil(np.log10(clipped.max())))
    low = min(high - 2, math.floor(np.log10(clipped.min())))
    edges = np.logspace(low, high, 8 * (high - low) + 1)
    edges[[0, -1]] = min(edges[0], clipped.min()), max(edges[-1], clipped.max())  # rounding must not lose a sample
    figure, axes = figures.blank(
        4.2, title, f"{losses.size:,} samples; the prediction disagrees with the given label of {_share(wrong)}"
    )
    groups = [("agrees", ~wrong, PALETTE[0], "-"), ("disagrees", wrong, PALETTE[1], (0, (4, 1.2)))]
    for name, group, colour, style in groups:
        heights, _ = np.histogram(clipped[group], edges)
        axes.stairs(heights, edges, fill=True, color=colour, alpha=0.22, linewidth=0)
        label = f"prediction {name} ({int(group.sum()):,})"
        axes.stairs(heights, edges, color=colour, linewidth=1.6, linestyle=style, label=label)
    axes.set(xscale="log", yscale="log", xlim=(edges[0], edges[-1]), ylim=(0.7, None))
    _number_ticks(axes, low, high)
    figures.axis_labels(axes, "loss of the sample (nats, log scale)", "samples (log scale)")
    axes.grid(axis="y", color=RULE, linewidth=0.7)
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, frameon=False, fontsize=9, borderaxespad=0.2)
    return figures.save(figure, path)


def error_per_label(
    labels: Sequence[str],
    errors_percent: np.ndarray,
    counts: np.ndarray,
    path: str | os.PathLike[str],
    title: str,
    max_labels: int = 60,
) -> Path:
    """Draws the error of every label with its 95% Wilson interval, worst first.

    Args:
        labels: ``L`` labels.
        errors_percent: error of each label in percent, ``L``; not read where the count is 0.
        counts: held-out samples of each label, ``L``; labels without any are left out, and the chart says so.
        path: the PNG file to write.
        title: the headline.
        max_labels: labels shown at most, the worst; the chart says when there are more.

    Raises:
        DataError: if an error is no percentage, a count is negative, no label has samples, or the lengths differ.
    """
    percent, counts = np.asarray(errors_percent, dtype=float), np.asarray(counts, dtype=float)
    figures.check_lengths(labels=np.asarray(labels, dtype=object), errors_percent=percent, counts=counts)
    figures.check_values("counts", counts, 0.0, 1e15, "a count is a number of samples")
    check_range("max_labels", max_labels, 1, 1000)
    used = np.flatnonzero(counts > 0)
    hint = "give the error of each label in percent, 0 to 100"
    figures.check_values("errors_percent", percent[used], 0.0, 100.0, hint)
    if not used.size:
        raise DataError("none of the labels has a sample: every count is 0", "give the counts of held-out samples")
    order = sorted(used.tolist(), key=lambda i: (-percent[i], -counts[i], str(labels[i])))[:max_labels]
    low, high = wilson_interval(percent[order] / 100 * counts[order], counts[order])
    figure, axes = figures.blank(1.45 + 0.21 * len(order), title, _label_note(len(labels), used.size, len(order)))
    rows = np.arange(len(order))
    axes.hlines(rows, 100 * low, 100 * high, color=PALETTE[5], linewidth=2.4)
    axes.plot(percent[order], rows, "o", color=PALETTE[0], markersize=5)
    figures.row_names(axes, [str(labels[i]) for i in order], 8.5)
    for row, index in enumerate(order):
        figures.beside(axes, row, f"n = {counts[index]:,.0f}")
    axes.set_xlim(-1.0, min(101.0, 105 * float(high.max()) + 1))
    figures.axis_labels(axes, "error (%), with 95% Wilson interval", "")
    return figures.save(figure, path)


def arms_chart(
    values: Mapping[str, np.ndarray],
    path: str | os.PathLike[str],
    title: str,
    xlabel: str,
    vector: str | os.PathLike[str] | None = None,
) -> Path:
    """Draws one row per arm: a dot for each run and a tick at their mean, with its value.

    Args:
        values: for each arm the value of every run; an arm may have no run yet.
        path: the PNG file to write.
        title: the headline.
        xlabel: what the values are, with the unit, such as ``error (%)``.
        vector: an SVG to write beside it.

    Raises:
        DataError: if there is no run at all, or a value is not finite.
    """
    arms = {name: np.asarray(runs, dtype=float).ravel() for name, runs in values.items()}
    if not sum(runs.size for runs in arms.values()):
        raise DataError(
            f"no run in any of the {len(arms)} arms of the chart {title!r}", "give one value or more per arm"
        )
    for name, runs in arms.items():
        figures.check_values(f"values[{name!r}]", runs, -1e300, 1e300, "give one finite value per run")
    figure, axes = figures.blank(1.6 + 0.62 * len(arms), title, "a dot for each run, a bar at their mean")
    for row, runs in enumerate(arms.values()):
        colour, marker = PALETTE[row % len(PALETTE)], MARKERS[row % len(MARKERS)]
        spread = ((np.arange(runs.size) * 0.6180339887) % 1.0 - 0.5) * 0.42 if runs.size > 1 else np.zeros(runs.size)
        axes.plot(runs, row + spread, marker, color=colour, markersize=5, alpha=0.75, markeredgewidth=0)
        if runs.size:
            axes.vlines(runs.mean(), row - 0.34, row + 0.34, color=INK, linewidth=2.2, zorder=1.5)
        plural = "" if runs.size == 1 else "s"
        words = f"{figures.decimals(runs.mean())}  ({runs.size} run{plural})" if runs.size else "no runs"
        figures.beside(axes, row, words)
    figures.row_names(axes, list(arms), 9.5)
    axes.margins(x=0.06)
    figures.axis_labels(axes, xlabel, "")
    return figures.save_both(figure, path, vector)


def _number_ticks(axes: Axes, low: int, high: int) -> None:
    """Ticks at powers of ten in plain numbers; the outermost say so where they also hold what lies beyond."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    names = [f"{10.0**power:g}".replace("e-0", "e-") for power in range(low, high + 1)]
    names[0] = f"≤ {names[0]}" if 10.0**low <= LOSS_FLOOR else names[0]
    names[-1] = f"≥ {names[-1]}" if 10.0**high >= LOSS_CEILING else names[-1]
    axes.set_xticks(10.0 ** np.arange(low, high + 1), names)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _label_note(total: int, used: int, shown: int) -> str:
    """Says which labels a chart shows: all, or the worst, and whether some have no samples."""
    note = f"{used:,} label{'s' if used > 1 else ''}, worst first"
    if shown < used:
        note = f"the worst {shown:,} of {used:,} labels"
    return note + (f"; {total - used:,} without samples left out" if total > used else "")


def _share(flags: np.ndarray) -> str:
    return f"{int(flags.sum()):,} ({100 * flags.mean():.1f}%)"
