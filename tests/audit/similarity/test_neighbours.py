"""Near-duplicates, orders on disk, mosaics, label agreement, reranking, and the bettered graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlfix_train.audit.reporting.mosaic import draw_mosaic, thin_out
from mlfix_train.audit.similarity.callback import label_agreement
from mlfix_train.audit.similarity.near_duplicates import duplicate_groups, duplicates_table, identical_rows
from mlfix_train.audit.similarity.neighbours import Neighbours, nearest_neighbours, rerank
from mlfix_train.audit.similarity.order_files import (
    read_embeddings,
    read_order,
    samples_fingerprint,
    write_embeddings,
    write_order,
)
from mlfix_train.audit.similarity.refine_graph import better_graph, reverse_graph
from mlfix_train.audit.similarity.seriation import insert_new, outlier_score
from mlfix_train.errors import ConfigError, DataError


def points(n: int, width: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def table(labels: list, groups: list | None = None) -> pd.DataFrame:
    index = pd.Index([f"{i}.png" for i in range(len(labels))], name="sample_id")
    return pd.DataFrame({"label": labels, "group": groups or list(index)}, index=index)


# --- neighbours ---


def test_exact_features_decide_among_candidates() -> None:
    exact = points(300, 40)
    rough = exact[:, :6]
    found = rerank(nearest_neighbours(rough, 60), exact.astype(np.float16), 5)
    gaps = np.linalg.norm(exact[:, None] - exact[None], axis=2)
    candidates = nearest_neighbours(rough, 60).index
    for row in range(300):
        own = gaps[row, candidates[row]]
        assert found.distance[row] == pytest.approx(np.sort(own)[:5], abs=0.02)
    everything = rerank(nearest_neighbours(rough, 299), exact, 5)
    truth = nearest_neighbours(exact, 5)
    assert everything.distance == pytest.approx(truth.distance, abs=1e-4)
    assert (everything.index == truth.index).mean() > 0.999


def test_reverse_neighbours_are_those_who_count_one() -> None:
    index = np.array([[1, 2], [0, 2], [0, -1]], np.int32)
    fresh = np.array([[True, False], [False, False], [True, False]])
    found, new = reverse_graph(index, fresh, 2)
    assert found.tolist() == [[1, 2], [0, -1], [0, 1]] and new.tolist() == [
        [False, True],
        [True, False],
        [False, False],
    ]
    assert reverse_graph(index, fresh, 1)[0].tolist() == [[1], [0], [0]]


def test_a_bettered_graph_has_true_distances_no_repeats_and_only_gets_better() -> None:
    x = points(400, 5)
    rng = np.random.default_rng(0)
    index = np.array([rng.choice(np.delete(np.arange(400), i), 8, replace=False) for i in range(400)]).astype(np.int32)
    distance = np.square(x[index] - x[:, None]).sum(2)
    order = np.argsort(distance, 1)
    index, distance = np.take_along_axis(index, order, 1), np.take_along_axis(distance, order, 1).astype(np.float32)
    truth = nearest_neighbours(x, 8).index
    before, fresh = 0.0, np.ones((400, 8), np.bool_)
    for _ in range(10):
        index, distance, fresh = better_graph(x, index, distance, fresh, *reverse_graph(index, fresh, 8))
        recall = np.mean([len(np.intersect1d(a, b)) for a, b in zip(index, truth, strict=True)]) / 8
        assert recall >= before
        before = recall
    assert before > 0.99 and not fresh.any()
    assert distance == pytest.approx(np.square(x[index] - x[:, None]).sum(2), rel=1e-4)
    assert all(len(set(row)) == 8 and i not in row for i, row in enumerate(index.tolist()))
    assert (np.diff(distance, axis=1) >= 0).all()


def test_new_images_come_beside_their_like() -> None:
    found = Neighbours(np.array([[1], [0], [1], [2]], np.int32), np.ones((4, 1), np.float32))
    assert insert_new(np.array([0, 1, np.nan, np.nan]), found).tolist() == [0, 1, 2, 3]
    assert insert_new(np.array([1, 0, np.nan, 2]), found).tolist() == [1, 2, 0, 3]
    assert sorted(insert_new(np.full(4, np.nan), found)) == [0, 1, 2, 3]


def test_unlikeness_takes_neighbours_that_were_found_before() -> None:
    x = points(200)
    found = nearest_neighbours(x, 10)
    assert outlier_score(x, neighbours=found) == pytest.approx(outlier_score(x), rel=1e-5)


# --- near-duplicates ---


def test_identical_images_are_found_across_blocks() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    pixels[7], pixels[8], pixels[5] = pixels[1], pixels[1], pixels[4]
    assert identical_rows(pixels, 9, block=2).tolist() == [0, 1, 2, 3, 4, 4, 6, 1, 1]


def test_groups_are_what_small_steps_join() -> None:
    x = np.array([[0.0], [0.4], [0.8], [5], [9], [9.3], [20]], np.float32)
    found = nearest_neighbours(x, 2)
    alone = np.arange(7)
    assert duplicate_groups(alone, found, 0.5).tolist() == [0, 0, 0, -1, 1, 1, -1]
    assert duplicate_groups(alone, found, 0.35).tolist() == [-1, -1, -1, -1, 0, 0, -1]
    assert (duplicate_groups(alone, found, 0.0) == -1).all()
    same = np.array([0, 1, 2, 3, 4, 5, 3])
    assert duplicate_groups(same, found, 0.0).tolist() == [-1, -1, -1, 0, -1, -1, 0]


def test_the_table_puts_different_labels_and_crossings_first() -> None:
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


# --- orders ---


def order(n: int = 5) -> pd.DataFrame:
    return pd.DataFrame(
        {"sample_id": [f"{i}.png" for i in range(n)], "label": "a", "position": np.arange(n)[::-1],
         "label_position": np.arange(n), "outlier_score": 1.0, "label_outlier_score": 1.0, "duplicate_group": -1}
    )  # fmt: skip


def test_an_order_comes_back_as_it_went_fitted_to_the_samples(tmp_path: Path) -> None:
    write_order(order(), tmp_path / "order.parquet", {"samples": "x"})
    ids = pd.Index(["3.png", "0.png"])
    for where in (tmp_path, tmp_path / "order.parquet"):
        found = read_order(where, ids)
        assert found["position"].tolist() == [1, 4] and found.attrs["samples"] == "x"
    with pytest.raises(DataError, match=r"other samples: it lacks 1 of 2, such as 9\.png"):
        read_order(tmp_path, pd.Index(["3.png", "9.png"]))
    assert len(read_order(tmp_path, pd.Index(["3.png", "9.png"]), partial=True)) == 1
    with pytest.raises(DataError, match="other samples"):
        read_order(tmp_path, pd.Index(["8.png", "9.png"]), partial=True)


def test_what_is_no_order_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"order=\S+ holds no order.parquet"):
        read_order(tmp_path, pd.Index(["a"]))
    (tmp_path / "order.parquet").write_text("nothing")
    with pytest.raises(DataError, match="can't be read"):
        read_order(tmp_path, pd.Index(["a"]))
    order().drop(columns="position").to_parquet(tmp_path / "order.parquet")
    with pytest.raises(DataError, match="it lacks position"):
        read_order(tmp_path, pd.Index(["0.png"]))


def test_embeddings_of_other_images_are_refused(tmp_path: Path) -> None:
    x = points(6)
    path = write_embeddings(x, tmp_path / "e.npy")
    assert (read_embeddings(path, 6) == x).all()
    with pytest.raises(DataError, match=r"shape \(6, 4\), and there are 7 images"):
        read_embeddings(path, 7)
    with pytest.raises(DataError, match="does not exist"):
        read_embeddings(tmp_path / "none.npy", 6)
    (tmp_path / "bad.npy").write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="can't be read"):
        read_embeddings(tmp_path / "bad.npy", 6)
    x[3, 1] = np.nan
    write_embeddings(x, path)
    with pytest.raises(DataError, match=r"e\.npy: 1 of 6 rows hold NaN or infinity, the first is row 3"):
        read_embeddings(path, 6)
    assert samples_fingerprint(["a", "b"]) != samples_fingerprint(["b", "a"])


# --- mosaics ---


def test_a_mosaic_shows_the_images_in_rows_and_frames_the_strange() -> None:
    images = np.stack([np.full((8, 8, 3), 10 * i, np.uint8) for i in range(14)])
    sheet = draw_mosaic(images, "t", "n", np.arange(14) == 13, columns=12, side=20)
    pixels = np.asarray(sheet)
    head = pixels.shape[0] - 20 - 2 * 22
    assert all((pixels[head + 10, 20 + 22 * i + 10] == 10 * i).all() for i in range(12))
    assert (pixels[head + 32, 20 + 22 + 10] == 130).all()
    assert (pixels[head + 32, 20 + 22 - 2] == (0xD5, 0x5E, 0)).all() and sheet.info["Title"] == "t"
    assert draw_mosaic(images[:0], "none").size[1] > 0
    with pytest.raises(ConfigError, match="side"):
        draw_mosaic(images, "t", side=2)


def test_large_orders_are_thinned_out_evenly() -> None:
    assert thin_out(5, 10).tolist() == [0, 1, 2, 3, 4]
    shown = thin_out(1000, 10)
    assert shown[0] == 0 and shown[-1] == 999 and len(shown) == 10 and np.ptp(np.diff(shown)) <= 1


# --- agreement ---


def test_agreement_leaves_the_own_group_out() -> None:
    x = np.array([[1, 0], [1, 0.01], [0.9, 0.1], [0, 1], [0.01, 1]], np.float32)
    rows = table(["a", "b", "a", "b", None], ["g", "g", "h", "i", "j"])
    # 0: nearest of another group is 2 (a): right. 1: 2 (a): wrong. 2: 1 (b), wrong. 3: 2 (a), as 4 has no label: wrong.
    assert label_agreement(x, rows) == pytest.approx(25.0)
    assert label_agreement(x, rows, block=2) == pytest.approx(25.0)
    assert label_agreement(x, table([None] * 5)) is None
    assert label_agreement(x, table(["a"] * 5, ["g"] * 5)) is None
