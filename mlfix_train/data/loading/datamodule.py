"""DataModules over a pixel store: what they share, and the one of classifiers (samples, a split and an arm)."""

import logging
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset

from mlfix_train.data.arms import Arm, training_rows
from mlfix_train.data.cache import cached
from mlfix_train.data.loading.augment import IMAGENET_MEAN, IMAGENET_STD, augment, channel_tensors, normalize
from mlfix_train.data.loading.device_cache import Batch, DeviceBatches, device_images
from mlfix_train.data.loading.sampling import EvaluationBatches, TrainingBatches
from mlfix_train.data.loading.spec import AugmentSpec, LoaderSpec
from mlfix_train.data.pixels.spec import PixelSpec
from mlfix_train.data.pixels.store import PixelStore, open_store
from mlfix_train.data.samples import INVALID, require_labels
from mlfix_train.errors import DataError

log = logging.getLogger(__name__)

Loader = DataLoader[Batch] | DeviceBatches


class StoredSamples(Dataset[Batch]):
    """M rows of a pixel store with int64 labels; indexed by a list of positions it returns a whole batch."""

    def __init__(self, store: PixelStore, rows: np.ndarray, labels: np.ndarray) -> None:
        self.store, self.rows, self.labels = store, rows, labels

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, positions: list[int]) -> Batch:
        rows = self.rows[positions]
        return {
            "image": torch.from_numpy(self.store[rows]).permute(0, 3, 1, 2),
            "label": torch.from_numpy(self.labels[positions]),
            "index": torch.from_numpy(rows),
        }


