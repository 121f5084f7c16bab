"""What a person sees while a run trains: a bar on a terminal, a line an epoch elsewhere; and ``metrics.csv``."""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L

from mlfix_train.commands.progress import duration
from mlfix_train.data.files.atomic import atomic_path

COLUMNS = ("epoch", "train_loss", "val_loss", "val_error", "val_agreement", "lr", "seconds", "samples_per_second")
METRICS = COLUMNS[1:5]


class EpochRecord(L.Callback):
    """Writes a row an epoch to ``metrics.csv`` and, on request, a line to standard error.

    Columns: ``epoch`` (from 0), ``train_loss`` and, of a classifier, ``val_loss`` (nats) and ``val_error`` (percent),
    of a sorting network with labels ``val_agreement`` (percent), ``lr`` (the head's, at the end of the epoch),
    ``seconds`` (of training and validation), ``samples_per_second`` (training alone, all processes).

    Args:
        path: the CSV file; a resumed run goes on in it.
        label: begins the lines, such as ``original seed=3``.
        lines: whether to write lines to standard error.
    """

    def __init__(self, path: Path, label: str, lines: bool = True) -> None:
        self.path, self.label, self.lines = path, label, lines
        self.rows: list[dict[str, Any]] = []
        self.started = self.trained = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes over the rows of the epochs that a resumed run has behind it."""
        if self.path.exists():
            with open(self.path, newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < trainer.current_epoch]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self.started, self.trained = time.monotonic(), 0.0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops the clock of training at the last batch, before validation."""
        if pl_module.device.type == "cuda" and batch_idx + 1 >= int(trainer.num_training_batches):
            import torch

            torch.cuda.synchronize(pl_module.device)  # once an epoch: the device lags behind
        self.trained = time.monotonic() - self.started

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the epoch down."""
        values = {key: float(value) for key, value in trainer.callback_metrics.items()}
        data = trainer.datamodule  # type: ignore[attr-defined]
        samples = int(trainer.num_training_batches) * data.loader.batch_size * trainer.world_size
        row = {
            "epoch": trainer.current_epoch,
            **{name: values[name.replace("_", "/")] for name in METRICS if name.replace("_", "/") in values},
            "lr": trainer.optimizers[0].param_groups[-1]["lr"],
            "seconds": round(time.monotonic() - self.started, 2),
            "samples_per_second": round(min(samples, len(data.train_rows)) / max(self.trained, 1e-9), 1),
        }
        self.rows.append(row)
        if not trainer.is_global_zero:
            return
        with atomic_path(self.path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, [name for name in COLUMNS if any(name in row for row in self.rows)])
            writer.writeheader()
            writer.writerows(self.rows)
        if self.lines:
            print(self.line(row, int(trainer.max_epochs or 0)), file=sys.stderr, flush=True)

    def line(self, row: dict[str, Any], epochs: int) -> str:
        """Returns an epoch in words, with the time that remains."""
        left = float(row["seconds"]) * (epochs - int(row["epoch"]) - 1)
        held_out = f", held-out error {row['val_error']:.2f}%" if "val_error" in row else ""
        held_out += f", nearest of the same label {row['val_agreement']:.1f}%" if "val_agreement" in row else ""
        return (
            f"{self.label}: epoch {int(row['epoch']) + 1}/{epochs}, train loss {row['train_loss']:.3f}{held_out}, "
            f"{row['samples_per_second']:,.0f} samples/s, {duration(left)} left"
        )
