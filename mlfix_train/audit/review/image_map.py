"""The map of all images of a review: computed once by a process of its own, and kept until its embeddings change.

Positions are whole numbers from 0 to :data:`SIDE`; what similar images share is their neighbourhood, not a scale.
Shapes: N samples, M of them with an embedding.
"""

import base64
import contextlib
import hashlib
import importlib.util
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlfix_train.audit.review.requests import RequestError
from mlfix_train.audit.similarity.order_files import KeptEmbeddings, samples_fingerprint
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.samples import find_names

log = logging.getLogger(__name__)

VERSION = 1
SIDE = 65_534
NOWHERE = 65_535  # position of an image without an embedding
MIN_IMAGES = 20  # fewer are seen at a glance
MAX_CORNERS = 200  # of a lasso
COMMAND = "from mlfix_train.audit.review.image_map import compute_from_stdin; compute_from_stdin()"


class ImageMap:
    """A map of a review's images; all methods may be called from several threads.

    Args:
        ids: ids of the N samples.
        find: finds their embeddings; returns ``None`` as long as there are none.
        path: file of the map.
    """

    def __init__(self, ids: np.ndarray, find: Callable[[], KeptEmbeddings | None], path: Path) -> None:
        self.ids, self.path = ids, path
        self._search, self._key = find, ""
        self._source: KeptEmbeddings | None = None
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._progress, self._problem, self._stopped = (0, 0), "", False
        self._loaded: tuple[np.ndarray, str] | None = None  # positions, and these as text

    def response(self, known: Any = None) -> dict[str, Any]:
        """Returns ``state`` (``ready``, ``computing``, ``absent``, ``stopped``, ``failed``, ``unavailable``) and more.

        Ready, that is ``key`` and ``points`` (uint16 ``(N, 2)``, packed; not if ``known`` is the key); computing,
        ``done`` and ``total``; failed or unavailable, ``message``.
        """
        with self._lock:
            if self._process is not None:
                return {"state": "computing", "done": self._progress[0], "total": self._progress[1]}
            found = self._find()
            if found is None or len(found.ids) < MIN_IMAGES:
                return {"state": "unavailable", "message": _reason(found)}
            loaded = self._load()
            if loaded is not None:
                return {"state": "ready", "key": self._key} | ({} if known == self._key else {"points": loaded[1]})
            if importlib.util.find_spec("umap") is None:
                message = 'A map needs umap-learn: pip install "mlfix-train[map]", then start the review again.'
                return {"state": "unavailable", "message": message}
            if self._problem:
                return {"state": "failed", "message": self._problem}
            return {"state": "stopped" if self._stopped else "absent"}

    def start(self) -> None:
        """Starts computing the map, unless it is there or being computed."""
        with self._lock:
            found = self._find()
            if self._process is not None or found is None or len(found.ids) < MIN_IMAGES or self._load() is not None:
                return
            settings = {"embeddings": str(found.path), "out": str(self.path), "key": self._key}
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            # In a process of its own, which returns its memory, and which Ctrl-C does not reach.
            command = [sys.executable, "-c", COMMAND]
            self._process = subprocess.Popen(command, text=True, start_new_session=True, **pipes)
            self._progress, self._problem, self._stopped = (0, 0), "", False
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(settings))
            self._process.stdin.close()
            threading.Thread(target=self._follow, args=(self._process,), daemon=True, name="map").start()

    def _follow(self, process: subprocess.Popen[str]) -> None:
        """Reads the progress of the process, line by line, until it ends."""
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
            parts = line.split()
            if len(parts) == 2 and all(part.isdecimal() for part in parts):
                self._progress = int(parts[0]), int(parts[1])
            elif line.strip():
                last = line.strip()
        status = process.wait()
        process.stdout.close()
        with self._lock:
            if self._process is process:
                self._process = None
                if status:
                    log.warning("the map of all images could not be computed: %s", last)
                    self._problem = f"The map could not be computed: {last[:300]}"

    def stop(self) -> None:
        """Stops computing the map; nothing of it is kept."""
        with self._lock:
            process, self._process = self._process, None
            self._stopped = process is not None
        if process is not None:
            process.kill()
            process.wait()

    def inside(self, area: str) -> np.ndarray:
        """Returns bool ``(N,)``, which images lie inside of a lasso.

        Args:
            area: The first 8 digits of the map's key, a colon, and the corners: ``1f0c33a9:100,200 300,200 200,400``.

        Raises:
            RequestError: It is no lasso, or one on another map.
        """
        key, _, text = area.partition(":")
        try:
            corners = np.array([[int(number) for number in corner.split(",")] for corner in text.split()])
        except ValueError:
            corners = np.zeros((0, 2))
        if corners.ndim != 2 or corners.shape[1:] != (2,) or not 3 <= len(corners) <= MAX_CORNERS:
            raise RequestError("area is not a lasso on the map", f"draw one of 3 to {MAX_CORNERS} corners")
        with self._lock:
            loaded = self._load() if self._find() is not None and self._key[:8] == key else None
            if loaded is None:
                raise RequestError("this part of the map was chosen on a map that is no longer there", "choose again")
            return inside_polygon(loaded[0], corners)

    def _find(self) -> KeptEmbeddings | None:
        """Returns the embeddings, once there are any; those of the start of the review stay."""
        if self._source is None:
            self._source = self._search()
            self._key = "" if self._source is None else _key(self._source)
        return self._source

    def _load(self) -> tuple[np.ndarray, str] | None:
        """Returns the positions, uint16 ``(N, 2)``, and these packed, if the map was computed."""
        if self._loaded is None and self._source is not None:
            try:
                with np.load(self.path, allow_pickle=False) as kept:
                    if str(kept["key"]) != self._key:
                        return None
                    places = kept["places"]
            except (OSError, ValueError, KeyError, EOFError):
                return None
            points = np.full((len(self.ids), 2), NOWHERE, np.uint16)
            rows = find_names(self._source.ids, self.ids)
            points[rows[rows >= 0]] = to_whole_numbers(places[rows >= 0])
            self._loaded = points, pack(points, np.uint16)
        return self._loaded


