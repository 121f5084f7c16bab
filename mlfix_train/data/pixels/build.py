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
from mlfix_train.data.pixels.blank import describe_blank, rows_to_look_at
from mlfix_train.data.pixels.depth import describe_mixed, describe_white, white_level
from mlfix_train.data.pixels.spec import PixelSpec
from mlfix_train.data.pixels.store import PixelStore, checksum, file_state, open_if_valid
from mlfix_train.errors import DataError, format_list

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
            paths = table["path"].tolist()
            white = white_level(paths, spec.max_megapixels, workers)
            mixed = describe_mixed(paths, spec.max_megapixels) if white == decode.FULL_RANGE else ""
            unreadable, animated = _decode_all(table, spec, folder, workers, progress, white)
            names = {str(table.index[row]): reason for row, reason in sorted(unreadable.items())}
            info = {"fingerprint": fingerprint, "spec": asdict(spec), "samples": len(table), "unreadable": names}
            notes = [describe_white(white), mixed, _describe_animated([str(table.index[row]) for row in animated])]
            info |= {"white": white, "notes": list(filter(None, notes))}
            _sync(folder / PART)
            info["warning"] = _look_over(folder / PART, unreadable)
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
    table: pd.DataFrame,
    spec: PixelSpec,
    folder: Path,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
    white: int,
) -> tuple[dict[int, str], list[int]]:
    """Decodes every chunk that isn't done yet; returns the unreadable rows with their reasons, and animated ones."""
    part, total, paths = folder / PART, len(table), table["path"].tolist()
    offset = _allocate(part, (total, spec.size, spec.size, 3))
    unreadable, animated, done = _read_journal(folder / JOURNAL, part, white)
    starts = [start for start in range(0, total, CHUNK_SIZE) if start not in done]
    todo = [decode.Chunk(str(part), offset, start, paths[start : start + CHUNK_SIZE], spec, white) for start in starts]
    finished, reported = min(len(done) * CHUNK_SIZE, total), time.monotonic()
    if done:
        log.info("pixel store: resuming, %d of %d images are decoded", finished, total)
    workers = 1 if len(todo) * CHUNK_SIZE <= SERIAL_LIMIT else workers or cpu_count()
    with open(folder / JOURNAL, "a") as journal:
        for chunk, (failures, moving) in map_unordered(decode.decode_chunk, todo, workers, str):
            line = [CHUNK_SIZE, chunk.start, failures, _chunk_checksum(part, chunk.start), moving, white]
            journal.write(json.dumps(line) + "\n")
            journal.flush()
            unreadable.update(failures)
            animated += moving
            finished = min(finished + CHUNK_SIZE, total)
            if progress and (finished == total or time.monotonic() - reported > 1):
                progress(finished, total)
                reported = time.monotonic()
    return unreadable, sorted(animated)


def _describe_animated(names: list[str]) -> str:
    if not names:
        return ""
    return f"{len(names):,} image(s) have several frames or pages; the first one is used: {format_list(names, 3)}"


def _look_over(part: Path, unreadable: dict[int, str]) -> str:
    """Returns what :func:`mlfix_train.data.pixels.blank.describe_blank` says of the decoded images."""
    pixels = np.load(part, mmap_mode="r")
    rows = rows_to_look_at(len(pixels), int(np.prod(pixels.shape[1:])))
    rows = rows[~np.isin(rows, list(unreadable))]
    return describe_blank(pixels[rows])


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


def _read_journal(path: Path, part: Path, white: int) -> tuple[dict[int, str], list[int], set[int]]:
    """Returns the unreadable and animated rows, and the starts of the chunks that an earlier build finished.

    After a power cut a line may be on the disk without its pixels, hence the checksum.
    """
    unreadable: dict[int, str] = {}
    animated: list[int] = []
    done: set[int] = set()
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError, TypeError, AttributeError):  # a truncated line: the chunk is decoded again
            chunk_size, start, failures, crc, moving, chunk_white = json.loads(line)
            rows = {int(number): str(reason) for number, reason in failures.items()}
            if [chunk_size, chunk_white] == [CHUNK_SIZE, white] and crc == _chunk_checksum(part, int(start)):
                done.add(int(start))
                unreadable.update(rows)
                animated += map(int, moving)
    return unreadable, animated, done


def _describe_failure(error: OSError, folder: Path, n: int, spec: PixelSpec) -> DataError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        kilobytes = n * spec.size**2 * 3 / 1e3
        size = f"{kilobytes / 1e3:,.0f} MB" if kilobytes > 2e3 else f"{kilobytes:,.0f} kB"
        hint = "free some space, or set another pixels.cache=<folder> or a smaller pixels.size"
        return DataError(f"no space left for the pixel store {folder}: it needs {size}", hint)
    problem = f"the pixel store {folder} can't be written: {error.strerror or error}"
    return DataError(problem, "choose a folder you can write to: pixels.cache=<folder>")
