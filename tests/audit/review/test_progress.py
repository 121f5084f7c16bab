"""How it goes: counts, what is ahead, when looking stops to pay, and the unbiased error rate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from review_helpers import mark, open_desk, ranking_of, table_of
from scipy.stats import binomtest

from mlfix_train.audit.review.progress import Pace, SeenLog, clopper_pearson, draw_random


@pytest.mark.parametrize("k, n", [(0, 10), (1, 10), (10, 10), (7, 200), (199, 200), (0, 1)])
def test_intervals_are_scipys(k: int, n: int) -> None:
    wanted = binomtest(k, n).proportion_ci(0.95, method="exact")
    assert clopper_pearson(k, n) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_counts_and_what_is_ahead(tmp_path: Path) -> None:
    table = table_of(700)
    desk = open_desk(tmp_path, table)
    told = desk.answer("progress", {})
    total = float(ranking_of(table)["suspicion"].sum())
    assert told["ahead"] == pytest.approx(total, abs=0.1) and told["pays"] and told["precision"] is None
    wrong = [name for number, name in enumerate(table.index) if number % 7 == 0]
    desk.answer("seen", {"rows": list(range(0, 350))})
    mark(desk, *((name, "invalid") for name in wrong[:50]))
    told = desk.answer("progress", {})
    assert (told["seen"], told["marked"], told["invalid"]) == (350, 50, 50) and told["precision"] == pytest.approx(
        100 / 7, abs=0.01
    )
    suspicion = desk.samples.suspicion.astype(float)
    factor = (50 + 5) / (suspicion[:350].sum() + 5)
    assert told["ahead"] == pytest.approx(np.minimum(suspicion[350:] * factor, 1).sum(), abs=0.1) and told["pays"]
    desk.answer("seen", {"rows": list(range(350, 700))})
    mark(desk, *((name, "invalid") for name in wrong[50:]))
    told = desk.answer("progress", {})
    assert told["ahead"] == 0 and told["words"] == "Everything has been looked at."


def test_it_says_when_looking_hardly_pays(tmp_path: Path) -> None:
    table = table_of(700)
    desk = open_desk(tmp_path, table)
    wrong = list(range(0, 700, 7))
    desk.answer("seen", {"rows": wrong})
    mark(desk, *((table.index[row], "invalid") for row in wrong))
    left = np.nan_to_num(desk.samples.suspicion[np.arange(700) % 7 != 0])
    told = desk.answer("progress", {})
    assert told["paying"] == int((left >= 0.05).sum()), "a look at a hundred is no reason to correct the audit"
    desk.samples.suspicion[np.arange(700) % 7 != 0] = 0.01
    told = desk.answer("progress", {})
    assert told["pays"] is False and "hardly pays" in told["words"]


def test_without_an_audit_the_last_finds_tell(tmp_path: Path) -> None:
    table = table_of(700)
    desk = open_desk(tmp_path, table, audit=False)
    assert desk.answer("progress", {})["pays"] is None
    desk.answer("seen", {"rows": list(range(300))})
    assert desk.answer("progress", {})["pays"] is False
    mark(desk, *((name, "invalid") for name in table.index[200:220]))
    assert desk.answer("progress", {})["pays"] is True


def test_the_random_sample_is_judged_in_its_own_view_alone(tmp_path: Path) -> None:
    table = table_of(3000)
    desk = open_desk(tmp_path, table)
    desk.answer("seen", {"rows": list(range(0, 3000, 7))})
    mark(desk, *((name, "invalid") for name in table.index[::7]))  # everything suspicious was found
    view = desk.answer("view", {"by": "random"})
    rate = desk.answer("progress", {})["random"]
    assert rate["drawn"] == 200 and rate["judged"] == 0 and rate["rate"] is None, (
        "what was found elsewhere is no sample"
    )
    rows = desk.answer("block", {"view": view["view"], "number": 0})["rows"]
    assert rows == desk.ledger.drawn and len(set(rows)) == 200
    desk.answer("seen", {"rows": rows[:50] + rows[60:80], "random": True})
    rate = desk.answer("progress", {})["random"]
    wrong = sum(row % 7 == 0 for row in rows[:50])
    assert rate["judged"] == 50 and rate["wrong"] == wrong and rate["rate"] == pytest.approx(2 * wrong)
    interval = binomtest(wrong, 50).proportion_ci(0.95, method="exact")
    assert rate["interval"] == pytest.approx([100 * interval.low, 100 * interval.high], abs=1e-3)
    desk.answer("fine", {"view": view["view"], "group": 0})
    assert desk.answer("progress", {})["random"]["judged"] == 200
    desk.answer("undo", {})
    assert desk.answer("progress", {})["random"]["judged"] == 50, "a slip of the finger is no judgement"
    desk.close()
    again = open_desk(tmp_path, table)
    assert again.answer("progress", {})["random"]["judged"] == 50 and again.ledger.drawn == rows


def test_the_rate_is_unbiased_and_its_interval_holds() -> None:
    """2% of 5,000 are wrong: over many drawings the mean rate is 2%, and 95% of the intervals hold it."""

    class Thousands:
        def __len__(self) -> int:
            return 5000

    rates, held = [], 0
    for seed in range(400):
        rows = np.asarray(draw_random(Thousands(), [], 200, seed))  # type: ignore[arg-type]
        k = int((rows < 100).sum())
        low, high = clopper_pearson(k, 200)
        rates.append(k / 200)
        held += low <= 0.02 <= high
    assert np.mean(rates) == pytest.approx(0.02, abs=0.0015) and held >= 0.93 * 400
    more = draw_random(Thousands(), [1, 2, 3], 5000, 0)  # type: ignore[arg-type]
    assert sorted([*more, 1, 2, 3]) == list(range(5000))


def test_pace_counts_only_the_time_that_was_worked_in() -> None:
    pace = Pace()
    pace.add(seen=60, marked=6, at=0)
    pace.add(seen=60, marked=0, at=14)
    assert pace.rates(at=20) == (480.0, 24.0)
    pace.add(seen=60, at=400)
    assert pace.rates(at=410) == (360.0, 12.0)
    assert pace.rates(at=2000) == (0.0, 0.0)


def test_what_was_seen_is_kept_and_a_cut_line_is_left_out(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    desk.answer("seen", {"rows": [1, 2, 3]})
    desk.answer("seen", {"rows": [3, 4]})
    desk.close()
    with open(tmp_path / "seen.jsonl", "ab") as file:
        file.write(b'{"seen":["stop/00')
    again = SeenLog(tmp_path / "seen.jsonl", desk.samples)
    assert np.flatnonzero(again.seen).tolist() == [1, 2, 3, 4] and again.order == [1, 2, 3, 4]
    again.add([9])
    again.close()
    assert np.flatnonzero(SeenLog(tmp_path / "seen.jsonl", desk.samples).seen).tolist() == [1, 2, 3, 4, 9]
