"""The images of the page: single ones, and sprite sheets, many tiles in one JPEG, cut as shown and cached by content.

The side of a tile is a multiple of 8, the block size of JPEG, and chroma is not subsampled, so that tiles do not bleed
into each other.
"""

import contextlib
import hashlib
import io
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from mlfix_train.data.files.atomic import atomic_path, remove_leftovers
from mlfix_train.data.pixels.decode import FULL_RANGE, UnreadableImage, decode_image, open_image

log = logging.getLogger(__name__)

BLOCK = 256  # samples that the page fetches at a time: one sheet of small tiles
SMALL, LARGE, FULL, SHARP = 64, 192, 480, 1600  # largest sides of tiles, of a single image, and of one zoomed, pixels
SMALL_COLUMNS, LARGE_COLUMNS = 16, 4
QUALITY = 90
MEMORY_SHEETS, DISK_LIMIT = 64, 1 << 30
"""Sheets cached in memory, each below 1 MB, and bytes of sheets cached on disk, at most."""
MAX_PLANS = 50_000  # names of sheets that are remembered
BACKGROUND = 232  # grey of an empty tile
MIN_BRIGHTNESS, MAX_GAIN = 105, 4.0
"""Mean brightness, 0 to 255, that darker tiles are raised to, and the largest factor."""
VERSION = 1

Pixels = Callable[[np.ndarray], np.ndarray]


