"""Evidence of similar images: from embeddings of a data set to scores of its held-out samples.

Shapes: N images, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from mlfix_train.audit.predictions.held_out import HeldOut
from mlfix_train.audit.scores.knn import NeighbourScores, neighbours_needed, score_neighbours
from mlfix_train.audit.similarity.neighbours import Neighbours, nearest_neighbours
from mlfix_train.audit.similarity.order_files import read_embeddings, read_order
from mlfix_train.audit.similarity.pipeline import embed_and_search
from mlfix_train.data.pixels.store import PixelStore


def score_by_neighbours(
    embeddings: np.ndarray, sample_ids: pd.Index, samples: pd.DataFrame, held: HeldOut
) -> NeighbourScores | None:
    """Scores held-out samples by the labels of their nearest neighbours.

    Args:
        embeddings: float ``(N, D)``; Euclidean distances measure how different images look.
        sample_ids: ``(N,)``, the samples that the embeddings are of.
        samples: sample table with their ``label`` (missing for unlabelled images, which have no vote) and ``group``.
        held: the samples to score.

    Returns:
        Scores with rows as in ``held``, NaN for samples without embedding; ``None`` if there are fewer than 3 images.
    """
    if len(embeddings) < 3:
        return None
    table = samples.loc[sample_ids]
    return _score(nearest_neighbours(embeddings, neighbours_needed(group_codes(table["group"]))), table, held)


def score_by_pixels(
    pixels: PixelStore, samples: pd.DataFrame, held: HeldOut, progress: Callable[[int, int], None] | None = None
) -> NeighbourScores | None:
    """Does the same with neighbours by the pixels, for all images that can be read.

    Args:
        pixels: images, rows as in ``samples``.
        samples: see :func:`score_by_neighbours`.
        held: the samples to score.
        progress: called with (images embedded, images in total).
    """
    from mlfix_train.models.embedding.pixels import PixelEmbedder

    rows = np.flatnonzero(~samples.index.isin(pixels.unreadable))
    if len(rows) < 3:
        return None
    table = samples.iloc[rows]
    count = neighbours_needed(group_codes(table["group"]))
    found = embed_and_search(pixels, rows, PixelEmbedder(), n_neighbours=count, progress=progress)
    return _score(found.neighbours, table, held)


def _score(neighbours: Neighbours, table: pd.DataFrame, held: HeldOut) -> NeighbourScores:
    labels = pd.Index(held.class_names).get_indexer(pd.Index(table["label"].fillna("").to_numpy(dtype=object)))
    scores = score_neighbours(neighbours, labels, group_codes(table["group"]))
    return scores.take(table.index.get_indexer(held.sample_ids))


def group_codes(groups: pd.Series) -> np.ndarray | None:
    """Returns groups as codes, int64; ``None`` if every sample is its own group."""
    codes = pd.factorize(groups)[0]
    return codes if len(codes) and codes.max() + 1 < len(codes) else None


def read_order_embeddings(order: str | Path, samples: pd.DataFrame) -> tuple[np.ndarray, pd.Index, str]:
    """Reads the embeddings of ``mlfix sort``.

    Args:
        order: its output directory.
        samples: sample table.

    Returns:
        Embeddings float ``(N, D)``, the ids of these samples (those that both it and ``samples`` contain), and what the
        images were compared by.

    Raises:
        DataError: No order, or one of other samples.
    """
    path = Path(order).expanduser()
    folder = path if path.is_dir() else path.parent
    found = read_order(path, samples.index, partial=True)
    stored = pd.Index(pd.read_parquet(folder / "order.parquet", columns=["sample_id"])["sample_id"])
    embeddings = read_embeddings(folder / "embeddings.npy", len(stored), "order")
    used = str(found.attrs.get("used", "the embeddings of the order"))
    return embeddings[stored.get_indexer(found.index)], found.index, used
