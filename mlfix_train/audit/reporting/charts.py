"""Charts of an audit: the losses of the samples, and the error of every label."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binomtest

from mlfix_train.audit.reporting import chart_style
from mlfix_train.audit.reporting.chart_style import PALETTE, RULE
from mlfix_train.errors import DataError, check_range

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MIN_LOSS, MAX_LOSS = 1e-6, 1e3  # nats; losses beyond are counted in the outermost bins


def loss_histogram(losses: np.ndarray, wrong: np.ndarray, path: str | os.PathLike[str], title: str) -> Path:
    """Draws the distribution of the samples' losses, separately for those whose prediction agrees with the label.

    Both axes are logarithmic: a few samples of high loss stay visible beside thousands of low.

    Args:
        losses: ``(N,)`` in nats, 0 or more (infinity is allowed).
        wrong: bool ``(N,)``, whether the prediction differs from the given label.
        path: the PNG file to write.
        title: the headline.

    Raises:
        DataError: a loss is NaN or negative, there is none, or the lengths differ.
    """
    losses, wrong = np.asarray(losses, dtype=float), np.asarray(wrong, dtype=bool)
    chart_style.check_lengths(losses=losses, wrong=wrong)
    hint = "a loss is 0 nats or more: check for diverged or half-precision runs"
    chart_style.check_values("losses", losses, 0.0, np.inf, hint)
    clipped = np.clip(losses, MIN_LOSS, MAX_LOSS)
    high = max(1, math.ceil(np.log10(clipped.max())))
    low = min(high - 2, math.floor(np.log10(clipped.min())))
    edges = np.logspace(low, high, 8 * (high - low) + 1)
    edges[[0, -1]] = min(edges[0], clipped.min()), max(edges[-1], clipped.max())  # rounding must not lose a sample
    share = f"{int(wrong.sum()):,} ({100 * wrong.mean():.1f}%)"
    note = f"{losses.size:,} samples; the prediction differs from the given label for {share}"
    figure, axes = chart_style.new_figure(4.2, title, note)
    groups = [("prediction agrees", ~wrong, PALETTE[0], "-"), ("prediction differs", wrong, PALETTE[1], (0, (4, 1.2)))]
    for name, members, color, line_style in groups:
        heights, _ = np.histogram(clipped[members], edges)
        axes.stairs(heights, edges, fill=True, color=color, alpha=0.22, linewidth=0)
        label = f"{name} ({int(members.sum()):,})"
        axes.stairs(heights, edges, color=color, linewidth=1.6, linestyle=line_style, label=label)
    axes.set(xscale="log", yscale="log", xlim=(edges[0], edges[-1]), ylim=(0.7, None))
    _plain_ticks(axes, low, high)
    chart_style.label_axes(axes, "loss of the sample (nats, log scale)", "samples (log scale)")
    axes.grid(axis="y", color=RULE, linewidth=0.7)
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, frameon=False, fontsize=9, borderaxespad=0.2)
    return chart_style.save(figure, path)


def _plain_ticks(axes: Axes, low: int, high: int) -> None:
    """Labels powers of ten as plain numbers; the outermost ones are marked if their bins contain all values beyond."""
    from matplotlib.ticker import NullLocator

    names = [f"{10.0**power:g}".replace("e-0", "e-") for power in range(low, high + 1)]
    names[0] = f"≤ {names[0]}" if 10.0**low <= MIN_LOSS else names[0]
    names[-1] = f"≥ {names[-1]}" if 10.0**high >= MAX_LOSS else names[-1]
    axes.set_xticks(10.0 ** np.arange(low, high + 1), names)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:,.0f}")


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
        labels: L labels.
        errors_percent: ``(L,)`` error of each label in percent (a mean over runs); ignored where the count is 0.
        counts: ``(L,)`` held-out samples of each label; labels without any are left out, with a note in the chart.
        path: the PNG file to write.
        title: the headline.
        max_labels: labels shown at most, the worst; the chart says when there are more.

    Raises:
        DataError: an error is not a percentage, a count is negative, no label has samples, or the lengths differ.
    """
    percent, counts = np.asarray(errors_percent, dtype=float), np.asarray(counts, dtype=float)
    chart_style.check_lengths(labels=np.asarray(labels, dtype=object), errors_percent=percent, counts=counts)
    chart_style.check_values("counts", counts, 0.0, 1e15, "a count is a number of samples")
    check_range("max_labels", max_labels, 1, 1000)
    used = np.flatnonzero(counts > 0)
    hint = "pass the error of each label in percent, 0 to 100"
    chart_style.check_values("errors_percent", percent[used], 0.0, 100.0, hint)
    if not used.size:
        raise DataError("none of the labels has a sample: every count is 0", "pass the counts of held-out samples")
    order = sorted(used.tolist(), key=lambda i: (-percent[i], -counts[i], str(labels[i])))[:max_labels]
    note = f"{used.size:,} label{'s' if used.size > 1 else ''}, worst first"
    if len(order) < used.size:
        note = f"the worst {len(order):,} of {used.size:,} labels"
    if len(labels) > used.size:
        note += f"; {len(labels) - used.size:,} without samples left out"
    figure, axes = chart_style.new_figure(1.45 + 0.21 * len(order), title, note)
    tests = [binomtest(round(percent[i] / 100 * counts[i]), int(counts[i])) for i in order]  # whole errors
    intervals = 100 * np.array([[*test.proportion_ci(method="wilson")] for test in tests])
    rows = np.arange(len(order))
    axes.hlines(rows, intervals[:, 0], intervals[:, 1], color=PALETTE[5], linewidth=2.4)
    axes.plot(percent[order], rows, "o", color=PALETTE[0], markersize=5)
    chart_style.label_rows(axes, [str(labels[i]) for i in order], 8.5)
    for row, index in enumerate(order):
        chart_style.annotate_row(axes, row, f"n = {counts[index]:,.0f}")
    axes.set_xlim(-1.0, min(101.0, 1.05 * float(intervals.max()) + 1))
    chart_style.label_percent_axis(axes, "error (%), with 95% Wilson interval")
    return chart_style.save(figure, path)
