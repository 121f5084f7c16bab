"""The callback of a sorting network's training: shows nearest neighbours, so that a person sees whether it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd

from mlfix_train.audit.callback import gather_on_rank_zero
from mlfix_train.audit.reporting.panels import Tile, draw_panel, save_panel
from mlfix_train.audit.reporting.pictures import Picture
from mlfix_train.audit.reporting.wandb import find_tracker
from mlfix_train.audit.similarity.neighbours import Neighbours, nearest_neighbours

QUERIES, NEAREST = 12, 8
MOST_PANELS = 12
"""Panels that a training logs, spread evenly over its epochs."""


class NeighbourCallback(L.Callback):
    """Looks for nearest neighbours among the validation's samples, by the cosine of their features.

    It works on any LightningModule whose ``validation_step`` returns ``{features: N,D, index: N}`` and any DataModule
    with ``table`` and ``store``. After each validation it logs ``val/agreement`` (where there are labels: percent of
    the samples whose nearest neighbour from another group bears the same label); some twelve times in a training it
    writes ``panels/neighbours.png`` into ``folder`` and logs it to W&B: a row for each of some samples, the sample
    first, then its nearest neighbours.

    Args:
        folder: run directory.
        title: what the headline calls the run.
    """

    def __init__(self, folder: str | Path, title: str = "") -> None:
        self.folder, self.title = Path(folder), title
        self.parts: list[dict[str, np.ndarray]] = []
        self.has_results = False
        self.gathered: dict[str, np.ndarray] | None = None
        self.agreement: float | None = None

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
        """Keeps the features of a batch, off the device."""
        features, index = outputs["features"].detach().float().cpu().numpy(), outputs["index"].cpu().numpy()
        self.parts.append({"features": features, "index": index})

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Finds the neighbours, logs how many agree in their label, and now and then draws them."""
        if trainer.sanity_checking or not self.parts:
            return
        self.gathered, self.parts = gather_on_rank_zero(self.parts), []
        agreement = None
        if self.gathered is not None:
            table = trainer.datamodule.table.iloc[self.gathered["index"]]  # type: ignore[attr-defined]
            agreement = label_agreement(self.gathered["features"], table)
        self.has_results, self.agreement = True, trainer.strategy.broadcast(agreement)
        if self.agreement is not None:
            pl_module.log("val/agreement", self.agreement, rank_zero_only=False)
        epochs = max(int(trainer.max_epochs or 1), 1)
        every = -(-epochs // MOST_PANELS)
        if trainer.current_epoch % every == 0 and trainer.current_epoch + 1 < epochs:
            self.draw(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draws the neighbours of the last validation."""
        self.finish(trainer)

    def finish(self, trainer: L.Trainer) -> None:
        """Draws and logs the last panel."""
        self.draw(trainer)

    def draw(self, trainer: L.Trainer) -> Path | None:
        """Writes ``panels/neighbours.png`` and logs it; only the first process does, and it returns the path."""
        if not trainer.is_global_zero or self.gathered is None:
            return None
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        index, features = self.gathered["index"], unit(self.gathered["features"])
        rng = np.random.default_rng(0)
        queries = rng.choice(len(index), min(QUERIES, len(index)), replace=False)
        found = nearest_neighbours(features, NEAREST)
        table = data.table.iloc[index]
        tiles = neighbour_tiles(queries, found, table, lambda rows: data.store[index[rows]])
        said = "" if self.agreement is None else f", nearest of the same label {self.agreement:.1f}%"
        epoch = min(trainer.current_epoch + 1, int(trainer.max_epochs or 1))  # after the last it is counted on
        note = f"{self.title}, epoch {epoch}{said}; each row: an image, then its nearest"
        columns = 1 + found.index.shape[1]
        panel = draw_panel(tiles, "Nearest neighbours", note, columns=columns, max_tiles=len(tiles))
        path = save_panel(panel, self.folder / "panels" / "neighbours.png")
        tracker = find_tracker(trainer.loggers)
        if tracker is not None:
            tracker.log_pictures([Picture("sorting/neighbours", path, note)])
        return path


def neighbour_tiles(queries: np.ndarray, found: Neighbours, table: pd.DataFrame, images: Any) -> list[Tile]:
    """Returns tiles row by row: a sample, then its nearest neighbours with their distance.

    Args:
        queries: numbers of samples.
        found: neighbours of all samples.
        table: sample table of all samples, in the same order.
        images: maps numbers of samples to their pixels.
    """
    names = ["" if pd.isna(label) else str(label) for label in table["label"]]
    tiles = []
    for query in queries:
        row = np.concatenate([[query], found.index[query]])
        words = ["this one", *(f"{gap:.2f} away" for gap in found.distance[query])]
        tiles += [
            Tile(image, names[number], caption=word)
            for image, number, word in zip(images(row), row, words, strict=True)
        ]
    return tiles


def unit(features: np.ndarray) -> np.ndarray:
    """Brings rows to length 1; a row of zeros stays."""
    return np.asarray(features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def label_agreement(features: np.ndarray, table: pd.DataFrame, block: int = 1024) -> float | None:
    """Returns how often a sample's nearest neighbour bears its label, the samples of its own group left out.

    Args:
        features: ``N,D``; compared by their cosine.
        table: sample table of the same N samples.
        block: samples looked at at a time.

    Returns:
        Percent, 0 to 100, over the labelled samples that have a labelled neighbour in another group; ``None`` where
        there are none.
    """
    labels, groups = pd.factorize(table["label"])[0], pd.factorize(table["group"])[0]
    rows = np.flatnonzero(labels >= 0)  # pandas gives -1 to what has no label
    if len(np.unique(groups[rows])) < 2:
        return None
    x, labels, groups = unit(features)[rows], labels[rows], groups[rows]
    right = 0
    for start in range(0, len(x), block):
        own = slice(start, start + block)
        likeness = x[own] @ x.T
        likeness[groups[own, None] == groups[None]] = -np.inf
        right += int((labels[likeness.argmax(1)] == labels[own]).sum())
    return 100 * right / len(x)
