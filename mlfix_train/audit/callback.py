"""The audit callback: gathers every held-out prediction of a training, writes it, draws it and logs it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch

from mlfix_train.audit.predictions.dynamics import MarginMeter, write_dynamics
from mlfix_train.audit.predictions.table import predictions_table, softmax, write_predictions
from mlfix_train.audit.reporting import wandb as wandb_log
from mlfix_train.audit.reporting.pictures import draw_audit
from mlfix_train.audit.scores.ranking import rank_samples, write_ranking
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.fixes.table import fixes_fingerprint, write_fixes
from mlfix_train.errors import check_range


class AuditCallback(L.Callback):
    """Collects logits over each validation; after the last one writes and logs the audit.

    It works on any LightningModule whose ``validation_step`` returns ``{logits: N,C, label: N, index: N}`` and any
    DataModule with ``table``, ``labels``, ``store`` and ``arm``, under any logger, and alone or under DDP: every
    held-out sample is in the predictions exactly once.

    After each validation it logs ``val/error`` (percent) and ``val/loss`` (nats), both exact over all processes. At
    the end it writes ``predictions.parquet``, ``ranking.csv``, ``panels/*.png`` and, on request, ``probabilities.npy``
    (float16 N,C, rows and columns as in the predictions and the label list) into ``folder``, and logs the same to W&B.
    Where ``training_step`` returns ``logits`` beside the loss, ``dynamics.parquet`` keeps the area under the margin of
    every training sample (see :mod:`mlfix_train.audit.predictions.dynamics`); a resumed training goes on counting.

    Args:
        folder: run directory.
        title: what the headlines of pictures call the run.
        table_rows: rows of the ranked table with thumbnails, at most 108.
        n_panels: number of (given, predicted) slices that get a panel.
        probabilities: write the probability matrix too.
        split: what the predictions call the held-out samples.
        every_n_epochs: epochs after which ranking and panels are drawn and logged while training goes on; ``None``: at the end.
    """

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
        check_range("audit.table_rows", table_rows, 0, 108)
        check_range("audit.n_panels", n_panels, 0, 1000)
        self.folder, self.title, self.table_rows, self.n_panels = Path(folder), title, table_rows, n_panels
        if every_n_epochs is not None:
            check_range("audit.every_n_epochs", every_n_epochs, 1, 1_000_000)
        self.probabilities, self.split, self.every_n_epochs = probabilities, split, every_n_epochs
        self.parts: list[dict[str, np.ndarray]] = []
        self.gathered: dict[str, np.ndarray] | None = None
        self.predictions: pd.DataFrame | None = None
        self.meter: MarginMeter | None = None
        self._restored: torch.Tensor | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begins to count margins, or goes on from a checkpoint's."""
        self.meter = self._meter(trainer, pl_module.device)

    def _meter(self, trainer: L.Trainer, device: torch.device | str = "cpu") -> MarginMeter:
        meter = MarginMeter(len(trainer.datamodule.table), device)  # type: ignore[attr-defined]
        if self._restored is not None and self._restored.shape == meter.total.shape:
            meter.total += self._restored.to(device)
        return meter

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Adds the margins of a training batch; nothing waits for the device."""
        if self.meter is not None and isinstance(outputs, dict) and "logits" in outputs:
            self.meter.add(outputs["logits"], batch["label"], batch["index"])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Brings the margins of all processes together."""
        if self.meter is not None:
            self.meter.end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps: the sums of the margins."""
        return {} if self.meter is None else {"margins": self.meter.total.cpu()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up a checkpoint's sums."""
        self._restored = state_dict.get("margins")

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begins a new collection."""
        self.parts = []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the logits of a batch, off the device."""
        self.parts.append({key: outputs[key].detach().float().cpu().numpy() for key in ("logits",)}
                          | {key: outputs[key].cpu().numpy() for key in ("label", "index")})  # fmt: skip

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Brings the parts of all processes together, each sample once, and logs error and loss."""
        if trainer.sanity_checking or not self.parts:
            return
        self.gathered = gather(self.parts)
        self.parts = []
        table = self._table(trainer)
        self.predictions = table
        wrong = float(100 * (table["pred"] != table["label"]).mean())
        pl_module.log_dict({"val/error": wrong, "val/loss": float(table["loss"].mean())}, rank_zero_only=False)
        done = trainer.current_epoch + 1
        if self.every_n_epochs and done % self.every_n_epochs == 0 and done < (trainer.max_epochs or 0) and trainer.is_global_zero:
            self._draw(trainer, rank_samples([table]))

    def _table(self, trainer: L.Trainer) -> pd.DataFrame:
        data, found = trainer.datamodule, self.gathered  # type: ignore[attr-defined]
        assert found is not None
        ids = data.table.index.to_numpy()[found["index"]]
        return predictions_table(ids, found["label"], found["logits"], data.labels, self.split)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes and logs the audit of the last validation."""
        self.finish(trainer)

    def finish(self, trainer: L.Trainer) -> None:
        """Writes and logs the audit; only the first process does."""
        if not trainer.is_global_zero or self.predictions is None or self.gathered is None:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        ranking = rank_samples([self.predictions])
        files = [
            write_predictions(self.predictions, self.folder / "predictions.parquet"),
            write_ranking(ranking, self.folder / "ranking.csv"),
        ]
        if self.probabilities:
            with atomic_path(self.folder / "probabilities.npy") as temporary, open(temporary, "wb") as file:
                np.save(file, softmax(self.gathered["logits"]))
            files.append(self.folder / "probabilities.npy")
        files += self._write_dynamics(trainer)
        fixes, used = data.arm.fixes, data.arm.fixes is not None and data.arm.name != "original"
        if used:
            write_fixes(fixes.reset_index(), self.folder / "fixes.csv")
        self._draw(trainer, ranking)
        run = wandb_log.find_run(trainer.loggers)
        if run is None:
            return
        name = artifact_name(run.name or self.folder.name)
        metadata = {"samples": len(ranking), "labels": len(data.labels), "arm": data.arm.name}
        wandb_log.log_artifact(run, f"predictions-{name}", "predictions", files, metadata)
        if used:
            digest = fixes_fingerprint(fixes)
            kept = {"fixes": len(fixes), "sha256": digest}
            wandb_log.log_artifact(run, f"fixes-{digest[:12]}", "fixes", [self.folder / "fixes.csv"], kept, used=True)

    def _draw(self, trainer: L.Trainer, ranking: pd.DataFrame) -> None:
        """Draws the panels of a ranking, and logs them and its head to W&B."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        rows = pd.Series(np.arange(len(data.table)), index=data.table.index)

        def images(ids: list[str]) -> np.ndarray:
            return np.asarray(data.store[rows.loc[ids].to_numpy()])

        fixes = data.arm.fixes
        marks = None if fixes is None else {str(name): str(new) for name, new in fixes["new_label"].items()}
        pictures = draw_audit(ranking, images, self.folder / "panels", self.title, self.n_panels, marks)
        run = wandb_log.find_run(trainer.loggers)
        if run is not None:
            wandb_log.log_pictures(run, pictures)
            wandb_log.log_ranking(run, ranking, images, self.table_rows)

    def _write_dynamics(self, trainer: L.Trainer) -> list[Path]:
        """Writes the area under the margin of the training samples; returns the file, if there is one."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        found = (self.meter or self._meter(trainer)).table(data.table.index, data.table["label"])
        if not len(found):
            return []
        used = pd.Series(
            np.asarray(data.labels, dtype=object)[data.train_labels], index=data.table.index[data.train_rows]
        )
        found["label"] = used.reindex(found["sample_id"]).to_numpy()
        return [write_dynamics(found, self.folder / "dynamics.parquet")]


def artifact_name(text: str) -> str:
    """Returns ``text`` with all but letters, digits, ``-``, ``_`` and ``.`` replaced, as W&B wants it."""
    return re.sub(r"[^\w.-]+", "-", text, flags=re.ASCII)[:100].strip("-") or "run"


def gather(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Concatenates batches, brings those of all processes together, and keeps each ``index`` once, ascending.

    Args:
        parts: batches of this process: arrays ``logits`` n,C, ``label`` n and ``index`` n.

    Returns:
        The same keys over all processes (every process gets all), N distinct samples.
    """
    own = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        everyone: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(everyone, own)
        own = {key: np.concatenate([other[key] for other in everyone]) for key in own}
    _, first = np.unique(own["index"], return_index=True)
    return {key: values[first] for key, values in own.items()}
