"""What a review's judgements say: the sample to judge, reviews already made, probabilities, where to stop."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from review_helpers import mark, open_session, ranking_of, table_of

from mlfix_train.audit.judgements import match_judgements, read_review
from mlfix_train.audit.review.session import ReviewSession
from mlfix_train.audit.scores.calibration import calibrate, draw_to_judge

N = 3500  # every seventh label is wrong and ranked first


def judge(session: ReviewSession, rows: list[int]) -> None:
    """Looks at rows in the sample to judge, and marks those that are wrong."""
    mark(session, *((session.samples.ids[row], "invalid") for row in rows if row % 7 == 0))
    session.handle("seen", {"rows": rows, "random": True})


def test_the_sample_is_drawn_over_the_ranking_without_showing_it(tmp_path: Path) -> None:
    table = table_of(N)
    session = open_session(tmp_path, table)
    view = session.handle("view", {"group_by": "random"})
    block = session.handle("block", {"view": view["view"], "number": 0})
    assert view["names"] == ["Sample to judge"] and view["count"] == 100
    assert set(block["suspicion"]) == {None} and set(block["predicted"]) == set(block["suggested"]) == {-1}
    order = table.index.get_indexer(ranking_of(table)["sample_id"])
    assert block["rows"] == order[draw_to_judge(-np.arange(N), 100)].tolist()
    assert session.handle("draw", {})["drawn"] == 200
    assert session.store.drawn == order[draw_to_judge(-np.arange(N), 200)].tolist()


def test_judgements_give_a_count_probabilities_and_where_to_stop(tmp_path: Path) -> None:
    table = table_of(N)
    session = open_session(tmp_path, table)
    view = session.handle("view", {"group_by": "random"})
    rows = session.handle("block", {"view": view["view"], "number": 0})["rows"]
    judge(session, rows[:9])
    assert session.handle("progress", {})["estimate"] is None, "too few"
    judge(session, rows[9:])
    response = session.handle("progress", {})
    found = response["estimate"]
    assert (found["judged"], found["judged_wrong"]) == (100, sum(row % 7 == 0 for row in rows))
    assert found["interval"][0] <= N // 7 <= found["interval"][1] and found["interval"][1] < 900
    assert 400 < found["stop_rank"] < 1200 and found["samples"] == N
    assert found["share"] == pytest.approx(100 * found["wrong"] / N, abs=0.01)
    drawn = response["random_sample"]
    assert (drawn["reviewed"], drawn["rate"], drawn["interval"]) == (100, found["share"], found["share_interval"])
    assert response["keep_going"] and response["remaining"] == pytest.approx(found["wrong"] - response["marked"])

    order = table.index.get_indexer(ranking_of(table)["sample_id"])
    ranks = np.argsort(order)[rows]
    groups = session.samples.groups[order]
    labels = session.samples.given[order].astype(np.int64)
    expected = calibrate(-np.arange(N), ranks, np.asarray(rows) % 7 == 0, labels, 3, groups)
    assert found["wrong"] == pytest.approx(expected.wrong, abs=0.1)
    view = session.handle("view", {"group_by": "all"})
    block = session.handle("block", {"view": view["view"], "number": 0})
    np.testing.assert_allclose(block["suspicion"][:40], expected.probability[:40], atol=1e-3)
    by_label = session.handle("view", {"group_by": "label"})
    assert len(by_label["intervals"]) == 3
    for group, interval in enumerate(by_label["intervals"]):
        assert interval[0] <= by_label["expected"][group] <= interval[1]
    some = session.handle("view", {"group_by": "label", "search": "stop"})
    assert set(some["intervals"]) == {None}, "not all samples of the label"


def test_an_ordinary_review_counts_once_something_was_reviewed(tmp_path: Path) -> None:
    table = table_of(N)
    session = open_session(tmp_path, table)
    order = table.index.get_indexer(ranking_of(table)["sample_id"]).tolist()
    mark(session, *((session.samples.ids[row], "invalid") for row in order[:210]))
    session.handle("seen", {"rows": order[:210]})
    assert session.handle("progress", {})["estimate"] is None, "what was looked at says little about the rest"
    session.handle("undo", {})
    session.handle("seen", {"rows": order[:900]})
    assert session.handle("progress", {})["estimate"] is None, "someone may only have looked around"
    mark(session, *((session.samples.ids[row], "invalid") for row in order[:500]))
    found = session.handle("progress", {})["estimate"]
    assert (found["judged"], found["judged_wrong"]) == (900, 500)
    assert found["interval"][0] >= 500 and found["interval"][1] < 560
    assert found["stop_rank"] < 600 and session.handle("progress", {})["keep_going"] is False


def test_marks_of_samples_that_were_not_looked_at_are_found_but_tell_nothing(tmp_path: Path) -> None:
    table = table_of(N)
    fixes = tmp_path / "given.csv"
    fixes.write_text("sample_id,new_label\n" + "".join(f"{name},invalid\n" for name in table.index[::7]))
    session = open_session(tmp_path / "review", table, fixes=str(fixes))
    assert session.store.is_marked.sum() == 500 and session.handle("progress", {})["estimate"] is None
    view = session.handle("view", {"group_by": "random"})
    session.handle("review_group", {"view": view["view"], "group": 0})
    found = session.handle("progress", {})["estimate"]
    assert found["judged"] == 100 and found["interval"][0] >= 500


def test_a_review_is_read_from_its_files_as_the_page_counts_it(tmp_path: Path) -> None:
    table = table_of(N)
    session = open_session(tmp_path, table)
    view = session.handle("view", {"group_by": "random"})
    rows = session.store.drawn
    judge(session, rows[:60])
    session.handle("seen", {"rows": list(range(50))})
    found = match_judgements(ranking_of(table), str(tmp_path))  # while the page is open
    page = session.calibrator.judged()
    ids = ranking_of(table)["sample_id"].to_numpy()
    assert set(ids[found.rows]) == set(session.samples.ids[page]) and len(found.rows) == 60
    assert set(ids[found.rows[found.wrong]]) == {session.samples.ids[row] for row in rows[:60] if row % 7 == 0}
    session.handle("review_group", {"view": view["view"], "group": 0})
    assert len(match_judgements(ranking_of(table), str(tmp_path)).rows) == 100
    session.handle("undo", {})
    assert len(match_judgements(ranking_of(table), str(tmp_path)).rows) == 60
    label = session.handle("view", {"group_by": "label"})
    session.handle("review_group", {"view": label["view"], "group": 0})
    fixes, looked_at = read_review(tmp_path)
    assert set(looked_at) == set(session.samples.ids[session.calibrator.judged()])
    assert len(looked_at) > 1000 and len(fixes) == session.store.is_marked.sum()


def test_answers_in_the_sample_count_and_unsure_ones_do_not(tmp_path: Path) -> None:
    table = table_of(N)
    session = open_session(tmp_path, table)
    session.handle("view", {"group_by": "random"})
    rows, ids = session.store.drawn[:60], session.samples.ids

    def answer(row: int, how: dict[str, object]) -> None:
        session.handle("marks", {"marks": [{"sample_id": ids[row], **how}], "random": True})

    for n, row in enumerate(rows):
        answer(
            row,
            {"new_label": "unsure"} if n % 10 == 3 else {"new_label": "invalid"} if row % 7 == 0 else {"keep": True},
        )
    response = session.handle("progress", {})
    sure = [row for n, row in enumerate(rows) if n % 10 != 3]
    wrong = sum(row % 7 == 0 for row in sure)
    assert (response["estimate"]["judged"], response["estimate"]["judged_wrong"]) == (54, wrong)
    drawn = response["random_sample"]
    assert (drawn["reviewed"], drawn["unsure"], drawn["drawn"]) == (60, 6, 100)
    found = match_judgements(ranking_of(table), str(tmp_path))
    names = ranking_of(table)["sample_id"].to_numpy()
    assert set(names[found.rows]) == {ids[row] for row in sure} and found.wrong.sum() == wrong
    outside = next(row for row in range(1, N) if row % 7 and row not in session.store.drawn)
    session.handle("marks", {"marks": [{"sample_id": ids[outside], "keep": True}]})
    assert session.handle("progress", {})["estimate"]["judged"] == 54, "the curve learns from the sample alone"
    found = match_judgements(ranking_of(table), str(tmp_path))
    assert names[found.kept].tolist() == [ids[outside]] and len(found.rows) == 54
    answer(rows[0], {"new_label": None})
    session.handle("undo", {})
    for _ in range(2):
        session.handle("undo", {})  # keeping that sample, and the last answer in the sample
    assert session.handle("progress", {})["random_sample"]["reviewed"] == 59
    assert len(match_judgements(ranking_of(table), str(tmp_path)).rows) == 53


def test_a_label_known_to_be_right_is_no_longer_in_doubt() -> None:
    evidence = -np.arange(100)
    judged, wrong = np.arange(0, 100, 4), np.arange(0, 100, 4) < 40
    rest = calibrate(evidence, judged, wrong)
    kept = calibrate(evidence, judged, wrong, kept=np.setdiff1d(np.arange(100), judged))
    assert kept.wrong == wrong.sum() < rest.wrong and kept.interval == (10, 10)
    np.testing.assert_array_equal(kept.probability, rest.probability)


def test_many_samples_are_calibrated_while_requests_are_answered(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("mlfix_train.audit.review.calibration.MANY", N - 1)
    monkeypatch.setattr("mlfix_train.audit.review.calibration.MAX_AGE", 0.0)
    session, may_go_on = open_session(tmp_path, table_of(N)), threading.Event()
    calibrator = session.calibrator
    calibrate_now = calibrator._calibrate
    monkeypatch.setattr(calibrator, "_calibrate", lambda *given: may_go_on.wait(20) and calibrate_now(*given))
    view = session.handle("view", {"group_by": "random"})
    rows = session.handle("block", {"view": view["view"], "number": 0})["rows"]

    def settled() -> dict:
        while (progress := session.handle("progress", {}))["calibrating"]:
            calibrator._thread.join()
        return progress

    judge(session, rows)
    first = session.handle("progress", {})
    assert (first["estimate"], first["calibrating"]) == (None, True)
    may_go_on.set()
    then = settled()
    assert then["estimate"]["judged"] == 100
    judge(session, [row for row in range(60) if row not in rows])
    assert session.handle("progress", {})["estimate"] == then["estimate"], "that of before"
    assert settled()["estimate"]["judged"] == 160 - sum(row < 60 for row in rows)
