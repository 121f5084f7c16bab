"""Two random views of each image, from which a sorting network learns, and the DataModule that makes them.

Views are random changes that leave the content of an image as it is: a crop of random size and aspect ratio, rotation,
warp, lighting, blur, and color only where it does not matter. A whole batch is changed at a time, on its device; random
numbers are drawn on the CPU from a seed, so that a sample looks the same on every device.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mlfix_train.data.loading.augment import as_float, augment, crops, homographies, resample
from mlfix_train.data.loading.datamodule import StoreDataModule
from mlfix_train.data.loading.device_cache import Batch
from mlfix_train.data.loading.spec import AugmentSpec, ViewSpec
from mlfix_train.data.loading.transfer import to_device
from mlfix_train.data.samples import label_list
from mlfix_train.errors import DataError

MONITORED_SAMPLES = 2_000
"""Samples, at most, whose nearest neighbours are shown while the training runs."""
YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
"""From RGB to brightness and two axes of color (YIQ, FCC 1953), in which a rotation is a change of hue."""


def two_views(images: Tensor, spec: ViewSpec, seed: int, partners: Tensor | None = None) -> Tensor:
    """Returns two random views of each image: float32 ``(2, N, 3, H, W)`` in 0..1, the same for a seed on any device.

    ``images`` are ``(N, 3, H, W)``, uint8 in 0..255 or float in 0..1; the second views are of ``partners``, if given.
    """
    seeds = torch.Generator().manual_seed(seed)
    pair = (images, images if partners is None else partners)
    return torch.stack([view(as_float(x), spec, int(torch.randint(2**62, (1,), generator=seeds))) for x in pair])


def view(x: Tensor, spec: ViewSpec, seed: int) -> Tensor:
    """Returns one random view of each image; float ``(N, 3, H, W)`` in 0..1, as ``x``."""
    generator = torch.Generator().manual_seed(seed)
    geometry = AugmentSpec(rotate=spec.rotate, warp=spec.warp, zoom=1.0)
    maps = crops(len(x), spec.crop, spec.aspect_ratio, spec.flip, generator)
    x = resample(x, maps @ homographies(len(x), geometry, generator))
    lighting = AugmentSpec(blur=spec.blur, rotate=0.0, zoom=1.0, warp=0.0, lighting=spec.lighting, p_lighting=0.8)
    x = augment(x, lighting, int(torch.randint(2**62, (1,), generator=generator)))
    if spec.keep_color:
        return x
    return torch.einsum("nij,njhw->nihw", to_device(color_maps(len(x), spec, generator), x.device), x).clamp_(0, 1)


def color_maps(n: int, spec: ViewSpec, generator: torch.Generator) -> Tensor:
    """Draws float32 ``(n, 3, 3)`` on RGB that rotate and scale YIQ's color plane (hue and saturation); grays stay."""
    to_yiq = torch.tensor(YIQ)
    angle = (torch.rand(n, generator=generator) * 2 - 1) * math.radians(spec.hue)
    strength = 1 + (torch.rand(n, generator=generator) * 2 - 1) * spec.saturation
    strength = torch.where(torch.rand(n, generator=generator) < spec.gray, 0.0, strength)
    change = torch.eye(3).repeat(n, 1, 1)
    change[:, 1, 1] = change[:, 2, 2] = strength * angle.cos()
    change[:, 1, 2], change[:, 2, 1] = -strength * angle.sin(), strength * angle.sin()
    matrices: Tensor = torch.linalg.inv(to_yiq) @ change @ to_yiq
    return matrices


class ViewDataModule(StoreDataModule):
    """Batches ``{views: (2, N, 3, H, W), index: int64 (N,)}`` in training, else ``{image: (N, 3, H, W), index}``.

    All samples train: nothing is learnt from labels, so nothing has to be held out. Validation embeds a fixed draw of
    up to :data:`MONITORED_SAMPLES` samples, to inspect their neighbours.

    Args:
        table: A sample table, with or without labels.
        cache: Folder of the pixel stores.
        views: How much two views may differ.
        shared: Further arguments of :class:`StoreDataModule`; ``loader.sampling`` is not used: every sample is drawn
            once per epoch.
    """

    def __init__(self, table: pd.DataFrame, cache: str | Path, views: ViewSpec | None = None, **shared: Any) -> None:
        super().__init__(table, cache, **shared)
        self.labels, self.views, self.sampling = label_list(table), views or ViewSpec(), "shuffled"

    def setup(self, stage: str | None = None) -> None:
        """Opens the store and leaves out unreadable images.

        Raises:
            DataError: Fewer than two images are readable, or pairs within groups are set and there are no groups.
        """
        if hasattr(self, "train_rows"):
            return
        self.prepare_data()
        self.train_rows = np.flatnonzero(~self.table.index.isin(self.store.unreadable))
        if len(self.train_rows) < 2:
            problem = f"{len(self.train_rows)} image(s) are readable; a sorting network learns from two or more"
            raise DataError(problem, "add images; a few hundred are still few")
        if self.views.positive_pair == "group" and self.table["group"].is_unique:
            hint = "set the groups (data.group=<regular expression on the sample_id>), or views.positive_pair=image"
            raise DataError("views.positive_pair=group, but every image is a group of its own", hint)
        count = min(MONITORED_SAMPLES, len(self.train_rows))
        self.val_rows = np.sort(np.random.default_rng(0).choice(self.train_rows, count, replace=False))
        self.train_labels, self.val_labels = (np.zeros_like(rows) for rows in (self.train_rows, self.val_rows))

    def _images_of_same_groups(self, batch: Batch, seed: int) -> Tensor:
        """Returns for each image another one of its group, drawn at random, or the image itself if it is alone."""
        images = self.device_images()
        if images is None:
            others = self._partners(batch["index"].cpu(), seed).numpy()
            return torch.from_numpy(self.store[others]).permute(0, 3, 1, 2).to(batch["image"].device)
        return images[self._partners(batch["index"], seed)].permute(0, 3, 1, 2)

    def _partners(self, index: Tensor, seed: int) -> Tensor:
        """Returns for each row of the table another one of its group, int64 ``(B,)``, on the device of ``index``."""
        if not hasattr(self, "_groups"):
            codes = pd.factorize(self.table["group"].to_numpy()[self.train_rows])[0]
            order = np.argsort(codes, kind="stable")
            starts = np.concatenate([[0], np.cumsum(np.bincount(codes))])
            position = np.empty(len(order), np.int64)
            position[order] = np.arange(len(order))
            arrays = (self.train_rows, self.train_rows[order], starts[codes], np.diff(starts)[codes], position)
            self._groups = [torch.from_numpy(np.asarray(values, np.int64)).to(index.device) for values in arrays]
        rows, members, first, size, place = (values.to(index.device) for values in self._groups)
        draws = to_device(torch.from_numpy(np.random.default_rng(seed).random(len(index))), index.device)
        at = torch.searchsorted(rows, index)
        step = 1 + (draws * (size[at] - 1)).long()
        return members[first[at] + (place[at] - first[at] + step) % size[at]]

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Draws the views (in training) and normalizes, on the device."""
        if not self.is_training:
            return {"image": self.normalize(batch["image"]), "index": batch["index"]}
        seed = self.next_batch_seed()
        partners = self._images_of_same_groups(batch, seed) if self.views.positive_pair == "group" else None
        views = two_views(batch["image"], self.views, seed, partners)
        return {"views": self.normalize(views.flatten(0, 1)).unflatten(0, (2, -1)), "index": batch["index"]}  # type: ignore[no-untyped-call]
