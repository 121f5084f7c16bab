"""The similarity pipeline: what it reuses, how it continues, exact distances, near-duplicates."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

from mlfix_train.audit.similarity import pipeline
from mlfix_train.audit.similarity.near_duplicates import (
    count_duplicates,
    find_near_duplicates,
    near_duplicate_threshold,
    perturbed,
)
from mlfix_train.audit.similarity.neighbours import nearest_neighbours
from mlfix_train.audit.similarity.pipeline import (
    check_embedder,
    embed_and_search,
    embed_features,
    order_images,
    search_embeddings,
)
from mlfix_train.audit.similarity.seriation import outlier_score, path_steps, seriate
from mlfix_train.errors import ConfigError, DataError
from mlfix_train.models.embedding.pixels import PixelEmbedder


class Pixels(np.ndarray):
    """Images with a fingerprint, as a pixel store has one."""

    fingerprint = "images"


def make_pixels(n: int = 70) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8).view(Pixels)


class FlatPixels:
    """An embedder by hand: pixels as features, the first ``width`` of them as embeddings."""

    supports_bfloat16 = False
    fingerprint = "flat"

    def __init__(self, width: int = 8, n_candidates: int = 0, interrupt_at: int | None = None) -> None:
        self.width, self.n_candidates, self.interrupt_at = width, n_candidates, interrupt_at
        self.embedded: list[int] = []

    def fit(self, pixels: Any, rows: np.ndarray, *, seed: int = 0, bfloat16: bool = False) -> None:
        pass

    def features(self, pixels, rows=None, *, batch_size=256, bfloat16=False, out=None, progress=None) -> np.ndarray:
        images = np.asarray(pixels if rows is None else pixels[rows])
        found = images.reshape(len(images), -1).astype(np.float32) / 255
        if len(images) > 1:
            if len(self.embedded) + 1 == self.interrupt_at:
                raise KeyboardInterrupt
            self.embedded.append(len(images))
        if progress:
            progress(len(images), len(images))
        if out is not None:
            out[:] = found
        return found

    def project(self, features: np.ndarray) -> np.ndarray:
        return np.asarray(features[:, : self.width], dtype=np.float32)


@pytest.mark.parametrize("n_candidates", [0, 30])
def test_an_interrupted_run_continues_and_a_finished_one_is_reused(
    tmp_path: Path, n_candidates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "SECONDS_PER_BLOCK", 0)
    pixels, rows = make_pixels(), np.arange(70)
    first = FlatPixels(n_candidates=n_candidates, interrupt_at=3)
    with pytest.raises(KeyboardInterrupt):
        embed_and_search(pixels, rows, first, folder=tmp_path, batch_size=1)
    assert first.embedded == [32, 32] and list(tmp_path.glob(".unfinished-*"))
    second, seen = FlatPixels(n_candidates=n_candidates), []
    found = embed_and_search(
        pixels, rows, second, folder=tmp_path, batch_size=1, progress=lambda *count: seen.append(count)
    )
    assert second.embedded == [6] and seen == [(70, 70)] and not list(tmp_path.glob(".unfinished-*"))
    whole = embed_and_search(pixels, rows, FlatPixels(n_candidates=n_candidates))
    assert (found.embeddings == whole.embeddings).all() and (found.neighbours.index == whole.neighbours.index).all()
    third = FlatPixels(n_candidates=n_candidates)
    again = embed_and_search(pixels, rows, third, folder=tmp_path)
    assert not third.embedded and again.key == found.key and (again.embeddings == found.embeddings).all()
    assert (
        again.neighbours.index == found.neighbours.index
    ).all() and again.neighbours.recall == found.neighbours.recall


def test_features_go_on_after_an_interruption_and_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "SECONDS_PER_BLOCK", 0)
    pixels, rows = make_pixels(), np.arange(70)
    first = FlatPixels(interrupt_at=3)
    with pytest.raises(KeyboardInterrupt):
        embed_features(pixels, rows, first, folder=tmp_path, batch_size=8)
    second = FlatPixels()
    found = embed_features(pixels, rows, second, folder=tmp_path, batch_size=8)
    assert first.embedded == [32, 32] and second.embedded == [6]
    assert not list(tmp_path.glob(".unfinished-*"))
    whole = embed_features(pixels, rows, FlatPixels())
    assert found.dtype == np.float16 and (found == whole).all()
    third = FlatPixels()
    assert (embed_features(pixels, rows, third, folder=tmp_path) == found).all() and not third.embedded
    np.save(tmp_path / "features.npy", found + 1)
    fourth = FlatPixels()
    assert (embed_features(pixels, rows, fourth, folder=tmp_path) == found).all() and fourth.embedded, "damaged"


def test_what_was_kept_is_not_reused_for_other_inputs_or_if_damaged(tmp_path: Path) -> None:
    pixels, rows = make_pixels(), np.arange(70)
    embed_and_search(pixels, rows, FlatPixels(), folder=tmp_path)
    np.save(tmp_path / "embeddings.npy", np.zeros((70, 8), np.float32))
    found = embed_and_search(pixels, rows, FlatPixels(), folder=tmp_path)
    assert found.embeddings.any(), "embeddings of another run are not those of this key"
    for changed in (rows[::-1].copy(), rows[:60]):
        embedder = FlatPixels()
        assert embed_and_search(pixels, changed, embedder, folder=tmp_path).key != found.key and embedder.embedded
    (tmp_path / "neighbours.npz").write_bytes(b"PK")
    embedder = FlatPixels()
    embed_and_search(pixels, rows, embedder, folder=tmp_path)
    assert embedder.embedded


def test_exact_features_decide_who_is_nearest() -> None:
    pixels, rows = make_pixels(), np.arange(70)
    found = embed_and_search(pixels, rows, FlatPixels(n_candidates=69), n_neighbours=5)
    truth = nearest_neighbours(np.asarray(pixels).reshape(70, -1) / 255, 5)
    assert (found.neighbours.index == truth.index).mean() > 0.99 and found.embeddings.shape == (70, 8)
    assert found.neighbours.distance == pytest.approx(truth.distance, abs=5e-3)


def test_too_little_memory_or_disk_names_the_size_and_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, rows = make_pixels(), np.arange(70)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 1_000))
        with pytest.raises(DataError, match=r"(?s)GB free.*lpips\.rerank=0"):
            embed_and_search(pixels, rows, FlatPixels(n_candidates=20), folder=tmp_path)
    monkeypatch.setattr(pipeline, "available_memory", lambda: 1_000)
    with pytest.raises(DataError, match=r"(?s)GB of memory.*width=128"):
        embed_and_search(pixels, rows, FlatPixels())


def test_memory_in_the_page_cache_counts_as_available(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large file that was just read fills the page cache, which the kernel gives back when it is needed."""
    memory = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(free=1_000, available=10**9))
    embed_and_search(make_pixels(), np.arange(70), FlatPixels())


