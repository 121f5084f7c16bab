"""The neighbours by which ``mlfix audit`` judges labels: of an order's embeddings, or by the pixels."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from mlfix_train.audit.predictions.held_out import HeldOut
from mlfix_train.audit.scores.knn import NeighbourScores, neighbours_wanted, score_neighbours
from mlfix_train.audit.similarity.neighbours import nearest_neighbours
from mlfix_train.audit.similarity.order_files import read_embeddings, read_order
from mlfix_train.commands.audit_inputs import Source

log = logging.getLogger(__name__)

KINDS = ("auto", "order", "pixels", "none")


def find(cfg: DictConfig, source: Source, held: HeldOut) -> tuple[NeighbourScores | None, str]:
    """Scores the held-out samples by their neighbours.

    Args:
        cfg: settings of ``mlfix audit``.
        source: the data.
        held: the samples.

    Returns:
        The scores with rows as in ``held`` (``None`` where there are none), and by what they were found, in words.

    Raises:
        MlfixError: an order that doesn't fit.
    """
    kind = str(cfg.neighbours)
    if kind == "auto":
        kind = "order" if cfg.order else "pixels"
    if kind == "order" and source.table is None:
        log.warning("order=%s is not used: %s", cfg.order, source.why)
    if kind == "none" or source.table is None or (kind == "pixels" and source.store is None):
        return None, ""
    if kind == "order":
        points, ids, used = _of_order(cfg, source.table)
    else:
        rows = source.readable_rows()
        points, ids, used = _of_pixels(source, rows), source.table.index[rows], "the pixels"
    return _score(points, source.table.loc[ids], held), used


def _of_order(cfg: DictConfig, table: pd.DataFrame) -> tuple[np.ndarray, pd.Index, str]:
    """Reads the embeddings of `mlfix sort`, and the samples that both it and the data hold."""
    where = Path(str(cfg.order)).expanduser()
    folder = where if where.is_dir() else where.parent
    found = read_order(where, table.index, partial=True)
    everything = pd.Index(pd.read_parquet(folder / "order.parquet", columns=["sample_id"])["sample_id"])
    points = read_embeddings(folder / "embeddings.npy", len(everything), "order")
    rows = everything.get_indexer(found.index)
    return points[rows], found.index, str(found.attrs.get("used", "the order's embeddings"))


def _of_pixels(source: Source, rows: np.ndarray) -> np.ndarray:
    """Embeds images by their pixels, as `mlfix sort` does when nothing else is given."""
    from mlfix_train.commands.progress import Countdown
    from mlfix_train.models.embedding.pixels import PixelEmbedder

    assert source.store is not None
    built = PixelEmbedder()
    built.fit(source.store, rows)
    progress = Countdown("embedding images", len(rows))
    parts = []
    for start in range(0, len(rows), 8192):  # as many features as memory likes
        own = rows[start : start + 8192]
        parts.append(built.project(built.features(source.store, own, progress=progress.after(start))))
    return np.concatenate(parts)


def _score(points: np.ndarray, table: pd.DataFrame, held: HeldOut) -> NeighbourScores | None:
    if len(points) < 3:
        return None
    known = pd.Index(held.names)
    labels = known.get_indexer(pd.Index(table["label"].fillna("").to_numpy(dtype=object)))
    groups = pd.factorize(table["group"])[0]
    grouped = groups if len(groups) and groups.max() + 1 < len(groups) else None
    found = nearest_neighbours(points, neighbours_wanted(grouped))
    scores = score_neighbours(found, labels, len(known), grouped)
    return _aligned(scores, table.index.get_indexer(held.ids))


def _aligned(scores: NeighbourScores, rows: np.ndarray) -> NeighbourScores:
    """Brings scores of all images to the held-out samples; what has no image has no score."""
    lost = rows < 0

    def take(values: np.ndarray, nothing: Any) -> np.ndarray:
        return np.where(lost, nothing, values[rows]).astype(values.dtype)

    return NeighbourScores(
        {name: take(values, np.nan) for name, values in scores.scores.items()},
        take(scores.label, -1), take(scores.share, 0), take(scores.outlierness, np.nan),
    )  # fmt: skip


def places_of(cfg: DictConfig, table: pd.DataFrame | None) -> pd.Series | None:
    """Reads the places of `mlfix sort`; samples that it does not hold come last in their panels."""
    if not cfg.order or table is None:
        return None
    found = read_order(cfg.order, table.index, partial=True)
    if len(found) < len(table):
        log.warning("order=%s lacks %d of %d samples; they come last", cfg.order, len(table) - len(found), len(table))
    places: pd.Series = found["place"]
    return places
