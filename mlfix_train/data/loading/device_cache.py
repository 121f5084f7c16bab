"""All images of a pixel store in the memory of the device that trains, and batches picked from them there.

A batch then costs one gather on the device: no loader processes, no copy over the bus, no waiting. The batches hold the
same samples as those of a DataLoader, since :class:`mlfix_train.data.loading.sampling.TrainingBatches` draws both.
"""

import logging
from collections.abc import Iterator

import numpy as np
import torch

from mlfix_train.data.cache import cached, forget
from mlfix_train.data.files.system import available_memory
from mlfix_train.data.loading.sampling import EvaluationBatches, TrainingBatches
from mlfix_train.data.pixels.store import PixelStore

log = logging.getLogger(__name__)

MEMORY_SHARE = 0.5
"""Share of the free memory that images may take; the rest is for the network."""
IMAGES_AT_A_TIME = 8192
"""Images read from the store at a time."""

Batch = dict[str, torch.Tensor]


def device_images(store: PixelStore, device: torch.device, wanted: bool | str) -> torch.Tensor | None:
    """Returns a store's images, uint8 ``(N, H, W, 3)``, on a device, or ``None`` if they are to be read by the batch.

    The runs of a sweep that train in one process share one copy. Whoever holds the tensor keeps the memory. ``wanted``
    is ``auto`` (on a GPU, if they take at most :data:`MEMORY_SHARE` of its free memory), true (on any device, under the
    same condition) or false.
    """
    if wanted is False or (wanted == "auto" and device.type == "cpu"):
        return None
    key = ("device images", str(device))  # one per device: those of an earlier store make room
    forget(key, unless=lambda item: item[0] == store.fingerprint)
    images: torch.Tensor | None = cached(key, lambda: (store.fingerprint, _copy_to(store, device)))[1]
    return images


def _copy_to(store: PixelStore, device: torch.device) -> torch.Tensor | None:
    """Copies all images to a device; ``None``, with a warning, if there is too little memory."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    size, free = int(np.prod(store.shape)), free_memory(device)
    if size > MEMORY_SHARE * free:
        message = "the images take %.1f GB, more than %.0f%% of the %.1f GB free on %s: they are read batch by batch"
        log.warning(message, size / 1e9, 100 * MEMORY_SHARE, free / 1e9, device)
        return None
    try:
        images = torch.empty(store.shape, dtype=torch.uint8, device=device)
        for start in range(0, len(store), IMAGES_AT_A_TIME):
            part = slice(start, start + IMAGES_AT_A_TIME)
            images[part] = torch.from_numpy(store[part]).to(device)
    except torch.OutOfMemoryError:
        log.warning("the images do not fit on %s and are read batch by batch", device)
        return None
    return images


def free_memory(device: torch.device) -> int:
    """Returns the free bytes of a device."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else available_memory()


class DeviceBatches:
    """Batches picked on the device, in place of a DataLoader: :class:`StoredSamples` with ``images`` for the store.

    Yields ``{image: uint8 (N, 3, H, W), label: int64 (N,), index: int64 (N,)}``; ``sampler`` picks the rows and labels,
    of M, that make up each batch.
    """

    def __init__(
        self, images: torch.Tensor, rows: np.ndarray, labels: np.ndarray, sampler: TrainingBatches | EvaluationBatches
    ) -> None:
        self.sampler = sampler
        self.batch_sampler = None  # Lightning looks for it beside `sampler`
        self._images: torch.Tensor | None = images
        self._rows = torch.from_numpy(np.asarray(rows, dtype=np.int64)).to(images.device)
        self._labels = torch.from_numpy(np.asarray(labels, dtype=np.int64)).to(images.device)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        if self._images is None:
            raise RuntimeError("the images of these batches were released; ask the DataModule for a new loader")
        # The positions of the whole epoch are copied at once; each batch is a slice of them.
        positions = torch.from_numpy(self.sampler.positions()).to(self._images.device)
        for part in positions.split(self.sampler.batch_size):  # type: ignore[no-untyped-call]
            rows = self._rows[part]
            yield {"image": self._images[rows].permute(0, 3, 1, 2), "label": self._labels[part], "index": rows}

    def release(self) -> None:
        """Releases the images: a trainer keeps its loaders after it has finished."""
        self._images = None
