"""Evidence of similar images: from embeddings of a data set to scores of its held-out samples.

Shapes: N images, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.audit.predictions.held_out import HeldOut
from mlfix_train.audit.scores.knn import NeighbourScores, neighbours_needed, score_neighbours
from mlfix_train.audit.similarity.neighbours import nearest_neighbours
from mlfix_train.audit.similarity.order_files import read_embeddings, read_order

PIXEL_DIMENSIONS = 128
"""Principal components of the pixels."""


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
    labels = pd.Index(held.class_names).get_indexer(pd.Index(table["label"].fillna("").to_numpy(dtype=object)))
    groups = group_codes(table["group"])
    scores = score_neighbours(nearest_neighbours(embeddings, neighbours_needed(groups)), labels, groups)
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


def embed_pixels(
    pixels: Any, rows: np.ndarray, progress: Callable[[int, int], None] | None = None, seed: int = 0
) -> np.ndarray:
    """Embeds images by their standardized pixels, projected to whitened principal components.

    Args:
        pixels: images by row number, uint8 ``(n, H, W, 3)``.
        rows: int64 ``(N,)``, the images to embed.
        progress: called with (images done, images in total).
        seed: of the images that the components are fitted to.

    Returns:
        float32 ``(N, D)``, rows of length 1.
    """
    from mlfix_train.models.embedding.pixels import PixelEmbedder

    embedder = PixelEmbedder(PIXEL_DIMENSIONS)
    embedder.fit(pixels, rows, seed=seed)
    parts = []
    for start in range(0, len(rows), 8192):  # limits the features in memory
        block = rows[start : start + 8192]

        def report(done: int, _: int, start: int = start) -> None:
            if progress is not None:
                progress(start + done, len(rows))

        parts.append(embedder.project(embedder.features(pixels, block, progress=report)))
    return np.concatenate(parts)
