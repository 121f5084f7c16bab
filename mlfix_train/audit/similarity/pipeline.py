"""From images to embeddings, nearest neighbours and orders.

:func:`embed_and_search` does each expensive step once: given a folder, it keeps embeddings and neighbours there, reuses
them when images and embedder are the same, and continues an interrupted run where it stopped.

Shapes: N images, D features of the embedder, E dimensions of the embeddings, K neighbours.
"""

import hashlib
import json
import shutil
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import pandas as pd

from mlfix_train.audit.similarity.neighbours import Neighbours, nearest_neighbours, rerank
from mlfix_train.audit.similarity.order_files import write_embeddings
from mlfix_train.audit.similarity.seriation import insert_new, outlier_score, seriate
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.files.system import available_memory
from mlfix_train.errors import ConfigError, DataError, format_list
from mlfix_train.models.embedding.base import Embedder, Progress, TorchEmbedder

N_NEIGHBORS = 10
BATCHES_PER_BLOCK = 32  # batches embedded between two points from which an interrupted run can continue
SECONDS_PER_BLOCK = 2.0  # blocks that take less are followed by larger ones
FEATURE_BATCHES = 4  # the same for the features of large networks


class Images(Protocol):
    """Pixels by row number, such as a :class:`~mlfix_train.data.pixels.store.PixelStore`."""

    @property
    def fingerprint(self) -> str:
        """Hash of all pixels."""

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Returns uint8 ``(n, H, W, 3)``."""


@dataclass(frozen=True)
class EmbeddedImages:
    """Embeddings of N images, float32 ``(N, E)``, and their nearest neighbours, exact where the embedder re-ranks.

    ``key`` is the fingerprint of images and embedder: the same key means the same embeddings.
    """

    embeddings: np.ndarray
    neighbours: Neighbours
    key: str


def check_embedder(embedder: Any, key: str = "embedder") -> Embedder:
    """Returns an embedder of the user's own, if it has all that :class:`Embedder` describes.

    Raises:
        ConfigError: Something is missing, by name.
    """
    needed = (*Embedder.__annotations__, "fit", "features", "project")
    missing = [name for name in needed if not hasattr(embedder, name)]
    if missing:
        hint = "derive it from mlfix_train.models.embedding.base.TorchEmbedder"
        raise ConfigError(f"{key}: {type(embedder).__name__} has no {format_list(missing, 10)}", hint)
    return cast(Embedder, embedder)


def search_embeddings(
    embeddings: np.ndarray, n_neighbours: int = N_NEIGHBORS, device: str = "cpu", seed: int = 0
) -> EmbeddedImages:
    """Finds the neighbours of given embeddings ``(N, E)``."""
    neighbours = nearest_neighbours(embeddings, n_neighbours, device, seed=seed)
    return EmbeddedImages(embeddings, neighbours, hashlib.sha256(embeddings.tobytes()).hexdigest())


def embed_and_search(
    pixels: Images,
    rows: np.ndarray,
    embedder: Embedder,
    *,
    folder: Path | None = None,
    n_neighbours: int = N_NEIGHBORS,
    batch_size: int = 256,
    bfloat16: bool = False,
    device: str = "cpu",
    seed: int = 0,
    progress: Progress | None = None,
) -> EmbeddedImages:
    """Embeds images and finds their nearest neighbours.

    Args:
        pixels: images by row number.
        rows: int64 ``(N,)``, the rows to embed.
        embedder: turns images into embeddings; it is fitted here.
        folder: where ``embeddings.npy``, ``neighbours.npz`` and unfinished work are kept for the next call; ``None``
            keeps nothing. The exact features of an embedder that re-ranks are there (float16) while it runs, else in
            memory.
        n_neighbours: neighbours of each image.
        batch_size: images embedded at a time.
        bfloat16: compute features in bfloat16 if the embedder supports it.
        device: where neighbours are searched, ``cpu`` or ``cuda``.
        seed: of what the embedder samples and of the search.
        progress: called with (images embedded, images in all).

    Returns:
        The embeddings, in the order of ``rows``, and their neighbours.

    Raises:
        DataError: an image has no finite embedding, or memory or disk are too small, with the sizes.
    """
    bfloat16 = bfloat16 and embedder.supports_bfloat16
    embedder.fit(pixels, rows, seed=seed, bfloat16=bfloat16)
    inputs = [embedder.fingerprint, str(pixels.fingerprint), n_neighbours, bfloat16, seed]
    key = hashlib.sha256(json.dumps(inputs).encode() + np.asarray(rows, np.int64).tobytes()).hexdigest()
    if folder is not None and (cached := _read_cache(folder, key, len(rows))) is not None:
        return cached

    def features(block: np.ndarray, done: int, out: np.ndarray | None = None) -> np.ndarray:
        report = None if progress is None else lambda count, _: progress(done + count, len(rows))
        return embedder.features(pixels, block, batch_size=batch_size, bfloat16=bfloat16, out=out, progress=report)

    first = embedder.features(pixels, rows[:1], bfloat16=bfloat16)
    width = embedder.project(first).shape[1]
    needed, free = 12.0 * width * len(rows), available_memory()  # embeddings, a centered copy, parts of products
    if needed > free:
        problem = f"the embeddings need {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are available"
        hint = "project them to fewer dimensions: width=128 (the error of the projection is measured and reported)"
        raise DataError(problem, hint)
    block_size = BATCHES_PER_BLOCK * batch_size
    if not embedder.n_candidates:

        def embed(block: np.ndarray, done: int, out: np.ndarray) -> None:
            out[:] = embedder.project(features(block, done))

        embeddings = np.array(_embed_in_blocks(embed, rows, block_size, width, np.float32, folder, key))
        neighbours = nearest_neighbours(embeddings, n_neighbours, device, seed=seed)
    else:
        exact = _embed_in_blocks(features, rows, block_size, first.shape[1], np.float16, folder, key)
        blocks = range(0, len(rows), 1024)
        embeddings = np.concatenate([embedder.project(np.asarray(exact[i : i + 1024], np.float32)) for i in blocks])
        candidates = nearest_neighbours(embeddings, max(n_neighbours, embedder.n_candidates), device, seed=seed)
        neighbours = rerank(candidates, exact, n_neighbours)
    found = EmbeddedImages(embeddings, neighbours, key)
    if folder is not None:
        write_embeddings(embeddings, folder / "embeddings.npy")
        kept: dict[str, Any] = {**vars(neighbours), "key": key, "embeddings_crc32": zlib.crc32(embeddings.tobytes())}
        with atomic_path(folder / "neighbours.npz") as temporary, open(temporary, "wb") as file:
            np.savez(file, **kept)
        _remove_unfinished(folder)
    return found


def embed_features(
    pixels: Images,
    rows: np.ndarray,
    embedder: Embedder,
    *,
    folder: Path | None = None,
    batch_size: int = 256,
    bfloat16: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> np.ndarray:
    """Returns the features of images, float16 ``(N, D)``, and fits the embedder to them.

    Args:
        pixels: images by row number.
        rows: int64 ``(N,)``, the rows to embed.
        embedder: turns images into embeddings; it is fitted here.
        folder: where ``features.npy`` is kept for the next call with the same images and embedder, and from where an
            interrupted call goes on; ``None`` keeps nothing.
        batch_size: images embedded at a time.
        bfloat16: compute features in bfloat16 if the embedder supports it.
        seed: of what the embedder samples.
        progress: called with (images embedded, images in all).

    Raises:
        ConfigError: An embedder that does not return a row per image.
    """
    bfloat16 = bfloat16 and embedder.supports_bfloat16
    fits_later = isinstance(embedder, TorchEmbedder)
    if not fits_later:
        embedder.fit(pixels, rows, seed=seed, bfloat16=bfloat16)
    inputs = [embedder.fingerprint, str(pixels.fingerprint), "features", bfloat16]
    key = hashlib.sha256(json.dumps(inputs).encode() + np.asarray(rows, np.int64).tobytes()).hexdigest()
    found = None if folder is None else _read_features(folder, key, len(rows))
    if found is None:

        def embed(block: np.ndarray, done: int, out: np.ndarray) -> None:
            report = None if progress is None else lambda count, _: progress(done + count, len(rows))
            out[:] = check(
                embedder.features(pixels, block, batch_size=batch_size, bfloat16=bfloat16, progress=report), block
            )

        def check(features: np.ndarray, block: np.ndarray) -> np.ndarray:
            if np.ndim(features) != 2 or len(features) != len(block):
                problem = f"{embedder.name}: features of {len(block):,} images have the shape {np.shape(features)}"
                raise ConfigError(problem, "return one row per image, (n, D), in their order")
            return features

        width = check(embedder.features(pixels, rows[:1], bfloat16=bfloat16), rows[:1]).shape[1]
        found = _embed_in_blocks(embed, rows, FEATURE_BATCHES * batch_size, width, np.float16, folder, key)
        if folder is not None:
            found = np.array(found)
            write_embeddings(found, folder / "features.npy")
            with atomic_path(folder / "features.json") as temporary:
                temporary.write_text(json.dumps({"key": key, "crc32": zlib.crc32(found.tobytes())}))
            _remove_unfinished(folder)
    if isinstance(embedder, TorchEmbedder):
        embedder.fit_to_features(found, seed)
    return found


def _read_features(folder: Path, key: str, count: int) -> np.ndarray | None:
    """Returns the features that an earlier call with the same key kept, if they are complete and unchanged."""
    try:
        facts = json.loads((folder / "features.json").read_text())
        features = np.load(folder / "features.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    is_same = (
        isinstance(facts, dict) and facts.get("key") == key and facts.get("crc32") == zlib.crc32(features.tobytes())
    )
    return features if is_same and len(features) == count else None


def _embed_in_blocks(
    embed: Callable[[np.ndarray, int, np.ndarray], object],
    rows: np.ndarray,
    block_size: int,
    width: int,
    dtype: type,
    folder: Path | None,
    key: str,
) -> np.ndarray:
    """Fills an ``(N, width)`` array block by block; with a folder, in a file from which the same key continues."""
    shape, done = (len(rows), width), 0
    result: np.ndarray
    if folder is None:
        result = np.empty(shape, dtype)
    else:
        path, state = folder / f".unfinished-{key[:16]}.npy", folder / f".unfinished-{key[:16]}.json"
        try:
            done = int(json.loads(state.read_text())["done"])
            result = np.lib.format.open_memmap(path, "r+")
            if result.shape != shape or result.dtype != dtype:
                raise ValueError("another shape")
        except (OSError, ValueError, KeyError):
            _remove_unfinished(folder)
            folder.mkdir(parents=True, exist_ok=True)
            needed, free = np.dtype(dtype).itemsize * width * len(rows), shutil.disk_usage(folder).free
            if needed > 0.95 * free:
                raise DataError(
                    f"the exact features need {needed / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free",
                    "lpips.rerank=0 does without them, a smaller lpips.size or pixels.size makes them smaller",
                ) from None
            done, result = 0, np.lib.format.open_memmap(path, "w+", dtype, shape)
    while done < len(rows):
        block, begin = slice(done, done + block_size), time.monotonic()
        embed(rows[block], done, result[block])
        done = min(done + block_size, len(rows))
        if isinstance(result, np.memmap):
            result.flush()
            with atomic_path(state) as temporary:
                temporary.write_text(json.dumps({"done": done}))
        if time.monotonic() - begin < SECONDS_PER_BLOCK:
            block_size *= 2  # a GPU would spend its time waiting for files
    return result


def _remove_unfinished(folder: Path) -> None:
    for file in folder.glob(".unfinished-*"):
        file.unlink(missing_ok=True)


def _read_cache(folder: Path, key: str, count: int) -> EmbeddedImages | None:
    """Returns what an earlier call with the same key kept, if it is complete and unchanged."""
    try:
        embeddings = np.load(folder / "embeddings.npy", allow_pickle=False)
        with np.load(folder / "neighbours.npz", allow_pickle=False) as kept:
            is_same = str(kept["key"]) == key and int(kept["embeddings_crc32"]) == zlib.crc32(embeddings.tobytes())
            neighbours = Neighbours(kept["index"], kept["distance"], float(kept["recall"]))
    except (OSError, ValueError, KeyError, EOFError):
        return None
    return EmbeddedImages(embeddings, neighbours, key) if is_same and len(embeddings) == count else None


def order_images(
    found: EmbeddedImages,
    table: pd.DataFrame,
    *,
    previous: pd.DataFrame | None = None,
    search_effort: float = 0.7,
    seed: int = 0,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Orders all images, and those of each label among themselves.

    Args:
        found: Embeddings and neighbours of N images.
        table: Sample table of these images.
        previous: An earlier order of some of them, as :func:`~mlfix_train.audit.similarity.order_files.read_order`
            returns it: it is improved, and new images are inserted next to similar ones.
        search_effort: See :func:`~mlfix_train.audit.similarity.seriation.seriate`.
        seed: Of the search.
        progress: Called with (labels ordered, labels in all).

    Returns:
        The columns of ``order.parquet`` without ``duplicate_group``, see
        :mod:`mlfix_train.audit.similarity.order_files`.
    """
    x, neighbours, n = found.embeddings, found.neighbours, len(found.embeddings)
    initial = None
    if previous is not None:
        initial = insert_new(previous["position"].reindex(table.index).to_numpy(dtype=float), neighbours)
    path = seriate(x, initial_order=initial, neighbours=neighbours, search_effort=search_effort, seed=seed)
    scores = outlier_score(x, neighbours=neighbours)
    label_position, label_scores = np.full(n, -1, np.int64), np.full(n, np.nan)
    codes, names = pd.factorize(table["label"])
    for code in range(len(names)):
        rows = np.flatnonzero(codes == code)
        if len(rows) < n:
            label_path = seriate(x[rows], search_effort=search_effort, seed=seed)
            label_scores[rows] = outlier_score(x[rows])
        else:
            label_path, label_scores = path, scores
        label_position[rows[label_path]] = np.arange(len(rows))
        if progress is not None:
            progress(code + 1, len(names))
    return pd.DataFrame(
        {
            "sample_id": table.index.to_numpy(),
            "label": table["label"].to_numpy(),
            "position": np.argsort(path),
            "label_position": label_position,
            "outlier_score": scores,
            "label_outlier_score": label_scores,
        }
    )
