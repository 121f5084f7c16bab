"""Near-duplicates: groups of images that are identical or almost, such as frames of one track.

Shapes: N images, K neighbours.
"""

import hashlib
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.audit.similarity.neighbours import Neighbours
from mlfix_train.models.embedding.base import Embedder

N_PERTURBED = 256  # images whose perturbed copies set the threshold
PERTURBED_QUANTILE = 0.25
"""Share of the perturbed copies that count as near-duplicates. On GTSRB, 99% of the pairs this close come from one
track and 99.9% share a label."""


def perturbed(images: np.ndarray) -> np.ndarray:
    """Returns slightly perturbed copies: shifted half a pixel right and down, 3% brighter; ``(n, H, W, 3)``."""
    x: np.ndarray = images.astype(np.float32)
    x = (x + np.roll(x, 1, 1)) / 2
    x = (x + np.roll(x, 1, 2)) / 2
    return (x * 1.03).round().clip(0, 255).astype(np.uint8)


def near_duplicate_threshold(
    pixels: Any, rows: np.ndarray, embedder: Embedder, seed: int = 0, count: int = N_PERTURBED
) -> float:
    """Returns the lower quartile of the distances between sampled images and their slightly perturbed copies.

    ``pixels[rows]`` is uint8 ``(N, H, W, 3)``; the embedder is fitted; ``count`` images are sampled.
    """
    rng = np.random.default_rng(seed)
    images = pixels[np.sort(rng.choice(rows, min(count, len(rows)), replace=False))]
    original, copies = embedder.features(images), embedder.features(perturbed(images))
    if not embedder.n_candidates:
        original, copies = embedder.project(original), embedder.project(copies)
    return float(np.quantile(np.linalg.norm(original - copies, axis=1), PERTURBED_QUANTILE))


def find_near_duplicates(
    pixels: Any,
    rows: np.ndarray,
    neighbours: Neighbours,
    table: pd.DataFrame,
    threshold: float,
    held_out: np.ndarray | None = None,
) -> tuple[np.ndarray, pd.DataFrame]:
    """Groups images that are identical, or connected by distances of at most ``threshold``.

    Args:
        pixels: ``pixels[rows]`` is uint8 ``(N, H, W, 3)``.
        rows: int64 ``(N,)``, rows of ``pixels``.
        neighbours: Of these images.
        table: Sample table of these images.
        threshold: In the units of the neighbours' distances; 0 finds identical images only.
        held_out: bool ``(N,)``, or ``None`` if there is no split.

    Returns:
        The number of each image's group, int64 ``(N,)``, -1 if it has no duplicate; and the groups
        (:func:`duplicates_table`).
    """
    first_copy = first_copies(pixels, rows)
    groups = duplicate_groups(first_copy, neighbours, threshold)
    return groups, duplicates_table(groups, first_copy, neighbours, table, held_out)


def first_copies(pixels: Any, rows: np.ndarray, block_size: int = 4096) -> np.ndarray:
    """Returns for each image the first with the same pixels (itself if there is no other): positions in ``rows``."""
    seen: dict[bytes, int] = {}
    result = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), block_size):
        for i, image in enumerate(pixels[rows[start : start + block_size]], start):
            result[i] = seen.setdefault(hashlib.blake2b(image.tobytes(), digest_size=16).digest(), i)
    return result


def duplicate_groups(first_copy: np.ndarray, neighbours: Neighbours, threshold: float) -> np.ndarray:
    """Returns the number of each image's group, in order of first appearance; -1 if it has no duplicate."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(first_copy)
    rows, columns = np.nonzero((neighbours.distance <= threshold) & (threshold > 0))
    first = np.concatenate([rows, np.arange(n)])
    second = np.concatenate([neighbours.index[rows, columns], first_copy])
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    duplicated = np.bincount(component, minlength=1)[component] > 1
    groups = np.full(n, -1, np.int64)
    groups[duplicated] = pd.factorize(component[duplicated])[0]
    return groups


def duplicates_table(
    groups: np.ndarray,
    first_copy: np.ndarray,
    neighbours: Neighbours,
    table: pd.DataFrame,
    held_out: np.ndarray | None,
) -> pd.DataFrame:
    """Returns one row per image that has a duplicate: first groups with different labels, then those across the split.

    Columns: ``duplicate_group``, ``sample_id``, ``label``, ``held_out``, ``kind`` (``identical`` if another image has
    the same pixels, else ``near``), ``nearest`` (sample id of the nearest image of the group) and ``distance`` to it,
    and ``labels_differ`` and ``crosses_split``, of the whole group.
    """
    rows = np.flatnonzero(groups >= 0)
    has_copy = np.bincount(first_copy, minlength=len(first_copy))[first_copy] > 1
    nearest, distance = _nearest_in_group(groups, first_copy, neighbours)
    ids = table.index.to_numpy()
    result = pd.DataFrame(
        {
            "duplicate_group": groups[rows],
            "sample_id": ids[rows],
            "label": table["label"].to_numpy()[rows],
            "held_out": None if held_out is None else held_out[rows],
            "kind": np.where(has_copy[rows], "identical", "near"),
            "nearest": [ids[i] if i >= 0 else "" for i in nearest[rows]],
            "distance": distance[rows],
        }
    )
    by_group = result.groupby("duplicate_group", sort=False)
    result["labels_differ"] = by_group["label"].transform("nunique") > 1
    result["crosses_split"] = False if held_out is None else by_group["held_out"].transform("nunique") > 1
    order = ["labels_differ", "crosses_split", "duplicate_group", "sample_id"]
    return result.sort_values(order, ascending=[False, False, True, True], kind="stable", ignore_index=True)


def count_duplicates(duplicates: pd.DataFrame) -> dict[str, int]:
    """Counts groups and images of a :func:`duplicates_table`, and groups that need attention."""
    groups = duplicates.drop_duplicates("duplicate_group")
    return {
        "groups": len(groups),
        "images": len(duplicates),
        "identical": int((duplicates["kind"] == "identical").sum()),
        "groups_with_different_labels": int(groups["labels_differ"].sum()),
        "groups_across_the_split": int(groups["crosses_split"].sum()),
    }


def _nearest_in_group(
    groups: np.ndarray, first_copy: np.ndarray, neighbours: Neighbours
) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each image the nearest of its own group and the distance; -1 and NaN if none is known."""
    n, k = neighbours.index.shape
    nearest, distance = np.full(n, -1, np.int64), np.full(n, np.nan)
    for column in reversed(range(k)):
        other = neighbours.index[:, column]
        same_group = (groups >= 0) & (groups[other] == groups)
        nearest[same_group], distance[same_group] = other[same_group], neighbours.distance[same_group, column]
    copy = first_copy != np.arange(n)
    nearest[copy], distance[copy] = first_copy[copy], 0.0
    return nearest, distance
