"""Shows nearest neighbours while a sorting network trains, so that a person can judge what it learns.

Shapes: N samples, D features.
"""

from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd

from mlfix_train.audit.reporting.panels import Tile, draw_panel, save_panel
from mlfix_train.audit.reporting.pictures import Picture
from mlfix_train.audit.reporting.trackers import log_to_trackers
from mlfix_train.audit.similarity.neighbours import nearest_neighbours
from mlfix_train.audit.validation_collector import ValidationCollector, datamodule_of, gather_on_rank_zero
from mlfix_train.models.embedding.base import unit_rows

N_QUERIES, N_NEIGHBOURS = 12, 8  # rows of the panel, and neighbours in each
MAX_PANELS = 12  # panels per training, spread evenly over its epochs


class NeighbourCallback(ValidationCollector):
    """Finds nearest neighbours among the validation samples, by the cosine similarity of their features.

    It works with any LightningModule whose ``validation_step`` returns ``{features: (N, D), index: (N,)}`` and any
    DataModule with ``table`` and ``store``. After each validation it logs ``val/agreement`` (if there are labels; see
    :func:`label_agreement`). Up to 12 times per training, and at the end, it writes ``panels/neighbours.png`` and logs
    it to W&B: in each row a sample, followed by its nearest neighbours.

    Args:
        folder: Run directory.
        title: Name of the run in the headline.
    """

    keys = ("features", "index")

    def __init__(self, folder: str | Path, title: str = "") -> None:
        super().__init__()
        self.folder, self.title = Path(folder), title
        self.gathered: dict[str, np.ndarray] | None = None
        self.agreement: float | None = None

    @property
    def has_results(self) -> bool:
        """Whether a validation has been seen, on any rank."""
        return self.gathered is not None

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measures and logs the agreement of labels, and draws a panel if one is due."""
        if trainer.sanity_checking or not self._batches:
            return
        gathered, self._batches = gather_on_rank_zero(self._batches), []
        agreement = None
        if gathered is not None:
            agreement = label_agreement(gathered["features"], datamodule_of(trainer).table.iloc[gathered["index"]])
        self.gathered, self.agreement = gathered or {}, trainer.strategy.broadcast(agreement)
        if self.agreement is not None:
            pl_module.log("val/agreement", self.agreement, rank_zero_only=False)
        epochs = max(int(trainer.max_epochs or 1), 1)
        interval = -(-epochs // MAX_PANELS)
        if trainer.current_epoch % interval == 0 and trainer.current_epoch + 1 < epochs:
            self.finish(trainer)

    def finish(self, trainer: L.Trainer) -> None:
        """Writes ``panels/neighbours.png`` from the last validation and logs it, on rank 0."""
        if not trainer.is_global_zero or not self.gathered:
            return
        data = datamodule_of(trainer)
        index, features = self.gathered["index"], unit_rows(self.gathered["features"])
        queries = np.random.default_rng(0).choice(len(index), min(N_QUERIES, len(index)), replace=False)
        neighbours = nearest_neighbours(features, N_NEIGHBOURS)
        labels = ["" if pd.isna(label) else str(label) for label in data.table["label"].iloc[index]]
        tiles = []
        for query in queries:  # one row of the panel
            rows = np.concatenate([[query], neighbours.index[query]])
            captions = ["query", *(f"distance {distance:.2f}" for distance in neighbours.distance[query])]
            shown = zip(data.store[index[rows]], rows, captions, strict=True)
            tiles += [Tile(image, labels[row], caption=caption) for image, row, caption in shown]
        agreement = "" if self.agreement is None else f", nearest of the same label {self.agreement:.1f}%"
        epoch = min(trainer.current_epoch + 1, int(trainer.max_epochs or 1))  # it is incremented after the last one
        note = f"{self.title}, epoch {epoch}{agreement}; each row: an image, then its nearest neighbours"
        columns = 1 + neighbours.index.shape[1]
        panel = draw_panel(tiles, "Nearest neighbours", note, columns=columns, max_tiles=len(tiles))
        path = save_panel(panel, self.folder / "panels" / "neighbours.png")
        picture = Picture("sorting/neighbours", path, note)
        log_to_trackers(trainer.loggers, lambda tracker: tracker.log_pictures([picture]))


def label_agreement(features: np.ndarray, table: pd.DataFrame, block_size: int = 1024) -> float | None:
    """Returns how often the nearest neighbour of a sample from another group has the same label.

    Features ``(N, D)`` are compared by their cosine similarity. In percent of the labelled samples, higher is better;
    ``None`` unless there are two groups of them.
    """
    labels, groups = pd.factorize(table["label"])[0], pd.factorize(table["group"])[0]
    rows = np.flatnonzero(labels >= 0)  # missing labels have the code -1
    if len(np.unique(groups[rows])) < 2:
        return None
    x, labels, groups = unit_rows(features)[rows], labels[rows], groups[rows]
    agreeing = 0
    for start in range(0, len(x), block_size):
        own = slice(start, start + block_size)
        similarity = x[own] @ x.T
        similarity[groups[own, None] == groups[None]] = -np.inf
        agreeing += int((labels[similarity.argmax(1)] == labels[own]).sum())
    return 100 * agreeing / len(x)
