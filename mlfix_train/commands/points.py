"""From images to points, their neighbours and near-duplicates, for ``mlfix sort``; nothing is done twice."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from mlfix_train.audit.similarity.near_duplicates import duplicate_groups, duplicates_table, identical_rows
from mlfix_train.audit.similarity.neighbours import Neighbours, nearest_neighbours, rerank
from mlfix_train.audit.similarity.order_files import read_embeddings, read_order, samples_fingerprint, write_embeddings
from mlfix_train.commands import embedding
from mlfix_train.commands.embedding import Embedding, check_memory, check_room
from mlfix_train.commands.progress import Countdown
from mlfix_train.config import build as config
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.pixels.store import PixelStore
from mlfix_train.errors import DataError, MlfixError
from mlfix_train.models.embedding.base import compute_features as embed
from mlfix_train.training.trainer import best_precision

log = logging.getLogger(__name__)

NEIGHBOURS = 10
ALTERED = 256
"""Images whose altered copies tell how near a near-duplicate is."""
QUARTER = 0.25
"""Share of these copies that would count: on GTSRB, of such pairs 99% are of one track and 99.9% of one label."""


@dataclass
class Found:
    """Points of N images.

    Attributes:
        points: float32 ``N,K``.
        neighbours: of all images; distances are the exact ones where they were reranked.
        key: fingerprint of images and embedding: points of the same key are the same.
        seconds: that it took.
        threshold: distance below which images are near-duplicates.
    """

    points: np.ndarray
    neighbours: Neighbours
    key: str
    seconds: float
    threshold: float = 0.0


def embed_all(
    cfg: DictConfig, built: Embedding, store: PixelStore, rows: np.ndarray, ids: pd.Index, out: Path, device: str
) -> Found:
    """Embeds the readable images and finds their neighbours, or takes both from an earlier run of the same inputs.

    Args:
        cfg: settings of ``mlfix sort``.
        built: what tells images apart.
        store: pixels of all images.
        rows: N rows of it, those that can be read.
        ids: their names.
        out: where features that were begun lie.
        device: of the network.

    Raises:
        DataError: embeddings of other images, or no room on the disk.
    """
    clock = time.monotonic()
    if built.function is None:
        points = read_embeddings(Path(str(cfg.embeddings)).expanduser(), len(rows))
        _check_embeddings_of(Path(str(cfg.embeddings)).expanduser(), ids)
        key = hashlib.sha256(points.tobytes()).hexdigest()
        found = nearest_neighbours(points, NEIGHBOURS, device, seed=int(cfg.seed))
        return Found(points, found, key, round(time.monotonic() - clock, 2))
    key = _key(cfg, built, store, ids)
    half = not built.rerank and best_precision("gpu" if device.startswith("cuda") else device) == "bf16-mixed"
    half = half and not built.whiten
    embedding.fit(built, store, rows, device, half, int(cfg.seed))
    if built.projection is None:
        length = embed(store, built.function, rows[:1], device=device, bfloat16=half).shape[1]
        check_memory(12.0 * length * len(rows))  # the points, a centred copy, and their halves in the products
    kept = _kept(out, key, len(rows))
    exact = None
    if kept is not None and not built.rerank:
        points = kept
    else:
        options: dict[str, Any] = {"batch_size": int(cfg.batch_size), "device": device, "bfloat16": half}
        if built.rerank:
            exact = _exact_features(built, store, rows, out, key, options)
            blocks = range(0, len(rows), 1024)
            points = np.concatenate([built.project(np.asarray(exact[i : i + 1024], np.float32)) for i in blocks])
        else:
            points = _resumed(built, store, rows, out, key, options)
    count = max(NEIGHBOURS, built.rerank)
    found = nearest_neighbours(points, count, device, seed=int(cfg.seed))
    if exact is not None:
        found = rerank(found, exact, NEIGHBOURS)
        _forget_features(out)
    return Found(points, found, key, round(time.monotonic() - clock, 2))


def _key(cfg: DictConfig, built: Embedding, store: PixelStore, ids: pd.Index) -> str:
    """Returns a fingerprint of the images and of what embeds them."""
    text = json.dumps([built.embedder.fingerprint, cfg.seed, store.fingerprint, samples_fingerprint(ids)], default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _kept(out: Path, key: str, count: int) -> np.ndarray | None:
    """Returns the points that an earlier run of the same inputs wrote, where they are whole."""
    try:
        if json.loads((out / "sort.json").read_text(encoding="utf-8"))["key"] != key:
            return None
        return read_embeddings(out / "embeddings.npy", count)
    except (OSError, ValueError, KeyError, MlfixError):
        return None


def _resumed(
    built: Embedding, store: PixelStore, rows: np.ndarray, out: Path, key: str, options: dict[str, Any]
) -> np.ndarray:
    """Embeds and projects, going on where an interrupted run of the same inputs stopped."""
    assert built.function is not None
    function, block, parts = built.function, 32 * options["batch_size"], []
    progress = Countdown("embedding images", len(rows))
    folder = out / ".unfinished" / key[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(rows), block):
        own, file = rows[start : start + block], folder / f"{start}.npy"
        part = _part(file, len(own))
        if part is None:
            part = built.project(embed(store, function, own, **options, progress=progress.after(start)))
            write_embeddings(part, file)
        parts.append(part)
    shutil.rmtree(folder.parent, ignore_errors=True)
    return np.concatenate(parts)


def _part(file: Path, count: int) -> np.ndarray | None:
    try:
        part = np.load(file, allow_pickle=False)
        return part if len(part) == count else None
    except (OSError, ValueError, EOFError):
        return None


def _exact_features(
    built: Embedding, store: PixelStore, rows: np.ndarray, out: Path, key: str, options: dict[str, Any]
) -> np.memmap:
    """Writes the exact features as float16 to a file below ``out``, from which neighbours are reranked.

    An interrupted run of the same inputs is gone on with.
    """
    assert built.function is not None
    length = embed(store, built.function, rows[:1], **options).shape[1]
    hint = "lpips.rerank=0 does without them, a smaller lpips.size or pixels.size makes them smaller"
    path, noted = out / f".features-{key[:16]}.npy", out / f".features-{key[:16]}.json"
    done, shape = 0, (len(rows), length)
    try:
        done = int(json.loads(noted.read_text())["done"])
        features: np.memmap = np.lib.format.open_memmap(path, "r+")
        if features.shape != shape or features.dtype != np.float16:
            raise ValueError("another shape")
    except (OSError, ValueError, KeyError):
        _forget_features(out)
        check_room(out, 2.0 * length * len(rows), hint)
        done, features = 0, np.lib.format.open_memmap(path, "w+", np.float16, shape)
    progress, block = Countdown("embedding images", len(rows)), 32 * options["batch_size"]
    for start in range(done, len(rows), block):
        part = slice(start, start + block)
        embed(store, built.function, rows[part], **options, out=features[part], progress=progress.after(start))
        features.flush()
        with atomic_path(noted) as temporary:
            temporary.write_text(json.dumps({"done": min(start + block, len(rows))}))
    return features


def _forget_features(out: Path) -> None:
    for file in out.glob(".features-*"):
        file.unlink(missing_ok=True)


def _check_embeddings_of(path: Path, ids: pd.Index) -> None:
    """Checks embeddings of an earlier sort by the order beside them: that they are of these images, in this order.

    Raises:
        DataError: they are not.
    """
    if not (path.parent / "order.parquet").is_file():
        return
    before = read_order(path.parent, ids, "embeddings")
    if before.attrs.get("samples") != samples_fingerprint(ids):
        raise DataError(
            f"embeddings={path} were made for these images in another order",
            "give the data as it was then, or leave embeddings out: the images are embedded anew",
        )


def altered(images: np.ndarray) -> np.ndarray:
    """Returns copies that differ as copies do: half a pixel to the side and down, 3% brighter; uint8 ``n,H,W,3``."""
    x: np.ndarray = images.astype(np.float32)
    x = (x + np.roll(x, 1, 1)) / 2
    x = (x + np.roll(x, 1, 2)) / 2
    return (x * 1.03).round().clip(0, 255).astype(np.uint8)


def find_duplicates(
    cfg: DictConfig,
    built: Embedding,
    found: Found,
    store: PixelStore,
    rows: np.ndarray,
    table: pd.DataFrame,
    device: str,
) -> tuple[np.ndarray, pd.DataFrame]:
    """Groups near-duplicates; see :mod:`mlfix_train.audit.similarity.near_duplicates`.

    Returns:
        The number of each image's group, and the table of groups.
    """

    class Readable:
        def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
            return np.asarray(store[rows[numbers]])

    same = identical_rows(Readable(), len(rows))
    threshold = cfg.duplicates.threshold
    if threshold == "auto":
        threshold = _own_distance(cfg, built, store, rows, device) if built.function is not None else 0.0
    found.threshold = float(threshold)
    groups = duplicate_groups(same, found.neighbours, found.threshold)
    held_out = _held_out(cfg, table)
    held_out = None if held_out is None else held_out[rows]
    return groups, duplicates_table(groups, same, found.neighbours, table.iloc[rows], held_out)


def _held_out(cfg: DictConfig, table: pd.DataFrame) -> np.ndarray | None:
    """Returns what `mlfix train` would hold out, or ``None`` where nothing can be split."""
    if table["label"].isna().any():
        if table["label"].notna().any():
            log.warning("some images have no label: no near-duplicates across the split are told")
        return None
    try:
        return config.build_split(cfg, table)
    except DataError as error:
        log.warning("no near-duplicates across the split are told: %s", error.problem)
        return None


def _own_distance(cfg: DictConfig, built: Embedding, store: PixelStore, rows: np.ndarray, device: str) -> float:
    """Returns the distance within which a quarter of some images lie from their slightly altered copies."""
    assert built.function is not None
    rng = np.random.default_rng(int(cfg.seed))
    drawn = np.sort(rng.choice(rows, min(ALTERED, len(rows)), replace=False))
    images = store[drawn]
    pair = [embed(pixels, built.function, device=device) for pixels in (images, altered(images))]
    if not built.rerank:
        pair = [built.project(features) for features in pair]
    return float(np.quantile(np.linalg.norm(pair[0] - pair[1], axis=1), QUARTER))
