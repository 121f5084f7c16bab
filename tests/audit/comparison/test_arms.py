"""Before against after: small tables judged by hand, and the published table."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from comparison_helpers import summarize

from mlfix_train.audit.comparison.study import ArmRuns
from mlfix_train.audit.reporting.comparison_report import comparison_markdown
from mlfix_train.errors import ConfigError, RunError

GIVEN = dict(
    zip("abcdefgh", ["speed-50", "speed-50", "speed-70", "speed-70", "stop", "stop", "yield", "yield"], strict=True)
)
FIXES = {"b": "invalid", "d": "speed-50", "h": "stop", "t1": "invalid", "t2": "stop"}
"""b goes, d and h get a new label; t1 and t2 are no held-out samples."""


def run(preds: str | list[str], given: dict[str, str] = GIVEN) -> pd.DataFrame:
    names = {"5": "speed-50", "7": "speed-70", "s": "stop", "y": "yield"}
    return pd.DataFrame({"sample_id": list(given), "label": list(given.values()), "pred": [names[p] for p in preds]})


def arm(name: str, **runs: str) -> ArmRuns:
    return ArmRuns(name, {f"seed={seed[1:]}": run(preds) for seed, preds in runs.items()})


def fixes(answers: dict[str, str] = FIXES) -> pd.DataFrame:
    index = pd.Index(list(answers), name="sample_id", dtype=object)
    return pd.DataFrame({"new_label": pd.Series(list(answers.values()), index=index, dtype=object)})


# given:            5 5 7 7 s s y y      clean: 5 - 7 5 s s y s
ORIGINAL = arm("original", s0="557ssyyy", s1="577ssssy")
#                    wrong given: d f = 2   c? none; wrong clean (7 rows): d f h = 3
#   s1: given wrong: b d g = 3             clean: d g h = 3
FIXED = arm("fixed", s0="5y75ssys", s1="5575ssyy")
#   s0: clean: none = 0                    s1: clean: h = 1
CONTROL = arm("control", s0="557ssyyy", s1="5y75ssss")
#   s0: clean: d f h = 3                   s1: clean: g = 1


def summary(**options: Any) -> dict[str, Any]:
    return summarize(ORIGINAL, FIXED, fixes(), **options)


def test_errors_by_hand() -> None:
    piece = summary()["slices"]["all"]
    assert (piece["rows_original"], piece["rows_clean"]) == (8, 7)
    assert piece["runs"]["original_on_original"] == pytest.approx([100 * 2 / 8, 100 * 3 / 8], abs=1e-5)
    assert piece["runs"]["original_on_clean"] == pytest.approx([100 * 3 / 7, 100 * 3 / 7], abs=1e-5)
    assert piece["runs"]["fixed_on_clean"] == pytest.approx([0, 100 / 7], abs=1e-5)
    assert piece["runs"]["fixed_on_original"] == pytest.approx([100 * 3 / 8, 100 * 1 / 8], abs=1e-5)
    assert piece["error"]["original_on_original"] == pytest.approx(31.25)
    assert piece["error"]["original_on_clean"] == pytest.approx(300 / 7, abs=1e-5)
    assert piece["error"]["fixed_on_clean"] == pytest.approx(50 / 7, abs=1e-5)
    assert piece["effect"]["total"] == pytest.approx(31.25 - 50 / 7, abs=1e-5)
    assert piece["effect"]["evaluation"] == pytest.approx(31.25 - 300 / 7, abs=1e-5)
    assert piece["effect"]["training"] == pytest.approx(250 / 7, abs=1e-5)
    assert list(piece["effect"]["training_runs"].values()) == pytest.approx([300 / 7, 200 / 7], abs=1e-5)


def test_slices_by_the_given_label_and_their_complement() -> None:
    slices = summary(slices={"speed": "speed", "sign": "stop|yield"})["slices"]
    assert list(slices) == ["all", "speed", "not speed", "sign", "not sign"]
    speed, rest = slices["speed"], slices["not speed"]
    assert (speed["rows_original"], speed["rows_clean"]) == (4, 3)
    assert (rest["rows_original"], rest["rows_clean"]) == (4, 4)
    assert speed["runs"]["original_on_original"] == pytest.approx([25, 50])
    assert speed["runs"]["original_on_clean"] == pytest.approx([100 / 3, 100 / 3], abs=1e-5)
    assert speed["runs"]["fixed_on_clean"] == [0, 0]
    assert rest["runs"]["original_on_clean"] == pytest.approx([50, 50])
    assert rest["runs"]["fixed_on_clean"] == [0, 25]
    assert {k: v for k, v in slices["sign"].items() if k != "sentence"} == {
        k: v for k, v in rest.items() if k != "sentence"
    }
    with pytest.raises(ConfigError, match=r"slices\.x=sped"):
        summary(slices={"x": "sped"})


def test_a_slice_that_takes_all_has_no_complement() -> None:
    assert list(summary(slices={"any": "."})["slices"]) == ["all", "any"]


def test_a_slice_may_not_take_the_place_of_all() -> None:
    with pytest.raises(ConfigError, match=r"slices\.all: this name is taken"):
        summary(slices={"all": "speed"})


def test_total_is_evaluation_and_training() -> None:
    rng = np.random.default_rng(0)
    given = {f"s{i}": ("stop", "yield", "speed-50")[i % 3] for i in range(97)}
    for _ in range(5):
        arms = [
            ArmRuns(n, {f"seed={s}": run(list(rng.choice(list("sy5"), 97)), given) for s in range(3)})
            for n in ("original", "fixed", "control")
        ]
        marks = {f"s{i}": str(rng.choice(["invalid", "stop", "yield"])) for i in rng.choice(97, 13, replace=False)}
        found = json.loads(json.dumps(summarize(arms[0], arms[1], fixes(marks), {"speed": "speed"}, arms[2])))
        for piece in found["slices"].values():
            for effect in (piece["effect"], piece["control"]["effect"]):
                assert effect["total"] == pytest.approx(effect["evaluation"] + effect["training"], abs=1e-9)
            assert piece["effect"]["evaluation"] == piece["control"]["effect"]["evaluation"]
            assert np.mean(list(piece["effect"]["training_runs"].values())) == pytest.approx(
                piece["effect"]["training"], abs=1e-5
            )


def test_control_is_judged_as_fixed_is() -> None:
    found = summary(control=CONTROL)
    piece = found["slices"]["all"]
    assert piece["runs"]["control_on_clean"] == pytest.approx([300 / 7, 100 / 7], abs=1e-5)
    assert piece["control"]["effect"]["training"] == pytest.approx(100 / 7, abs=1e-5)
    assert piece["control"]["effect"]["total"] == pytest.approx(31.25 - 200 / 7, abs=1e-5)
    assert {key: piece[key] for key in ("rows_original", "rows_clean", "effect")} == {
        key: summary()["slices"]["all"][key] for key in ("rows_original", "rows_clean", "effect")
    }
    assert "control" not in summary()["slices"]["all"]
    assert list(found["arms"]) == ["original", "fixed", "control"]


def test_what_was_compared() -> None:
    found = summary()
    assert found["held_out"] == 8
    assert found["fixes"] == {"total": 5, "held_out": 3, "training": 2}
    assert found["arms"]["original"]["runs"] == ["seed=0", "seed=1"]
    json.dumps(found, allow_nan=False)


def test_no_fixes_held_out_makes_no_evaluation_effect() -> None:
    piece = summarize(ORIGINAL, FIXED, fixes({"t1": "invalid"}))["slices"]["all"]
    assert piece["rows_clean"] == 8
    assert piece["effect"]["evaluation"] == 0
    assert piece["effect"]["total"] == piece["effect"]["training"]


def test_an_empty_fixes_file_is_accepted() -> None:
    assert summarize(ORIGINAL, FIXED, fixes({}))["slices"]["all"]["rows_clean"] == 8


def test_a_slice_whose_held_out_rows_all_go_has_no_clean_error() -> None:
    gone = fixes(dict.fromkeys("abcd", "invalid"))
    found = summarize(ORIGINAL, FIXED, gone, {"speed": "speed"}, CONTROL)
    piece = found["slices"]["speed"]
    assert (piece["rows_original"], piece["rows_clean"]) == (4, 0)
    assert piece["error"]["original_on_clean"] is None
    assert piece["error"]["original_on_original"] == pytest.approx(37.5)
    assert piece["effect"]["total"] is piece["effect"]["evaluation"] is piece["effect"]["training"] is None
    assert "no held-out sample" in piece["sentence"]
    assert "| speed (4 / 0) | 37.50 (17.68) | – | – | – | – | – | – | no samples left |" in comparison_markdown(found)
    json.dumps(found, allow_nan=False)


def test_rows_may_stand_in_any_order() -> None:
    shuffled = ArmRuns("fixed", {name: t.sample(frac=1, random_state=1) for name, t in FIXED.predictions.items()})
    assert summarize(ORIGINAL, shuffled, fixes()) == summary()


# --- pairs ---


def test_runs_pair_by_seed_and_not_by_place() -> None:
    """The original arm has lost its seed 0: seed 1 pairs with seed 1, and seed 0 of the fixed arm has no partner."""
    original = arm("original", s1="577ssssy", s2="557ssyyy")
    fixed = arm("fixed", s0="yyyyyyyy", s1="5575ssyy", s2="5y75ssys")
    effect = summarize(original, fixed, fixes())["slices"]["all"]["effect"]
    assert list(effect["training_runs"].values()) == pytest.approx([200 / 7, 300 / 7], abs=1e-5)


def test_a_run_without_a_partner_is_named_and_counts_in_no_mean() -> None:
    original = arm("original", s1="577ssssy", s2="557ssyyy")
    fixed = arm("fixed", s0="yyyyyyyy", s1="5575ssyy", s2="5y75ssys")
    found = summarize(original, fixed, fixes())
    assert found["left_out"] == ["fixed seed=0"]
    assert found["arms"]["fixed"]["runs"] == ["seed=1", "seed=2"]
    assert found["slices"]["all"]["runs"]["fixed_on_clean"] == pytest.approx([100 / 7, 0], abs=1e-5)


def test_too_few_common_seeds_make_no_pairs() -> None:
    found = summarize(
        arm("original", s1="577ssssy", s2="557ssyyy"), arm("fixed", s0="yyyyyyyy", s1="5575ssyy"), fixes()
    )
    effect = found["slices"]["all"]["effect"]
    assert not effect["paired"] and effect["runs"] == [2, 2] and "training_runs" not in effect


def test_the_sentence_and_the_table_hold_the_numbers() -> None:
    found = summary(slices={"speed": "speed"}, control=CONTROL)
    words = found["slices"]["all"]["sentence"]
    assert "is 36 points lower" in words
    assert "better in 2 of 2 pairs of runs" in words
    assert (
        "changes no model, raises the error by 11.61 points; with the training effect, the error is 24.11 points lower"
        in words
    )
    text = comparison_markdown(found)
    row = "| all (8 / 7) | 31 (9) | 43 (0) | 7 (10) | 29 (20) | −12 | +36 ["
    assert any(line.startswith(row) for line in text.splitlines()), text
    assert (
        "Runs: 2 original, 2 fixed, 2 control. Held-out samples: 8. "
        "Fixes: 5, of which 2 in training and 3 held out. " in text
    )
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1, "every row has the header's cells"


def test_worse_is_called_worse() -> None:
    worse = summarize(arm("original", s0="5575ssys"), arm("fixed", s0="yyyyssys"), fixes())
    assert re.search(r"is \d+\.\d\d points higher, .*train more seeds", worse["slices"]["all"]["sentence"])
    assert worse["slices"]["all"]["effect"]["training"] < 0


# --- arms that don't belong together ---


def test_arms_of_other_samples_are_refused_by_name() -> None:
    fewer = ArmRuns("fixed", {"seed=3": run("5y75ssy", dict(list(GIVEN.items())[:7]))})
    with pytest.raises(RunError, match=r"fixed seed=3 and original seed=0 .* 1 samples differ: h"):
        summarize(ORIGINAL, fewer, fixes({"a": "invalid"}))


def test_runs_of_one_arm_with_other_labels_are_refused_by_name() -> None:
    odd = ArmRuns(
        "original", {"seed=0": run("557ssyyy"), "seed=9": run("557ssyyy", {**GIVEN, "c": "stop", "d": "stop"})}
    )
    with pytest.raises(
        RunError, match=r"original seed=9 and original seed=0 .* 2 samples have a different given label"
    ):
        summarize(odd, FIXED, fixes())


def test_an_arm_without_runs_is_refused() -> None:
    with pytest.raises(RunError, match="the arm control has no runs"):
        summary(control=ArmRuns("control", {}))


# --- the published table ---

TABLE = {"all": (7.28, 7.10, 7.05), "speed": (10.42, 8.84, 8.49), "not speed": (6.90, 6.90, 6.88)}


def test_the_published_table_on_given_and_clean_rows(published: Any) -> None:
    original = ArmRuns("original", published.arms["original"])
    found = summarize(original, ArmRuns("fixed", published.arms["original"]), published.fixes, {"speed": "speed"})
    assert found["held_out"] == 13_938
    assert found["fixes"] == {"total": 227, "held_out": 45, "training": 182}
    rows = {name: (piece["rows_original"], piece["rows_clean"]) for name, piece in found["slices"].items()}
    assert rows == {"all": (13_938, 13_893), "speed": (1512, 1467), "not speed": (12_426, 12_426)}
    for name, (before, clean, _) in TABLE.items():
        error = found["slices"][name]["error"]
        assert round(error["original_on_original"], 2) == before, name
        assert round(error["original_on_clean"], 2) == clean, name
        assert found["slices"][name]["effect"]["training"] == 0


def test_the_published_table_over_the_rows_of_both_arms(published: Any) -> None:
    common = set(published.arms["fixed"]["0"]["sample_id"])
    arms = {
        name: ArmRuns(name, {run: table[table["sample_id"].astype(object).isin(common)] for run, table in runs.items()})
        for name, runs in published.arms.items()
    }
    found = summarize(arms["original"], arms["fixed"], published.fixes, {"speed": "speed"})
    assert found["held_out"] == 13_893
    for name, (_, clean, fixed) in TABLE.items():
        piece = found["slices"][name]
        assert round(piece["error"]["original_on_clean"], 2) == clean, name
        assert round(piece["error"]["fixed_on_clean"], 2) == fixed, name
        assert len(piece["effect"]["training_runs"]) == 20
    speed = found["slices"]["speed"]["runs"]
    before, after = np.array(speed["original_on_clean"]), np.array(speed["fixed_on_clean"])
    assert round(found["slices"]["speed"]["effect"]["training"], 2) == 0.35
    welch = (before.mean() - after.mean()) / np.sqrt(before.var(ddof=1) / 20 + after.var(ddof=1) / 20)
    assert round(welch, 1) == 2.2


def test_the_published_files_as_they_are(published: Any) -> None:
    arms = {name: ArmRuns(name, runs) for name, runs in published.arms.items()}
    found = summarize(arms["original"], arms["fixed"], published.fixes, {"speed": "speed"})
    for name, wanted in TABLE.items():
        error = found["slices"][name]["error"]
        keys = ("original_on_original", "original_on_clean", "fixed_on_clean")
        assert tuple(round(error[key], 2) for key in keys) == wanted
        assert error["fixed_on_original"] is None or name == "not speed"
    speed = found["slices"]["speed"]["effect"]
    assert [round(speed[key], 2) for key in ("total", "evaluation", "training")] == [1.93, 1.58, 0.35]


def test_equal_arms_of_unequal_runs_can_be_written() -> None:
    table = pd.DataFrame({"sample_id": [f"s{i}" for i in range(13)], "label": "a", "pred": ["b"] * 3 + ["a"] * 10})
    fixes = pd.DataFrame({"new_label": ["invalid"]}, index=pd.Index(["s0"], dtype=object))
    arms = [ArmRuns(n, {str(i): table for i in range(r)}, False) for n, r in (("original", 3), ("fixed", 6))]
    json.dumps(summarize(*arms, fixes, resamples=100), allow_nan=False)
