"""Slices that the user picks: by label, by a list, by a column of metadata; and what is said of wrong ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlfix_train.audit.scores.slices import ALL, MOST_VALUES, select_slices
from mlfix_train.errors import ConfigError

LABELS = np.array(["speed-50", "stop", "max-speed-70", "yield", "stop", "020"], dtype=object)
SAMPLES = pd.Index([f"s{i}" for i in range(6)], dtype=object)
METADATA = pd.DataFrame(
    {
        "country": ["DE", "FR", "DE", None, "NA", "AT"],
        "year": [2019, 2020, 2020, 2021, 2019, 2022],
        "night": [True, False, False, True, False, False],
        "empty": [None] * 6,
    },
    index=SAMPLES,
)


def select(metadata: pd.DataFrame | None = METADATA, **specs: Any) -> dict[str, str]:
    """Slices as strings of 0 and 1."""
    found = select_slices(specs, LABELS, SAMPLES, metadata)
    assert all(mask.dtype == np.bool_ and mask.shape == (6,) for mask in found.values())
    assert next(iter(found)) == ALL and found[ALL].all()
    return {name: "".join(str(int(x)) for x in mask) for name, mask in found.items() if name != ALL}


def refused(told: str, hint: str, metadata: pd.DataFrame | None = METADATA, **specs: Any) -> None:
    with pytest.raises(ConfigError) as error:
        select_slices(specs, LABELS, SAMPLES, metadata)
    assert told in error.value.problem, error.value.problem
    assert hint in error.value.hint, error.value.hint


def test_no_slice_is_all_rows() -> None:
    assert select() == {}


@pytest.mark.parametrize(
    ("pattern", "mask"),
    [("speed", "101000"), ("^speed", "100000"), ("stop|yield", "010110"), ("(?i)STOP", "010010"), (r"\d$", "101001")],
)
def test_a_regular_expression_and_its_complement(pattern: str, mask: str) -> None:
    turned = mask.translate(str.maketrans("01", "10"))
    assert select(x=pattern) == {"x": mask, "not x": turned}


def test_a_slice_of_everything_has_no_complement() -> None:
    assert select(any=".") == {"any": "111111"}
    assert select(any=sorted(set(LABELS))) == {"any": "111111"}


def test_slices_stand_in_the_order_they_were_given_in() -> None:
    assert list(select(b="stop", a=["yield"], c={"column": "country", "values": ["DE"]})) == [
        "b", "not b", "a", "not a", "c", "not c",
    ]  # fmt: skip


def test_a_list_holds_whole_labels() -> None:
    assert select(x=["stop", "speed-50"])["x"] == "110010"
    assert select(x=("yield",))["x"] == "000100"
    assert select(x=["020"])["x"] == "000001"


def test_values_of_a_column() -> None:
    assert select(x={"column": "country", "values": ["DE", "AT"]}) == {"x": "101001", "not x": "010110"}
    assert select(x={"column": "country", "values": ["NA"]})["x"] == "000010", "a country called NA is no missing value"
    assert select(x={"column": "country", "values": "FR"})["x"] == "010000"
    assert select(x={"column": "year", "values": [2020]})["x"] == "011000"
    assert select(x={"column": "year", "values": ["2020", "1900"]})["x"] == "011000"
    assert select(x={"column": "night", "values": [True]})["x"] == "100100"


def test_match_of_a_column() -> None:
    assert select(x={"column": "country", "match": "^(DE|AT)$"})["x"] == "101001"
    assert select(x={"column": "country", "match": "[A-Z]"})["x"] == "111011", "a missing value matches nothing"
    assert select(x={"column": "year", "match": "^202"})["x"] == "011101"


def test_each_value_of_a_column_is_a_slice_without_complement() -> None:
    found = select(land={"column": "country"}, other="stop")
    assert found == {"land=AT": "000001", "land=DE": "101000", "land=FR": "010000", "land=NA": "000010",
                     "other": "010010", "not other": "101101"}  # fmt: skip
    assert select(y={"column": "year"})["y=2019"] == "100010"


def test_metadata_is_found_by_sample_and_not_by_place() -> None:
    more = METADATA.sample(frac=1, random_state=3)
    more.loc["elsewhere"] = ["XX", 1999, False, None]
    assert list(more.index) != list(SAMPLES)
    assert select(more, x={"column": "country", "values": ["DE"]})["x"] == "101000"
    assert "x=XX" not in select(more, x={"column": "country"})
    refused("no held-out sample has such a country", "DE", more, x={"column": "country", "values": ["XX"]})


def test_samples_without_metadata_belong_to_no_value() -> None:
    few = METADATA.drop(index=["s0", "s5"])
    assert select(few, x={"column": "country", "values": ["DE"]}) == {"x": "001000", "not x": "110111"}
    assert select(few, x={"column": "country"})["x=DE"] == "001000"


# --- mistakes ---


def test_wrong_labels() -> None:
    refused("slices.x=sped matches none of the labels", "020, max-speed-70", x="sped")
    refused("slices.x=[ is no regular expression", "re", x="[")
    refused("slices.x names 'stopp', a label of no held-out sample", "'stop'", x=["stop", "stopp"])
    refused("slices.x is an empty list", "regular expression", x=[])


def test_wrong_names() -> None:
    refused("slices.all: this name is taken", "otherwise", all="stop")
    refused("slices.not x: this name is taken", "otherwise", **{"x": "stop", "not x": "yield"})
    refused("slices.x: this name is taken", "otherwise", **{"not x": "yield", "x": "stop"})
    refused("slices.land=DE: this name is taken", "otherwise", **{"land": {"column": "country"}, "land=DE": "stop"})


def test_wrong_columns() -> None:
    refused("slices.x: the data has no column 'land'", "country, year, night, empty", x={"column": "land"})
    refused("slices.x: the data has no column 'country'", "samples=", None, x={"column": "country"})
    refused("slices.x: the column 'empty' is empty", "values", x={"column": "empty"})
    many = pd.DataFrame(
        {"id": [str(i) for i in range(MOST_VALUES + 1)]}, index=[f"s{i}" for i in range(MOST_VALUES + 1)]
    )
    labels = np.array(["a"] * (MOST_VALUES + 1), dtype=object)
    with pytest.raises(ConfigError, match="the column 'id' holds 51 values"):
        select_slices({"x": {"column": "id"}}, labels, pd.Index(many.index), many)
    assert len(select_slices({"x": {"column": "id"}}, labels[1:], pd.Index(many.index[1:]), many)) == MOST_VALUES + 1


def test_wrong_values() -> None:
    refused("slices.x: no held-out sample has such a country", "it holds", x={"column": "country", "values": ["DK"]})
    refused("slices.x: no held-out sample has such a country", "AT, DE", x={"column": "country", "match": "^D$"})
    refused("slices.x: no held-out sample has such a country", "AT", x={"column": "country", "values": []})


@pytest.mark.parametrize("spec", [{}, {"values": ["DE"]}, {"column": "country", "value": ["DE"]}, {"label": "stop"}])
def test_wrong_keys(spec: dict[str, Any]) -> None:
    refused("is no slice", "{column: <name>, values: [...]}", x=spec)
