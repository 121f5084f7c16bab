"""Progress: counts, what remains, when to stop, and the unbiased error rate."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from review_helpers import mark, open_session, ranking_of, table_of
from scipy.stats import beta, binomtest

from mlfix_train.audit.review.marks import INVALID_CODE
from mlfix_train.audit.review.progress import Pace, SeenLog, draw_random, error_rate


@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 10), (10, 10), (7, 200), (199, 200), (0, 1)])
def test_interval_is_clopper_pearsons(tmp_path: Path, k: int, n: int) -> None:
    session = open_session(tmp_path, table_of(300), audit=False)
    rows = session.store.drawn = list(range(n))
    session.store.random_reviewed[rows] = True
    session.store.marks[rows[:k]] = INVALID_CODE
    rate = error_rate(session.store, session.seen_log.seen_in_random)
    low = 0.0 if k == 0 else beta.ppf(0.025, k, n - k + 1)
    high = 1.0 if k == n else beta.ppf(0.975, k + 1, n - k)
    assert rate and rate["interval"] == pytest.approx([100 * low, 100 * high], abs=6e-4)
    assert rate["wrong_in_all"] == [int(np.floor(300 * low)), int(np.ceil(300 * high))]


def test_counts_and_what_remains(tmp_path: Path) -> None:
    table = table_of(700)
    session = open_session(tmp_path, table)
    response = session.handle("progress", {})
    total = float(ranking_of(table)["suspicion"].sum())
    assert (
        response["remaining"] == pytest.approx(total, abs=0.1)
        and response["keep_going"]
        and response["marked_percent"] is None
    )
    wrong = [name for number, name in enumerate(table.index) if number % 7 == 0]
    session.handle("seen", {"rows": list(range(0, 350))})
    mark(session, *((name, "invalid") for name in wrong[:50]))
    response = session.handle("progress", {})
    assert (response["reviewed"], response["marked"], response["invalid"]) == (350, 50, 50) and response[
        "marked_percent"
    ] == pytest.approx(100 / 7, abs=0.01)
    assert response["remaining"] == pytest.approx(50, abs=4) and response["keep_going"], "by the judgements"
    session.handle("seen", {"rows": list(range(350, 700))})
    mark(session, *((name, "invalid") for name in wrong[50:]))
    response = session.handle("progress", {})
    assert response["remaining"] == 0 and response["message"] == "Everything has been reviewed."


def test_message_says_when_to_stop(tmp_path: Path) -> None:
    table = table_of(700)
    session = open_session(tmp_path, table)
    wrong = list(range(0, 700, 7))
    session.handle("seen", {"rows": wrong})
    mark(session, *((table.index[row], "invalid") for row in wrong))
    left = np.nan_to_num(session.samples.suspicion[np.arange(700) % 7 != 0])
    response = session.handle("progress", {})
    assert response["worth_reviewing"] == int((left >= 0.05).sum()), (
        "the audit is not corrected before 200 samples were reviewed"
    )
    session.samples.suspicion[np.arange(700) % 7 != 0] = 0.01
    response = session.handle("progress", {})
    assert response["keep_going"] is False and response["message"].startswith("You can stop, in all groups: about")


def test_without_an_audit_recent_marks_decide(tmp_path: Path) -> None:
    table = table_of(700)
    session = open_session(tmp_path, table, audit=False)
    assert session.handle("progress", {})["keep_going"] is None
    session.handle("seen", {"rows": list(range(300))})
    assert session.handle("progress", {})["keep_going"] is False
    mark(session, *((name, "invalid") for name in table.index[200:220]))
    assert session.handle("progress", {})["keep_going"] is True


def test_what_was_on_the_screen_of_a_group_counts(tmp_path: Path) -> None:
    table = table_of(700)
    session = open_session(tmp_path, table)
    response = session.handle("view", {"group_by": "label"})
    view = session._views[response["view"]]
    rows = view.group(0).tolist()
    suspicion = np.nan_to_num(session.samples.suspicion)
    assert response["group_left"][0] == pytest.approx(suspicion[rows].sum(), abs=0.01)
    before = session.handle("progress", {})["remaining"]
    session.handle("seen", {"rows": rows[:5]})
    session.handle("review_group", {"view": response["view"], "group": 0, "rows": rows[5:9] + view.group(1).tolist()})
    assert np.flatnonzero(session.store.group_reviewed).tolist() == sorted(rows[:9]), "only of this group"
    progress = session.handle("progress", {"view": response["view"]})
    assert progress["group_reviewed"][0] == 9 and progress["remaining"] > 0.8 * before
    assert progress["group_left"][0] == pytest.approx(suspicion[rows[9:]].sum(), abs=0.01)
    session.handle("review_group", {"view": response["view"], "group": 0})
    assert session.store.group_reviewed[rows].all()
    session.close()
    plain = open_session(tmp_path / "plain", table, audit=False)
    assert plain.handle("view", {"group_by": "label"})["group_left"] is None
    message = plain.handle("progress", {})["message"]
    assert message.startswith("Too early to say how far to go") and "estimate" not in message


def test_a_random_sample_without_an_audit_counts_only_in_its_own_view(tmp_path: Path) -> None:
    table = table_of(3000)
    session = open_session(tmp_path, table, audit=False)
    session.handle("seen", {"rows": list(range(0, 3000, 7))})
    mark(session, *((name, "invalid") for name in table.index[::7]))
    view = session.handle("view", {"group_by": "random"})
    response = session.handle("progress", {})
    rate = response["random_sample"]
    assert rate["drawn"] == 100 and rate["reviewed"] == 0 and rate["rate"] is None, "marked elsewhere does not count"
    assert response["estimate"] is None
    rows = session.handle("block", {"view": view["view"], "number": 0})["rows"]
    assert rows == session.store.drawn and len(set(rows)) == 100
    session.handle("seen", {"rows": rows[:50] + rows[60:80], "random": True})
    response = session.handle("progress", {})
    rate, estimate = response["random_sample"], response["estimate"]
    wrong = sum(row % 7 == 0 for row in rows[:50])
    assert rate["reviewed"] == 50 and rate["wrong"] == wrong and rate["rate"] == pytest.approx(2 * wrong)
    interval = binomtest(wrong, 50).proportion_ci(0.95, method="exact")
    assert rate["interval"] == pytest.approx([100 * interval.low, 100 * interval.high], abs=1e-3)
    assert estimate["wrong"] == pytest.approx(60 * wrong) and estimate["interval"] == rate["wrong_in_all"]
    session.handle("review_group", {"view": view["view"], "group": 0})
    assert session.handle("progress", {})["random_sample"]["reviewed"] == 100
    session.handle("undo", {})
    assert session.handle("progress", {})["random_sample"]["reviewed"] == 50, "an undone action does not count"
    session.close()
    again = open_session(tmp_path, table, audit=False)
    assert again.handle("progress", {})["random_sample"]["reviewed"] == 50 and again.store.drawn == rows
    again.handle("draw", {"count": 30})
    assert again.store.drawn[:100] == rows and len(set(again.store.drawn)) == 130


def test_rate_is_unbiased_and_its_interval_covers() -> None:
    """2% of 5,000 are wrong: over many draws the mean rate is 2%, and 95% of the intervals contain it."""

    rates, covered = [], 0
    for seed in range(400):
        rows = np.asarray(draw_random(5000, [], 200, seed))
        k = int((rows < 100).sum())
        low, high = binomtest(k, 200).proportion_ci(0.95, method="exact")
        rates.append(k / 200)
        covered += low <= 0.02 <= high
    assert np.mean(rates) == pytest.approx(0.02, abs=0.0015) and covered >= 0.93 * 400
    more = draw_random(5000, [1, 2, 3], 5000, 0)
    assert sorted([*more, 1, 2, 3]) == list(range(5000))


def test_pace_leaves_out_breaks() -> None:
    pace = Pace()
    pace.add(seen=60, marked=6, at=0)
    pace.add(seen=60, marked=0, at=14)
    assert pace.rates(at=20) == (480.0, 24.0)
    pace.add(seen=60, at=400)
    assert pace.rates(at=410) == (360.0, 12.0)
    assert pace.rates(at=2000) == (0.0, 0.0)


def test_seen_samples_are_kept_and_a_truncated_line_is_skipped(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    session.handle("seen", {"rows": [1, 2, 3]})
    session.handle("seen", {"rows": [3, 4]})
    session.close()
    with open(tmp_path / "seen.jsonl", "ab") as file:
        file.write(b'{"seen":["stop/00')
    again = SeenLog(tmp_path / "seen.jsonl", session.samples)
    assert np.flatnonzero(again.seen).tolist() == [1, 2, 3, 4] and again.order == [1, 2, 3, 4]
    again.add([9])
    again.close()
    assert np.flatnonzero(SeenLog(tmp_path / "seen.jsonl", session.samples).seen).tolist() == [1, 2, 3, 4, 9]


def test_a_full_disk_does_not_lose_what_was_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written is not held as seen, so that the page's next try writes it."""
    session = open_session(tmp_path)
    session.handle("seen", {"rows": [1]})
    file = session.seen_log._file

    class FullDisk:
        def write(self, data: bytes) -> int:
            file.write(bytes(data)[:5])  # a part of the line fits
            raise OSError(errno.ENOSPC, "No space left on device")

        def fileno(self) -> int:
            return file.fileno()

    monkeypatch.setattr(session.seen_log, "_file", FullDisk())
    status, response = session.respond("seen", {"rows": [1, 2, 3]})
    assert status == 507 and "No space left" in response["error"]
    assert np.flatnonzero(session.seen_log.seen).tolist() == [1]
    monkeypatch.setattr(session.seen_log, "_file", file)
    assert session.handle("seen", {"rows": [1, 2, 3]})["new"] == 2
    session.close()
    again = SeenLog(tmp_path / "seen.jsonl", session.samples)
    assert np.flatnonzero(again.seen).tolist() == [1, 2, 3]
