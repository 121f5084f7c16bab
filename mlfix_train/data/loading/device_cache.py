"""The pixels of a store held in the memory of the device that trains, and batches picked from them there.

A batch then costs one gather on the device: no loader processes, no copy over the bus, no waiting. The samples are
those of the loader: :class:`mlfix_train.data.loading.sampling.TrainingBatches` draws both.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from mlfix_train.data.loading.sampling import EvaluationBatches, TrainingBatches
from mlfix_train.data.pixels.store import PixelStore
from mlfix_train.errors import ConfigError

log = logging.getLogger(__name__)

SHARE = 0.5
"""Of the memory that is free, what a store may take: the rest is the network's."""
CHUNK = 8192
"""Images read at a time."""

Batch = dict[str, torch.Tensor]
_held: dict[tuple[str, str], torch.Tensor] = {}
_said: set[str] = set()


def check_resident(value: object) -> None:
    """Raises a ConfigError unless ``value`` is ``auto``, true or false."""
    if not any(value is wanted for wanted in (True, False)) and value != "auto":
        raise ConfigError(f"loader.resident={value} is not a value of this key", "it takes auto, true or false")


def hold(store: PixelStore, device: torch.device, wanted: str | bool) -> torch.Tensor | None:
    """Returns a store's images in the memory of a device, uint8 ``N,H,W,3``, or ``None`` where they are read instead.

    The runs of a sweep that train in one process share them.

    Args:
        store: the images.
        device: where.
        wanted: ``auto``: on a GPU, where they take no more than :data:`SHARE` of its free memory; true: on any device,
            where they do; false: never.
    """
    if wanted is False or (wanted == "auto" and device.type == "cpu"):
        return None
    key = (store.fingerprint, str(device))
    if key in _held:
        return _held[key]
    _held.clear()  # one data set at a time
    if device.type == "cuda":
        torch.cuda.empty_cache()
    size, free = int(np.prod(store.shape)), free_memory(device)
    if size > SHARE * free:
        told = f"more than {SHARE:.0%} of the {free / 1e9:.1f} GB that are free on {device}"
        _say_once(f"the images take {size / 1e9:.1f} GB, {told}: they are read batch by batch")
        return None
    try:
        images = torch.empty(store.shape, dtype=torch.uint8, device=device)
        for start in range(0, len(store), CHUNK):
            images[start : start + CHUNK] = torch.from_numpy(store[start : start + CHUNK]).to(device)
    except torch.OutOfMemoryError:
        _say_once(f"the images do not fit on {device} after all: they are read batch by batch")
        return None
    _held[key] = images
    return images


def _say_once(words: str) -> None:
    if words[:40] not in _said:
        _said.add(words[:40])
        log.warning(words)


def free_memory(device: torch.device) -> int:
    """Returns the bytes that are free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 8 << 30  # no system that tells: a guess on the safe side


class ResidentBatches:
    """Batches ``{image: uint8 N,3,H,W, label: int64 N, index: int64 N}`` picked on the device; for Lightning a loader.

    Args:
        images: from :func:`hold`.
        rows: M row numbers into ``images``.
        labels: M int64 labels.
        sampler: which of the M make up each batch.
    """

    def __init__(
        self, images: torch.Tensor, rows: np.ndarray, labels: np.ndarray, sampler: TrainingBatches | EvaluationBatches
    ) -> None:
        self.images, self.sampler = images, sampler
        self.batch_sampler = None  # Lightning looks for it beside `sampler`
        self.rows = torch.from_numpy(np.asarray(rows, dtype=np.int64)).to(images.device)
        self.labels = torch.from_numpy(np.asarray(labels, dtype=np.int64)).to(images.device)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        # The whole epoch's positions go over at once; each batch is a slice of them.
        positions = torch.from_numpy(self.sampler.positions()).to(self.images.device)
        for part in positions.split(self.sampler.batch_size):
            rows = self.rows[part]
            yield {"image": self.images[rows].permute(0, 3, 1, 2), "label": self.labels[part], "index": rows}
