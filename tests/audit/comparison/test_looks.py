"""The record of looks at a study, and what is said about them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from mlfix_train.audit.comparison.looks import LookRecord, describe_looks, looks_sentence
from mlfix_train.audit.comparison.sequential import LookPlan
from mlfix_train.audit.comparison.study import ArmRuns
from mlfix_train.errors import RunError

PLAN = LookPlan(20, 4, effect=0.5)


def seeds(runs: int) -> dict[str, list[str]]:
    return {arm: [f"seed={seed}" for seed in range(runs)] for arm in ("original", "fixed")}


def test_looks_are_kept_and_each_number_of_runs_counts_once(tmp_path: Path) -> None:
    record = LookRecord(tmp_path)
    assert record.plan is None and record.taken == ()
    record.begin(PLAN, {"speed": "^speed"}, "speed")
    record.add(seeds(4), "Not shown yet")
    LookRecord(tmp_path).add(seeds(8), "Shown")
    again = LookRecord(tmp_path)
    again.add(seeds(8), "Shown")
    assert again.taken == (4, 8) and again.plan == LookPlan(20, 4, (4, 8))
    assert again.content["plan"]["slices"] == {"speed": "^speed"} and again.content["plan"]["primary"] == "speed"
    again.begin(PLAN, {"speed": "^speed"}, "speed")  # the same command again


def test_a_seed_that_was_trained_late_stays_behind_those_of_earlier_looks(tmp_path: Path) -> None:
    names = ["seed=0", "seed=2", "seed=3", "seed=4"]  # seed 1 failed, and was trained again later
    LookRecord(tmp_path).add({"original": names, "fixed": names}, "")
    arm = ArmRuns("fixed", {f"seed={seed}": pd.DataFrame() for seed in range(6)})
    assert list(LookRecord(tmp_path).in_order(arm).predictions) == [*names, "seed=1", "seed=5"]
    assert list(LookRecord(tmp_path / "new").in_order(arm).predictions) == list(arm.predictions)


def test_another_plan_or_one_after_the_fact_is_refused(tmp_path: Path) -> None:
    LookRecord(tmp_path / "a").begin(PLAN, {}, "sped")
    LookRecord(tmp_path / "a").begin(PLAN, {}, None)  # nothing was looked at yet
    LookRecord(tmp_path / "a").add(seeds(4), "")
    with pytest.raises(RunError, match="begun with another plan") as caught:
        LookRecord(tmp_path / "a").begin(LookPlan(40, 4), {}, None)
    assert caught.value.details == ("max_runs: 20 -> 40",) and "name=" in caught.value.hint
    LookRecord(tmp_path / "b").add(seeds(5), "")
    with pytest.raises(RunError, match=r"looked at without a plan \(after 5 runs"):
        LookRecord(tmp_path / "b").begin(PLAN, {}, None)
    (tmp_path / "b/looks.json").write_text("[")
    with pytest.raises(RunError, match=r"looks\.json can't be read"):
        LookRecord(tmp_path / "b")


def test_looks_without_a_plan_are_told_with_their_error() -> None:
    looks = describe_looks(None, None, [4, 8, 12, 16, 20], 3, True)
    assert looks is not None and looks["error_of_the_first_kind"] == pytest.approx(0.142, abs=1e-3)
    said = looks_sentence(looks)
    assert "looked at 5 times, after 4, 8, 12, 16 and 20 runs of each arm, without a plan" in said
    assert "14% of studies of nothing" in said and "stop=auto" in said
    assert describe_looks(None, None, [20], 3, True) is None and describe_looks(None, None, [20, 20], 3, True) is None
    assert looks_sentence(None) == ""


@pytest.mark.parametrize(
    ("taken", "shown", "futile", "decision", "saved", "words"),
    [
        ((4, 8), True, False, "shown", 36, "36 planned runs were saved"),
        ((4, 8), False, True, "futile", 36, "could hardly show an effect of 0.5 points"),
        ((4, 8), False, False, "continue", 0, "the next look is at 12 runs"),
        ((4, 20), False, False, "complete", 0, "All planned runs are there"),
        ((4, 20), True, False, "shown", 0, "All planned runs are there"),
    ],
)
def test_what_a_planned_look_decides(
    taken: tuple[int, ...], shown: bool, futile: bool, decision: str, saved: int, words: str
) -> None:
    ordering = "stagewise" if decision in ("shown", "complete") else "repeated"
    looks = describe_looks(LookPlan(20, 4, taken), {"futile": futile, "ordering": ordering}, taken, 3, shown)
    assert looks is not None and looks["decision"] == decision and looks["runs_saved"] == saved
    said = looks_sentence(looks)
    assert words in said and "as planned" in said and "Pocock" in said
    assert ("stagewise" in said) == (decision in ("shown", "complete"))
