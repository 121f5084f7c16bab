"""Builds a pixel store: chunk by chunk in several processes, with progress; an interrupted build is resumed."""

import contextlib
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

from mlfix_train.data.files.atomic import atomic_path, folder_lock
from mlfix_train.data.files.process_pool import map_unordered
from mlfix_train.data.files.system import cpu_count
from mlfix_train.data.pixels import decode
from mlfix_train.data.pixels.spec import PixelSpec
from mlfix_train.data.pixels.store import PixelStore, checksum, file_state, open_if_valid
from mlfix_train.errors import DataError

log = logging.getLogger(__name__)

CHUNK_SIZE = 512
"""Images decoded between two lines of the journal."""
SERIAL_LIMIT = 3_000
"""Up to this many images starting processes costs more than it saves."""
PART, JOURNAL = "pixels.part", "done.jsonl"


def build_store(
    table: pd.DataFrame,
    spec: PixelSpec,
    folder: Path,
    fingerprint: str,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PixelStore:
    """Decodes the images of ``table`` into ``folder`` and returns the store; arguments as of ``open_store``.

    The journal ``done.jsonl`` gets a line for each chunk once its pixels are written; a later build skips these chunks.

    Raises:
        DataError: No space left on the device, or a folder that can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with folder_lock(folder):
            store = open_if_valid(folder, fingerprint, (len(table), spec.size, spec.size, 3))
            if store is not None:  # another process built it while this one waited
                return store
            (folder / "store.json").unlink(missing_ok=True)
            unreadable = _decode_all(table, spec, folder, workers, progress)
            names = {str(table.index[row]): reason for row, reason in sorted(unreadable.items())}
            info = {"fingerprint": fingerprint, "spec": asdict(spec), "samples": len(table), "unreadable": names}
            _sync(folder / PART)
            info["crc32"] = checksum(folder / PART)
            os.replace(folder / PART, folder / "pixels.npy")
            with atomic_path(folder / "store.json") as temporary:
                temporary.write_text(json.dumps(info, indent=1))
                _sync(temporary)
            (folder / "checked.json").write_text(json.dumps([info["crc32"], file_state(folder / "pixels.npy")]))
            (folder / JOURNAL).unlink(missing_ok=True)
            return PixelStore(folder)
    except OSError as error:
        raise _describe_failure(error, folder, len(table), spec) from error


def _sync(path: Path) -> None:
    """Waits until a file is on the disk, so that a power cut leaves no store without its pixels."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _decode_all(
    table: pd.DataFrame, spec: PixelSpec, folder: Path, workers: int | None, progress: Callable[[int, int], None] | None
) -> dict[int, str]:
    """Decodes every chunk that isn't done yet; returns the unreadable rows with their reasons."""
    part, total, paths = folder / PART, len(table), table["path"].tolist()
    offset = _allocate(part, (total, spec.size, spec.size, 3))
    unreadable, done = _read_journal(folder / JOURNAL, part)
    starts = [start for start in range(0, total, CHUNK_SIZE) if start not in done]
    todo = [decode.Chunk(str(part), offset, start, paths[start : start + CHUNK_SIZE], spec) for start in starts]
    finished, reported = min(len(done) * CHUNK_SIZE, total), time.monotonic()
    if done:
        log.info("pixel store: resuming, %d of %d images are decoded", finished, total)
    workers = 1 if len(todo) * CHUNK_SIZE <= SERIAL_LIMIT else workers or cpu_count()
    with open(folder / JOURNAL, "a") as journal:
        for chunk, failures in map_unordered(decode.decode_chunk, todo, workers, str):
            line = [CHUNK_SIZE, chunk.start, failures, _chunk_checksum(part, chunk.start)]
            journal.write(json.dumps(line) + "\n")
            journal.flush()
            unreadable.update(failures)
            finished = min(finished + CHUNK_SIZE, total)
            if progress and (finished == total or time.monotonic() - reported > 1):
                progress(finished, total)
                reported = time.monotonic()
    return unreadable


def _allocate(part: Path, shape: tuple[int, ...]) -> int:
    """Creates the file at its full size (a full disk is noticed at once); returns the offset of the first pixel."""
    size = int(np.prod(shape))
    with contextlib.suppress(FileNotFoundError, ValueError, EOFError):
        found = np.load(part, mmap_mode="r")
        if found.shape == shape and part.stat().st_size == found.offset + size:
            return int(found.offset)
    part.unlink(missing_ok=True)
    (part.parent / JOURNAL).unlink(missing_ok=True)
    if shutil.disk_usage(part.parent).free < size:
        raise OSError(errno.ENOSPC, "No space left on device")
    try:
        with open(part, "wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
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


def _chunk_checksum(part: Path, start: int) -> int:
    return zlib.crc32(np.load(part, mmap_mode="r")[start : start + CHUNK_SIZE])


def _read_journal(path: Path, part: Path) -> tuple[dict[int, str], set[int]]:
    """Returns the unreadable rows and the starts of the chunks that an earlier build finished.

    After a power cut a line may be on the disk without its pixels, hence the checksum.
    """
    unreadable: dict[int, str] = {}
    done: set[int] = set()
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError, TypeError, AttributeError):  # a truncated line: the chunk is decoded again
            chunk_size, start, failures, crc = json.loads(line)
            rows = {int(number): str(reason) for number, reason in failures.items()}
            if chunk_size == CHUNK_SIZE and crc == _chunk_checksum(part, int(start)):
                done.add(int(start))
                unreadable.update(rows)
    return unreadable, done


def _describe_failure(error: OSError, folder: Path, n: int, spec: PixelSpec) -> DataError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        kilobytes = n * spec.size**2 * 3 / 1e3
        size = f"{kilobytes / 1e3:,.0f} MB" if kilobytes > 2e3 else f"{kilobytes:,.0f} kB"
        hint = "free some space, or set another pixels.cache=<folder> or a smaller pixels.size"
        return DataError(f"no space left for the pixel store {folder}: it needs {size}", hint)
    problem = f"the pixel store {folder} can't be written: {error.strerror or error}"
    return DataError(problem, "choose a folder you can write to: pixels.cache=<folder>")
