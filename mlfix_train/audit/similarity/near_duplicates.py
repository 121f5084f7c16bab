"""Near-duplicates: the same image twice, or pictures of one thing a moment apart, as groups.

Shapes: N images, K neighbours.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.audit.similarity.neighbours import Neighbours

COLUMNS = ("duplicate_group", "sample_id", "label", "held_out", "kind", "nearest", "distance", "labels_differ",
           "crosses_split")  # fmt: skip


def identical_rows(pixels: Any, count: int, block: int = 4096) -> np.ndarray:
    """Returns for each of N images the number of the first that has the same pixels (its own where there is none).

    Args:
        pixels: indexed by row numbers it returns uint8 ``n,H,W,3``.
        count: N.
        block: images read at a time.
    """
    first: dict[bytes, int] = {}
    result = np.empty(count, np.int64)
    for start in range(0, count, block):
        rows = np.arange(start, min(start + block, count))
        for row, image in zip(rows.tolist(), pixels[rows], strict=True):
            result[row] = first.setdefault(hashlib.blake2b(image.tobytes(), digest_size=16).digest(), row)
    return result


def duplicate_groups(same: np.ndarray, found: Neighbours, threshold: float) -> np.ndarray:
    """Groups images that are identical, or joined by steps of at most ``threshold``.

    Args:
        same: N, from :func:`identical_rows`.
        found: neighbours of all N images.
        threshold: distance, in the units of the neighbours; 0 joins identical images alone.

    Returns:
        int64 N: number of the group, counted from 0 by the first image in it; -1 for images that have no duplicate.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(same)
    near = (found.distance <= threshold) & (threshold > 0)
    rows, columns = np.nonzero(near)
    first = np.concatenate([rows, np.arange(n)])
    second = np.concatenate([found.index[rows, columns], same])
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(n, n))
    _, part = connected_components(graph, directed=False)
    sizes = np.bincount(part, minlength=1)
    several = sizes[part] > 1
    groups = np.full(n, -1, np.int64)
    groups[several] = pd.factorize(part[several])[0]  # numbers in order of appearance
    return groups


def duplicates_table(
    groups: np.ndarray, same: np.ndarray, found: Neighbours, table: pd.DataFrame, held_out: np.ndarray | None
) -> pd.DataFrame:
    """Describes the groups.

    Args:
        groups: N, from :func:`duplicate_groups`.
        same: N, from :func:`identical_rows`.
        found: neighbours of all N images.
        table: sample table of the N images.
        held_out: N booleans, or ``None`` where nothing is split.

    Returns:
        A row for each image that has a duplicate, groups together: those with different labels first, then those that
        cross the split. Columns: ``duplicate_group``, ``sample_id``, ``label``, ``held_out``, ``kind`` (``identical``
        where another image has the same pixels, else ``near``), ``nearest`` (id of the nearest of the group) and
        ``distance`` to it, ``labels_differ`` and ``crosses_split`` (of the whole group).
    """
    rows = np.flatnonzero(groups >= 0)
    copies = np.bincount(same, minlength=len(same))[same] > 1
    nearest, distance = _nearest_of_group(groups, same, found)
    ids = table.index.to_numpy()
    result = pd.DataFrame(
        {
            "duplicate_group": groups[rows],
            "sample_id": ids[rows],
            "label": table["label"].to_numpy()[rows],
            "held_out": None if held_out is None else held_out[rows],
            "kind": np.where(copies[rows], "identical", "near"),
            "nearest": [ids[i] if i >= 0 else "" for i in nearest[rows]],
            "distance": distance[rows],
        }
    )
    by_group = result.groupby("duplicate_group", sort=False)
    result["labels_differ"] = by_group["label"].transform("nunique") > 1
    result["crosses_split"] = False if held_out is None else by_group["held_out"].transform("nunique") > 1
    order = ["labels_differ", "crosses_split", "duplicate_group", "sample_id"]
    return result.sort_values(order, ascending=[False, False, True, True], kind="stable")[list(COLUMNS)].reset_index(
        drop=True
    )


def _nearest_of_group(groups: np.ndarray, same: np.ndarray, found: Neighbours) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each image the nearest of its own group and the distance, -1 and NaN where none is known."""
    n, k = found.index.shape
    nearest, distance = np.full(n, -1, np.int64), np.full(n, np.nan)
    for column in reversed(range(k)):
        other = found.index[:, column]
        hit = (groups >= 0) & (groups[other] == groups)
        nearest[hit], distance[hit] = other[hit], found.distance[hit, column]
    twin = same != np.arange(n)
    nearest[twin], distance[twin] = same[twin], 0.0
    return nearest, distance
