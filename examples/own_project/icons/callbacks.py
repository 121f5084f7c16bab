"""A Lightning callback of the project's own."""

from __future__ import annotations

import time
from pathlib import Path

import lightning as L


class EpochTimes(L.Callback):
    """Writes the seconds of each epoch to ``<dirpath>/epoch_times.txt``; ``mlfix train`` gives it the run's folder."""

    def __init__(self, dirpath: str | Path = ".") -> None:
        self.file, self.started = Path(dirpath, "epoch_times.txt"), 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Notes when the epoch starts."""
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Adds a line."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(f"{trainer.current_epoch} {time.monotonic() - self.started:.2f}\n")
