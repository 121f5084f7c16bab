"""The pixel store: every sample decoded once to one uint8 file that workers, runs and verbs share.

A store is a folder with ``pixels.npy`` (N,H,W,3, uint8) and ``store.json`` (the fingerprint of its inputs and the
unreadable images). It is opened in a moment, rebuilt when an input changed, and never served stale. Rows are read
through a memory map whose pages are handed back to the system as they go, so that a process stays small however large
the data is.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mlfix_train.data.decode import ASPECTS, DECODER_VERSION
from mlfix_train.errors import DataError, check_choice, listing

log = logging.getLogger(__name__)

RESIDENT_BYTES = 64 * 2**20
"""Pages touched before they are handed back: what a reading process keeps resident at most."""


@dataclass(frozen=True)
class PixelSpec:
    """How images become pixels.

    Args:
        size: side of the stored square, pixels.
        aspect: ``squash`` (stretch to the square, as the published experiment does) or ``pad`` (keep the shape, grey
            margins).
        max_megapixels: larger images count as unreadable (a guard against decompression bombs).
    """

    size: int = 40
    aspect: str = "squash"
    max_megapixels: float = 200.0

    def __post_init__(self) -> None:
        check_choice("pixels.aspect", self.aspect, ASPECTS)
        if not isinstance(self.size, int) or not 8 <= self.size <= 1024:
            raise DataError(f"pixels.size={self.size} is out of range", "give the side in pixels, 8 to 1024")


class PixelStore:
    """N images of one size; indexing with row numbers returns a uint8 array ``len(rows),H,W,3``.

    Args:
        folder: a store that :func:`open_store` built.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.info = json.loads((self.folder / "store.json").read_text())
        with open(self.folder / "pixels.npy", "rb") as file:
            np.lib.format.read_magic(file)
            self.shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            offset = file.tell()
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if dtype != np.uint8 or len(self._map) != offset + int(np.prod(self.shape)):
            raise ValueError("pixels.npy is cut short")
        self._pixels = np.frombuffer(self._map, np.uint8, offset=offset).reshape(self.shape)
        self._touched = 0
        self._advise("MADV_RANDOM")

    def _advise(self, name: str) -> None:
        if hasattr(mmap, name):
            self._map.madvise(getattr(mmap, name))

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: np.ndarray | Sequence[int] | slice) -> np.ndarray:
        picked: np.ndarray = np.array(self._pixels[rows])
        # A row touches at least one page; past the budget all pages go back (they stay in the system's cache).
        self._touched += max(picked.nbytes, len(picked) * mmap.PAGESIZE)
        if self._touched > RESIDENT_BYTES:
            self._advise("MADV_DONTNEED")
            self._touched = 0
        return picked

    def __reduce__(self) -> tuple[type[PixelStore], tuple[Path]]:
        return PixelStore, (self.folder,)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what the store was made from."""
        return str(self.info["fingerprint"])

    @property
    def unreadable(self) -> dict[str, str]:
        """Samples whose image could not be decoded, with the reason; their pixels are mid-grey."""
        return dict(self.info["unreadable"])


def open_store(
    table: pd.DataFrame,
    spec: PixelSpec,
    cache: str | Path,
    workers: int | None = None,
    max_unreadable: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
) -> PixelStore:
    """Opens the store of ``table``'s images below ``cache``, building it first if it is missing, broken or stale.

    Args:
        table: a sample table; ``path`` is read, nothing is written beside it.
        spec: size and shape of the pixels.
        cache: folder of all stores; each has a folder of its own, named by its fingerprint.
        workers: processes that decode; by default as many as cores.
        max_unreadable: share of unreadable images above which this is an error, 0 to 1.
        progress: called with (images done, images in all) about once a second.

    Returns:
        The store, rows in the table's order.

    Raises:
        DataError: too many unreadable images, no space left, or a folder that can't be written.
    """
    print_ = fingerprint_inputs(table, spec)
    folder = Path(cache).expanduser() / print_[:16]
    store = _try_open(folder, print_, len(table))
    if store is None:
        from mlfix_train.data import pixel_build

        pixel_build.build(table, spec, folder, print_, workers, progress)
        store = PixelStore(folder)
    _check_unreadable(store.unreadable, len(table), max_unreadable)
    return store


def _try_open(folder: Path, fingerprint: str, n: int) -> PixelStore | None:
    if not (folder / "store.json").exists():
        return None
    try:
        store = PixelStore(folder)
        if store.fingerprint == fingerprint and len(store) == n:
            return store
        reason = "it belongs to other inputs"
    except (OSError, ValueError, KeyError) as error:
        reason = str(error)
    log.warning("the pixel store %s can't be used (%s) and is built anew", folder, reason)
    return None


def fingerprint_inputs(table: pd.DataFrame, spec: PixelSpec) -> str:
    """Returns a SHA-256 (hex) of the samples' ids, files, sizes and times of change, and of how they are decoded."""
    digest = hashlib.sha256(f"{DECODER_VERSION}|{spec}".encode())
    for name, path in zip(table.index, table["path"], strict=True):
        try:
            stat = os.stat(path)
            state = f"{stat.st_size}|{stat.st_mtime_ns}"
        except OSError as error:
            state = f"missing {error.errno}"
        digest.update(f"{name}\x1f{path}\x1f{state}\x1e".encode())
    return digest.hexdigest()


def _check_unreadable(unreadable: dict[str, str], n: int, limit: float) -> None:
    if not unreadable:
        return
    lines = [f"{name}: {reason}" for name, reason in list(unreadable.items())[:5]]
    more = len(unreadable) - len(lines)
    lines += [f"... and {more:,} more"] if more else []
    if len(unreadable) > limit * n:
        raise DataError(
            f"{len(unreadable):,} of {n:,} images can't be read, more than pixels.max_unreadable={limit:g} allows",
            "mend or remove them, or raise pixels.max_unreadable (a share, 0 to 1): they are then left out of training",
            lines,
        )
    log.warning("%d image(s) can't be read and are left out: %s", len(unreadable), listing(lines, 3))
