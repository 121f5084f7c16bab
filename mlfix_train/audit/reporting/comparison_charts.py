"""Charts of a comparison: histograms of the arms, the waterfall of the effects, the change of every label."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlfix_train.audit.reporting import chart_style as figures
from mlfix_train.audit.reporting.chart_style import GREY, INK, PALETTE
from mlfix_train.audit.reporting.charts import arms_chart
from mlfix_train.errors import DataError

ARM_ROWS = (
    ("original_on_original", "original arm, given labels", PALETTE[5], ""),
    ("original_on_clean", "original arm, clean labels", PALETTE[0], "////"),
    ("fixed_on_clean", "fixed arm, clean labels", PALETTE[1], r"\\\\"),
    ("control_on_clean", "control arm, clean labels", PALETTE[4], "...."),
)
"""Key of the error, words, colour and hatch: told apart by place, by shade and by hatch, not by colour alone."""
Place = str | os.PathLike[str]
WIDTH = 6.8
"""Inches; narrower than other charts, since two of them stand side by side on the page."""
FEW = 6
"""Below this many runs dots say more than a histogram."""


def arms_histogram(
    runs: Mapping[str, Sequence[float] | None], path: Place, title: str, vector: Place | None = None
) -> Path:
    """Draws for each arm how the errors of its runs spread: a histogram a row, on one axis, with their mean.

    Args:
        runs: errors of each run in percent by ``<arm>_on_<kind>``, as in ``slices.<name>.runs``; ``None`` is left out.
        path: the PNG (or SVG) to write.
        title: the headline.
        vector: an SVG to write beside it.

    Raises:
        DataError: no errors at all, or one that is no percentage.
    """
    shown = [
        (words, np.asarray(runs[key], dtype=float), colour, hatch) for key, words, colour, hatch in ARM_ROWS
        if runs.get(key)
    ]  # fmt: skip
    if not shown:
        raise DataError(f"no run in any arm of the chart {title!r}", "compare runs that hold out some samples")
    for words, values, _, _ in shown:
        figures.check_values(words, values, 0.0, 100.0, "give errors in percent, 0 to 100")
    if max(len(values) for _, values, _, _ in shown) < FEW:
        return arms_chart({words: values for words, values, _, _ in shown}, path, title, "error (%)", vector)
    figure, axes = figures.blank(
        1.7 + 0.95 * len(shown), title, "how many runs have which error; a line at their mean", WIDTH
    )
    everything = np.concatenate([values for _, values, _, _ in shown])
    low, high = everything.min(), everything.max()
    pad = 0.02 * (high - low) if high - low > 0.01 else 0.5
    edges = np.linspace(max(0.0, low - pad), high + pad, 33)
    tallest = max(np.histogram(values, edges)[0].max() for _, values, _, _ in shown)
    for row, (_, values, colour, hatch) in enumerate(shown):
        heights, _ = np.histogram(values, edges)
        base = row + 0.38
        axes.bar(
            edges[:-1], -0.72 * heights / tallest, np.diff(edges), bottom=base, align="edge", color=colour,
            edgecolor=INK, linewidth=0.5, hatch=hatch, alpha=0.85,
        )  # fmt: skip
        axes.vlines(values.mean(), base - 0.8, base + 0.06, color=INK, linewidth=2.2)
        figures.beside(axes, row, f"{values.mean():.2f} ± {_spread(values)}\n{values.size} runs")
    axes.ticklabel_format(axis="x", useOffset=False)
    figures.row_names(axes, [words for words, *_ in shown], 9.5)
    axes.set_ylim(len(shown) - 0.45, -0.62)
    figures.axis_labels(axes, "error of a run (%); ± standard deviation", "")
    return figures.save_both(figure, path, vector)


def _spread(values: np.ndarray) -> str:
    return f"{values.std(ddof=1):.2f}" if values.size > 1 else "–"


def waterfall(piece: Mapping[str, Any], path: Place, title: str, vector: Place | None = None) -> Path | None:
    """Draws how the error gets from before to after: the step of the yardstick, then the step of training.

    Args:
        piece: a slice of ``summary.json``.
        path: the PNG (or SVG) to write.
        title: the headline.
        vector: an SVG to write beside it.

    Returns:
        The path; ``None`` where the slice has no total to take apart.
    """
    error, effect = piece["error"], piece["effect"]
    if effect["total"] is None or effect["training"] is None:
        return None
    before, middle, after = error["original_on_original"], error["original_on_clean"], error["fixed_on_clean"]
    falls = "falls" if effect["total"] >= 0 else "rises"
    note = f"the error {falls} by {abs(effect['total']):.2f} points in all; in brackets 95% intervals"
    figure, axes = figures.blank(3.75, title, note, WIDTH)
    steps = (
        (1, before, middle, PALETTE[5], "", effect.get("evaluation_ci95")),
        (3, middle, after, PALETTE[1], r"\\\\", effect["training_ci95"]),
    )
    for row, value in ((0, before), (2, middle), (4, after)):
        axes.plot([value], [row], "o", color=INK, markersize=7, clip_on=False)
        figures.beside(axes, row, f"{value:.2f} %")
    for row, start, stop, colour, hatch, ci in steps:
        axes.barh(
            row, stop - start, 0.5, left=start, color=colour, edgecolor=INK, linewidth=0.6, hatch=hatch, alpha=0.85
        )
        axes.vlines([start, stop], [row - 1, row], [row, row + 1], color=GREY, linewidth=0.9, linestyle=(0, (3, 2)))
        words = f"effect {start - stop + 0.0:+.2f}".replace("-", "−")
        if ci:
            axes.errorbar(
                stop, row, xerr=[[max(0.0, stop - (start - ci[1]))], [max(0.0, start - ci[0] - stop)]], fmt="none",
                ecolor=INK, elinewidth=1.4, capsize=4,
            )  # fmt: skip
            words += f"\n[{ci[0] + 0.0:.2f}, {ci[1] + 0.0:.2f}]".replace("-0.00", "0.00").replace("-", "−")
        figures.beside(axes, row, words)
    names = ["before: given labels", "yardstick: clean labels", "same models, judged anew", "training on fixed labels",
             "after: fixed labels"]  # fmt: skip
    figures.row_names(axes, names, 9.5)
    low, high = axes.get_xlim()
    axes.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    figures.axis_labels(axes, "held-out error (%)", "")
    return figures.save_both(figure, path, vector)


def label_dots(
    labels: Sequence[Mapping[str, Any]], path: Place, title: str, vector: Place | None = None, most: int = 30
) -> Path | None:
    """Draws the change of the labels that changed most, with their 95% intervals.

    Args:
        labels: ``labels`` of ``summary.json``, largest change first.
        path: the PNG (or SVG) to write.
        title: the headline.
        vector: an SVG to write beside it.
        most: labels drawn at most.

    Returns:
        The path; ``None`` where no label changed.
    """
    moved = [row for row in labels if row["training"]]
    tested = [row for row in moved if row["ci95"]]
    chosen = sorted((tested or moved), key=lambda row: (not row["shown"], -abs(row["training"])))[:most]
    if not chosen:
        return None
    chosen.sort(key=lambda row: -row["training"])
    shown = sum(bool(row["shown"]) for row in labels)
    note = f"{len(chosen)} of {len(labels):,} labels, error before → after; filled: shown, corrected for many ({shown})"
    figure, axes = figures.blank(1.6 + 0.22 * len(chosen), title, note)
    axes.axvline(0, color=GREY, linewidth=1)
    reach = max(abs(row["training"]) for row in chosen)
    for row, one in enumerate(chosen):
        colour = PALETTE[0] if one["training"] > 0 else PALETTE[1]
        if one["ci95"]:
            axes.hlines(row, *one["ci95"], color=colour, linewidth=1.6)
            reach = max(reach, *(min(abs(end), 3 * reach) for end in one["ci95"]))
        axes.plot(
            one["training"], row, "o" if one["training"] > 0 else "s", markersize=6, markeredgecolor=colour,
            markerfacecolor=colour if one["shown"] else "white", markeredgewidth=1.5,
        )  # fmt: skip
        figures.beside(axes, row, f"{one['before']:.1f} → {one['after']:.1f} %  n = {one['rows']:,}")
    figures.row_names(axes, [str(one["label"]) for one in chosen], 8.5)
    axes.set_xlim(-1.06 * reach, 1.06 * reach)
    figures.axis_labels(axes, "training effect (points; right of 0 is better)", "")
    return figures.save_both(figure, path, vector)
