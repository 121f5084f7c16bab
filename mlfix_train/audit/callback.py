"""The audit callback: collects every held-out prediction of a training, and writes, draws and logs the audit.

Shapes: N held-out samples, B samples of a batch, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch

from mlfix_train.audit.predictions.dynamics import MarginMeter, write_dynamics
from mlfix_train.audit.predictions.table import predictions_table, softmax, write_predictions
from mlfix_train.audit.reporting.pictures import draw_audit
from mlfix_train.audit.reporting.tracking import artifact_name, log_ranking
from mlfix_train.audit.reporting.wandb import IMAGES_PER_TABLE, find_tracker
from mlfix_train.audit.scores.ranking import rank_samples, write_ranking
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.fixes.table import fixes_fingerprint, write_fixes
from mlfix_train.errors import check_range

Arrays = dict[str, np.ndarray]


class ValidationCollector(L.Callback):
    """Collects outputs of ``validation_step`` over an epoch; the base of callbacks that look at all of them at once.

    Subclasses name the ``keys`` of the outputs (tensors of one row per sample) and take the arrays in
    ``on_validation_epoch_end``. ``finish`` writes results; it is called at the end of the training.
    """

    keys: tuple[str, ...] = ("index",)

    def __init__(self) -> None:
        self._batches: list[Arrays] = []

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts a new collection."""
        self._batches = []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Copies the outputs of a batch to the CPU, floating-point ones as float32."""
        tensors = {key: outputs[key].detach() for key in self.keys}
        self._batches.append(
            {key: (x.float() if x.is_floating_point() else x).cpu().numpy() for key, x in tensors.items()}
        )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes and logs the results of the last validation."""
        self.finish(trainer)

    def finish(self, trainer: L.Trainer) -> None:
        """Writes and logs the results of the last validation, on rank 0."""
        raise NotImplementedError


