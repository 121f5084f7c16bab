"""What goes to Weights & Biases: pictures, the head of the ranking, and artifacts with their lineage.

Nothing here asks the user anything: without a login runs are kept offline beside the run directory, to be sent later by
``wandb sync``.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.audit.reporting.pictures import ImageSource, Picture
from mlfix_train.audit.scores.slices import Slice
from mlfix_train.errors import check_choice

log = logging.getLogger(__name__)

IMAGES_PER_KEY = 108
"""What W&B holds of images a key and step."""
TABLE_ROWS = 200_000
"""What W&B holds of rows a table."""
MODES = ("auto", "online", "offline", "disabled")


def wandb_mode(wanted: str) -> str:
    """Returns ``online``, ``offline`` or ``disabled`` for the key ``logger.mode``; never prompts.

    ``auto`` is ``WANDB_MODE`` where it is set, else online for a user who is logged in, else offline.
    """
    if wanted != "auto":
        return wanted
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    return "online" if _logged_in() else "offline"


def _logged_in() -> bool:
    """Whether W&B has an API key, without asking for one."""
    import inspect

    import wandb

    if os.environ.get("WANDB_API_KEY"):
        return True
    if "prompt" in inspect.signature(wandb.login).parameters:
        return bool(wandb.login(prompt=False, verify=False))
    return bool(wandb.api.api_key)  # before wandb 0.25


def find_run(loggers: Sequence[Any]) -> Any | None:
    """Returns the W&B run among Lightning's loggers, or ``None``; other loggers are let be."""
    for logger in loggers:
        if any(kind.__name__ == "WandbLogger" for kind in type(logger).__mro__):
            run = logger.experiment
            return run if hasattr(run, "log_artifact") else None
    return None


def log_pictures(run: Any, pictures: Sequence[Picture]) -> None:
    """Logs each picture under its key (one a key: W&B lays the pictures of one key out as if they were of one size)."""
    import wandb

    run.log({picture.key: wandb.Image(str(picture.path), caption=picture.caption) for picture in pictures})


def log_ranking(run: Any, ranking: pd.DataFrame, images: ImageSource, top: int) -> None:
    """Logs the first ``top`` rows of a ranking as a table with thumbnails (the whole of it goes up as an artifact)."""
    import wandb

    head = ranking.head(min(top, IMAGES_PER_KEY))
    columns = ["rank", "given_label", "predicted_label", "suggested_label", "suspicion", "loss", "margin", "slice",
               "sample_id"]  # fmt: skip
    thumbnails = [wandb.Image(_enlarge(image)) for image in images(head["sample_id"].tolist())]
    rows = head[columns].to_numpy(dtype=object).tolist()
    table = wandb.Table(columns=["image", *columns])
    for thumbnail, row in zip(thumbnails, rows, strict=True):
        table.add_data(thumbnail, *row)
    run.log({"audit/ranking": table})


def _enlarge(image: np.ndarray) -> np.ndarray:
    """Doubles small crops, so that they can be made out in a table."""
    return image.repeat(2, 0).repeat(2, 1) if image.shape[0] <= 64 else image


def log_artifact(
    run: Any, name: str, kind: str, files: Sequence[Path], metadata: dict[str, Any], used: bool = False
) -> None:
    """Logs files as an artifact.

    Args:
        run: the W&B run.
        name: name of the artifact (letters, digits, ``-``, ``_`` and ``.``).
        kind: its type, such as ``predictions`` or ``fixes``.
        files: what is in it.
        metadata: shown beside it.
        used: the run took it in rather than made it; W&B then draws the arrow the other way. Offline runs can't say so
            (W&B's own limit), and log it as made.
    """
    import wandb

    artifact = wandb.Artifact(name, type=kind, metadata=metadata)
    for file in files:
        artifact.add_file(str(file), name=Path(file).name)
    if used and not run.settings._offline:
        run.use_artifact(artifact)
    else:
        run.log_artifact(artifact)


def open_run(settings: dict[str, Any], folder: Path, job: str, name: str, config: dict[str, Any]) -> Any | None:
    """Starts a W&B run of its own; ``None`` where W&B is missing, disabled, or can't write.

    Args:
        settings: ``project``, ``entity``, ``mode``, ``group`` and ``tags`` of the logger's configuration.
        folder: an offline run lies in ``<folder>/wandb``.
        job: its job type.
        name: its name.
        config: what its configuration shows.
    """
    try:
        import wandb
    except ImportError:
        log.warning("wandb is not installed: nothing is logged to it (logger=none says so without this line)")
        return None
    os.environ.setdefault("WANDB_SILENT", "true")
    mode = wandb_mode(check_choice("logger.mode", settings["mode"], MODES))
    if mode == "disabled":
        return None
    folder.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {
        "project": settings["project"], "entity": settings["entity"], "group": settings["group"], "job_type": job,
        "name": name, "tags": [job, *settings["tags"]], "config": config, "dir": str(folder.resolve()),
        "settings": wandb.Settings(silent=True, console="off", init_timeout=60.0),
    }  # fmt: skip
    for attempt in dict.fromkeys((mode, "offline")):
        try:
            return wandb.init(mode=attempt, **options)  # type: ignore[arg-type]
        except (wandb.errors.Error, TimeoutError, OSError) as error:
            log.warning("W&B can't be used %s: %s", attempt, error)
    return None