def tile_side(size: int, largest: int) -> int:
    """Returns the side of tiles for images of ``size`` pixels: a multiple of 8, at most ``largest``."""
    return min(-(-size // 8) * 8, largest)


class Sprites:
    """Cuts sheets, and caches them in memory and on disk.

    Args:
        pixels: Returns uint8 ``(n, S, S, 3)`` for row numbers.
        size: S.
        source: Hash of the pixels.
        folder: Folder of the sheets on disk; ``None`` keeps none there.
        disk_limit: Most bytes on disk.
        white: The value of 16-bit images that is white.
    """

    def __init__(
        self,
        pixels: Pixels,
        size: int,
        source: str,
        folder: Path | None,
        disk_limit: int = DISK_LIMIT,
        white: int = FULL_RANGE,
    ) -> None:
        self.white = white
        self.pixels, self.source, self.folder, self.disk_limit = pixels, source, folder, disk_limit
        self.small, self.large = tile_side(size, SMALL), tile_side(size, LARGE)
        self._load = lru_cache(maxsize=MEMORY_SHEETS)(lambda name: self._read(name) or self._cut_to_disk(name))
        self._plans: OrderedDict[str, tuple[np.ndarray, int, int, bool]] = OrderedDict()
        self._lock = threading.Lock()
        self._on_disk = self._open_folder()
        self._disk_used = sum(self._on_disk.values())

    def plan(self, rows: np.ndarray, side: int, columns: int, brighten: bool) -> str:
        """Returns the name of the sheet of ``rows``; it is cut when :meth:`sheet` is called."""
        settings = f"{VERSION}|{self.source}|{side}|{columns}|{brighten}|{QUALITY}|"
        digest = hashlib.sha256(settings.encode())
        digest.update(np.ascontiguousarray(rows, np.int64).tobytes())
        name = digest.hexdigest()[:32]
        with self._lock:
            self._plans[name] = (rows, side, columns, brighten)
            self._plans.move_to_end(name)
            while len(self._plans) > MAX_PLANS:
                self._plans.popitem(last=False)
        return name

    def sheet(self, name: str) -> bytes | None:
        """Returns a planned sheet, a JPEG; ``None`` if no sheet of this name was planned."""
        return self._load(name) if name in self._plans else None

    def _cut_to_disk(self, name: str) -> bytes:
        sheet = self.cut(*self._plans[name])
        self._write(name, sheet)
        return sheet

    def prepare(self, name: str) -> None:
        """Cuts a planned sheet to disk, unless it is there."""
        if self.folder is not None and name in self._plans and name not in self._on_disk:
            self._cut_to_disk(name)

    def cut(self, rows: np.ndarray, side: int, columns: int, brighten: bool) -> bytes:
        """Cuts a sheet: tiles row by row, ``columns`` in each; the tile of row -1 stays grey."""
        lines = max(-(-len(rows) // columns), 1)
        tiles = np.full((lines * columns, side, side, 3), BACKGROUND, np.uint8)
        present = np.flatnonzero(np.asarray(rows) >= 0)
        if len(present):
            images = self.pixels(np.asarray(rows)[present])
            if images.shape[1:3] != (side, side):
                size, lanczos = (side, side), Image.Resampling.LANCZOS
                resized = [Image.fromarray(image).resize(size, lanczos, reducing_gap=2.0) for image in images]
                images = np.stack([np.asarray(image) for image in resized])
            tiles[present] = brighten_images(images) if brighten else images
        sheet = tiles.reshape(lines, columns, side, side, 3).transpose(0, 2, 1, 3, 4)
        return encode_jpeg(sheet.reshape(lines * side, columns * side, 3), QUALITY)

    def _open_folder(self) -> OrderedDict[str, int]:
        """Returns the sizes of the sheets on disk, oldest first; works without a folder that cannot be written."""
        if self.folder is None:
            return OrderedDict()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.folder)
            found = [(path.stem, path.stat()) for path in self.folder.glob("*.jpg")]
        except OSError as error:
            log.warning("sprite sheets are not cached on disk: %s", error)
            self.folder = None
            return OrderedDict()
        return OrderedDict((name, stat.st_size) for name, stat in sorted(found, key=lambda item: item[1].st_mtime))

    def _read(self, name: str) -> bytes | None:
        if self.folder is not None and name in self._on_disk:
            with contextlib.suppress(OSError):
                sheet = (self.folder / f"{name}.jpg").read_bytes()
                return sheet if sheet[:2] == b"\xff\xd8" and sheet[-2:] == b"\xff\xd9" else None
        return None

    def _write(self, name: str, sheet: bytes) -> None:
        if self.folder is None:
            return
        try:
            with atomic_path(self.folder / f"{name}.jpg") as temporary:
                temporary.write_bytes(sheet)
        except OSError as error:
            log.warning("sprite sheets are no longer cached on disk: %s", error)
            self.folder = None
            return
        with self._lock:
            self._disk_used += len(sheet) - self._on_disk.get(name, 0)
            self._on_disk[name] = len(sheet)
            while self._disk_used > self.disk_limit and len(self._on_disk) > 1:
                oldest, size = self._on_disk.popitem(last=False)
                self._disk_used -= size
                with contextlib.suppress(OSError):
                    (self.folder / f"{oldest}.jpg").unlink(missing_ok=True)


def brighten_images(images: np.ndarray) -> np.ndarray:
    """Raises dark images, uint8 ``(n, S, S, 3)``, to a mean of :data:`MIN_BRIGHTNESS`; others are unchanged."""
    # Every fifth value samples all three channels and is enough for the mean.
    mean = images.reshape(len(images), -1)[:, ::5].mean(axis=1) + 1
    gain = np.clip(MIN_BRIGHTNESS / mean, 1.0, MAX_GAIN)
    result = images.copy()
    levels = np.arange(256, dtype=np.float32)
    for i in np.flatnonzero(gain > 1.02):
        lookup = np.minimum(levels * gain[i] + 0.5, 255).astype(np.uint8)
        result[i] = lookup[images[i]]
    return result


def encode_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """Returns uint8 pixels ``(H, W, 3)`` as a JPEG without chroma subsampling."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=0)
    return file.getvalue()


def encode_full_image(
    path: str, stored: Callable[[], np.ndarray], white: int = FULL_RANGE, largest: int = FULL
) -> bytes:
    """Returns an image as a JPEG: upright, uncropped, in a square of at most ``largest`` pixels with grey margins.

    ``stored`` returns the pixels ``(H, W, 3)`` to show if the file is missing or damaged; ``white`` is the value of
    16-bit images that is white.
    """
    try:
        with open_image(path, np.inf) as image:
            side = min(max(image.size), largest)
        pixels = decode_image(path, max(side, 8), "pad", white=white)
    except (OSError, UnreadableImage, ValueError):
        pixels = stored()
    return encode_jpeg(pixels, quality=92)
