"""The images most like one: the nearest in the space that the order or the audit kept, else by their stored pixels.

Shapes: N samples of the review, M images in a space, D dimensions, K neighbours.
"""

import threading
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import numpy as np

from mlfix_train.audit.review.requests import RequestError
from mlfix_train.audit.review.samples import NONE, Samples
from mlfix_train.audit.similarity.order_files import KeptEmbeddings

N_SIMILAR = 500  # images in the view of similar ones, the image itself included
N_SHOWN = 8  # neighbours beside a large image
BLOCK = 4096  # rows that are compared at a time
SMALL_SIDE = 8  # pixels are compared at this size
WAIT = 1.0  # seconds that a request waits for the pixels of all images to be read
MAX_CACHED = 256  # images whose neighbours are remembered


class EmbeddingSpace:
    """Embeddings of images; the distance between two tells how different they look.

    Args:
        embeddings: Returns numbers ``(M, D)``; called for each search, so that a memory map is open during a search
            alone, for mapped pages count as the process's own.
        rows: int64 ``(M,)``, sample of each row; :data:`NONE` for images that the review lacks.
        used: What the images were embedded by.
    """

    def __init__(self, embeddings: Callable[[], np.ndarray], rows: np.ndarray, used: str) -> None:
        self.used, self.rows, known = used, np.asarray(rows), np.flatnonzero(np.asarray(rows) >= 0)
        self._open = embeddings
        self._place = np.full(int(self.rows.max(initial=NONE)) + 1, NONE, np.int32)
        self._place[self.rows[known]] = known
        self.nearest = lru_cache(MAX_CACHED)(self._nearest)

    def __contains__(self, row: int) -> bool:
        return row < len(self._place) and bool(self._place[row] >= 0)

    def _nearest(self, row: int) -> np.ndarray:
        """Returns a sample and those nearest to it by Euclidean distance, nearest first: int32, at most N_SIMILAR."""
        embeddings, place = self._open(), self._place[row]
        point, gaps = np.asarray(embeddings[place], np.float32), np.empty(len(embeddings), np.float32)
        for start in range(0, len(embeddings), BLOCK):
            # Differences instead of products: rounding would swallow the distances of near-duplicates.
            difference = np.asarray(embeddings[start : start + BLOCK], np.float32) - point
            gaps[start : start + BLOCK] = np.einsum("ij,ij->i", difference, difference)
        gaps[self.rows < 0], gaps[place] = np.inf, -1.0
        count = min(N_SIMILAR, int((self.rows >= 0).sum()))
        nearest = np.argpartition(gaps, count - 1)[:count]
        return np.asarray(self.rows[nearest[np.lexsort((self.rows[nearest], gaps[nearest]))]], np.int32)


class SimilarImages:
    """Finds the images most like one by their embeddings; their pixels are compared as long as there are none.

    Args:
        samples: N samples of the review.
        find: Finds their embeddings; returns ``None`` as long as there are none.
        pixels: Returns uint8 ``(n, H, W, 3)`` for row numbers.
    """

    def __init__(
        self,
        samples: Samples,
        find: Callable[[], KeptEmbeddings | None],
        pixels: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self.samples, self.find, self.pixels = samples, find, pixels
        self._found: EmbeddingSpace | None = None
        self._by_pixels: EmbeddingSpace | None = None
        self._reader: threading.Thread | None = None
        self._done = 0  # images whose pixels are read
        self._lock = threading.Lock()

    def nearest(self, row: int) -> tuple[np.ndarray, str]:
        """Returns a sample and those most like it, int32 ``(K,)``, and what they are compared by.

        Raises:
            RequestError: The image is not in the space, or the pixels of all images are still being read.
        """
        space = self.space()
        if row not in space:
            problem = f"{self.samples.ids[row]} is not among the images compared by {space.used}"
            raise RequestError(problem, "it cannot be read, or was added later: sort the images again with mlfix sort")
        return space.nearest(row), space.used

    def space(self) -> EmbeddingSpace:
        """Returns the space to search in."""
        with self._lock:
            self._found = self._found or self._find()
            if self._found is not None:
                return self._found
            if self._by_pixels is None and (self._reader is None or not self._reader.is_alive()):
                self._reader = threading.Thread(target=self._read_pixels, daemon=True, name="similar")
                self._reader.start()
        if self._by_pixels is None and self._reader is not None:
            self._reader.join(WAIT)
        if self._by_pixels is None:
            done = f"{100 * self._done // max(len(self.samples), 1)}% done"
            problem = f"The images are being compared by their pixels, once: {done}, try again in a moment"
            raise RequestError(problem, status=HTTPStatus.SERVICE_UNAVAILABLE)
        return self._by_pixels

    def _find(self) -> EmbeddingSpace | None:
        found = self.find()
        rows = np.zeros(0, np.int64) if found is None else self.samples.rows(found.ids)
        if found is None or not (rows >= 0).any():
            return None
        return EmbeddingSpace(lambda: np.load(found.path, mmap_mode="r"), rows, found.used)

    def _read_pixels(self) -> None:
        parts = []
        for start in range(0, len(self.samples), BLOCK // 4):
            rows = np.arange(start, min(start + BLOCK // 4, len(self.samples)))
            parts.append(standardized_pixels(self.pixels(rows)))
            self._done = int(rows[-1]) + 1
        small = np.concatenate(parts)
        self._by_pixels = EmbeddingSpace(lambda: small, np.arange(len(small)), f"their pixels at {SMALL_SIDE} px")


def standardized_pixels(images: np.ndarray) -> np.ndarray:
    """Returns images, uint8 ``(n, H, W, 3)``, as few numbers that light and contrast do not change: float16 ``(n, D)``.

    They are averaged to at most 8 x 8 pixels, and brought to mean 0 and standard deviation 1.
    """
    height, width = images.shape[1:3]
    tall, wide = min(height, SMALL_SIDE), min(width, SMALL_SIDE)
    whole = images[:, : height // tall * tall, : width // wide * wide]
    parts = whole.reshape(len(images), tall, height // tall, wide, width // wide, 3)
    flat = parts.mean((2, 4), dtype=np.float32).reshape(len(images), -1)
    flat -= flat.mean(1, keepdims=True)
    return np.asarray(flat / (flat.std(1, keepdims=True) + 1.0), np.float16)


def describe_neighbours(similar: SimilarImages, row: int) -> tuple[list[int], dict[str, Any]]:
    """Returns the neighbours to show beside a large image, and what the page says of them.

    They are of other photos or tracks than the image, and one of each, where samples are grouped: the frames of a track
    have one label, right or wrong.
    """
    samples = similar.samples
    nearest, used = similar.nearest(row)
    others = nearest[1:]
    groups = samples.groups[others]
    is_grouped = int(samples.groups.max()) + 1 < len(samples)
    if is_grouped:
        first = np.zeros(len(others), bool)
        first[np.unique(groups, return_index=True)[1]] = True
        others = others[first & (groups != samples.groups[row])]
    shown = others[:N_SHOWN].tolist()
    labels, counts = np.unique(samples.given[shown], return_counts=True)
    most = [(int(labels[i]), int(counts[i])) for i in np.argsort(-counts, kind="stable")[:2] if labels[i] >= 0]
    told = [f"{count} {samples.label(label)}" for label, count in most]
    if told:
        told[0] = f"{most[0][1]} of the {len(shown)} most similar are labelled {samples.label(most[0][0])}"
    return shown, {"used": used, "one_per_group": is_grouped, "told": ", ".join(told)}
