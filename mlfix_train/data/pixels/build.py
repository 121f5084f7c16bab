"""Building a pixel store: several processes, in chunks, with progress; interrupted, it goes on where it was."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from mlfix_train.data.files.atomic import FolderLock, atomic_path
from mlfix_train.data.pixels.decode_worker import Chunk, decode_chunks
from mlfix_train.data.pixels.store import PixelSpec, PixelStore, checksum, stamp, try_open
from mlfix_train.errors import DataError

log = logging.getLogger(__name__)

CHUNK = 512
"""Images decoded between two notes on disk."""
SERIAL_LIMIT = 3_000
"""Below this many images starting processes costs more than they save."""


def build(
    table: pd.DataFrame,
    spec: PixelSpec,
    folder: Path,
    fingerprint: str,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PixelStore:
    """Decodes the images of ``table`` into ``folder`` and returns the store; arguments as of ``open_store``.

    Chunks that an interrupted build finished are kept: ``done.jsonl`` names them, flushed after their pixels.

    Raises:
        DataError: no space left on the device, or a folder that can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FolderLock(folder):
            found = try_open(folder, fingerprint, (len(table), spec.size, spec.size, 3))
            if found is not None:  # another process built it while this one waited
                return found
            (folder / "store.json").unlink(missing_ok=True)
            unreadable = _decode_all(table, spec, folder, workers, progress)
            names = {str(table.index[row]): reason for row, reason in sorted(unreadable.items())}
            info = {"fingerprint": fingerprint, "spec": asdict(spec), "samples": len(table), "unreadable": names}
            _sync(folder / "pixels.part")
            info["crc32"] = checksum(folder / "pixels.part")
            os.replace(folder / "pixels.part", folder / "pixels.npy")
            with atomic_path(folder / "store.json") as temporary:
                temporary.write_text(json.dumps(info, indent=1))
                _sync(temporary)
            (folder / "checked.json").write_text(json.dumps([info["crc32"], stamp(folder / "pixels.npy")]))
            (folder / "done.jsonl").unlink(missing_ok=True)
            return PixelStore(folder)
    except OSError as error:
        raise _explain(error, folder, len(table), spec) from error


def _sync(path: Path) -> None:
    """Waits until a file is on the disk and not only in memory, so that a power cut leaves no hollow store."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _decode_all(
    table: pd.DataFrame,
    spec: PixelSpec,
    folder: Path,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> dict[int, str]:
    """Decodes every chunk that isn't done yet; returns the reasons of the unreadable rows."""
    part = folder / "pixels.part"
    offset = _allocate(part, (len(table), spec.size, spec.size, 3))
    total, row = len(table), spec.size**2 * 3
    unreadable, done = _read_notes(folder / "done.jsonl", part, offset, row, total)
    starts = [start for start in range(0, len(table), CHUNK) if start not in done]
    paths = table["path"].tolist()
    how = (spec.size, spec.aspect, spec.max_megapixels)
    chunks = (Chunk(str(part), offset, start, paths[start : start + CHUNK], *how) for start in starts)
    few = len(starts) * CHUNK <= SERIAL_LIMIT
    finished, shown = min(len(done) * CHUNK, total), time.monotonic()
    if done:
        log.info("pixel store: %d of %d images were decoded before", finished, total)
    with open(folder / "done.jsonl", "a") as notes:
        for start, bad in decode_chunks(chunks, 1 if few else workers or os.cpu_count() or 1):
            notes.write(json.dumps([CHUNK, start, bad, _chunk_checksum(part, offset, start, row, total)]) + "\n")
            notes.flush()
            unreadable.update(bad)
            finished = min(finished + CHUNK, total)
            if progress and (finished == total or time.monotonic() - shown > 1):
                progress(finished, total)
                shown = time.monotonic()
    return unreadable


def _allocate(part: Path, shape: tuple[int, ...]) -> int:
    """Creates the file at its full size (so that a full disk is told at once); returns where the pixels begin."""
    size = int(np.prod(shape))
    try:
        with open(part, "rb") as file:
            np.lib.format.read_magic(file)
            found, _, _ = np.lib.format.read_array_header_1_0(file)
            if tuple(found) == shape and part.stat().st_size == file.tell() + size:
                return file.tell()
    except (FileNotFoundError, ValueError):
        pass
    part.unlink(missing_ok=True)
    (part.parent / "done.jsonl").unlink(missing_ok=True)
    if shutil.disk_usage(part.parent).free < size:
        raise OSError(errno.ENOSPC, "No space left on device")
    try:
        with open(part, "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.flush()
            offset = file.tell()
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, offset + size)
            else:
                file.truncate(offset + size)
            return offset
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _chunk_checksum(part: Path, offset: int, start: int, row: int, total: int) -> int:
    """Returns the CRC-32 of a chunk's pixels as they are in the file."""
    with open(part, "rb") as file:
        file.seek(offset + start * row)
        return zlib.crc32(file.read(min(CHUNK, total - start) * row))


def _read_notes(path: Path, part: Path, offset: int, row: int, total: int) -> tuple[dict[int, str], set[int]]:
    """Returns the unreadable rows and the starts of the chunks that an earlier build finished, whose pixels are whole.

    After a power cut a note may be on the disk and its pixels not: hence the checksum.
    """
    unreadable: dict[int, str] = {}
    done: set[int] = set()
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            chunk, start, bad, checksum = json.loads(line)
            rows = {int(number): str(reason) for number, reason in bad.items()}
            if chunk == CHUNK and checksum == _chunk_checksum(part, offset, int(start), row, total):
                done.add(int(start))
                unreadable.update(rows)
        except (ValueError, TypeError, AttributeError):  # a line cut short: that chunk is decoded again
            continue
    return unreadable, done


def _explain(error: OSError, folder: Path, n: int, spec: PixelSpec) -> DataError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        need = n * spec.size**2 * 3 / 1e3
        size = f"{need / 1e3:,.0f} MB" if need > 2e3 else f"{need:,.0f} kB"
        return DataError(
            f"no space left for the pixel store {folder}: it takes {size}",
            "free some, give another pixels.cache=<folder>, or a smaller pixels.size",
        )
    return DataError(
        f"the pixel store {folder} can't be written: {error.strerror or error}",
        "give a folder that you may write to: pixels.cache=<folder>",
    )
