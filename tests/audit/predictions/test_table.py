"""Scores of predictions against torch and scipy, and their files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.special
import torch
import torch.nn.functional as F

from mlfix_train.audit.predictions.table import (
    COLUMNS,
    predictions_table,
    read_predictions,
    score_logits,
    softmax,
    write_predictions,
)
from mlfix_train.audit.scores.ranking import rank_samples
from mlfix_train.errors import MlfixError, RunError


def random_logits(n: int, classes: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(int(n * classes * scale))
    return (scale * rng.normal(size=(n, classes))).astype(np.float32), rng.integers(classes, size=n)


@pytest.mark.parametrize("scale", [0.01, 3.0, 50.0, 1e4, 1e30])
@pytest.mark.parametrize("classes", [2, 3, 43, 401])
def test_scores_against_torch_and_scipy(classes: int, scale: float) -> None:
    logits, labels = random_logits(64, classes, scale)
    before = logits.copy()
    found = score_logits(logits, labels)
    exact = torch.from_numpy(logits).double()
    loss = F.cross_entropy(exact, torch.from_numpy(labels), reduction="none").numpy()
    p = scipy.special.softmax(logits.astype(np.float64), axis=1)
    rows = np.arange(64)
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found["prob"], p.max(1), rtol=1e-6)
    np.testing.assert_allclose(found["label_prob"], p[rows, labels], rtol=1e-6, atol=1e-37)
    np.testing.assert_array_equal(found["pred"], exact.argmax(1).numpy())
    others = [max(float(x) for c, x in enumerate(row) if c != label) for row, label in zip(logits, labels, strict=True)]
    np.testing.assert_allclose(found["margin"], logits[rows, labels].astype(np.float64) - others, rtol=1e-6)
    assert all(np.isfinite(value).all() for value in found.values())
    assert {name: value.dtype.name for name, value in found.items()} == {
        "pred": "int64",
        "loss": "float32",
        "prob": "float32",
        "label_prob": "float32",
        "margin": "float32",
    }
    np.testing.assert_array_equal(logits, before, "the logits are not touched")


def test_a_sure_and_right_prediction_has_a_loss_of_zero_and_never_less() -> None:
    found = score_logits(np.array([[1e4, 0.0], [40.0, 0.0], [20.0, 0.0]], np.float32), np.array([0, 0, 0]))
    assert (found["loss"] >= 0).all()
    np.testing.assert_allclose(found["loss"], [0.0, 4.248354255291589e-18, 2.061153620314381e-09], atol=1e-15)
    assert (found["label_prob"] <= 1).all()


def test_margin_is_below_zero_only_where_the_prediction_differs() -> None:
    logits, labels = random_logits(500, 4, 1.0)
    found = score_logits(logits, labels)
    np.testing.assert_array_equal(found["margin"] < 0, found["pred"] != labels)


def test_ties() -> None:
    found = score_logits(np.zeros((3, 4)), np.array([0, 1, 3]))
    np.testing.assert_allclose(found["loss"], np.log(4), rtol=1e-6)
    assert found["pred"].tolist() == [0, 0, 0], "the first of equals, as torch and numpy say"
    assert found["margin"].tolist() == [0, 0, 0]
    assert found["prob"].tolist() == found["label_prob"].tolist() == [0.25] * 3


@pytest.mark.parametrize("classes", [2, 43, 401])
@pytest.mark.parametrize("scale", [0.1, 5.0, 1e4])
def test_half_precision_probabilities_sum_to_one(classes: int, scale: float) -> None:
    logits, _ = random_logits(200, classes, scale)
    found = softmax(logits)
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.astype(np.float64).sum(1), 1.0, atol=2e-3)
    wanted = scipy.special.softmax(logits.astype(np.float64), axis=1)
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=1e-7)


def test_the_table_has_the_contracts_columns_in_order() -> None:
    logits = np.array([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]])
    table = predictions_table(["x/1.png", "y/2.png"], np.array([2, 1]), logits, ["a", "NA", "c"], "fold 3")
    contract = ["sample_id", "split", "label", "pred", "loss", "prob", "label_prob", "margin"]
    assert list(table.columns) == contract == list(COLUMNS)
    assert table["label"].tolist() == ["c", "NA"]
    assert table["pred"].tolist() == ["a", "NA"]
    assert table["split"].tolist() == ["fold 3"] * 2
    assert table["margin"].tolist() == [-1.0, 2.0]


def test_round_trip(tmp_path: Path, predictions: Callable[..., pd.DataFrame]) -> None:
    table = predictions()
    table.loc[0, "label"] = "NA"
    table.loc[1, ["label", "pred"]] = ["停止 → ü", ""]
    path = write_predictions(table, tmp_path / "deep" / "predictions.parquet")
    found = read_predictions(path)
    pd.testing.assert_frame_equal(found, table, check_dtype=False)
    assert found["loss"].dtype == np.float32
    assert [file.name for file in path.parent.iterdir()] == ["predictions.parquet"], "nothing temporary is left"


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"(?s)nothing\.parquet does not exist.*let the run finish"):
        read_predictions(tmp_path / "nothing.parquet")


@pytest.mark.parametrize("column", ["sample_id", "label", "pred"])
def test_a_missing_column_is_named(tmp_path: Path, predictions: Callable[..., pd.DataFrame], column: str) -> None:
    path = write_predictions(predictions().drop(columns=column), tmp_path / "p.parquet")
    with pytest.raises(RunError, match=f"p.parquet lacks the columns {column}"):
        read_predictions(path)


@pytest.mark.parametrize("column", ["loss", "pred", "label"])
def test_a_ranking_without_its_column_is_a_users_error(
    tmp_path: Path, predictions: Callable[..., pd.DataFrame], column: str
) -> None:
    """Whether reading or ranking says it: the name of the column, and no KeyError."""
    path = write_predictions(predictions().drop(columns=column), tmp_path / "p.parquet")
    with pytest.raises(MlfixError, match=column):
        rank_samples([read_predictions(path)])


def test_a_sample_that_stands_twice_is_named(tmp_path: Path, predictions: Callable[..., pd.DataFrame]) -> None:
    table = predictions()
    path = write_predictions(pd.concat([table, table.iloc[[7]]]), tmp_path / "p.parquet")
    with pytest.raises(RunError, match=r"p\.parquet names 1 sample\(s\) twice: s007"):
        read_predictions(path)


@pytest.mark.parametrize("keep", [0, 3, 700, -9])
def test_a_damaged_file_is_named(tmp_path: Path, predictions: Callable[..., pd.DataFrame], keep: int) -> None:
    path = write_predictions(predictions(), tmp_path / "p.parquet")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RunError, match=r"p\.parquet can't be read"):
        read_predictions(path)
