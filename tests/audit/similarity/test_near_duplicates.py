"""Near-duplicates: identical images, groups, and their table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlfix_train.audit.similarity.near_duplicates import duplicate_groups, duplicates_table, first_copies
from mlfix_train.audit.similarity.neighbours import nearest_neighbours


def table(labels: list, groups: list | None = None) -> pd.DataFrame:
    index = pd.Index([f"{i}.png" for i in range(len(labels))], name="sample_id")
    return pd.DataFrame({"label": labels, "group": groups or list(index)}, index=index)


def test_identical_images_are_found_across_blocks() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    pixels[7], pixels[8], pixels[5] = pixels[1], pixels[1], pixels[4]
    assert first_copies(pixels, np.arange(9), block_size=2).tolist() == [0, 1, 2, 3, 4, 4, 6, 1, 1]


def test_groups_are_connected_by_distances_below_the_threshold() -> None:
    x = np.array([[0.0], [0.4], [0.8], [5], [9], [9.3], [20]], np.float32)
    found = nearest_neighbours(x, 2)
    alone = np.arange(7)
    assert duplicate_groups(alone, found, 0.5).tolist() == [0, 0, 0, -1, 1, 1, -1]
    assert duplicate_groups(alone, found, 0.35).tolist() == [-1, -1, -1, -1, 0, 0, -1]
    assert (duplicate_groups(alone, found, 0.0) == -1).all()
    same = np.array([0, 1, 2, 3, 4, 5, 3])
    assert duplicate_groups(same, found, 0.0).tolist() == [-1, -1, -1, 0, -1, -1, 0]


def test_the_table_lists_different_labels_and_split_crossings_first() -> None:
    x = np.array([[0.0], [0.1], [5], [5.1], [9], [9.1], [30]], np.float32)
    found = nearest_neighbours(x, 3)
    rows = table(["a", "a", "b", "b", "c", "d", "a"])
    held_out = np.array([False, False, True, False, False, False, True])
    same = np.array([0, 0, 2, 3, 4, 5, 6])
    groups = duplicate_groups(same, found, 0.2)
    result = duplicates_table(groups, same, found, rows, held_out)
    assert result["duplicate_group"].tolist() == [2, 2, 1, 1, 0, 0]
    assert result["labels_differ"].tolist() == [True, True, False, False, False, False]
    assert result["crosses_split"].tolist() == [False, False, True, True, False, False]
    assert result["kind"].tolist() == ["near"] * 4 + ["identical"] * 2
    assert result["nearest"].tolist() == ["5.png", "4.png", "3.png", "2.png", "1.png", "0.png"]
    assert result["distance"].to_numpy() == pytest.approx([0.1] * 5 + [0.0], abs=1e-3)
    unlabelled = duplicates_table(groups, same, found, table([None] * 7), None)
    assert not unlabelled["labels_differ"].any() and not unlabelled["crosses_split"].any()
    assert len(duplicates_table(np.full(7, -1), np.arange(7), found, rows, held_out)) == 0
