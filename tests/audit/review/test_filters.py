"""Filters on columns, the least suspicion, and a part of the map, compared with plain pandas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from review_helpers import mark, open_session, ranking_of, table_of

from mlfix_train.audit.review.requests import RequestError
from mlfix_train.audit.review.session import ReviewSession


@pytest.fixture
def session(tmp_path: Path) -> ReviewSession:
    altitude = np.where(np.arange(210) % 10 == 9, np.nan, np.linspace(0, 1, 210))
    return open_session(tmp_path, table_of(210, altitude=altitude, place=[f"road {i}" for i in range(210)]))


def shown(session: ReviewSession, **settings: Any) -> set[int]:
    view = session.handle("view", {"group_by": "all", **settings})
    return set(session._views[view["view"]].rows.tolist())


def test_ranges_values_and_texts(session: ReviewSession) -> None:
    table = table_of(210)
    altitude = pd.Series(np.where(np.arange(210) % 10 == 9, np.nan, np.linspace(0, 1, 210)))
    ranking = ranking_of(table).set_index("sample_id").loc[table.index].reset_index()
    assert shown(session, columns={"altitude": {"from": 0.25, "to": 0.5}}) == set(
        np.flatnonzero(altitude.between(0.25, 0.5))
    )
    assert shown(session, columns={"loss": {"from": 2}}) == set(np.flatnonzero(ranking["loss"].astype("f4") >= 2))
    rain = {"weather": {"values": ["rain"]}, "predicted label": {"values": ["stop"]}}
    wanted = table["weather"].eq("rain").to_numpy() & ranking["predicted_label"].eq("stop").to_numpy()
    assert shown(session, columns=rain) == set(np.flatnonzero(wanted)) != set()
    assert shown(session, columns={"place": {"contains": "ROAD 20"}}) == {20, *range(200, 210)}
    mark(session, (session.samples.ids[4], "unsure"), (session.samples.ids[9], "invalid"))
    assert shown(session, columns={"answer": {"values": ["unsure"]}}) == {4}
    assert len(shown(session, columns={"answer": {"values": ["none"]}}, filter="suspicious")) == 30
    assert shown(session, min_suspicion=0.8) == set(np.flatnonzero(ranking["suspicion"].astype("f4") >= 0.8))
    assert len(shown(session, min_suspicion=0.8, group_by="random")) == 100, "the sample to judge is whole"


def test_columns_say_what_they_hold(session: ReviewSession) -> None:
    found = {one.pop("name"): one for one in session.handle("describe", {})["filters"]}
    assert found["altitude"] == {"low": 0, "high": 0.9952}
    assert found["weather"] == {"values": ["sun", "rain", "(empty)"]}
    assert found["place"] == {} and found["given label"]["values"] == ["limit 100", "limit 20", "stop"]
    assert found["loss"]["low"] >= 0 and "unsure" in found["answer"]["values"]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"columns": {"altitud": {"from": 1}}}, "no column 'altitud'"),
        ({"columns": {"altitude": {"from": "low"}}}, "from and to are not numbers"),
        ({"columns": {"weather": {"values": "rain"}}}, "values is not a list"),
        ({"columns": {"weather": {}}}, "needs values, or a text"),
        ({"columns": [1]}, "columns is not an object"),
        ({"columns": {"weather": 1}}, "is not an object"),
        ({"min_suspicion": 2}, "min_suspicion is not a number from 0 to 1"),
        ({"area": 3}, "area is not a text"),
        ({"area": "x:1,2"}, "is not a lasso"),
    ],
)
def test_filters_that_are_none(session: ReviewSession, settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(RequestError, match=problem):
        session.handle("view", settings)