def _reason(found: KeptEmbeddings | None) -> str:
    if found is not None:
        return f"{len(found.ids)} images need no map."
    return (
        "A map needs embeddings of the images, and there are none: those of an audit by a pretrained network "
        '(pip install "mlfix-train[pretrained]", then mlfix audit again), or of order=<output folder of mlfix sort>.'
    )


def _key(found: KeptEmbeddings) -> str:
    """Returns a hash of what a map is made from."""
    with open(found.path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return samples_fingerprint([f"{VERSION} {digest}", *found.ids])


def pack(values: np.ndarray, dtype: type) -> str:
    """Returns an array as base64 of its little-endian bytes."""
    return base64.b64encode(np.ascontiguousarray(values, np.dtype(dtype).newbyteorder("<")).data).decode()


def quantize(suspicion: np.ndarray) -> np.ndarray:
    """Returns suspicion, 0 to 1, as 0 to 254, and 255 where there is none."""
    return np.where(np.isfinite(suspicion), np.round(254 * np.nan_to_num(suspicion)), 255)


def to_whole_numbers(places: np.ndarray) -> np.ndarray:
    """Scales places ``(M, 2)`` to whole numbers from 0 to :data:`SIDE`, both axes alike, about the middle."""
    low, high = places.min(0), places.max(0)
    scale = SIDE / max(float((high - low).max()), 1e-9)
    return np.asarray(np.round(SIDE / 2 + (places - (low + high) / 2) * scale), np.uint16)


def inside_polygon(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Returns bool ``(N,)``, which points ``(N, 2)`` lie inside of a polygon ``(C, 2)``, by the even-odd rule."""
    inside = np.zeros(len(points), bool)
    near = np.flatnonzero(((points >= corners.min(0)) & (points <= corners.max(0))).all(1))
    x, y = points[near].T.astype(np.float64)
    odd = np.zeros(len(near), bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 != y1:
            odd ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    inside[near] = odd
    return inside


def compute_from_stdin() -> None:
    """Computes the map that standard input describes: the main function of the process that computes it.

    It writes its progress to standard output, and ends when nobody reads that any more.
    """
    import os

    from mlfix_train.audit.similarity.projection import project_to_plane

    with contextlib.suppress(AttributeError, OSError):
        os.nice(10)  # the page comes first
    settings = json.load(sys.stdin)

    out = sys.stdout  # which is another one while UMAP prints

    def progress(done: int, total: int) -> None:
        out.write(f"{done} {total}\n")
        out.flush()

    places = project_to_plane(np.load(settings["embeddings"], mmap_mode="r"), progress=progress)
    with atomic_path(Path(settings["out"])) as temporary, open(temporary, "wb") as file:
        np.savez(file, key=settings["key"], places=places)
