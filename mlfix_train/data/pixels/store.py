"""The pixel store: every sample decoded once to one uint8 file that workers, runs and verbs share.

A store is a folder with ``pixels.npy`` (N,H,W,3, uint8) and ``store.json`` (the fingerprint of its inputs and the
unreadable images). It is opened in a moment, rebuilt when an input changed, and never served stale. A process that
reads it stays small however large the data is.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.data.pixels.decode import ASPECTS, DECODER_VERSION
from mlfix_train.errors import ConfigError, DataError, check_choice, format_list

log = logging.getLogger(__name__)


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
            raise ConfigError(f"pixels.size={self.size} is out of range", "give the side in pixels, 8 to 1024")


class PixelStore:
    """N images of one size; indexing with row numbers or a slice returns a uint8 array ``n,H,W,3``.

    ``pixels.npy`` can be opened by ``numpy.load(..., mmap_mode="r")`` as well. Rows are read by ``pread``, not through
    a memory map: mapped pages count as the process's own, and random reading maps the whole file before long.

    Args:
        folder: a store that :func:`open_store` built.

    Raises:
        OSError, ValueError: the store is missing or damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        info = json.loads((self.folder / "store.json").read_text(encoding="utf-8"))
        if not isinstance(info, dict) or not isinstance(info.get("unreadable"), dict) or "fingerprint" not in info:
            raise ValueError("store.json is no description of a store")
        self.info: dict[str, Any] = info
        self._file = open(self.folder / "pixels.npy", "rb", buffering=0)  # noqa: SIM115 - open as long as the store
        np.lib.format.read_magic(self._file)
        self.shape, _, dtype = np.lib.format.read_array_header_1_0(self._file)
        self._offset = self._file.tell()
        size = os.fstat(self._file.fileno()).st_size
        if dtype != np.uint8 or len(self.shape) != 4 or size != self._offset + int(np.prod(self.shape)):
            raise ValueError("pixels.npy is cut short, or no store of pixels")

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: np.ndarray | Sequence[int] | slice) -> np.ndarray:
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        numbers = np.asarray(rows, dtype=np.int64)
        if len(numbers) and not (-len(self) <= numbers.min() and numbers.max() < len(self)):
            raise IndexError(f"a row number is outside of the {len(self):,} rows of {self.folder}")
        numbers = numbers % max(len(self), 1)
        picked = np.empty((len(numbers), *self.shape[1:]), dtype=np.uint8)
        # Neighbouring rows are read at once.
        starts = np.flatnonzero(np.diff(numbers, prepend=-2) != 1)
        row_bytes = int(np.prod(self.shape[1:]))
        view = memoryview(picked.data).cast("B") if picked.size else memoryview(b"")
        for start, stop in itertools.pairwise([*starts.tolist(), len(numbers)]):
            self._read(view[start * row_bytes : stop * row_bytes], self._offset + int(numbers[start]) * row_bytes)
        return picked

    def _read(self, target: memoryview, position: int) -> None:
        while target:
            count = os.preadv(self._file.fileno(), [target], position)
            if not count:
                raise OSError(f"{self.folder / 'pixels.npy'} ends before its time")
            target, position = target[count:], position + count

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

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
    shape = (len(table), spec.size, spec.size, 3)
    store = try_open(folder, print_, shape)
    if store is None:
        from mlfix_train.data.pixels import build as pixel_build

        store = pixel_build.build(table, spec, folder, print_, workers, progress)
    _check_unreadable(store.unreadable, len(table), max_unreadable)
    return store


def try_open(folder: Path, fingerprint: str, shape: tuple[int, ...]) -> PixelStore | None:
    """Returns the store in ``folder`` if it is whole, of this fingerprint and shape; else ``None``, saying why."""
    try:
        if not (folder / "store.json").exists():
            return None
        store = PixelStore(folder)
        if store.fingerprint == fingerprint and tuple(store.shape) == shape:
            check_content(folder, store.info)
            return store
        reason = "it belongs to other inputs"
    except KeyError:
        reason = "it was written by an earlier version"
    except (OSError, ValueError) as error:
        reason = str(error)
    log.warning("the pixel store %s can't be used (%s) and is built anew", folder, reason)
    return None


def fingerprint_inputs(table: pd.DataFrame, spec: PixelSpec) -> str:
    """Returns a SHA-256 (hex) of the samples' ids, files, sizes and times of change, and of decoding."""
    digest = hashlib.sha256(f"{DECODER_VERSION}|{spec}".encode())
    for name, path in zip(table.index, table["path"], strict=True):
        try:
            stat = os.stat(path)
            state = f"{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}"
        except OSError as error:
            state = f"missing {error.errno}"
        digest.update(f"{name}\x1f{path}\x1f{state}\x1e".encode())
    return digest.hexdigest()


def checksum(path: Path) -> int:
    """Returns the CRC-32 of a file (some 2 GB/s; it need not withstand an attacker)."""
    total = 0
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 22):
            total = zlib.crc32(block, total)
    return total


def stamp(path: Path) -> list[int]:
    """Returns what changes when a file is written: its size, and the times of change of its content and entry."""
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def check_content(folder: Path, info: dict[str, Any]) -> None:
    """Checks the pixels against their checksum, unless the file was not touched since that was last done.

    Raises:
        ValueError: they are not what was written.
    """
    path, seen = folder / "pixels.npy", folder / "checked.json"
    try:
        if json.loads(seen.read_text()) == [info["crc32"], stamp(path)]:
            return
    except (OSError, ValueError):
        pass
    if checksum(path) != info["crc32"]:
        raise ValueError("its pixels are not what was written: a damaged disk or file")
    with contextlib.suppress(OSError):  # a read-only cache is checked anew each time
        seen.write_text(json.dumps([info["crc32"], stamp(path)]))


def _check_unreadable(unreadable: dict[str, str], n: int, limit: float) -> None:
    if not unreadable:
        return
    lines = [f"{name}: {reason}" for name, reason in list(unreadable.items())[:5]]
    more = len(unreadable) - len(lines)
    lines += [f"... and {more:,} more"] if more else []
    if len(unreadable) > (max(limit * n, 1) if limit > 0 else 0):  # a single one is no reason to stop
        if len(unreadable) == n and all("missing" in reason for reason in unreadable.values()):
            raise DataError(
                f"none of the {n:,} images is there",
                "paths of a table start at its folder: give the folder that yours start from, data.root=<folder>",
                lines,
            )
        raise DataError(
            f"{len(unreadable):,} of {n:,} images can't be read, more than pixels.max_unreadable={limit:g} allows",
            "mend or remove them, or raise pixels.max_unreadable (a share, 0 to 1): they are then left out of training",
            lines,
        )
    log.warning("%d image(s) can't be read and are left out: %s", len(unreadable), format_list(lines, 3))
