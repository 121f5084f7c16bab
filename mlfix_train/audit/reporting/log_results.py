"""What an audit and a comparison log to an experiment tracker: pictures, tables, pages, figures, and all files.

See :class:`~mlfix_train.audit.reporting.trackers.Tracker` for where it goes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mlfix_train.audit.reporting.pictures import ImageSource, Picture
from mlfix_train.audit.reporting.trackers import Tracker
from mlfix_train.audit.reporting.wandb import IMAGES_PER_TABLE

if TYPE_CHECKING:
    from mlfix_train.audit.audit import Audit


def log_ranking(tracker: Tracker, ranking: pd.DataFrame, images: ImageSource, top: int) -> None:
    """Logs the first ``top`` rows of a ranking as a table with thumbnails, at most :data:`IMAGES_PER_TABLE`."""
    head = ranking.head(min(top, IMAGES_PER_TABLE))
    columns = ["rank", "given_label", "predicted_label", "suggested_label", "suspicion", "loss", "margin", "slice"]
    columns += ["sample_id"]
    cells = head[columns].to_numpy(dtype=object).tolist()
    pixels = images(head["sample_id"].tolist())
    if len(pixels) and pixels.shape[1] <= 64:  # small crops are hard to see in a table
        pixels = pixels.repeat(2, 1).repeat(2, 2)
    rows = [[thumbnail, *row] for thumbnail, row in zip(pixels, cells, strict=True)]
    tracker.log_table("audit/ranking", ["image", *columns], rows)


def log_audit(tracker: Tracker, audit: Audit, pictures: Sequence[Picture], folder: Path) -> None:
    """Logs an audit: figures, the top of the ranking, slices, labels, panels, the page, and all its files.

    Args:
        tracker: where to.
        audit: the whole ranking is logged as a file, its first rows as a table with thumbnails.
        pictures: the panels and charts.
        folder: where the audit was written.
    """
    about = audit.about
    tracker.log_pictures(pictures)
    if audit.pixels is not None:
        log_ranking(tracker, audit.ranking, audit.images, IMAGES_PER_TABLE)
    rows = [[one.kind, one.name, len(one.rows), one.expected, one.screen, one.score] for one in audit.slices]
    tracker.log_table("audit/slices", ["kind", "name", "samples", "suspicion", "first screen", "score"], rows)
    figures = {"audit/ranked": about["ranked"], "audit/issues": about["issues"]}
    estimates = about["estimates"]
    if estimates:
        labels = [[name, row["samples"], row["wrong"], *row["interval"]] for name, row in estimates["labels"].items()]
        columns = ["label", "samples", "expected wrong", "95% low", "95% high"]
        tracker.log_table("audit/labels", columns, labels)
        low, high = estimates["interval"]
        figures |= {"audit/wrong": estimates["wrong"], "audit/wrong_low": low, "audit/wrong_high": high}
        figures["audit/stop_rank"] = estimates["review_yield"]["stop_rank"]
    tracker.log_summary(figures)
    tracker.log_page("audit/page", folder / "report.html")
    files = [folder / name for name in ("ranking.csv", "slices.csv", "audit.json", "report.html")]
    metadata = {"ranked": about["ranked"], "issues": about["issues"]}
    tracker.log_artifact(f"audit-{artifact_name(tracker.name)}", "audit", files, metadata)


def log_comparison(tracker: Tracker, summary: Mapping[str, Any], folder: Path, charts: Sequence[Path]) -> None:
    """Logs a comparison: figures, tables of slices and labels, charts, the page, and all its files.

    Args:
        tracker: where to.
        summary: what ``summary.json`` holds.
        folder: where the comparison was written.
        charts: PNG files.
    """
    error_columns = ["original_on_original", "original_on_clean", "fixed_on_clean", "control_on_clean"]
    columns = ["slice", "rows", "clean rows", *(name.replace("_", " ") for name in error_columns)]
    columns += ["evaluation effect", "training effect", "95% low", "95% high", "p", "verdict"]
    rows, figures = [], {"headline": summary["headline"]}
    for name, result in summary["slices"].items():
        effect = result["effect"]
        low, high = effect["training_ci95"] or (None, None)
        errors = [result["error"].get(key) for key in error_columns]
        effects = [effect["evaluation"], effect["training"], low, high, effect["p_value"], str(result["verdict"])]
        rows.append([name, result["rows_original"], result["rows_clean"], *errors, *effects])
        figures |= {f"{name}/{key}": effect[key] for key in ("total", "evaluation", "training", "p_value")}
    tracker.log_table("compare/slices", columns, rows)
    if summary["labels"]:
        keys = ["label", "rows", "before", "after", "training", "p_value", "q_value", "significant"]
        tracker.log_table("compare/labels", keys, [[row[key] for key in keys] for row in summary["labels"]])
    tracker.log_pictures([Picture(f"compare/{path.stem}", path, path.stem) for path in charts])
    tracker.log_page("compare/page", folder / "compare.html")
    tracker.log_summary(figures)
    files = [folder / name for name in ("summary.json", "compare.md", "compare.html")]
    metadata = {"headline": summary["headline"]}
    tracker.log_artifact(f"compare-{artifact_name(summary['name'])}", "comparison", files, metadata)


def artifact_name(text: str) -> str:
    """Returns ``text`` with everything but letters, digits, ``-``, ``_`` and ``.`` replaced, as W&B requires."""
    return re.sub(r"[^\w.-]+", "-", text, flags=re.ASCII)[:100].strip("-") or "run"
