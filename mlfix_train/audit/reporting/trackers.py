"""Experiment trackers: what an audit logs to W&B, TensorBoard and MLflow through one small interface.

Other loggers of Lightning get the metrics that the Trainer logs, and nothing more. To log to one of them::

    register_tracker("CometLogger", MyTracker)  # called with the logger; a class with the methods of Tracker
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from mlfix_train.audit.reporting.pictures import Picture
from mlfix_train.audit.reporting.wandb import WandbTracker

log = logging.getLogger(__name__)

TEXT_ROWS = 100
"""Rows of a table that is logged as text."""


class Tracker(Protocol):
    """Where an audit or a comparison is logged; content that a tracker can't show is left out."""

    @property
    def name(self) -> str:
        """The name of the tracker's run."""

    def log_pictures(self, pictures: Sequence[Picture]) -> None:
        """Logs PNG files, each under its own key and with its caption."""

    def log_table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Logs a table; cells that are uint8 arrays ``(H, W, 3)`` are images."""

    def log_page(self, key: str, path: Path) -> None:
        """Logs a self-contained HTML file."""

    def log_summary(self, values: Mapping[str, Any]) -> None:
        """Logs single numbers and sentences about the whole run."""

    def log_artifact(
        self, name: str, kind: str, files: Sequence[Path], metadata: Mapping[str, Any], used: bool = False
    ) -> None:
        """Logs files under a name; ``used``: they were an input of the run."""


class TensorBoardTracker:
    """TensorBoard: pictures, tables as text, numbers as scalars; no files.

    Args:
        logger: Lightning's ``TensorBoardLogger``.
    """

    def __init__(self, logger: Any) -> None:
        self.writer, self.name = logger.experiment, str(logger.name or "")

    def log_pictures(self, pictures: Sequence[Picture]) -> None:
        """Logs each picture under its key, and its caption as text."""
        for picture in pictures:
            self.writer.add_image(picture.key, np.asarray(Image.open(picture.path).convert("RGB")), dataformats="HWC")
            self.writer.add_text(f"{picture.key}/caption", picture.caption)

    def log_table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Logs the first :data:`TEXT_ROWS` rows as a Markdown table, without images."""
        self.writer.add_text(key, _markdown(columns, rows))

    def log_page(self, key: str, path: Path) -> None:
        """Logs the path of the page: TensorBoard cannot show HTML."""
        self.writer.add_text(key, f"`{path}`")

    def log_summary(self, values: Mapping[str, Any]) -> None:
        """Logs numbers as scalars, and the rest as text."""
        for key, value in values.items():
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            (self.writer.add_scalar if is_number else self.writer.add_text)(key, value if is_number else str(value))

    def log_artifact(
        self, name: str, kind: str, files: Sequence[Path], metadata: Mapping[str, Any], used: bool = False
    ) -> None:
        """Logs the paths of the files as text: TensorBoard cannot store files."""
        listed = "\n".join(f"- `{file}`" for file in files)
        self.writer.add_text(f"{kind}/{name}", f"{json.dumps(dict(metadata), default=str)}\n\n{listed}")


class MlflowTracker:
    """MLflow: pictures, tables, pages and files as artifacts, numbers as metrics.

    Args:
        logger: Lightning's ``MLFlowLogger``.
    """

    def __init__(self, logger: Any) -> None:
        self.client, self.run_id, self.name = logger.experiment, logger.run_id, str(logger.name or "")

    def log_pictures(self, pictures: Sequence[Picture]) -> None:
        """Logs each picture as an image artifact, in a folder per section of its key."""
        for picture in pictures:
            self.client.log_image(self.run_id, Image.open(picture.path).convert("RGB"), f"{picture.key}.png")

    def log_table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Logs the table as Markdown, without images."""
        self.client.log_text(self.run_id, _markdown(columns, rows, len(rows)), f"{key}.md")

    def log_page(self, key: str, path: Path) -> None:
        """Logs the page, which MLflow shows."""
        self.client.log_artifact(self.run_id, str(path), key.rpartition("/")[0] or None)

    def log_summary(self, values: Mapping[str, Any]) -> None:
        """Logs numbers as metrics, and the rest as tags."""
        for key, value in values.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self.client.log_metric(self.run_id, key, value)
            else:
                self.client.set_tag(self.run_id, key, value)

    def log_artifact(
        self, name: str, kind: str, files: Sequence[Path], metadata: Mapping[str, Any], used: bool = False
    ) -> None:
        """Logs the files, and ``metadata.json`` beside them."""
        for file in files:
            self.client.log_artifact(self.run_id, str(file), f"{kind}/{name}")
        self.client.log_dict(self.run_id, dict(metadata), f"{kind}/{name}/metadata.json")


def _wandb_tracker(logger: Any) -> WandbTracker | None:
    run = logger.experiment
    return WandbTracker(run) if hasattr(run, "log_artifact") else None  # other ranks have a dummy


_trackers: dict[str, Callable[[Any], Tracker | None]] = {
    "WandbLogger": _wandb_tracker,
    "TensorBoardLogger": TensorBoardTracker,
    "MLFlowLogger": MlflowTracker,
}


def register_tracker(logger_class: str, build: Callable[[Any], Tracker | None]) -> None:
    """Logs audits to a further kind of logger.

    Args:
        logger_class: name of the logger's class, or of one that it inherits from.
        build: makes the tracker from the logger; ``None`` where it can't log.
    """
    _trackers[logger_class] = build


def find_trackers(loggers: Sequence[Any]) -> list[Tracker]:
    """Returns a tracker for each of Lightning's loggers that has one; the others are ignored."""
    found = []
    for logger in loggers:
        names = [kind.__name__ for kind in type(logger).__mro__]
        build = next((_trackers[name] for name in names if name in _trackers), None)
        tracker = None if build is None else build(logger)
        found += [] if tracker is None else [tracker]
    return found


def log_to_trackers(loggers: Sequence[Any], log_to: Callable[[Tracker], None]) -> None:
    """Calls ``log_to`` with the tracker of each logger that has one; a logger that raises is switched off."""
    for logger in loggers:
        if failure_of(logger):
            continue
        try:
            for tracker in find_trackers([logger]):
                log_to(tracker)
        except Exception as error:
            switch_off(logger, error)


def switch_off(logger: Any, error: Exception) -> None:
    """Remembers that a logger raised, so that nothing more is logged to it, and warns the first time, naming it."""
    if failure_of(logger):
        return
    reason = f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]
    logger.mlfix_failure = reason
    log.warning("%s is switched off, and the work goes on without it: %s", type(logger).__name__, reason)


def failure_of(logger: Any) -> str:
    """Returns why a logger was switched off; empty if it is on."""
    return str(getattr(logger, "mlfix_failure", ""))


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]], limit: int = TEXT_ROWS) -> str:
    shown = [i for i in range(len(columns)) if not rows or not isinstance(rows[0][i], np.ndarray)]
    lines = [[columns[i] for i in shown], ["---"] * len(shown)]
    lines += [[_cell(row[i]) for i in shown] for row in rows[:limit]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