class StoreDataModule(L.LightningDataModule):
    """Base of the DataModules: opens the pixel store, makes loaders, normalizes on the device.

    A subclass sets ``train_rows`` and ``val_rows`` (int64 row numbers of the sample table) in ``setup``, and the labels
    of both, which every held-out sample keeps in all arms.

    Args:
        table: A sample table.
        cache: Folder of the pixel stores.
        pixels: How images become pixels.
        loader: How batches are made.
        seed: The run's seed: order of the data and random changes of the images.
        max_unreadable: Share of unreadable images above which this is an error, 0 to 1.
        progress: Called with (images decoded, images in total).
        mean: Channel means, RGB, of pixels in 0 to 1, to normalize with: those that the backbone was pretrained with.
        std: Standard deviations, likewise.
    """

    train_rows: np.ndarray
    train_labels: np.ndarray
    val_rows: np.ndarray
    val_labels: np.ndarray

    def __init__(
        self,
        table: pd.DataFrame,
        cache: str | Path,
        pixels: PixelSpec | None = None,
        loader: LoaderSpec | None = None,
        seed: int = 0,
        max_unreadable: float = 0.01,
        progress: Callable[[int, int], None] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.table, self.cache, self.seed = table, cache, seed
        self.pixels, self.loader = pixels or PixelSpec(), loader or LoaderSpec()
        self.sampling = self.loader.for_labels(table["label"].dropna().astype(str).tolist()).sampling
        self.max_unreadable, self.progress = max_unreadable, progress
        self.mean, self.std = tuple(mean), tuple(std)
        self._next_batch = (-1, 0)  # epoch, batch
        self._device_images: tuple[torch.Tensor | None] | None = None
        self._device_loaders: list[DeviceBatches] = []

    def prepare_data(self) -> None:
        """Opens the pixel store, and builds it if it is missing (one process per machine does)."""
        if hasattr(self, "store"):
            return

        def open_with_table() -> tuple[pd.DataFrame, PixelStore]:
            store = open_store(self.table, self.pixels, self.cache, None, self.max_unreadable, self.progress)
            return self.table, store  # kept together, since the table's identity is part of the key

        # The runs of a sweep that train in one process check the files once.
        key = ("store", id(self.table), str(self.pixels), str(self.cache), self.max_unreadable)
        self.store: PixelStore = cached(key, open_with_table)[1]

    def rank_and_world(self) -> tuple[int, int]:
        """Returns the number of this process and the number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def train_dataloader(self) -> Loader:
        """Returns batches of the training samples, in an order that follows from the run's seed and the epoch."""
        size, sampling = self.loader.batch_size, self.sampling
        batches = TrainingBatches(self.train_labels, size, sampling, self.seed, *self.rank_and_world())
        return self.make_loader(self.train_rows, self.train_labels, batches)

    def val_dataloader(self) -> Loader:
        """Returns batches of all held-out or monitored samples."""
        batches = EvaluationBatches(len(self.val_rows), self.loader.eval_batch_size, *self.rank_and_world())
        return self.make_loader(self.val_rows, self.val_labels, batches)

    def make_loader(self, rows: np.ndarray, labels: np.ndarray, batches: TrainingBatches | EvaluationBatches) -> Loader:
        """Returns batches of M rows and labels: picked on the device if the images are there, else read."""
        images, workers = self.device_images(), self.loader.workers
        if images is not None:
            self._device_loaders.append(DeviceBatches(images, rows, labels, batches))
            return self._device_loaders[-1]
        return DataLoader(
            StoredSamples(self.store, rows, labels),
            batch_size=None,
            sampler=batches,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def device_images(self) -> torch.Tensor | None:
        """Returns all images on the device that trains, or ``None`` if they are read batch by batch."""
        if self._device_images is None:
            device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
            self._device_images = (device_images(self.store, device, self.loader.cache_on_device),)
        return self._device_images[0]

    def teardown(self, stage: str) -> None:
        """Frees the device memory of the images, unless a sweep shares them."""
        for loader in self._device_loaders:
            loader.release()
        self._device_loaders.clear()
        self._device_images = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @property
    def is_training(self) -> bool:
        """Whether a trainer is processing training batches."""
        return self.trainer is not None and bool(self.trainer.training)

    def next_batch_seed(self) -> int:
        """Returns a seed of (run, epoch, batch, process), so that a resumed run changes its images as it would have."""
        trainer: Any = self.trainer
        epoch, batch = self._next_batch
        epoch, batch = trainer.current_epoch, batch if epoch == trainer.current_epoch else 0
        self._next_batch = (epoch, batch + 1)
        return zlib.crc32(np.array([self.seed, epoch, batch, trainer.global_rank], dtype=np.int64).tobytes())

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """Normalizes images ``(N, 3, H, W)`` by ``mean`` and ``std``, on their device."""
        return normalize(images, *channel_tensors(self.mean, self.std, images.device))


class DataModule(StoreDataModule):
    """Batches ``{image: (N, 3, H, W), label: int64 (N,), index: int64 (N,)}``; ``index`` is the sample table's row.

    Images are uint8 until they are on the device; there they are augmented (in training) and normalized to float32, a
    whole batch at a time. The seed draws the control arm, too.

    Args:
        table: A sample table with labels.
        held_out: Booleans (N,), see :func:`mlfix_train.data.splits.draw_split`.
        cache: Folder of the pixel stores.
        arm: What to train on.
        augmentation: Changes to training images; ``None`` for none.
        shared: Further arguments of :class:`StoreDataModule`.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        held_out: np.ndarray,
        cache: str | Path,
        arm: Arm | None = None,
        augmentation: AugmentSpec | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(table, cache, **shared)
        self.held_out, self.arm = held_out, arm or Arm()
        self.labels = require_labels(table)
        enabled = augmentation is not None and augmentation.enabled
        self.augmentation = augmentation.for_labels(self.labels) if augmentation is not None and enabled else None
        if self.arm.fixes is not None:  # labels that fixes add belong to all arms
            self.labels = sorted({*self.labels, *self.arm.fixes["new_label"]} - {INVALID})

    def setup(self, stage: str | None = None) -> None:
        """Opens the store and picks the readable rows of either side; a DataError if there are too few."""
        if hasattr(self, "train_rows"):
            return
        self.prepare_data()
        rows, labels = training_rows(self.table, self.held_out, self.arm.name, self.arm.fixes, self.seed)
        readable, classes = ~self.table.index.isin(self.store.unreadable), pd.Index(self.labels)
        self.train_rows = rows[readable[rows]]
        self.train_labels = classes.get_indexer(pd.Index(labels[readable[rows]])).astype(np.int64)
        if len(self.train_rows) < 2:
            raise DataError("fewer than two readable samples are left to train on", "add samples, or hold out fewer")
        self.val_rows = np.flatnonzero(self.held_out & readable)
        if not len(self.val_rows):
            raise DataError("no held-out sample is readable", "replace the unreadable images")
        given = pd.Index(self.table["label"].to_numpy()[self.val_rows])
        self.val_labels = classes.get_indexer(given).astype(np.int64)
        size, count = self.loader.batch_size, len(self.train_rows) // self.rank_and_world()[1]
        if count < size:
            note = "only %d training samples per process: an epoch is one batch; loader.batch_size below %d makes more"
            log.info(note, count, size)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augments (in training) and normalizes the images, on the device."""
        image = batch["image"]
        if self.is_training and self.augmentation is not None:
            image = augment(image, self.augmentation, self.next_batch_seed())
        return {**batch, "image": self.normalize(image)}
