"""The pixel store: every sample decoded once, into one uint8 file that workers, runs and commands share.

A store is a folder with ``pixels.npy`` (``(N, H, W, 3)``, uint8) and ``store.json`` (the fingerprint of its inputs, the
checksum of its pixels and the unreadable images). It opens at once, is rebuilt when an input has changed, and is never
stale. A process that reads it stays small however large the data is.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.data.pixels.containers import containing_file
from mlfix_train.data.pixels.decode import DECODER_VERSION, FULL_RANGE
from mlfix_train.data.pixels.spec import PixelSpec
from mlfix_train.errors import DataError, format_list

log = logging.getLogger(__name__)


class PixelStore:
    """N images of one size; indexing with row numbers or a slice returns a uint8 array ``(n, H, W, 3)``.

    ``pixels.npy`` can be opened by ``numpy.load(..., mmap_mode="r")`` as well. Rows are read by ``pread`` rather than
    through a memory map: mapped pages count as the process's own, and random reading soon maps the whole file.

    Raises:
        OSError, ValueError: The store is missing or damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        info = json.loads((self.folder / "store.json").read_text(encoding="utf-8"))
        if not isinstance(info, dict) or not isinstance(info.get("unreadable"), dict) or "fingerprint" not in info:
            raise ValueError("store.json does not describe a store")
        self.info: dict[str, Any] = info
        self._file = open(self.folder / "pixels.npy", "rb", buffering=0)  # noqa: SIM115 - open as long as the store
        np.lib.format.read_magic(self._file)
        self.shape, _, dtype = np.lib.format.read_array_header_1_0(self._file)
        self._offset = self._file.tell()
        size = os.fstat(self._file.fileno()).st_size
        if dtype != np.uint8 or len(self.shape) != 4 or size != self._offset + int(np.prod(self.shape)):
            raise ValueError("pixels.npy is truncated or does not hold images")

    def __repr__(self) -> str:
        return f"<PixelStore {str(self.folder)!r}: {len(self):,} images of {self.shape[2]} x {self.shape[1]} px>"

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: np.ndarray | Sequence[int] | slice) -> np.ndarray:
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        numbers = np.asarray(rows, dtype=np.int64)
        if len(numbers) and not (-len(self) <= numbers.min() and numbers.max() < len(self)):
            raise IndexError(f"a row number is outside of the {len(self):,} rows of {self.folder}")
        numbers = numbers % max(len(self), 1)
        images = np.empty((len(numbers), *self.shape[1:]), dtype=np.uint8)
        starts = np.flatnonzero(np.diff(numbers, prepend=-2) != 1)  # runs of consecutive rows are read at once
        row_bytes = int(np.prod(self.shape[1:]))
        view = memoryview(images.data).cast("B") if images.size else memoryview(b"")
        for start, stop in itertools.pairwise([*starts.tolist(), len(numbers)]):
            self._read(view[start * row_bytes : stop * row_bytes], self._offset + int(numbers[start]) * row_bytes)
        return images

    def _read(self, target: memoryview, position: int) -> None:
        while target:
            count = os.preadv(self._file.fileno(), [target], position)
            if not count:
                raise OSError(f"{self.folder / 'pixels.npy'} is truncated")
            target, position = target[count:], position + count

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def __reduce__(self) -> "tuple[type[PixelStore], tuple[Path]]":
        return PixelStore, (self.folder,)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what the store was made from."""
        return str(self.info["fingerprint"])

    @property
    def unreadable(self) -> dict[str, str]:
        """Samples whose image could not be decoded, with the reason; their pixels are mid-grey."""
        return dict(self.info["unreadable"])

    @property
    def white(self) -> int:
        """The value of 16-bit images that is white: :func:`mlfix_train.data.pixels.depth.white_level`."""
        return int(self.info.get("white", FULL_RANGE))


def open_store(
    table: pd.DataFrame,
    spec: PixelSpec,
    cache: str | Path,
    workers: int | None = None,
    max_unreadable: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
) -> PixelStore:
    """Opens the store of a table's images, in its order; builds it first if it is missing, damaged or stale.

    Args:
        table: A sample table; the files in ``path`` are only read.
        spec: How images become pixels.
        cache: Folder of all stores; each has a folder of its own, named by its fingerprint.
        workers: Number of decoding processes; by default one per core.
        max_unreadable: Share of unreadable images above which this is an error, 0 to 1; a single one is always
            accepted, unless this is 0.
        progress: Called with (images done, images in total) about once a second.

    Raises:
        DataError: Too many unreadable images, no space left, or a folder that can't be written.
    """
    fingerprint = fingerprint_inputs(table, spec)
    folder = Path(cache).expanduser() / fingerprint[:16]
    store = open_if_valid(folder, fingerprint, (len(table), spec.size, spec.size, 3))
    if store is None:
        from mlfix_train.data.pixels.build import build_store

        store = build_store(table, spec, folder, fingerprint, workers, progress)
    _check_unreadable(store.unreadable, len(table), max_unreadable)
    for note in store.info.get("notes", ()):
        log.info("images     %s", note)
    if warning := store.info.get("warning"):
        log.warning("%s", warning)
    return store


def open_if_valid(folder: Path, fingerprint: str, shape: tuple[int, ...]) -> PixelStore | None:
    """Returns the store in ``folder`` if it is intact and has this fingerprint and shape; else logs why."""
    try:
        if not (folder / "store.json").exists():
            return None
        store = PixelStore(folder)
        if store.fingerprint == fingerprint and tuple(store.shape) == shape:
            verify_pixels(folder, store.info)
            return store
        reason = "it was made from other inputs"
    except KeyError:
        reason = "it was written by an earlier version"
    except (OSError, ValueError) as error:
        reason = str(error)
    log.warning("the pixel store %s can't be used (%s) and is rebuilt", folder, reason)
    return None


def fingerprint_inputs(table: pd.DataFrame, spec: PixelSpec) -> str:
    """Returns a SHA-256 (hex) of the sample ids, the files' paths, sizes and times, and the settings of decoding."""
    digest = hashlib.sha256(f"{DECODER_VERSION}|{spec}".encode())
    lines = []
    for name, path in zip(table.index, table["path"], strict=True):
        file, state = containing_file(path), ""
        try:
            if file:
                stat = os.stat(file)
                state = f"{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}"
        except OSError as error:
            state = f"missing {error.errno}"
        lines.append(f"{name}\x1f{path}\x1f{state}\x1e")
        if len(lines) == 4096:  # quicker than one by one
            digest.update("".join(lines).encode())
            lines.clear()
    digest.update("".join(lines).encode())
    return digest.hexdigest()


