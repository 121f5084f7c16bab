"""Progress of a training: ``metrics.csv``, and one report per epoch, for display."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch

from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.models.recipe_module import RecipeModule

COLUMNS = ("epoch", "train_loss", "val_loss", "val_error", "val_agreement", "lr", "seconds", "samples_per_second")
METRICS = COLUMNS[1:5]


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch: its row of ``metrics.csv``, see :class:`MetricsRecorder`, and how many epochs there are."""

    row: Mapping[str, Any]
    epochs: int

    @property
    def seconds_left(self) -> float:
        """Estimated seconds to the end of the training: this epoch's duration times the epochs left."""
        return float(self.row["seconds"]) * (self.epochs - int(self.row["epoch"]) - 1)


class MetricsRecorder(L.Callback):
    """Writes one row per epoch to ``metrics.csv``.

    Columns: ``epoch`` (from 0); ``train_loss`` (as the module logs ``train/loss``, else the mean of the losses it
    returns) and, for a classifier, ``val_loss`` (nats) and ``val_error`` (percent), for a sorting network with labels
    ``val_agreement`` (percent); ``lr`` (of the head, at the end of the epoch); ``seconds`` (training and validation);
    ``samples_per_second`` (training only, all processes together).

    Args:
        path: The CSV file; a resumed run appends to it.
        on_epoch: Called after each epoch, in the first process only.
    """

    def __init__(self, path: Path, on_epoch: Callable[[EpochReport], None] | None = None) -> None:
        self.path, self.on_epoch = path, on_epoch
        self.rows: list[dict[str, Any]] = []
        self._started = self._trained = 0.0
        self._samples = 0
        self._losses: list[torch.Tensor] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reads the rows of the epochs that a resumed run already trained."""
        if self.path.exists():
            with open(self.path, newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < trainer.current_epoch]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self._started, self._trained, self._samples = time.monotonic(), 0.0, 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts samples, and takes the time at the last batch, before validation."""
        self._samples += len(batch["index"])
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, torch.Tensor) and not isinstance(pl_module, RecipeModule):
            self._losses.append(loss.detach())
        if pl_module.device.type == "cuda" and batch_idx + 1 >= int(trainer.num_training_batches):
            torch.cuda.synchronize(pl_module.device)  # once per epoch: kernels run behind the Python code
        self._trained = time.monotonic() - self._started

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the row of the epoch and reports it."""
        values = {key.replace("/", "_"): float(value) for key, value in trainer.callback_metrics.items()}
        if self._losses:  # a module that doesn't log train/loss
            values.setdefault("train_loss", float(torch.stack(self._losses).float().mean()))
            self._losses = []
        row = {
            "epoch": trainer.current_epoch,
            **{name: values[name] for name in METRICS if name in values},
            "lr": trainer.optimizers[0].param_groups[-1]["lr"],
            "seconds": round(time.monotonic() - self._started, 2),
            "samples_per_second": round(self._samples * trainer.world_size / max(self._trained, 1e-9), 1),
        }
        self.rows.append(row)
        if not trainer.is_global_zero:
            return
        with atomic_path(self.path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, [name for name in COLUMNS if any(name in row for row in self.rows)])
            writer.writeheader()
            writer.writerows(self.rows)
        if self.on_epoch is not None:
            self.on_epoch(EpochReport(row, int(trainer.max_epochs or 0)))