def log_audit(
    run: Any, about: Mapping[str, Any], ranking: pd.DataFrame, slices: Sequence[Slice], images: ImageSource | None,
    pictures: Sequence[Picture], folder: Path, top: int,
) -> None:  # fmt: skip
    """Logs an audit: its figures, the head of the ranking with thumbnails, slices, labels, panels, page, artifact.

    The whole ranking goes up as an artifact, since a table holds :data:`TABLE_ROWS` rows and a key
    :data:`IMAGES_PER_KEY` images.
    """
    import wandb

    log_pictures(run, pictures)
    if images is not None:
        log_ranking(run, ranking, images, top)
    estimates = about["estimates"]
    rows: list[Any] = [[one.kind, one.name, len(one.rows), one.expected, one.screen] for one in slices[:TABLE_ROWS]]
    names: list[Any] = ["kind", "name", "samples", "suspicion", "first screen"]
    logged: dict[str, Any] = {"audit/slices": wandb.Table(columns=names, data=rows)}
    if estimates:
        labels: list[Any] = [[name, row["samples"], row["wrong"], *row["interval"]]
                             for name, row in estimates["labels"].items()][:TABLE_ROWS]  # fmt: skip
        heads: list[Any] = ["label", "samples", "expected wrong", "95% low", "95% high"]
        logged["audit/labels"] = wandb.Table(columns=heads, data=labels)
        low, high = estimates["interval"]
        run.summary.update({"audit/wrong": estimates["wrong"], "audit/wrong_low": low, "audit/wrong_high": high,
                            "audit/stop_rank": estimates["review_yield"]["stop_rank"]})  # fmt: skip
    run.summary.update({"audit/ranked": about["ranked"], "audit/issues": about["issues"]})
    logged["audit/page"] = wandb.Html(str(folder / "report.html"), inject=False)
    run.log(logged)
    files = [folder / name for name in ("ranking.csv", "slices.csv", "audit.json", "report.html")]
    name = "audit-" + re.sub(r"[^A-Za-z0-9_.-]+", "-", str(run.name))[:100]
    log_artifact(run, name, "audit", files, {"ranked": about["ranked"], "issues": about["issues"]})


def log_comparison(run: Any, summary: dict[str, Any], folder: Path, pictures: Sequence[Path]) -> None:
    """Logs a comparison: numbers to the run's summary, tables of slices and labels, pictures, page, artifact."""
    import wandb

    rows: list[Any] = []
    for name, piece in summary["slices"].items():
        error, effect = piece["error"], piece["effect"]
        low, high = effect["training_ci95"] or (None, None)
        rows.append([name, piece["rows_original"], piece["rows_clean"], error["original_on_original"],
                     error["original_on_clean"], error["fixed_on_clean"], error.get("control_on_clean"),
                     effect["evaluation"], effect["training"], low, high, effect["p_value"],
                     piece["verdict"]])  # fmt: skip
        run.summary.update({f"{name}/{key}": effect[key] for key in ("total", "evaluation", "training", "p_value")})
    columns: list[Any] = ["slice", "rows", "clean rows", "original on original", "original on clean", "fixed on clean",
               "control on clean", "evaluation effect", "training effect", "95% low", "95% high", "p",
               "verdict"]  # fmt: skip
    logged: dict[str, Any] = {"compare/slices": wandb.Table(columns=columns, data=rows)}
    if summary["labels"]:
        keys: list[Any] = ["label", "rows", "before", "after", "training", "p_value", "q_value", "shown"]
        data: list[Any] = [[row[key] for key in keys] for row in summary["labels"][:TABLE_ROWS]]
        logged["compare/labels"] = wandb.Table(columns=keys, data=data)
    logged |= {f"compare/{path.stem}": wandb.Image(str(path), caption=path.stem) for path in pictures}
    logged["compare/page"] = wandb.Html(str(folder / "compare.html"), inject=False)
    run.log(logged)
    run.summary["headline"] = summary["headline"]
    files = [folder / name for name in ("summary.json", "compare.md", "compare.html")]
    name = "compare-" + re.sub(r"[^A-Za-z0-9_.-]+", "-", summary["name"])[:100]
    log_artifact(run, name, "comparison", files, {"headline": summary["headline"]})
