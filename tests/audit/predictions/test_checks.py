"""Predictions of other frameworks, judged before they are believed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlfix_train.audit.predictions.checks import (
    check_losses,
    check_numbers,
    check_shares,
    match_names,
    probability_columns,
)
from mlfix_train.errors import RunError


def line(row: int) -> str:
    return f"line {row + 2}"


def match(labels: list[str], preds: list[str]) -> list[str]:
    return list(match_names(pd.Series(labels), pd.Series(preds), "p.csv"))


def test_predictions_are_written_as_labels_are() -> None:
    assert match(["007", "8", "a"], ["7.0", "8.0", "a"]) == ["007", "8", "a"]
    assert match(["stop", "go"], [" stop", "other "]) == ["stop", "other "], "a class that is never given stays"
    assert match([" x ", "y"], [" x ", "y"]) == [" x ", "y"], "equal is equal"


def test_what_could_be_two_labels_is_an_error() -> None:
    with pytest.raises(RunError, match=r"'1\.00' may be any of the labels '1', '1\.0'"):
        match(["1", "1.0"], ["1.00", "1"])


def test_names_and_numbers_do_not_meet() -> None:
    labels = ["cat", "dog", "fox"] * 5
    with pytest.raises(RunError, match="no prediction is one of the given labels: labels are cat, dog, fox") as error:
        match(labels, ["0", "1", "2"] * 5)
    assert "class numbers" in error.value.hint
    with pytest.raises(RunError, match="predictions Cat, Dog, Fox") as error:
        match(labels, ["Cat", "Dog", "Fox"] * 5)
    assert "the same names" in error.value.hint


def test_predictions_that_are_nearly_never_right_are_told(caplog: pytest.LogCaptureFixture) -> None:
    match(["a", "b"] * 10, ["b", "a"] * 9 + ["a", "a"])
    assert "only 5% of the predictions match the given label: most often, 10 times, 'b' is predicted as 'a'" in (
        caplog.text
    )
    assert "the classes are in another order" in caplog.text
    caplog.clear()
    labels = ["a", "b", "c", "d"] * 12
    match(labels, [next(o for o in "abcd"[i % 3 :] + "abcd" if o != label) for i, label in enumerate(labels)])
    assert "was the model trained on these labels" in caplog.text and "another order" not in caplog.text


def test_losses() -> None:
    assert check_losses(pd.Series(["0.5", " 1e-3", "0"]), "p.csv", line).tolist() == [0.5, 0.001, 0.0]
    with pytest.raises(RunError, match=r"line 3 has the loss -0\.05, below 0 \(2 of 3 losses are\)") as error:
        check_losses(pd.Series([0.1, -0.05, -2.0]), "p.csv", line)
    assert "negate it" in error.value.hint
    for bad in ("x", "", "nan", "inf"):
        with pytest.raises(RunError, match="line 2 has the loss"):
            check_losses(pd.Series([bad]), "p.csv", line)


def test_shares() -> None:
    assert check_shares(pd.Series([0, 0.5, "1"], name="label_prob"), "p", line).tolist() == [0, 0.5, 1]
    for bad in (-0.1, 1.5, "x", None):
        with pytest.raises(RunError, match="line 2 has the label_prob"):
            check_shares(pd.Series([bad], name="label_prob"), "p", line)


def columns(table: dict[str, list[object]], labels: list[str]) -> dict[str, str] | None:
    return probability_columns(pd.DataFrame(table), labels, "p.csv", line)


def test_columns_of_probabilities_are_found() -> None:
    plain = {"sample_id": ["a"], "cat": [0.2], "dog": [0.5], "fox": ["0.3"], "width": [640]}
    assert columns(plain, ["cat", "dog"]) == {"cat": "cat", "dog": "dog", "fox": "fox"}, "fox is never given"
    assert columns({"prob_1": [0.25], "prob_2": [0.75], "3": [0.1]}, ["1.0", "2.0"]) == {
        "1.0": "prob_1",
        "2.0": "prob_2",
    }
    assert columns({"cat": [0.5], "dog": [0.5], "blur": [0.1]}, ["cat", "dog"]) == {"cat": "cat", "dog": "dog"}
    assert columns({"cat": [0.5], "loss": [0.5]}, ["cat", "dog"]) is None


def test_columns_that_do_not_sum_to_one() -> None:
    with pytest.raises(RunError, match=r"line 3: the columns cat, dog sum to 1\.4"):
        columns({"cat": [0.5, 0.7], "dog": [0.5, 0.7]}, ["cat", "dog"])
    with pytest.raises(RunError, match="line 2: the columns cat, dog sum to 12"):
        columns({"cat": [5], "dog": [7]}, ["cat", "dog"])


def test_numbers_of_classes() -> None:
    assert check_numbers(["0", "2.0"], 3, "l").tolist() == [0, 2]
    for bad in ("3", "-1", "1.5", "x"):
        with pytest.raises(RunError, match=f"row 1 has the label {bad}"):
            check_numbers(np.array(["0", bad], dtype=object), 3, "l")
