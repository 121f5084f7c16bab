"""Slices by confusion and by regular expression, and their names in files."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from mlfix_train.audit.slices import select_labels, slug, worst_confusions
from mlfix_train.errors import ConfigError


def test_worst_confusions_against_a_loop(ranking: Callable[..., pd.DataFrame]) -> None:
    table = ranking(n=200, classes=4)
    sums: dict[str, float] = {}
    for row in table.itertuples():
        if row.given_label != row.predicted_label:
            name = f"{row.given_label} → {row.predicted_label}"
            sums[name] = sums.get(name, 0.0) + row.suspicion
    wanted = sorted(sums, key=lambda name: (-sums[name], name))
    assert len(wanted) == 12
    found = worst_confusions(table, 5)
    assert [piece.name for piece in found] == wanted[:5]
    for piece in found:
        given, predicted = piece.name.split(" → ")
        rows = table.iloc[piece.rows]
        assert set(rows["given_label"]) == {given}
        assert set(rows["predicted_label"]) == {predicted}
        assert len(rows) == ((table["given_label"] == given) & (table["predicted_label"] == predicted)).sum()
        assert rows["suspicion"].is_monotonic_decreasing
    assert len(worst_confusions(table, 100)) == 12
    assert worst_confusions(table, 0) == []


def test_many_small_doubts_outweigh_one_large() -> None:
    rows = [("a", "b", 0.9), ("a", "c", 0.5), ("a", "c", 0.5), ("d", "d", 0.99)]
    table = pd.DataFrame(rows, columns=["given_label", "predicted_label", "suspicion"])
    table["slice"] = table["given_label"] + " → " + table["predicted_label"]
    table["is_label_issue"] = table["given_label"] != table["predicted_label"]
    assert [piece.name for piece in worst_confusions(table, 9)] == ["a → c", "a → b"]
    assert worst_confusions(table, 9)[0].rows.tolist() == [1, 2]


def test_equal_suspicion_goes_by_name_and_no_issue_gives_no_slice() -> None:
    table = pd.DataFrame({"slice": ["b → a", "a → b"], "suspicion": [0.5, 0.5], "is_label_issue": [True, True]})
    assert [piece.name for piece in worst_confusions(table, 2)] == ["a → b", "b → a"]
    assert worst_confusions(table.assign(is_label_issue=False), 2) == []


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