class AuditCallback(ValidationCollector):
    """Collects logits during validation; after the last one writes and logs the audit of a training.

    It works with any LightningModule whose ``validation_step`` returns ``{logits: (B, C), label: (B,), index: (B,)}``
    and any DataModule with ``table``, ``labels``, ``store`` and ``arm``; with any logger; on one device or several:
    every held-out sample is in the predictions exactly once. Logits are gathered on rank 0 only.

    Each validation logs ``val/error`` (percent) and ``val/loss`` (nats), exact over all processes. The end of the
    training writes ``predictions.parquet``, ``ranking.csv``, ``panels/*.png``, on request ``probabilities.npy``
    (float16 ``(N, C)``) and, if ``training_step`` returns ``logits``, ``dynamics.parquet`` (see
    :mod:`mlfix_train.audit.predictions.dynamics`; a resumed training continues it), and logs them to W&B.

    Args:
        folder: run directory.
        title: name of the run in headlines.
        table_rows: rows of the logged table with thumbnails, 0 to 108.
        n_panels: number of slices of each kind that get a panel, 0 to 1000.
        probabilities: write the probability matrix, too.
        split: name of the held-out samples' split.
        every_n_epochs: also draw and log ranking and panels every so many epochs; ``None``: only at the end.

    Attributes:
        has_results: whether a validation has ended, on any rank.
        predictions: table of the last validation; ``None`` before it, and on other ranks than 0.
    """

    keys = ("logits", "label", "index")

    def __init__(
        self,
        folder: str | Path,
        title: str = "held-out samples",
        table_rows: int = 100,
        n_panels: int = 6,
        probabilities: bool = False,
        split: str = "val",
        every_n_epochs: int | None = None,
    ) -> None:
        super().__init__()
        check_range("table_rows", table_rows, 0, IMAGES_PER_TABLE)
        check_range("n_panels", n_panels, 0, 1000)
        if every_n_epochs is not None:
            check_range("every_n_epochs", every_n_epochs, 1, 1_000_000)
        self.folder, self.title, self.table_rows, self.n_panels = Path(folder), title, table_rows, n_panels
        self.probabilities, self.split, self.every_n_epochs = probabilities, split, every_n_epochs
        self.has_results = False
        self.predictions: pd.DataFrame | None = None
        self._logits: np.ndarray | None = None
        self._meter: MarginMeter | None = None
        self._restored: torch.Tensor | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts collecting margins, or continues those of a checkpoint."""
        self._meter = self._new_meter(len(datamodule_of(trainer).table), pl_module.device)

    def _new_meter(self, n_samples: int, device: torch.device | str = "cpu") -> MarginMeter:
        meter = MarginMeter(n_samples, device)
        if self._restored is not None and self._restored.shape == meter.total.shape:
            meter.total += self._restored.to(device)
        return meter

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Adds the margins of a training batch, without synchronizing with the device."""
        if self._meter is not None and isinstance(outputs, dict) and "logits" in outputs:
            self._meter.add(outputs["logits"], batch["label"], batch["index"])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Adds up the margins of all processes."""
        if self._meter is not None:
            self._meter.end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """Returns the sums of the margins, for a checkpoint."""
        return {} if self._meter is None else {"margins": self._meter.total.cpu()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the sums of a checkpoint."""
        self._restored = state_dict.get("margins")

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Builds the predictions on rank 0, and logs error and loss on all ranks."""
        if trainer.sanity_checking or not self._batches:
            return
        gathered, self._batches = gather_on_rank_zero(self._batches), []
        metrics: dict[str, float] = {}
        if gathered is not None:
            data = datamodule_of(trainer)
            ids = data.table.index.to_numpy()[gathered["index"]]
            table = predictions_table(ids, gathered["label"], gathered["logits"], data.labels, self.split)
            self.predictions, self._logits = table, gathered["logits"]
            error = float(100 * (table["pred"] != table["label"]).mean())
            metrics = {"val/error": error, "val/loss": float(table["loss"].mean())}
        self.has_results = True
        pl_module.log_dict(trainer.strategy.broadcast(metrics), rank_zero_only=False)
        epochs = trainer.current_epoch + 1
        due = self.every_n_epochs is not None and epochs % self.every_n_epochs == 0
        if due and epochs < (trainer.max_epochs or 0) and self.predictions is not None:
            self._draw(trainer, rank_samples([self.predictions]))

    def finish(self, trainer: L.Trainer) -> None:
        """Writes and logs the audit of the last validation, on rank 0."""
        if not trainer.is_global_zero or self.predictions is None or self._logits is None:
            return
        data = datamodule_of(trainer)
        ranking = rank_samples([self.predictions])
        files = [
            write_predictions(self.predictions, self.folder / "predictions.parquet"),
            write_ranking(ranking, self.folder / "ranking.csv"),
        ]
        if self.probabilities:
            files.append(self.folder / "probabilities.npy")
            with atomic_path(files[-1]) as temporary, open(temporary, "wb") as file:
                np.save(file, softmax(self._logits))
        files += self._write_dynamics(trainer)
        fixes = data.arm.fixes if data.arm.name != "original" else None
        if fixes is not None:
            write_fixes(fixes.reset_index(), self.folder / "fixes.csv")
        self._draw(trainer, ranking)
        tracker = find_tracker(trainer.loggers)
        if tracker is None:
            return
        metadata = {"samples": len(ranking), "labels": len(data.labels), "arm": data.arm.name}
        name = artifact_name(tracker.name or self.folder.name)
        tracker.log_artifact(f"predictions-{name}", "predictions", files, metadata)
        if fixes is not None:
            digest = fixes_fingerprint(fixes)
            metadata = {"fixes": len(fixes), "sha256": digest}
            tracker.log_artifact(f"fixes-{digest[:12]}", "fixes", [self.folder / "fixes.csv"], metadata, used=True)

    def _draw(self, trainer: L.Trainer, ranking: pd.DataFrame) -> None:
        """Draws the panels of a ranking, and logs them and its top rows to W&B."""
        data = datamodule_of(trainer)

        def images(sample_ids: Sequence[str]) -> np.ndarray:
            return np.asarray(data.store[data.table.index.get_indexer(pd.Index(sample_ids))])

        fixes = data.arm.fixes
        marks = None if fixes is None else {str(name): str(new) for name, new in fixes["new_label"].items()}
        pictures = draw_audit(ranking, images, self.folder / "panels", self.title, self.n_panels, marks)
        tracker = find_tracker(trainer.loggers)
        if tracker is not None:
            tracker.log_pictures(pictures)
            log_ranking(tracker, ranking, images, self.table_rows)

    def _write_dynamics(self, trainer: L.Trainer) -> list[Path]:
        """Writes the area under the margin of the training samples; returns the file, if there are margins."""
        data = datamodule_of(trainer)
        meter = self._meter or self._new_meter(len(data.table))
        dynamics = meter.table(data.table.index, data.table["label"])
        if not len(dynamics):
            return []
        labels = np.asarray(data.labels, dtype=object)[data.train_labels]
        trained = pd.Series(labels, index=data.table.index[data.train_rows])
        dynamics["label"] = trained.reindex(dynamics["sample_id"]).to_numpy()
        return [write_dynamics(dynamics, self.folder / "dynamics.parquet")]


def datamodule_of(trainer: L.Trainer) -> Any:
    """Returns the DataModule of a training."""
    return trainer.datamodule  # type: ignore[attr-defined]


def gather_on_rank_zero(batches: Sequence[Arrays]) -> Arrays | None:
    """Concatenates the batches of all processes on rank 0, which keeps each ``index`` once, in ascending order.

    Args:
        batches: arrays of this process with the same keys, among them ``index``, int64 ``(B,)``.

    Returns:
        The same keys with N distinct samples; ``None`` on all other ranks, which receive nothing.
    """
    own = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        rank_zero = torch.distributed.get_rank() == 0
        received: list[Any] | None = [None] * torch.distributed.get_world_size() if rank_zero else None
        torch.distributed.gather_object(own, received, dst=0)
        if received is None:
            return None
        own = {key: np.concatenate([arrays[key] for arrays in received]) for key in own}
    _, first = np.unique(own["index"], return_index=True)
    return {key: values[first] for key, values in own.items()}
