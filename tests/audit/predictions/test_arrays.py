"""Labels, names and numbers as users pass them: matched where that is certain, else an error."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mlfix_train.audit.audit import Audit
from mlfix_train.audit.predictions.arrays import encode_labels, list_groups, list_names
from mlfix_train.errors import DataError

NAMES = ["ant", "bee", "cat", "dog"]
CODES = np.arange(40) % 4
PROBS = np.full((40, 4), 0.1)
PROBS[np.arange(40), CODES] = 0.7
PROBS[0] = [0.1, 0.1, 0.1, 0.7]  # the label of row 0 is wrong: an ant that is a dog
IDS = [f"{row}.png" for row in range(40)]


def worst(*args: Any, **options: Any) -> tuple[str, str, str]:
    """The most suspicious sample, its label, and the suggested one; exactly one label differs from the prediction."""
    table = Audit.from_predictions(*args, **options).ranking
    assert (table["given_label"] != table["predicted_label"]).sum() == 1
    return tuple(table[["sample_id", "given_label", "suggested_label"]].iloc[0])


def test_columns_of_a_dataframe_are_matched_by_name() -> None:
    frame = pd.DataFrame(PROBS, columns=NAMES)[["cat", "ant", "dog", "bee"]]
    texts = [NAMES[code] for code in CODES]
    assert worst(texts, frame) == ("0", "ant", "dog")
    assert worst(texts, frame, class_names=NAMES) == ("0", "ant", "dog")
    assert worst(CODES, frame, class_names=NAMES) == ("0", "ant", "dog"), "numbers count class_names"
    assert worst(texts, pd.DataFrame(PROBS), class_names=NAMES) == ("0", "ant", "dog"), "columns without names"
    with pytest.raises(DataError, match="the columns of pred_probs are cat, ant, dog, bee, class_names a, b, c, d"):
        worst(texts, frame, class_names=list("abcd"))


def test_rows_of_pandas_objects_are_matched_by_their_index(caplog: pytest.LogCaptureFixture) -> None:
    labels = pd.Series([NAMES[code] for code in CODES], index=IDS)
    frame = pd.DataFrame(PROBS, columns=NAMES, index=IDS)
    assert worst(labels, frame) == ("0.png", "ant", "dog"), "text in an index names the samples"
    with caplog.at_level(logging.INFO, "mlfix_train"):
        assert worst(labels.sample(frac=1, random_state=0), frame) == ("0.png", "ant", "dog")
    assert "the rows of pred_probs are put in the order of those of labels" in caplog.text
    assert worst(labels.reset_index(drop=True), frame.reset_index(drop=True).sample(frac=1, random_state=0))[1] == "ant"
    assert worst(labels.to_numpy(), PROBS, class_names=NAMES, sample_ids=range(40)) == ("0", "ant", "dog")
    assert worst(labels.to_numpy(), PROBS, class_names=NAMES, sample_ids=list(map(Path, IDS)))[0] == "0.png"
    with pytest.raises(DataError, match=r"indexed by different rows; of pred_probs, 'x' has no match") as error:
        worst(labels, frame.set_axis([*IDS[1:], "x"]))
    assert "to_numpy" in error.value.hint


def test_numbers_are_names_where_classes_are_numbers() -> None:
    limits = np.array([30, 50, 70, 80])
    assert worst(limits[CODES], PROBS, class_names=[30, 50, 70, 80])[1:] == ("30", "80")
    assert worst(limits[CODES], pd.DataFrame(PROBS, columns=limits))[1:] == ("30", "80")
    assert worst(CODES, PROBS, class_names=[30, 50, 70, 80])[1:] == ("30", "80"), "places"
    some = CODES != 0
    with pytest.raises(DataError, match=r"names of classes \(1, 2, 3, 4\) or their places"):
        worst(CODES[some], PROBS[some], class_names=[1, 2, 3, 4])
    assert encode_labels(["1", "2"], 4, ["1", "2", "3", "4"])[0].tolist() == [0, 1], "text is always a name"


def test_the_order_of_columns_without_names_is_assumed_only_where_it_fits(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mlfix_train"):
        assert worst([NAMES[code] for code in CODES], PROBS)[1:] == ("ant", "dog")
    assert "assumed to be the labels in alphabetical order" in caplog.text
    other = ["zebra", "ant", "yak", "bee"]
    texts = [other[code] for code in CODES]
    with pytest.raises(DataError, match="72% of the labels are not predicted"):
        worst(texts, PROBS)
    assert worst(pd.Series(pd.Categorical(texts, categories=other)), PROBS)[1:] == ("zebra", "bee")


def test_hardly_any_right_prediction_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mlfix_train"):
        Audit.from_predictions((CODES + 1) % 4, PROBS, class_names=NAMES)
    assert "the classes are in another order" in caplog.text


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_tensors_of_any_type(kind: torch.dtype) -> None:
    probs = torch.tensor(PROBS, dtype=kind, requires_grad=True)
    assert worst(torch.from_numpy(CODES), probs, class_names=NAMES) == ("0", "ant", "dog")


@pytest.mark.parametrize(
    ("names", "listed"),
    [
        ({"b": 1, "a": 0}, ["a", "b"]),
        ({1: "b", 0: "a"}, ["a", "b"]),
        ({"1": "b", "0": "a"}, ["a", "b"]),
        (np.array([" a", "b "]), ["a", "b"]),
        (pd.Index([30, 50]), ["30", "50"]),
    ],
)
def test_names_in_order(names: Any, listed: list[str]) -> None:
    assert list_names("class_names", names) == listed


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"a", "b"}, "class_names is a set"),
        ({"a": 1, "b": 2}, "does not number its names from 0"),
        (["a", "a "], "1 names twice: a"),
        (["a", None], r"class_names\[1\] is None"),
        (["a", ""], r"class_names\[1\] is ''"),
        ("ab", "class_names is a str"),
    ],
)
def test_names_without_an_order_or_missing(names: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list_names("class_names", names)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([["a"], ["a", "b"]], "rows of different lengths"),
        (pd.Series([["a"], ["a", "b"]]), r"row 0 has the labels \['a'\]"),
        ([0, -1], "row 1 has the label -1"),
        ([0.5, 1.0], "row 0 has the label 0.5"),
        ([0, None], "1 labels are missing, the first in row 1"),
        (["0", "1"], "such as '0' in row 0; the classes are a, b"),
    ],
)
def test_labels_that_are_none(labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        encode_labels(labels, 2, ["a", "b"])


def test_a_missing_group_is_one_of_its_own() -> None:
    assert list_groups([None, "t", float("nan"), "t"], list("abcd")) == ["a", "t", "c", "t"]
