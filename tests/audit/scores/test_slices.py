"""Slices by confusion and by regular expression, and their names in files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlfix_train.audit.scores.slices import SCREEN, first_slices, rank_slices, select_labels, slug, write_slices
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
    assert list(table.columns) == ["kind", "name", "samples", "suspicion", "first_screen"]
    assert table["name"].tolist() == ['a → b, "x"', "a", "b"]


def test_select_labels_searches_anywhere() -> None:
    labels = ["speed-50", "stop", "max-speed-70", "speed-50", "Speed"]
    assert select_labels(labels, "x", "speed").tolist() == [True, False, True, True, False]
    assert select_labels(labels, "x", "^speed").tolist() == [True, False, False, True, False]
    assert select_labels(labels, "x", "(?i)speed").tolist() == [True, False, True, True, True]
    assert select_labels(labels, "x", r"50|st.p").tolist() == [True, True, False, True, False]
    assert select_labels(labels, "x", "").dtype == np.bool_


def test_a_wrong_expression_and_one_that_finds_nothing_name_themselves() -> None:
    with pytest.raises(ConfigError, match=r"slices\.speed=\(spe is no regular expression"):
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
