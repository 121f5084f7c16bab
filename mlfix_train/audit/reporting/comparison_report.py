"""The files of a comparison: ``summary.json``, a page, Markdown to paste into a paper, and charts."""

import base64
import itertools
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlfix_train.audit.comparison.verdict import Verdict
from mlfix_train.audit.reporting import comparison_charts as charts
from mlfix_train.audit.reporting.templates import FOLDER, render
from mlfix_train.audit.scores.slices import slug
from mlfix_train.data.files.atomic import atomic_path

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


def write_comparison(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes ``summary.json``, ``compare.md``, ``compare.html`` and PNG charts; returns the charts' paths."""
    pngs: list[Path] = []
    svgs: dict[str, list[Path]] = {}

    def draw(chart: Callable[..., Path | None], values: Any, stem: str, title: str) -> list[Path]:
        """Draws a chart as PNG and SVG, and returns the SVG, if there is something to draw."""
        png, svg = folder / f"{stem}.png", Path(temporary) / f"{stem}.svg"
        if chart(values, png, title, svg) is None:
            return []
        pngs.append(png)
        return [svg]

    with tempfile.TemporaryDirectory() as temporary:
        for (name, result), stem in zip(summary["slices"].items(), chart_stems(list(summary["slices"])), strict=True):
            svgs[name] = []
            if result["rows_clean"]:
                counts = f"{result['rows_original']:,} samples, {result['rows_clean']:,} clean"
                svgs[name] += draw(charts.arms_histogram, result["runs"], stem, f"Held-out error, {name} ({counts})")
                title = f"Evaluation and training effect, {name}"
                svgs[name] += draw(charts.waterfall, result, f"{stem}-effect", title)
        label_svgs = draw(charts.label_dots, summary["labels"], "labels", "Change of single labels")
        page = comparison_page(summary, svgs, label_svgs[0] if label_svgs else None)
    texts = {
        "summary.json": json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False),
        "compare.md": comparison_markdown(summary),
        "compare.html": page,
    }
    for name, text in texts.items():
        with atomic_path(folder / name) as path:
            path.write_text(text, encoding="utf-8")
    return pngs


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
