"""Charts of a comparison: the runs' errors by arm, evaluation and training effect, the change of every label.

Each is written to ``path``, as PNG or SVG, and to an SVG file ``svg`` as well, if given.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlfix_train.audit.comparison.verdict import signed
from mlfix_train.audit.reporting import chart_style
from mlfix_train.audit.reporting.chart_style import GREY, INK, MARKERS, PALETTE
from mlfix_train.errors import DataError

ARM_ROWS = (
    ("original_on_original", "original arm, given labels", PALETTE[5], ""),
    ("original_on_clean", "original arm, clean labels", PALETTE[0], "////"),
    ("fixed_on_clean", "fixed arm, clean labels", PALETTE[1], r"\\\\"),
    ("control_on_clean", "control arm, clean labels", PALETTE[4], "...."),
)
"""Key of the error, text, color and hatch: rows differ in position, shade and hatch, not in color alone."""
PathLike = str | os.PathLike[str]
WIDTH = 6.8  # inches; narrower than other charts, since two of them stand side by side on the page
MIN_HISTOGRAM_RUNS = 6  # with fewer runs in every arm, dots are drawn instead of histograms


def arms_histogram(
    runs: Mapping[str, Sequence[float] | None], path: PathLike, title: str, svg: PathLike | None = None
) -> Path:
    """Draws the distribution of the runs' errors, one row per arm on a common axis, with their mean.

    ``runs``: errors in percent by ``<arm>_on_<kind>``, as in ``slices.<name>.runs``; ``None`` is left out.

    Raises:
        DataError: no errors at all, or one that is not a percentage.
    """
    rows = [(text, np.asarray(runs[key], float), color, hatch) for key, text, color, hatch in ARM_ROWS if runs.get(key)]
    if not rows:
        raise DataError(f"no run in any arm of the chart {title!r}", "compare runs that hold out some samples")
    for text, values, *_ in rows:
        chart_style.check_values(text, values, 0.0, 100.0, "pass errors in percent, 0 to 100")
    if max(values.size for _, values, *_ in rows) < MIN_HISTOGRAM_RUNS:
        return _arms_dots({text: values for text, values, *_ in rows}, path, title, svg)
    note = "histogram of the runs; the line is their mean"
    figure, axes = chart_style.new_figure(1.7 + 0.95 * len(rows), title, note, WIDTH)
    low, high = (end(np.concatenate([values for _, values, *_ in rows])) for end in (np.min, np.max))
    pad = 0.02 * (high - low) if high - low > 0.01 else 0.5
    edges = np.linspace(max(0.0, low - pad), high + pad, 33)
    counts = [np.histogram(values, edges)[0] for _, values, *_ in rows]
    scale = -0.72 / max(count.max() for count in counts)  # the axis points downwards
    bar_style: dict[str, Any] = {"align": "edge", "edgecolor": INK, "linewidth": 0.5, "alpha": 0.85}
    for row, ((_, values, color, hatch), count) in enumerate(zip(rows, counts, strict=True)):
        base = row + 0.38
        bars = np.flatnonzero(count)
        widths = np.diff(edges)[bars]
        axes.bar(edges[bars], scale * count[bars], widths, bottom=base, color=color, hatch=hatch, **bar_style)
        axes.hlines(base, edges[0], edges[-1], color=INK, linewidth=0.5)
        axes.vlines(values.mean(), base - 0.8, base + 0.06, color=INK, linewidth=2.2)
        sd = f"{values.std(ddof=1):.2f}" if values.size > 1 else "–"
        chart_style.annotate_row(axes, row, f"{values.mean():.2f} ± {sd}\n{_runs_text(values)}")
    chart_style.label_rows(axes, [text for text, *_ in rows], 9.5)
    axes.set_ylim(len(rows) - 0.45, -0.62)
    chart_style.label_percent_axis(axes, "error of a run (%); ± standard deviation")
    return chart_style.save(figure, path, svg)


def _arms_dots(arms: Mapping[str, np.ndarray], path: PathLike, title: str, svg: PathLike | None) -> Path:
    """Draws one row per arm: a dot for each run, and a bar at their mean."""
    figure, axes = chart_style.new_figure(1.6 + 0.62 * len(arms), title, "a dot per run, a bar at their mean", WIDTH)
    for row, values in enumerate(arms.values()):
        # Golden-ratio steps spread the dots, so that equal values do not hide each other.
        jitter = ((np.arange(values.size) * 0.6180339887) % 1.0 - 0.5) * 0.42 if values.size > 1 else 0.0
        dot_style: dict[str, Any] = {"color": PALETTE[row], "markersize": 5, "alpha": 0.75, "markeredgewidth": 0}
        axes.plot(values, row + jitter * np.ones(values.size), MARKERS[row], **dot_style)
        axes.vlines(values.mean(), row - 0.34, row + 0.34, color=INK, linewidth=2.2, zorder=1.5)
        chart_style.annotate_row(axes, row, f"{values.mean():.2f}  ({_runs_text(values)})")
    chart_style.label_rows(axes, list(arms), 9.5)
    axes.margins(x=0.06)
    chart_style.label_percent_axis(axes, "error of a run (%)")
    return chart_style.save(figure, path, svg)


def _runs_text(values: np.ndarray) -> str:
    return f"{values.size} run{'' if values.size == 1 else 's'}"


def waterfall(result: Mapping[str, Any], path: PathLike, title: str, svg: PathLike | None = None) -> Path | None:
    """Draws the two steps from the error before to the error after: evaluation effect, then training effect.

    ``result`` is a slice of ``summary.json``; returns ``None`` where it has no total effect.
    """
    error, effect = result["error"], result["effect"]
    if effect["total"] is None or effect["training"] is None:
        return None
    before, middle, after = error["original_on_original"], error["original_on_clean"], error["fixed_on_clean"]
    falls = "falls" if effect["total"] >= 0 else "rises"
    note = f"the error {falls} by {abs(effect['total']):.2f} points in total; 95% intervals in brackets"
    figure, axes = chart_style.new_figure(3.75, title, note, WIDTH)
    for row, value in ((0, before), (2, middle), (4, after)):
        axes.plot([value], [row], "o", color=INK, markersize=7, clip_on=False)
        chart_style.annotate_row(axes, row, f"{value:.2f}%")
    steps = (
        (1, before, middle, PALETTE[5], "", effect.get("evaluation_ci95")),
        (3, middle, after, PALETTE[1], r"\\\\", effect["training_ci95"]),
    )
    bar_style: dict[str, Any] = {"edgecolor": INK, "linewidth": 0.6, "alpha": 0.85}
    for row, start, stop, color, hatch, ci in steps:
        axes.barh(row, stop - start, 0.5, left=start, color=color, hatch=hatch, **bar_style)
        axes.vlines([start, stop], [row - 1, row], [row, row + 1], color=GREY, linewidth=0.9, linestyle=(0, (3, 2)))
        text = f"effect {start - stop + 0.0:+.2f}".replace("-", "−")
        if ci:
            low, high = start - ci[1], start - ci[0]
            distances = [[max(0.0, stop - low)], [max(0.0, high - stop)]]
            axes.errorbar(stop, row, xerr=distances, fmt="none", ecolor=INK, elinewidth=1.4, capsize=4)
            text += f"\n[{signed(ci[0])}, {signed(ci[1])}]"
        chart_style.annotate_row(axes, row, text)
    names = ["original arm, given labels", "evaluation effect", "original arm, clean labels", "training effect"]
    chart_style.label_rows(axes, [*names, "fixed arm, clean labels"], 9.5)
    low, high = axes.get_xlim()
    axes.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    chart_style.label_percent_axis(axes, "held-out error (%)")
    return chart_style.save(figure, path, svg)


def label_dots(
    labels: Sequence[Mapping[str, Any]], path: PathLike, title: str, svg: PathLike | None = None, max_labels: int = 30
) -> Path | None:
    """Draws the training effect on the labels that changed most, with 95% intervals; ``None`` where none changed.

    ``labels`` are those of ``summary.json``.
    """
    changed = [row for row in labels if row["training"]]
    tested = [row for row in changed if row["ci95"]]
    shown = sorted(tested or changed, key=lambda row: (not row["significant"], -abs(row["training"])))[:max_labels]
    if not shown:
        return None
    shown.sort(key=lambda row: -row["training"])
    significant = sum(bool(row["significant"]) for row in labels)
    note = f"{len(shown)} of {len(labels):,} labels, error before → after; filled: significant ({significant})"
    figure, axes = chart_style.new_figure(1.6 + 0.22 * len(shown), title, note)
    axes.axvline(0, color=GREY, linewidth=1)
    limit = max(abs(row["training"]) for row in shown)
    for position, row in enumerate(shown):
        better = row["training"] > 0
        color = PALETTE[0] if better else PALETTE[1]
        if row["ci95"]:
            axes.hlines(position, *row["ci95"], color=color, linewidth=1.6)
            limit = max(limit, *(min(abs(end), 3 * limit) for end in row["ci95"]))
        dot_style: dict[str, Any] = {"markersize": 6, "markeredgecolor": color, "markeredgewidth": 1.5}
        fill = color if row["significant"] else "white"
        axes.plot(row["training"], position, "o" if better else "s", markerfacecolor=fill, **dot_style)
        chart_style.annotate_row(axes, position, f"{row['before']:.1f} → {row['after']:.1f}%  n = {row['rows']:,}")
    chart_style.label_rows(axes, [str(row["label"]) for row in shown], 8.5)
    axes.set_xlim(-1.06 * limit, 1.06 * limit)
    text = "training effect (points; right of 0 is better"
    cut = False
    for position, row in enumerate(shown):
        for end in (end for end in row["ci95"] or () if abs(end) > 1.06 * limit):
            arrow = ">" if end > 0 else "<"
            axes.plot(np.sign(end) * 1.04 * limit, position, arrow, color=GREY, markersize=5, clip_on=False)
            cut = True
    chart_style.label_axes(axes, f"{text}; arrows: the interval goes on)" if cut else f"{text})")
    return chart_style.save(figure, path, svg)
