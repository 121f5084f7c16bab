"""Orders and embeddings on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlfix_train.audit.similarity.order_files import (
    KeptEmbeddings,
    find_embeddings,
    read_embeddings,
    read_order,
    samples_fingerprint,
    write_embeddings,
    write_order,
)
from mlfix_train.errors import DataError


def points(n: int, width: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def order(n: int = 5) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "sample_id": [f"{i}.png" for i in range(n)],
            "label": "a",
            "position": np.arange(n)[::-1],
            "label_position": np.arange(n),
            "outlier_score": 1.0,
            "label_outlier_score": 1.0,
            "duplicate_group": -1,
        }
    )


def test_an_order_is_read_back_aligned_with_the_samples(tmp_path: Path) -> None:
    write_order(order(), tmp_path / "order.parquet", {"samples": "x"})
    ids = pd.Index(["3.png", "0.png"])
    for where in (tmp_path, tmp_path / "order.parquet"):
        found = read_order(where, ids)
        assert found["position"].tolist() == [1, 4] and found.attrs["samples"] == "x"
    with pytest.raises(DataError, match=r"other samples: 1 of 2 are missing, such as 9\.png"):
        read_order(tmp_path, pd.Index(["3.png", "9.png"]))
    assert len(read_order(tmp_path, pd.Index(["3.png", "9.png"]), partial=True)) == 1
    with pytest.raises(DataError, match="other samples"):
        read_order(tmp_path, pd.Index(["8.png", "9.png"]), partial=True)


def test_files_that_are_not_orders_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"order=\S+ contains no order"):
        read_order(tmp_path, pd.Index(["a"]))
    (tmp_path / "order.parquet").write_text("nothing")
    with pytest.raises(DataError, match="cannot be read"):
        read_order(tmp_path, pd.Index(["a"]))
    order().drop(columns="position").to_parquet(tmp_path / "order.parquet")
    with pytest.raises(DataError, match="no position"):
        read_order(tmp_path, pd.Index(["0.png"]))


def test_embeddings_of_other_images_are_rejected(tmp_path: Path) -> None:
    x = points(6)
    path = write_embeddings(x, tmp_path / "e.npy")
    assert (read_embeddings(path, 6) == x).all()
    with pytest.raises(DataError, match=r"shape \(6, 4\), but there are 7 images"):
        read_embeddings(path, 7)
    with pytest.raises(DataError, match="does not exist"):
        read_embeddings(tmp_path / "none.npy", 6)
    (tmp_path / "bad.npy").write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="cannot be read"):
        read_embeddings(tmp_path / "bad.npy", 6)
    x[3, 1] = np.nan
    write_embeddings(x, path)
    with pytest.raises(DataError, match=r"e\.npy: 1 of 6 rows contain NaN or infinity, the first is row 3"):
        read_embeddings(path, 6)
    assert samples_fingerprint(["a", "b"]) != samples_fingerprint(["b", "a"])


def test_embeddings_are_found_with_their_ids(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert find_embeddings([None, tmp_path]) is None
    x, ids = points(5), order()["sample_id"].tolist()
    path = write_embeddings(x, tmp_path / "embeddings.npy", ids[::-1], "a network")
    write_order(order(), tmp_path / "order.parquet", {"used": "pixels"})
    network = KeptEmbeddings(path, ids[::-1], "a network")
    assert find_embeddings([tmp_path / "nowhere", tmp_path / "order.parquet"]) == network
    write_embeddings(x, path)  # by a sort, whose order has the ids
    assert find_embeddings([tmp_path]) == KeptEmbeddings(path, ids, "pixels")
    write_embeddings(points(4), path)
    assert find_embeddings([tmp_path]) is None
    assert "embeddings.npy has the shape (4, 4), but order.parquet lists 5 images" in caplog.text
    path.write_text("nothing")
    assert find_embeddings([tmp_path]) is None and "embeddings.npy cannot be used" in caplog.text


def test_embeddings_of_the_same_images_in_another_order_are_rejected(tmp_path: Path) -> None:
    ids = pd.Index(order()["sample_id"])
    path = write_embeddings(points(5), tmp_path / "embeddings.npy")
    write_order(order(), tmp_path / "order.parquet", {"samples": samples_fingerprint(ids)})
    assert len(read_embeddings(path, 5, ids=ids)) == 5
    with pytest.raises(DataError, match="lists these images in a different order"):
        read_embeddings(path, 5, ids=ids[::-1])
