"""The sorting network's DataModule: every readable sample, labelled or not, as two random views."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch

from mlfix_train.data.loading.augment import normalize
from mlfix_train.data.loading.datamodule import (
    Batch,
    Loader,
    LoaderSpec,
    batch_seed,
    held_images,
    make_loader,
    open_shared,
)
from mlfix_train.data.loading.sampling import EvaluationBatches, TrainingBatches
from mlfix_train.data.loading.views import ViewSpec, two_views
from mlfix_train.data.pixels.store import PixelSpec, PixelStore
from mlfix_train.data.samples import label_list
from mlfix_train.errors import DataError

log = logging.getLogger(__name__)

SHOWN = 2_000
"""Samples, at most, among which nearest neighbours are looked for as the training goes."""


class ViewData(L.LightningDataModule):
    """Batches ``{views: 2,N,3,H,W, index: int64 N}`` in training, ``{image: N,3,H,W, index}`` else, normalised.

    All samples train: nothing is learnt from labels, so nothing has to be held out. What is called validation embeds a
    fixed draw of up to :data:`SHOWN` samples, so that a person can look at their neighbours.

    Args:
        table: a sample table, with labels or without.
        cache: folder of the pixel stores.
        pixels: size and shape of the images.
        loader: batches; ``sampling`` is not used: every sample is drawn once an epoch.
        views: how far two views may differ.
        seed: the run's seed: order of the data and views.
        max_unreadable: share of unreadable images above which this is an error.
        progress: called with (images decoded, images in all).
    """

    def __init__(
        self,
        table: pd.DataFrame,
        cache: str | Path,
        pixels: PixelSpec | None = None,
        loader: LoaderSpec | None = None,
        views: ViewSpec | None = None,
        seed: int = 0,
        max_unreadable: float = 0.01,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__()
        self.table, self.labels = table, label_list(table)
        self.pixels, self.loader, self.views = pixels or PixelSpec(), loader or LoaderSpec(), views or ViewSpec()
        self.seed, self.cache, self.max_unreadable, self.progress = seed, cache, max_unreadable, progress
        self._step = (-1, 0)

    def prepare_data(self) -> None:
        """Builds the pixel store where it is missing (one process of a machine does)."""
        if not hasattr(self, "store"):
            self.store: PixelStore = open_shared(self)

    def setup(self, stage: str | None = None) -> None:
        """Opens the store and leaves out unreadable images.

        Raises:
            DataError: fewer than two images can be read.
        """
        if hasattr(self, "train_rows"):
            return
        self.prepare_data()
        self.train_rows = np.flatnonzero(~self.table.index.isin(self.store.unreadable))
        if len(self.train_rows) < 2:
            raise DataError(
                f"{len(self.train_rows)} image(s) can be read; the sorting network learns from two or more",
                "bring more images (a few hundred are few)",
            )
        if self.views.partner == "group" and self.table["group"].is_unique:
            raise DataError(
                "views.partner=group, and every image is a group of its own",
                "say what belongs together (data.group=<regular expression on the sample_id>), or views.partner=image",
            )
        rng = np.random.default_rng(0)
        count = min(SHOWN, len(self.train_rows))
        self.val_rows = np.sort(rng.choice(self.train_rows, count, replace=False))

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def train_dataloader(self) -> Loader:
        """Returns batches of all samples, in an order of the run's seed and the epoch."""
        none = np.zeros(len(self.train_rows), dtype=np.int64)
        rank, world = self._place()
        batches = TrainingBatches(none, self.loader.batch_size, "shuffled", self.seed, rank, world)
        return make_loader(self, self.train_rows, none, batches)

    def val_dataloader(self) -> Loader:
        """Returns batches of the samples whose neighbours are shown."""
        none = np.zeros(len(self.val_rows), dtype=np.int64)
        batches = EvaluationBatches(len(self.val_rows), self.loader.eval_batch_size, *self._place())
        return make_loader(self, self.val_rows, none, batches)

    def _partners(self, batch: Batch, seed: int) -> torch.Tensor:
        """Returns for each image another of its group, drawn at random, or itself where it is alone."""
        rows = batch["index"].cpu().numpy()
        if not hasattr(self, "_groups"):
            codes = pd.factorize(self.table["group"].to_numpy()[self.train_rows])[0]
            order = np.argsort(codes, kind="stable")
            starts = np.concatenate([[0], np.cumsum(np.bincount(codes))])
            place = np.empty(len(order), np.int64)
            place[order] = np.arange(len(order))
            self._groups = self.train_rows[order], starts[codes], np.diff(starts)[codes], place - starts[codes]
        members, first, size, place = self._groups
        at = np.searchsorted(self.train_rows, rows)
        step = 1 + (np.random.default_rng(seed).random(len(at)) * (size[at] - 1)).astype(np.int64)
        other = members[first[at] + (place[at] + step) % size[at]]
        images = held_images(self)
        if images is not None:
            return images[torch.from_numpy(other).to(images.device)].permute(0, 3, 1, 2)
        return torch.from_numpy(self.store[other]).permute(0, 3, 1, 2).to(batch["image"].device)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> dict[str, Any]:
        """Draws the views (in training) and normalises, on the device."""
        if self.trainer is None or not self.trainer.training:
            return {"image": normalize(batch["image"]), "index": batch["index"]}
        self._step, seed = batch_seed(self.trainer, self._step, self.seed)
        partners = self._partners(batch, seed) if self.views.partner == "group" else None
        views = two_views(batch["image"], self.views, seed, partners)
        return {"views": normalize(views.flatten(0, 1)).unflatten(0, (2, -1)), "index": batch["index"]}


def as_tensor(images: np.ndarray) -> torch.Tensor:
    """Returns uint8 ``N,H,W,3`` pixels as the normalised ``N,3,H,W`` tensor that networks take."""
    return normalize(torch.from_numpy(images).permute(0, 3, 1, 2))
