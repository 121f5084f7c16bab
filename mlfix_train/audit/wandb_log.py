"""What goes to Weights & Biases: pictures, the head of the ranking, and artifacts with their lineage.

Nothing here asks the user anything: without a login runs are kept offline beside the run directory, to be sent later by
``wandb sync``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.audit.pictures import ImageSource, Picture

log = logging.getLogger(__name__)

IMAGES_PER_KEY = 108
"""What W&B holds of images a key and step."""


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
    columns = ["rank", "given_label", "predicted_label", "suspicion", "loss", "margin", "slice", "sample_id"]
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
