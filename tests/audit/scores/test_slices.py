"""Slices of a ranking, their names in files, and the user's own slices with what is said about wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlfix_train.audit.scores.slices import (
    ALL,
    MOST_VALUES,
    SCREEN,
    first_slices,
    rank_slices,
    select_labels,
    select_slices,
    slug,
    write_slices,
)
from mlfix_train.errors import ConfigError


def test_slices_against_a_loop(ranking: Callable[..., pd.DataFrame]) -> None:
    table = ranking(n=400, classes=4)
    found = rank_slices(table)
    sums: dict[tuple[str, str], list[int]] = {}
    for place, row in enumerate(table.itertuples()):
        sums.setdefault(("label", row.given_label), []).append(place)
        if row.suggested_label != row.given_label:
            sums.setdefault(("pair", f"{row.given_label} → {row.suggested_label}"), []).append(place)
    assert {(one.kind, one.name): one.rows.tolist() for one in found} == sums
    suspicion = table["suspicion"].to_numpy()
    for one in found:
        assert one.expected == pytest.approx(suspicion[one.rows].sum())
        assert one.screen == pytest.approx(suspicion[one.rows[:SCREEN]].sum())
        assert table["suspicion"].iloc[one.rows].is_monotonic_decreasing
    assert [one.screen for one in found] == sorted((one.screen for one in found), reverse=True), "the richest first"
    assert [one.kind for one in first_slices(found, 3)] == ["pair"] * 3 + ["label"] * 3
    assert first_slices(found, 0) == []


def doubts(rows: list[tuple[str, str, float]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["given_label", "suggested_label", "suspicion"])
    table["sample_id"] = [f"s{i}" for i in range(len(table))]
    table["slice"] = table["given_label"] + " → " + table["suggested_label"]
    return table


def test_many_small_doubts_outweigh_one_large() -> None:
    found = rank_slices(doubts([("a", "b", 0.9), ("a", "c", 0.5), ("a", "c", 0.5), ("d", "d", 0.99)]))
    pairs = [one for one in found if one.kind == "pair"]
    assert [one.name for one in pairs] == ["a → c", "a → b"]
    assert pairs[0].rows.tolist() == [1, 2]


def test_equal_suspicion_goes_by_kind_and_name() -> None:
    found = rank_slices(doubts([("b", "a", 0.5), ("a", "b", 0.5)]))
    assert [(one.kind, one.name) for one in found] == [
        ("pair", "a → b"),
        ("pair", "b → a"),
        ("label", "a"),
        ("label", "b"),
    ]


def test_named_slices_and_near_duplicates_that_differ() -> None:
    table = doubts([("a", "b", 0.9), ("b", "b", 0.4), ("a", "a", 0.3), ("c", "c", 0.2)])
    groups = pd.Series([4, 4, 7, 7, -1], index=["s0", "s1", "s2", "s9", "s3"])
    found = rank_slices(table, {"few": np.array([False, True, True, False])}, groups)
    by = {(one.kind, one.name): one.rows.tolist() for one in found}
    assert by["slice", "few"] == [1, 2]
    assert by["duplicates", "group 4"] == [0, 1]
    assert [name for kind, name in by if kind == "duplicates"] == ["group 4"], "one label alone is no quarrel"


def test_slices_on_disk(tmp_path: Path) -> None:
    found = rank_slices(doubts([("a", 'b, "x"', 0.9), ("b", "b", 0.4)]))
    table = pd.read_csv(write_slices(found, tmp_path / "new" / "slices.csv"))
    assert list(table.columns) == [
        "kind",
        "name",
        "samples",
        "suspicion",
        "first_screen",
        "score",
        "threshold",
        "worst",
    ]
    assert table["name"].tolist() == ['a → b, "x"', "a", "b"]


def test_select_labels_searches_anywhere() -> None:
    labels = ["speed-50", "stop", "max-speed-70", "speed-50", "Speed"]
    assert select_labels(labels, "x", "speed").tolist() == [True, False, True, True, False]
    assert select_labels(labels, "x", "^speed").tolist() == [True, False, False, True, False]
    assert select_labels(labels, "x", "(?i)speed").tolist() == [True, False, True, True, True]
    assert select_labels(labels, "x", r"50|st.p").tolist() == [True, True, False, True, False]
    assert select_labels(labels, "x", "").dtype == np.bool_


def test_a_wrong_expression_and_one_that_finds_nothing_name_themselves() -> None:
    with pytest.raises(ConfigError, match=r"slices\.speed=\(spe is not a valid regular expression"):
        select_labels(["a"], "speed", "(spe")
    with pytest.raises(ConfigError, match=r"(?s)slices\.speed=sped matches none.*speed-50, stop"):
        select_labels(["stop", "speed-50", "stop"], "speed", "sped")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a → b", "a--as--b"),
        ("speed limit/50 → ../../etc", "speed-limit-50--as--..-..-etc"),
        ("..", "slice"),
        ("", "slice"),
        ("a:b*c?<>|", "a-b-c"),
        ("ü_1.2", "ü_1.2"),
    ],
)
def test_slug(name: str, wanted: str) -> None:
    assert slug(name) == wanted
    assert "/" not in slug(name)


def test_slug_is_short() -> None:
    assert len(slug("x" * 500)) == 60


# --- the user's own slices ---

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
        "b",
        "not b",
        "a",
        "not a",
        "c",
        "not c",
    ]


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
    assert found == {
        "land=AT": "000001",
        "land=DE": "101000",
        "land=FR": "010000",
        "land=NA": "000010",
        "other": "010010",
        "not other": "101101",
    }
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
    refused("slices.x=[ is not a valid regular expression", "re", x="[")
    refused("slices.x lists 'stopp', a label that no held-out sample has", "'stop'", x=["stop", "stopp"])
    refused("slices.x is an empty list", "regular expression", x=[])


def test_wrong_names() -> None:
    refused("slices.all: this name is taken", "another name", all="stop")
    refused("slices.not x: this name is taken", "another name", **{"x": "stop", "not x": "yield"})
    refused("slices.x: this name is taken", "another name", **{"not x": "yield", "x": "stop"})
    refused("slices.land=DE: this name is taken", "another name", **{"land": {"column": "country"}, "land=DE": "stop"})


def test_wrong_columns() -> None:
    refused("slices.x: the data has no column 'land'", "country, year, night, empty", x={"column": "land"})
    refused("slices.x: the data has no column 'country'", "samples=", None, x={"column": "country"})
    refused("slices.x: the column 'empty' is empty", "values", x={"column": "empty"})
    many = pd.DataFrame(
        {"id": [str(i) for i in range(MOST_VALUES + 1)]}, index=[f"s{i}" for i in range(MOST_VALUES + 1)]
    )
    labels = np.array(["a"] * (MOST_VALUES + 1), dtype=object)
    with pytest.raises(ConfigError, match="the column 'id' has 51 values"):
        select_slices({"x": {"column": "id"}}, labels, pd.Index(many.index), many)
    assert len(select_slices({"x": {"column": "id"}}, labels[1:], pd.Index(many.index[1:]), many)) == MOST_VALUES + 1


def test_wrong_values() -> None:
    refused(
        "slices.x: no held-out sample has such a country", "its values are", x={"column": "country", "values": ["DK"]}
    )
    refused("slices.x: no held-out sample has such a country", "AT, DE", x={"column": "country", "match": "^D$"})
    refused("slices.x: no held-out sample has such a country", "AT", x={"column": "country", "values": []})


@pytest.mark.parametrize("spec", [{}, {"values": ["DE"]}, {"column": "country", "value": ["DE"]}, {"label": "stop"}])
def test_wrong_keys(spec: dict[str, Any]) -> None:
    refused("is not a slice", "{column: <name>, values: [...]}", x=spec)


@pytest.mark.parametrize("spec", [None, True, []])
def test_a_slice_that_is_none(spec: object) -> None:
    with pytest.raises(ConfigError, match=r"slices\.x"):
        select_slices({"x": spec}, np.array(["a", "b"], object), pd.Index(["s", "t"]))  # type: ignore[dict-item]


def test_a_slice_of_digits_is_an_expression() -> None:
    found = select_slices({"x": 50}, np.array(["speed-50", "b"], object), pd.Index(["s", "t"]))  # type: ignore[dict-item]
    assert found["x"].tolist() == [True, False]


def test_a_column_slice_with_a_wrong_expression() -> None:
    meta = pd.DataFrame({"c": ["x"]}, index=["s"])
    with pytest.raises(ConfigError, match="not a valid regular expression"):
        select_slices({"x": {"column": "c", "match": "("}}, np.array(["a"], object), pd.Index(["s"]), meta)


def test_whole_numbers_of_a_column_stay_whole() -> None:
    meta = pd.DataFrame({"year": [2019]}, index=["s"])
    spec = {"x": {"column": "year", "values": [2019]}}
    found = select_slices(spec, np.array(["a", "b"], object), pd.Index(["s", "t"]), meta)
    assert found["x"].tolist() == [True, False]


def test_a_slice_per_value_does_not_take_anothers_name() -> None:
    meta = pd.DataFrame({"c": ["x", "y"]}, index=["s", "t"])
    with pytest.raises(ConfigError, match="taken"):
        select_slices({"c=x": "b", "c": {"column": "c"}}, np.array(["a", "b"], object), pd.Index(["s", "t"]), meta)
