"""The DataModule: samples, a split, an arm and a pixel store, to batches on the device."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset

from mlfix_train.data.arms import training_rows
from mlfix_train.data.cache import cached
from mlfix_train.data.fixes.table import INVALID
from mlfix_train.data.loading.augment import AugmentSpec, augment, normalize
from mlfix_train.data.loading.device_cache import ResidentBatches, check_resident, hold
from mlfix_train.data.loading.sampling import EvaluationBatches, TrainingBatches
from mlfix_train.data.pixels.store import PixelSpec, PixelStore, open_store
from mlfix_train.data.samples import require_labels
from mlfix_train.errors import DataError, check_range

log = logging.getLogger(__name__)

Batch = dict[str, torch.Tensor]
Loader = DataLoader[Batch] | ResidentBatches


@dataclass(frozen=True)
class LoaderSpec:
    """How batches are made.

    Args:
        batch_size: training samples a step and process.
        eval_batch_size: held-out samples a step and process.
        sampling: ``balanced`` or ``shuffled``, see :class:`mlfix_train.data.loading.sampling.TrainingBatches`.
        workers: loader processes; 0 reads in the main process, which costs next to nothing from a pixel store.
        resident: whether the images are held on the device that trains, see :func:`mlfix_train.data.loading.device_cache.hold`;
            the samples of each batch are the same either way.
    """

    batch_size: int = 128
    eval_batch_size: int = 512
    sampling: str = "balanced"
    workers: int = 0
    resident: Any = "auto"

    def __post_init__(self) -> None:
        for name in ("batch_size", "eval_batch_size"):
            check_range(f"loader.{name}", getattr(self, name), 2, 1_000_000)
        check_range("loader.workers", self.workers, 0, 256)
        check_resident(self.resident)


@dataclass(frozen=True)
class Arm:
    """What a run trains on: see :func:`mlfix_train.data.arms.training_rows`."""

    name: str = "original"
    fixes: pd.DataFrame | None = field(default=None, repr=False)


class StoredSamples(Dataset[Batch]):
    """Rows of a pixel store with labels; indexed by a list of positions it returns a whole batch.

    Args:
        store: N images.
        rows: M row numbers into the store.
        labels: M int64 labels.
    """

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


class DataModule(L.LightningDataModule):
    """Batches ``{image: N,3,H,W, label: int64 N, index: int64 N}``; ``index`` is the row of the sample table.

    Images are uint8 up to the transfer to the device; after it they are augmented (in training) and normalised to
    float32, a whole batch at a time.

    Args:
        table: a sample table with labels.
        held_out: N booleans, see :func:`mlfix_train.data.splits.draw_split`.
        cache: folder of the pixel stores.
        arm: what to train on.
        pixels: size and shape of the images.
        loader: batches.
        augmentation: changes to training images; ``None`` for none.
        seed: the run's seed: order of the data, augmentation, and the control arm's draw.
        max_unreadable: share of unreadable images above which this is an error.
        progress: called with (images decoded, images in all).
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
    ) -> None:
        super().__init__()
        self.table, self.held_out = table, held_out
        self.arm = arm or Arm()
        self.labels = self._label_list()
        self.pixels, self.loader = pixels or PixelSpec(), loader or LoaderSpec()
        self.augmentation, self.seed = augmentation, seed
        self.cache, self.max_unreadable, self.progress = cache, max_unreadable, progress
        self._step = (-1, 0)

    def _label_list(self) -> list[str]:
        """The labels of the data, and those that fixes add on purpose: one list for all arms."""
        labels = require_labels(self.table)
        fixes = self.arm.fixes
        return labels if fixes is None else sorted({*labels, *fixes["new_label"]} - {INVALID})

    def prepare_data(self) -> None:
        """Builds the pixel store where it is missing (one process of a machine does)."""
        if not hasattr(self, "store"):
            self.store = self._open()

    def _open(self) -> PixelStore:
        return open_shared(self)

    def setup(self, stage: str | None = None) -> None:
        """Opens the store and settles which rows train and which are held out; unreadable images do neither."""
        if hasattr(self, "train_rows"):
            return
        self.prepare_data()
        rows, names = training_rows(self.table, self.held_out, self.arm.name, self.arm.fixes, self.seed)
        readable = ~self.table.index.isin(self.store.unreadable)
        kept = readable[rows]
        known = pd.Index(self.labels)
        codes = known.get_indexer(pd.Index(names[kept]))
        self.train_rows, self.train_labels = rows[kept], codes.astype(np.int64)
        if len(self.train_rows) < 2:
            raise DataError("fewer than two readable samples are left to train on", "bring more, or hold out fewer")
        self.val_rows = np.flatnonzero(self.held_out & readable)
        if not len(self.val_rows):
            raise DataError("no readable sample is held out", "mend the unreadable images")
        self.val_labels = known.get_indexer(pd.Index(self.table["label"].to_numpy()[self.val_rows])).astype(np.int64)

    def _place(self) -> tuple[int, int]:
        """Returns (rank, world) of this process."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def train_dataloader(self) -> Loader:
        """Returns batches of the arm's training samples."""
        rank, world = self._place()
        size, count = self.loader.batch_size, len(self.train_rows)
        if count // world < size:
            log.info("only %d training samples a process: an epoch is one batch; loader.batch_size below %d makes more "
                     "steps of it", count // world, size)  # fmt: skip
        batches = TrainingBatches(self.train_labels, size, self.loader.sampling, self.seed, rank, world)
        return make_loader(self, self.train_rows, self.train_labels, batches)

    def val_dataloader(self) -> Loader:
        """Returns batches of all held-out samples with their given labels, whatever the arm."""
        batches = EvaluationBatches(len(self.val_rows), self.loader.eval_batch_size, *self._place())
        return make_loader(self, self.val_rows, self.val_labels, batches)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augments (in training) and normalises the images, on the device."""
        image = batch["image"]
        if self.trainer is not None and self.trainer.training and self.augmentation is not None:
            self._step, seed = batch_seed(self.trainer, self._step, self.seed)
            image = augment(image, self.augmentation, seed)
        return {**batch, "image": normalize(image)}


def make_loader(module: Any, rows: np.ndarray, labels: np.ndarray, batches: Any) -> Loader:
    """Returns whole batches of a DataModule's store: picked on the device where the images are held there, else read.

    Args:
        module: has ``store``, ``loader`` and ``trainer``.
        rows: M row numbers into the store.
        labels: M int64 labels.
        batches: which of the M make up each batch.
    """
    images, workers = held_images(module), module.loader.workers
    if images is not None:
        return ResidentBatches(images, rows, labels, batches)
    return DataLoader(
        StoredSamples(module.store, rows, labels),
        batch_size=None,
        sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def open_shared(module: Any) -> PixelStore:
    """Opens the store of a DataModule; the runs of a sweep that train in one process look at the files once."""
    key = ("store", id(module.table), str(module.pixels), str(module.cache), module.max_unreadable)
    options = {"max_unreadable": module.max_unreadable, "progress": module.progress}
    # The table is kept with its store: its identity is the key's.
    pair = cached(key, lambda: (module.table, open_store(module.table, module.pixels, module.cache, **options)))
    store: PixelStore = pair[1]
    return store


def held_images(module: Any) -> torch.Tensor | None:
    """Returns a DataModule's images on the device that trains, or ``None`` where they are read batch by batch."""
    device = module.trainer.strategy.root_device if module.trainer is not None else torch.device("cpu")
    return hold(module.store, device, module.loader.resident)


def batch_seed(trainer: Any, last: tuple[int, int], seed: int) -> tuple[tuple[int, int], int]:
    """Returns what to hand over at the next call, and a seed of (run, epoch, batch, process).

    A resumed run so changes its images as it would have.

    Args:
        trainer: Lightning's.
        last: what the call before returned; ``(-1, 0)`` at first.
        seed: the run's.
    """
    epoch, batch = last if last[0] == trainer.current_epoch else (trainer.current_epoch, 0)
    numbers = np.array([seed, epoch, batch, trainer.global_rank], dtype=np.int64)
    return (epoch, batch + 1), zlib.crc32(numbers.tobytes())
