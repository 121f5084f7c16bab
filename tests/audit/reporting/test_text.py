"""The next step after an audit, and names that are cut in the middle."""

from __future__ import annotations

from typing import Any

import pytest

from mlfix_train.audit.reporting.text import cut_middle, next_step


def test_names_keep_the_end_where_they_differ() -> None:
    names = [f"regulatory--maximum-speed-limit-{speed}--g1" for speed in range(10, 130, 10)]
    short = [cut_middle(name, 24) for name in names]
    assert len(set(short)) == len(names)
    assert {len(name) for name in short} == {24}
    assert short[7] == "regulator…limit-80--g1" or short[7].endswith("80--g1")
    assert cut_middle("short", 24) == "short"


FOUND = {"stop_rank": 120, "expected_found": 80.2, "expected_left": 3.0}


@pytest.mark.parametrize(
    ("estimates", "ranked", "wanted"),
    [
        ({"clear": True, "wrong": 83.2, "review_yield": FOUND}, 5000, "Review the first 120 samples of the ranking"),
        ({"clear": True, "wrong": 0.1, "review_yield": {**FOUND, "stop_rank": 0}}, 5000, "No label stands out"),
        ({"clear": False, "wrong": 900.0, "review_yield": FOUND}, 5000, "Judge the sample of 100"),
        ({}, 5000, "Judge the sample of 100"),
        ({}, 40, "Review the whole ranking"),
    ],
)
def test_the_next_step(estimates: dict[str, Any], ranked: int, wanted: str) -> None:
    text = next_step({"estimates": estimates, "ranked": ranked})
    assert text.startswith(wanted)
    assert ("900" in text) is False, "no number that can't be told"
