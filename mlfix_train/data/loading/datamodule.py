"""The classifier's DataModule: samples, a split, an arm and a pixel store, to batches on the device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from mlfix_train.data.arms import Arm, training_rows
from mlfix_train.data.loading.augment import IMAGENET_MEAN, IMAGENET_STD, augment
from mlfix_train.data.loading.device_cache import Batch
from mlfix_train.data.loading.spec import AugmentSpec, LoaderSpec
from mlfix_train.data.loading.store_datamodule import Loader, StoreDataModule
from mlfix_train.data.pixels.spec import PixelSpec
from mlfix_train.data.samples import INVALID, require_labels
from mlfix_train.errors import DataError

log = logging.getLogger(__name__)


class DataModule(StoreDataModule):
    """Batches ``{image: (N, 3, H, W), label: int64 (N,), index: int64 (N,)}``; ``index`` is the sample table's row.

    Images are uint8 until they are on the device; there they are augmented (in training) and normalized to float32, a
    whole batch at a time.

    Args:
        table: A sample table with labels.
        held_out: Booleans (N,), see :func:`mlfix_train.data.splits.draw_split`.
        cache: Folder of the pixel stores.
        arm: What to train on.
        augmentation: Changes to training images; ``None`` for none.
        seed: The run's seed: order of the data, augmentation, and the control arm's draw.
        pixels, loader, max_unreadable, progress, mean, std: See :class:`StoreDataModule`.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        held_out: np.ndarray,
        cache: str | Path,
        arm: Arm | None = None,
        pixels: PixelSpec | None = None,
        loader: LoaderSpec | None = None,
        augmentation: AugmentSpec | None = None,
        seed: int = 0,
        max_unreadable: float = 0.01,
        progress: Callable[[int, int], None] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__(table, cache, pixels, loader, seed, max_unreadable, progress, mean, std)
        self.held_out, self.arm = held_out, arm or Arm()
        self.augmentation = augmentation if augmentation is not None and augmentation.enabled else None
        self.labels = require_labels(table)
        if self.arm.fixes is not None:  # labels that fixes add belong to all arms
            self.labels = sorted({*self.labels, *self.arm.fixes["new_label"]} - {INVALID})

    def setup(self, stage: str | None = None) -> None:
        """Opens the store and picks the rows that train and those that are held out; unreadable images do neither.

        Raises:
            DataError: Too few readable samples on either side.
        """
        if hasattr(self, "train_rows"):
            return
        self.prepare_data()
        rows, labels = training_rows(self.table, self.held_out, self.arm.name, self.arm.fixes, self.seed)
        readable = ~self.table.index.isin(self.store.unreadable)
        kept = readable[rows]
        classes = pd.Index(self.labels)
        self.train_rows = rows[kept]
        self.train_labels = classes.get_indexer(pd.Index(labels[kept])).astype(np.int64)
        if len(self.train_rows) < 2:
            raise DataError("fewer than two readable samples are left to train on", "add samples, or hold out fewer")
        self.val_rows = np.flatnonzero(self.held_out & readable)
        if not len(self.val_rows):
            raise DataError("no held-out sample is readable", "repair the unreadable images")
        given = pd.Index(self.table["label"].to_numpy()[self.val_rows])
        self.val_labels = classes.get_indexer(given).astype(np.int64)

    def train_dataloader(self) -> Loader:
        """Returns batches of the arm's training samples."""
        size, count = self.loader.batch_size, len(self.train_rows) // self.rank_and_world()[1]
        if count < size:
            what = (
                "only %d training samples per process: an epoch is one batch; a loader.batch_size below %d makes more"
            )
            log.info(what, count, size)
        return super().train_dataloader()

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augments (in training) and normalizes the images, on the device."""
        image: Tensor = batch["image"]
        if self.is_training and self.augmentation is not None:
            image = augment(image, self.augmentation, self.next_batch_seed())
        return {**batch, "image": self.normalize(image)}