def test_the_threshold_is_a_quantile_of_the_distances_to_perturbed_copies() -> None:
    pixels = make_pixels()
    gaps = (np.asarray(pixels).astype(float) - perturbed(np.asarray(pixels))).reshape(70, -1) / 255
    exact = np.quantile(np.linalg.norm(gaps, axis=1), 0.25)
    assert near_duplicate_threshold(pixels, np.arange(70), FlatPixels(n_candidates=5)) == pytest.approx(exact, rel=1e-5)
    projected = np.quantile(np.linalg.norm(gaps[:, :8], axis=1), 0.25)
    assert near_duplicate_threshold(pixels, np.arange(70), FlatPixels()) == pytest.approx(projected, rel=1e-5)


def test_images_are_ordered_as_a_whole_and_by_label() -> None:
    x = np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32)
    found = search_embeddings(x)
    ids = pd.Index([f"{i:02d}.png" for i in range(90)], name="sample_id")
    labels = np.array(["a", "b", "c", None] * 22 + ["a", "b"], dtype=object)
    seen: list[tuple[int, int]] = []
    order = order_images(found, pd.DataFrame({"label": labels}, index=ids), progress=lambda *count: seen.append(count))
    assert (order["position"].to_numpy() == np.argsort(seriate(x, neighbours=found.neighbours))).all()
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for label in "abc":
        rows = np.flatnonzero(labels == label)
        assert (rows[np.argsort(order["label_position"].to_numpy()[rows])] == rows[seriate(x[rows])]).all()
        assert order["label_outlier_score"].to_numpy()[rows] == pytest.approx(outlier_score(x[rows]))
    unlabelled = order[order["label"].isna()]
    assert (unlabelled["label_position"] == -1).all() and unlabelled["label_outlier_score"].isna().all()


def test_an_earlier_order_is_improved_and_new_images_are_inserted() -> None:
    x = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)
    table = pd.DataFrame({"label": "a"}, index=pd.Index([f"{i:02d}.png" for i in range(60)], name="sample_id"))
    first = order_images(search_embeddings(x[:50]), table.iloc[:50], search_effort=20).set_index("sample_id")
    order = order_images(search_embeddings(x), table, previous=first, search_effort=0)
    assert sorted(order["position"]) == list(range(60))
    before = path_steps(x, np.r_[np.argsort(first["position"].to_numpy()), 50:60])
    after = path_steps(x, np.argsort(order["position"].to_numpy()))
    assert (after**2.5).sum() < (before**2.5).sum()


def test_near_duplicates_are_found_by_pixels_and_by_distance() -> None:
    pixels = make_pixels(6)
    pixels[4] = pixels[1]
    rows = np.array([0, 1, 2, 4, 5])
    x = np.array([[0.0], [5.0], [9.0], [5.0], [9.5]], np.float32)
    table = pd.DataFrame({"label": list("aabbb")}, index=pd.Index(list("vwxyz"), name="sample_id"))
    neighbours = search_embeddings(x).neighbours
    groups, found = find_near_duplicates(pixels, rows, neighbours, table, 0.6, np.array([0, 0, 1, 0, 0], bool))
    assert groups.tolist() == [-1, 0, 1, 0, 1]
    assert (
        found["sample_id"].tolist() == ["w", "y", "x", "z"]
        and found["labels_differ"].tolist() == [True] * 2 + [False] * 2
    )
    assert found["crosses_split"].tolist() == [False, False, True, True]
    assert count_duplicates(found) == {
        "groups": 2,
        "images": 4,
        "identical": 2,
        "groups_with_different_labels": 1,
        "groups_across_the_split": 1,
    }
    groups, _ = find_near_duplicates(pixels, rows, neighbours, table, 0.0)
    assert groups.tolist() == [-1, 0, -1, 0, -1]


def test_what_an_object_lacks_to_be_an_embedder_is_named() -> None:
    own = PixelEmbedder()
    assert check_embedder(own) is own
    with pytest.raises(ConfigError, match=r"object has no name, fingerprint, .*project[\s\S]*TorchEmbedder"):
        check_embedder(object())
