"""The curve of a plan: the probability to show an effect by the number of seeds, for several numbers of samples."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlfix_train.audit.reporting import chart_style
from mlfix_train.audit.reporting.chart_style import GREY, INK, MARKERS, PALETTE


def power_curve(
    plan: Mapping[str, Any],
    path: str | os.PathLike[str],
    title: str,
    goal: float,
    svg: str | os.PathLike[str] | None = None,
) -> Path:
    """Draws the power by runs of each arm, one line per number of held-out samples; writes PNG and, if given, SVG.

    Args:
        plan: from :func:`mlfix_train.audit.comparison.planning.plan_slice`.
        path: of the PNG file.
        title: the headline.
        goal: the power that is planned for, 0 to 1.
        svg: of the SVG file.
    """
    note = "the band is what the pilot's few runs leave open; the dashed line is the power planned for"
    figure, axes = chart_style.new_figure(4.2, title, note)
    axes.set_xscale("log")
    last = plan["curve"][-1]["runs"][-1]
    for row, curve in enumerate(plan["curve"]):
        style: dict[str, Any] = {"color": PALETTE[row], "marker": MARKERS[row], "markersize": 4, "linewidth": 1.6}
        label = f"{curve['samples']:,} held-out samples"
        axes.plot(curve["runs"], [100 * p for p in curve["power"]], label=label, **style)
    first = plan["curve"][0]
    low, high = ([100 * p for p in first[key]] for key in ("power_at_least", "power"))
    axes.fill_between(first["runs"], low, high, color=PALETTE[0], alpha=0.15, linewidth=0)
    axes.axhline(100 * goal, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    if plan["runs"] is not None and plan["runs"] <= last:
        axes.axvline(plan["runs"], color=INK, linewidth=1)
        axes.annotate(f" {plan['runs']} seeds", (plan["runs"], 3), color=INK, size=9)
    ticks = [n for n in (2, 4, 6, 10, 20, 40, 100) if n <= last]
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.minorticks_off()
    axes.set_ylim(0, 102)
    axes.set_yticks(range(0, 101, 20), [f"{p}%" for p in range(0, 101, 20)])
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    chart_style.label_axes(axes, "seeds of each arm", "probability to show it")
    return chart_style.save(figure, path, svg)
