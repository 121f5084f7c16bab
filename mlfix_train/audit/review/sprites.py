"""Sprite sheets: many tiles in one JPEG, cut in the order in which they are shown, kept by content.

A tile's side is a multiple of 8, the block of a JPEG, and colour is not subsampled, so that no tile bleeds into the
next.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np

log = logging.getLogger(__name__)

BLOCK = 256
"""Samples that the page fetches at a time: one sheet of small tiles."""
SMALL, LARGE = 64, 192
"""Largest sides of tiles, pixels."""
SMALL_COLUMNS, LARGE_COLUMNS = 16, 4
QUALITY = 90
MEMORY = 48 << 20
DISK = 1 << 30
"""Bytes of sheets kept, at most."""
LIGHT = 105
"""Mean brightness, 0 to 255, that dark tiles are brought to."""
MOST_LIGHT = 4.0
VERSION = 1

Pixels = Callable[[np.ndarray], np.ndarray]


def tile_side(size: int, most: int) -> int:
    """Returns the side of the tiles that images of ``size`` pixels are shown with: no larger, a multiple of 8."""
    return min(-(-size // 8) * 8, most)


class Sprites:
    """Cuts sheets and keeps them, in memory and on disk.

    Args:
        pixels: returns uint8 ``n,S,S,3`` for rows.
        size: S.
        source: names the pixels by their content.
        folder: of the sheets on disk; ``None`` keeps none there.
        disk: bytes on disk, at most.
    """

    def __init__(self, pixels: Pixels, size: int, source: str, folder: Path | None, disk: int = DISK) -> None:
        self.pixels, self.size, self.source, self.folder, self.disk = pixels, size, source, folder, disk
        self.small = tile_side(size, SMALL)
        self.large = tile_side(size, LARGE)
        self._sheets: OrderedDict[str, bytes] = OrderedDict()
        self._plans: OrderedDict[str, tuple[np.ndarray, int, int, bool]] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()
        self._on_disk = self._open_folder()
        self._disk_held = sum(self._on_disk.values())

    def plan(self, rows: np.ndarray, side: int, columns: int, bright: bool) -> str:
        """Names the sheet of ``rows``; :meth:`sheet` cuts it when it is asked for."""
        digest = hashlib.sha256(f"{VERSION}|{self.source}|{side}|{columns}|{bright}|{QUALITY}|".encode())
        digest.update(np.ascontiguousarray(rows, np.int64).tobytes())
        name = digest.hexdigest()[:32]
        with self._lock:
            self._plans[name] = (rows, side, columns, bright)
            self._plans.move_to_end(name)
            while len(self._plans) > 50_000:
                self._plans.popitem(last=False)
        return name

    def sheet(self, name: str) -> bytes | None:
        """Returns a planned sheet, a JPEG; ``None`` if none of this name was planned."""
        with self._lock:
            if name in self._sheets:
                self._sheets.move_to_end(name)
                return self._sheets[name]
            plan = self._plans.get(name)
        if plan is None:
            return None
        found = self._read(name)
        if found is None:
            found = self.cut(*plan)
            self._write(name, found)
        with self._lock:
            if name not in self._sheets:
                self._sheets[name] = found
                self._held += len(found)
            while self._held > MEMORY and len(self._sheets) > 1:
                self._held -= len(self._sheets.popitem(last=False)[1])
        return found

    def ahead(self, name: str) -> bool:
        """Cuts a planned sheet to disk, unless it is there; returns whether anything was done."""
        if self.folder is None or name in self._on_disk or self._held_in_memory(name):
            return False
        plan = self._plans.get(name)
        if plan is not None:
            self._write(name, self.cut(*plan))
        return plan is not None

    def _held_in_memory(self, name: str) -> bool:
        with self._lock:
            return name in self._sheets

    def cut(self, rows: np.ndarray, side: int, columns: int, bright: bool) -> bytes:
        """Cuts a sheet: tiles row by row, ``columns`` in each; a row of -1 stays grey."""
        from PIL import Image

        lines = max(-(-len(rows) // columns), 1)
        tiles = np.full((lines * columns, side, side, 3), 232, np.uint8)
        there = np.flatnonzero(np.asarray(rows) >= 0)
        if len(there):
            images = self.pixels(np.asarray(rows)[there])
            if images.shape[1] != side:
                images = np.stack([_fit(image, side) for image in images])
            tiles[there] = brighten(images) if bright else images
        sheet = tiles.reshape(lines, columns, side, side, 3).transpose(0, 2, 1, 3, 4)
        file = io.BytesIO()
        Image.fromarray(sheet.reshape(lines * side, columns * side, 3)).save(
            file, "JPEG", quality=QUALITY, subsampling=0
        )
        return file.getvalue()

    def _open_folder(self) -> OrderedDict[str, int]:
        """Lists the sheets on disk, oldest first; a folder that can't be written is done without."""
        kept: OrderedDict[str, int] = OrderedDict()
        if self.folder is None:
            return kept
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            found = [(entry.stat(), entry.name) for entry in os.scandir(self.folder) if entry.name.endswith(".jpg")]
        except OSError as error:
            log.warning("sprite sheets are not kept on disk: %s", error)
            self.folder = None
            return kept
        for stat, name in sorted(found, key=lambda one: one[0].st_mtime):
            kept[name.removesuffix(".jpg")] = stat.st_size
        return kept

    def _read(self, name: str) -> bytes | None:
        if self.folder is None or name not in self._on_disk:
            return None
        try:
            found = (self.folder / f"{name}.jpg").read_bytes()
        except OSError:
            return None
        return found if found[:2] == b"\xff\xd8" and found[-2:] == b"\xff\xd9" else None

    def _write(self, name: str, sheet: bytes) -> None:
        if self.folder is None:
            return
        temporary = self.folder / f".{secrets.token_hex(6)}.tmp"
        try:
            temporary.write_bytes(sheet)
            os.replace(temporary, self.folder / f"{name}.jpg")
        except OSError as error:
            log.warning("sprite sheets are no longer kept on disk: %s", error)
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            self.folder = None
            return
        with self._lock:
            self._disk_held += len(sheet) - self._on_disk.get(name, 0)
            self._on_disk[name] = len(sheet)
            while self._disk_held > self.disk and len(self._on_disk) > 1:
                oldest, size = self._on_disk.popitem(last=False)
                self._disk_held -= size
                with contextlib.suppress(OSError):
                    (self.folder / f"{oldest}.jpg").unlink(missing_ok=True)


def brighten(images: np.ndarray) -> np.ndarray:
    """Brings dark images, uint8 ``n,S,S,3``, to a mean brightness of :data:`LIGHT`; light ones stay as they are."""
    flat = images.reshape(len(images), -1)
    # Every third number is a colour of its own; a fifth of them tells the mean well enough.
    mean = flat[:, ::5].mean(axis=1) + 1
    gain = np.clip(LIGHT / mean, 1.0, MOST_LIGHT)
    result = images.copy()
    levels = np.arange(256, dtype=np.float32)
    for i in np.flatnonzero(gain > 1.02):
        table = np.minimum(levels * gain[i] + 0.5, 255).astype(np.uint8)
        result[i] = table[images[i]]
    return result


def _fit(image: np.ndarray, side: int) -> np.ndarray:
    """Brings an image to a tile: enlarged a little to whole blocks, or made smaller."""
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0))
