"""The files of a comparison: ``summary.json``, a page, Markdown to paste into a paper, and charts."""

import base64
import itertools
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mlfix_train.audit.comparison.verdict import Verdict
from mlfix_train.audit.reporting import comparison_charts as charts
from mlfix_train.audit.reporting.templates import FOLDER, render
from mlfix_train.audit.scores.slices import slug
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.files.process_pool import map_unordered
from mlfix_train.data.files.system import cpu_count

BADGES = {
    Verdict.BETTER: ("better models", "good"),
    Verdict.WORSE: ("worse models", "bad"),
    Verdict.SUGGESTIVE: ("a hint, no proof", "mid"),
    Verdict.CONDITIONAL_ON_SAMPLES: ("a hint: these images only", "mid"),
    Verdict.NOT_SHOWN: ("not shown", "none"),
    Verdict.TOO_FEW_RUNS: ("too few runs", "none"),
    Verdict.NO_CLEAN_SAMPLES: ("no samples left", "none"),
}
"""Text and color class of each verdict's badge."""
MANY_CHARTS = 12
"""From so many on, charts are drawn by several processes, whose start takes a second or two."""


def comparison_markdown(summary: Mapping[str, Any]) -> str:
    """Returns the comparison as Markdown: headline, what is partial, table, details."""
    text = render("comparison.md.j2", summary=summary, error_keys=_error_keys(summary), badges=BADGES)
    return text.rstrip() + "\n"


def comparison_page(
    summary: Mapping[str, Any], slice_charts: Mapping[str, Sequence[Path]], label_chart: Path | None
) -> str:
    """Returns the comparison as one self-contained HTML page, with SVG files of each slice and of single labels."""
    return render(
        "comparison.html.j2",
        summary=summary,
        error_keys=_error_keys(summary),
        badges=BADGES,
        charts={name: [_encode(path) for path in paths] for name, paths in slice_charts.items()},
        label_chart=None if label_chart is None else _encode(label_chart),
        label_rows=sorted(summary["labels"], key=lambda row: (not row["significant"], -abs(row["training"]))),
        style=(FOLDER / "comparison.css").read_text(encoding="utf-8"),
    )


def _error_keys(summary: Mapping[str, Any]) -> list[str]:
    keys = ["original_on_original", "original_on_clean", "fixed_on_clean"]
    return [*keys, "control_on_clean"] if "control" in summary["arms"] else keys


def _encode(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


class _Chart(NamedTuple):
    """A chart to draw, as PNG and SVG."""

    draw: Callable[..., Path | None]
    values: Any
    png: Path
    title: str
    svg: Path


def _draw(chart: _Chart) -> Path | None:
    """Draws a chart; returns ``None`` if there is nothing to draw."""
    return chart.draw(chart.values, chart.png, chart.title, chart.svg)


def write_comparison(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes ``summary.json``, ``compare.md``, ``compare.html`` and PNG charts; returns the charts' paths."""
    drawn: list[tuple[str | None, _Chart]] = []  # the slice that each chart is of
    with tempfile.TemporaryDirectory() as temporary:

        def add(name: str | None, draw: Callable[..., Path | None], values: Any, stem: str, title: str) -> None:
            drawn.append((name, _Chart(draw, values, folder / f"{stem}.png", title, Path(temporary) / f"{stem}.svg")))

        for (name, result), stem in zip(summary["slices"].items(), chart_stems(list(summary["slices"])), strict=True):
            if result["rows_clean"]:
                counts = f"{result['rows_original']:,} samples, {result['rows_clean']:,} clean"
                add(name, charts.arms_histogram, result["runs"], stem, f"Held-out error, {name} ({counts})")
                add(name, charts.waterfall, result, f"{stem}-effect", f"Evaluation and training effect, {name}")
        add(None, charts.label_dots, summary["labels"], "labels", "Change of single labels")
        workers = cpu_count() if len(drawn) >= MANY_CHARTS else 1
        done = {chart.png for chart, path in map_unordered(_draw, [chart for _, chart in drawn], workers) if path}
        drawn = [(name, chart) for name, chart in drawn if chart.png in done]
        svgs = {name: [chart.svg for one, chart in drawn if one == name] for name in [*summary["slices"], None]}
        label_svgs = svgs.pop(None)
        page = comparison_page(summary, svgs, label_svgs[0] if label_svgs else None)
    texts = {
        "summary.json": json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False),
        "compare.md": comparison_markdown(summary),
        "compare.html": page,
    }
    for name, text in texts.items():
        with atomic_path(folder / name) as path:
            path.write_text(text, encoding="utf-8")
    return [chart.png for _, chart in drawn]


def write_card(card: Mapping[str, Any], folder: Path) -> Path:
    """Writes a study card as ``study.json`` and as a page, ``study.html``; returns the path of the first."""
    runs = {name: f"{len(names)} ({', '.join(names)})" for name, names in card["runs"].items()}
    style = (FOLDER / "comparison.css").read_text(encoding="utf-8")
    with atomic_path(folder / "study.html") as path:
        path.write_text(render("study.html.j2", card=card, runs=runs, badges=BADGES, style=style), encoding="utf-8")
    with atomic_path(folder / "study.json") as path:
        path.write_text(json.dumps(card, indent=1, ensure_ascii=False), encoding="utf-8")
    return folder / "study.json"


def chart_stems(slices: Sequence[str]) -> list[str]:
    """Returns a distinct file name, without its ending, for the charts of each slice."""
    taken = {"labels"}
    stems = []
    for base in (slug(name.replace("=", "-")) for name in slices):
        names = itertools.chain([base], (f"{base}-{number}" for number in itertools.count(2)))
        stems.append(next(name for name in names if not {name.lower(), f"{name}-effect".lower()} & taken))
        taken |= {stems[-1].lower(), f"{stems[-1]}-effect".lower()}
    return stems
