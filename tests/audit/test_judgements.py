"""Labels that a person judged: matched to a ranking, and what Audit.calibrate makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlfix_train.audit.audit import Audit
from mlfix_train.audit.judgements import match_judgements
from mlfix_train.audit.scores.calibration import draw_to_judge
from mlfix_train.audit.scores.estimates import STOP_PROBABILITY
from mlfix_train.errors import DataError

RANKING = pd.DataFrame({"sample_id": list("abcdef"), "given_label": ["x", "y"] * 3})


def an_audit(n: int = 3000) -> tuple[Audit, np.ndarray]:
    """Four classes, 5% wrong labels, predictions of middling quality alone."""
    rng = np.random.default_rng(0)
    true, wrong = rng.integers(4, size=n), np.zeros(n, bool)
    wrong[rng.choice(n, n // 20, replace=False)] = True
    logits = rng.normal(size=(n, 4)) + 3 * np.eye(4)[true]
    pred_probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Audit.from_predictions(np.where(wrong, (true + 1) % 4, true), pred_probs), wrong


def test_judgements_say_which_are_wrong_and_fixes_need_what_was_looked_at(tmp_path: Path) -> None:
    found = match_judgements(RANKING, {"b": True, "e": False})
    assert (found.rows.tolist(), found.wrong.tolist(), found.found.tolist()) == ([1, 4], [True, False], [])
    series = pd.Series({"f": 0, "a": 1})
    assert match_judgements(RANKING, series).wrong.tolist() == [False, True]
    fixes = pd.DataFrame({"sample_id": ["a", "b", "d", "z"], "new_label": ["x", "invalid", "x", "x"]})
    found = match_judgements(RANKING, fixes, looked_at=["c", "a", "b", "gone"])
    assert (found.rows.tolist(), found.wrong.tolist()) == ([2, 0, 1], [False, False, True]), "a got the label it has"
    assert found.found.tolist() == [3], "fixed, but not looked at in its place of the ranking"
    path = tmp_path / "fixes.csv"
    fixes.to_csv(path, index=False)
    assert match_judgements(RANKING, path, looked_at=["b"]).found.tolist() == [3]


def test_unsure_is_no_judgement_unless_it_is_a_label(caplog: pytest.LogCaptureFixture) -> None:
    fixes = pd.DataFrame({"sample_id": ["a", "b"], "new_label": ["unsure", "invalid"]})
    found = match_judgements(RANKING, fixes, looked_at=["a", "b", "c"])
    assert (found.rows.tolist(), found.wrong.tolist()) == ([1, 2], [True, False]) and not caplog.records
    ranking = RANKING.assign(predicted_label="unsure")
    found = match_judgements(ranking, fixes, looked_at=["a", "b", "c"])
    assert (found.rows.tolist(), found.wrong.tolist()) == ([0, 1, 2], [True, True, False])
    assert "'unsure' is a label of these data, so 1 fixes count as that label" in caplog.text


def test_what_can_not_be_judgements(tmp_path: Path) -> None:
    for judged, message in (
        ({"a": True, "q": False}, "not in the ranking, such as 'q'"),
        ({"a": "yes"}, "judgement of 'a' is 'yes'"),
        (pd.Series([True, False], index=["a", "a"]), "'a' was judged twice"),
        ({}, "no label was judged"),
        (pd.DataFrame({"sample_id": ["a"], "new_label": ["y"]}), "not which were found to be right"),
    ):
        with pytest.raises(DataError, match=message):
            match_judgements(RANKING, judged)
    with pytest.raises(DataError, match="is not the folder of a review"):
        match_judgements(RANKING, tmp_path)
    with pytest.raises(DataError, match="looked_at goes with fixes"):
        match_judgements(RANKING, {"a": True}, looked_at=["a"])


def test_an_audit_learns_from_a_hundred_judgements() -> None:
    audit, wrong = an_audit()
    assert audit.estimate is None, "predictions alone tell no number"
    before = audit.ranking["sample_id"].tolist()
    ids = audit.ranking["sample_id"].iloc[draw_to_judge(-audit.ranking["rank"], 100)]
    estimate = audit.calibrate({name: bool(wrong[int(name)]) for name in ids})
    assert audit.estimate is estimate and (estimate.judged, estimate.clear) == (100, True)
    assert estimate.judged_wrong == wrong[ids.astype(int)].sum()
    assert estimate.interval[0] <= wrong.sum() <= estimate.interval[1]
    table = audit.ranking
    assert table["sample_id"].tolist() == before and table["suspicion"].is_monotonic_decreasing
    np.testing.assert_allclose(table["label_score"], 1 - table["suspicion"])
    flagged = (table["suspicion"] >= 0.5) & (table["suggested_label"] != table["given_label"])
    assert (table["is_label_issue"] == flagged).all()
    assert estimate.review_yield["stop_rank"] == (table["suspicion"] >= STOP_PROBABILITY).sum()
    assert audit.about["estimates"]["judged"] == 100 and audit.about["issues"] == flagged.sum()
    suspicion = table["suspicion"].to_numpy()
    assert all(one.expected == pytest.approx(suspicion[one.rows].sum()) for one in audit.slices)
    assert [one.screen for one in audit.slices] == sorted((one.screen for one in audit.slices), reverse=True)
    more = audit.ranking["sample_id"].iloc[draw_to_judge(-audit.ranking["rank"], 500)]
    again = audit.calibrate(pd.Series(wrong[more.astype(int)], index=more))
    assert np.ptp(again.interval) < np.ptp(estimate.interval) and again.judged == 500
