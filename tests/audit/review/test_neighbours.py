"""The images most like one: by the kept embeddings, compared with a search by brute force, or by their pixels."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from review_helpers import open_session, pixels_of, ranking_of, table_of

from mlfix_train.audit.review import neighbours
from mlfix_train.audit.review import session as review_session
from mlfix_train.audit.review.neighbours import EmbeddingSpace, SimilarImages, standardized_pixels
from mlfix_train.audit.review.requests import RequestError
from mlfix_train.audit.review.samples import Samples, make_samples
from mlfix_train.audit.similarity.order_files import find_embeddings, write_embeddings, write_order

N = 400


@pytest.fixture(scope="module")
def samples() -> Samples:
    table = table_of(N)
    return make_samples(table, ranking_of(table))


def points(n: int = N, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, 16)).astype(np.float32)
    x[7] = x[3] + 1e-5  # near-duplicates far from the origin, whose distance products would lose
    x[9] = x[3] + 2e-5
    return x + 30


def test_the_nearest_are_those_of_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", 64)
    monkeypatch.setattr(neighbours, "N_SIMILAR", 50)
    x, rows = points(), np.random.default_rng(1).permutation(N)
    rows[:20] = -1  # images that the review lacks
    space = EmbeddingSpace(lambda: x, rows, "random numbers")
    for place in (3, 25, 399):
        distance = np.linalg.norm(x.astype(np.float64) - x[place].astype(np.float64), axis=1)
        distance[rows < 0] = np.inf
        wanted = rows[np.argsort(distance, kind="stable")[:50]]
        if rows[place] >= 0:
            assert space.nearest(int(rows[place])).tolist() == wanted.tolist()
    assert int(rows[25]) in space and not any(missing in space for missing in set(range(N)) - set(rows.tolist()))


def test_a_folder_is_used_as_soon_as_it_has_embeddings(samples: Samples, tmp_path: Path) -> None:
    similar = SimilarImages(samples, lambda: find_embeddings([tmp_path / "sort", tmp_path / "audit"]), pixels_of)
    assert similar.nearest(5)[1] == "their pixels at 8 px"
    x, kept = points(), np.random.default_rng(2).permutation(N)[:300]
    write_embeddings(x[kept], tmp_path / "audit/embeddings.npy", samples.ids[kept], "a network")
    row = int(kept[0])
    nearest, used = similar.nearest(row)
    wanted = kept[np.argsort(np.linalg.norm(x[kept] - x[row], axis=1), kind="stable")]
    assert used == "a network" and nearest.tolist() == wanted[: len(nearest)].tolist()
    missing = next(row for row in range(N) if row not in kept)
    with pytest.raises(RequestError, match=f"{samples.ids[missing]} is not among the images compared by a network"):
        similar.nearest(missing)


def test_an_order_lists_the_images_of_its_embeddings(samples: Samples, tmp_path: Path) -> None:
    write_embeddings(points(), tmp_path / "embeddings.npy")
    ids = pd.DataFrame({"sample_id": samples.ids[::-1]})
    write_order(ids, tmp_path / "order.parquet", {"used": "pixels, standardized"})
    nearest, used = SimilarImages(samples, lambda: find_embeddings([tmp_path]), pixels_of).nearest(N - 1 - 3)
    assert nearest[:3].tolist() == [N - 1 - 3, N - 1 - 7, N - 1 - 9] and used == "pixels, standardized"


def test_pixels_are_compared_without_light_and_contrast(monkeypatch: pytest.MonkeyPatch, samples: Samples) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 120, (6, 24, 32, 3)).astype(np.uint8)
    images[3] = images[0] * 2  # brighter
    small = standardized_pixels(images)
    assert small.shape == (6, 8 * 8 * 3) and small.dtype == np.float16
    wanted = images[1].reshape(8, 3, 8, 4, 3).mean((1, 3)).ravel()
    assert np.allclose(small[1], (wanted - wanted.mean()) / (wanted.std() + 1), atol=0.01)
    assert np.linalg.norm(small[0] - small[3]) < 0.2 * np.linalg.norm(small[0] - small[1])
    assert standardized_pixels(images[:, :5, :5]).shape == (6, 75)

    reading = threading.Event()

    def slow(rows: np.ndarray) -> np.ndarray:
        reading.wait(20)
        return pixels_of(rows)

    monkeypatch.setattr(neighbours, "WAIT", 0.05)
    similar = SimilarImages(samples, lambda: None, slow)
    with pytest.raises(RequestError, match="compared by their pixels, once: 0% done") as error:
        similar.nearest(0)
    assert error.value.status == 503
    reading.set()
    monkeypatch.setattr(neighbours, "WAIT", 20)
    assert similar.nearest(0)[0][0] == 0


def test_requests_for_similar_images(tmp_path: Path) -> None:
    table = table_of(90)
    x = points(90)
    write_embeddings(x, tmp_path / "embeddings.npy", table.index, "a network")
    session = review_session.open_session(
        table,
        pixels_of(np.arange(90)),
        tmp_path,
        ranking=ranking_of(table),
        find_embeddings=lambda: find_embeddings([tmp_path]),
    )
    order = np.argsort(np.linalg.norm(x - x[40], axis=1), kind="stable")
    view = session.handle("view", {"group_by": "similar:40"})
    block = session.handle("block", {"view": view["view"], "number": 0})
    assert view["names"] == [f"Most like {table.index[40]}"] and view["used"] == "a network" and view["sizes"] == [90]
    assert block["rows"] == order.tolist() and block["given"] == session.samples.given[order].tolist()
    session.handle("marks", {"marks": [{"sample_id": table.index[order[2]], "new_label": "invalid"}]})
    marked = session.handle("view", {"group_by": "similar:40", "filter": "marked"})
    assert session.handle("block", {"view": marked["view"], "number": 0})["rows"] == [order[2]]

    # Beside the large image: of other tracks, and one of each.
    track = table["group"].to_numpy()
    wanted = list(dict.fromkeys(track[row] for row in order if track[row] != track[40]))[:8]
    near = session.handle("neighbours", {"row": 40})
    assert [track[row] for row in near["rows"]] == wanted and near["one_per_group"]
    firsts = [next(row for row in order if track[row] == name) for name in wanted]
    assert near["rows"] == firsts and near["given"] == session.samples.given[firsts].tolist()
    counts = table["label"].iloc[firsts].value_counts()
    assert near["told"].startswith(f"{counts.iloc[0]} of the 8 most similar are labelled ") and session.sprite_sheet(
        near["sheet"]
    )
    for kind, payload in (("view", {"group_by": "similar:90"}), ("view", {"group_by": "similar:-1"})):
        assert session.respond(kind, payload)[0] == 422
    assert session.respond("neighbours", {"row": 90})[0] == 422
    session.close()


def test_without_groups_all_neighbours_count(tmp_path: Path) -> None:
    session = open_session(tmp_path, table_of(30).assign(group=[f"g{i}" for i in range(30)]))
    near = session.handle("neighbours", {"row": 4})
    assert len(near["rows"]) == 8 and not near["one_per_group"] and 4 not in near["rows"]
    session.close()