def checksum(path: Path) -> int:
    """Returns the CRC-32 of a file (about 2 GB/s; guards against damage, not against attackers)."""
    total = 0
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 22):
            total = zlib.crc32(block, total)
    return total


def file_state(path: str | Path) -> list[int]:
    """Returns a file's size, mtime and ctime: at least one of them changes when it is written."""
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def verify_pixels(folder: Path, info: dict[str, Any]) -> None:
    """Raises a ValueError if the pixels differ from their checksum; unchanged files are compared only once."""
    path, verified = folder / "pixels.npy", folder / "checked.json"
    with contextlib.suppress(OSError, ValueError):
        if json.loads(verified.read_text()) == [info["crc32"], file_state(path)]:
            return
    if checksum(path) != info["crc32"]:
        raise ValueError("its pixels don't match their checksum: the disk or file is damaged")
    with contextlib.suppress(OSError):  # a read-only cache is verified each time
        verified.write_text(json.dumps([info["crc32"], file_state(path)]))


def _check_unreadable(unreadable: dict[str, str], n: int, limit: float) -> None:
    if not unreadable:
        return
    lines = [f"{name}: {reason}" for name, reason in list(unreadable.items())[:5]]
    if len(unreadable) > 5:
        lines.append(f"... and {len(unreadable) - 5:,} more")
    if len(unreadable) <= (max(limit * n, 1) if limit > 0 else 0):
        log.warning("%d image(s) can't be read and are left out: %s", len(unreadable), format_list(lines, 3))
        return
    if len(unreadable) == n and all("missing" in reason for reason in unreadable.values()):
        hint = "relative paths in a table start at its folder: set data.root=<folder> if yours start elsewhere"
        raise DataError(f"none of the {n:,} images exists", hint, lines)
    hint = "repair or remove them, or raise pixels.max_unreadable (a share, 0 to 1) to leave them out"
    problem = f"{len(unreadable):,} of {n:,} images can't be read, more than pixels.max_unreadable={limit:g} allows"
    raise DataError(problem, hint, lines)
