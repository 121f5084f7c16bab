"""Verdicts: each one with its sentence, and no claim of an effect where the interval holds 0."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlfix_train.audit.comparison import verdict
from mlfix_train.audit.comparison.arms import ArmRuns, compare_arms
from mlfix_train.audit.reporting.comparison_markdown import markdown

CLAIM = re.compile(r"made (better|worse) models")
SHORT_CLAIM = re.compile(r"(?<!no effect shown: )\b(better|worse) models:")


def effect(
    training: float | None = 1.0,
    ci: tuple[float, float] | None = (0.5, 1.5),
    p: float | None = 0.01,
    least: float = 0.002,
    **more: Any,
) -> dict[str, Any]:
    if training is None:
        return {"total": None, "evaluation": None, "training": None, "training_ci95": None, "p_value": None,
                "runs": [0], "paired": True, **more}  # fmt: skip
    return {
        "total": training + 2.0, "evaluation": 2.0, "training": training, "p_value": p, "p_least": least,
        "training_ci95": None if ci is None else list(ci), "runs": [10], "runs_for_80_power": 30, "paired": True,
        **more,
    }  # fmt: skip


def piece(**options: Any) -> dict[str, Any]:
    one = {"effect": effect(**options), "groups_clean": 1234}
    after = None if one["effect"]["training"] is None else 8.0 - one["effect"]["training"]
    one["error"] = {"original_on_original": 10.0, "original_on_clean": 8.0, "fixed_on_clean": after}
    return {**one, "verdict": verdict.judge(one["effect"])}


CASES = {
    verdict.BETTER: {},
    verdict.WORSE: {"training": -1.0, "ci": (-1.5, -0.5)},
    verdict.HINT: {"p": 0.25, "least": 0.25, "runs": [3]},
    verdict.THESE_ROWS: {"ci": (-0.5, 2.5)},
    verdict.NOT_SHOWN: {"ci": (-0.5, 2.5), "p": 0.3},
    verdict.ONE_RUN: {"ci": None, "p": None},
    verdict.NO_ROWS: {"training": None},
}


@pytest.mark.parametrize(("wanted", "options"), CASES.items())
def test_each_verdict(wanted: str, options: dict[str, Any]) -> None:
    assert verdict.judge(effect(**options)) == wanted


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"ci": (0.0, 2.0)}, verdict.THESE_ROWS),
        ({"training": -1.0, "ci": (-2.0, 0.0)}, verdict.THESE_ROWS),
        ({"ci": (1e-9, 2.0)}, verdict.BETTER),
        ({"p": 0.05}, verdict.NOT_SHOWN),
        ({"p": 0.049}, verdict.BETTER),
        ({"p": 0.06, "least": 0.05}, verdict.HINT),
        ({"p": 0.06, "least": 0.049}, verdict.NOT_SHOWN),
        ({"training": -1.0, "ci": (-2.0, -0.1), "p": 0.5, "least": 0.5}, verdict.HINT),
        ({"ci": (-1.0, 2.0), "p": 0.5, "least": 0.5}, verdict.NOT_SHOWN),
        ({"ci": (0.2, 2.0), "p": None}, verdict.ONE_RUN),
        ({"training": 0.0, "ci": (0.0, 0.0), "p": 1.0}, verdict.NOT_SHOWN),
    ],
)
def test_verdicts_at_their_edges(options: dict[str, Any], wanted: str) -> None:
    assert verdict.judge(effect(**options)) == wanted


LESS, MORE = "1.00 points less on the same clean rows", "1.00 points more on the same clean rows"
SENTENCES = {
    verdict.BETTER: ["On speed the fixed labels made better models: they err ", LESS, "7.00% instead of 8.00%",
                     "(95% interval 0.50 to 1.50, p = 0.010)."],
    verdict.WORSE: ["On speed the fixed labels made worse models: they err ", MORE, "9.00% instead of 8.00%",
                    "(95% interval −1.50 to −0.50, p = 0.010)."],
    verdict.HINT: ["On speed there is a hint of better models, and no proof: they err ", LESS,
                   "(95% interval 0.50 to 1.50, p = 0.25)", "so few runs can't bring p below 0.25; train 6 seeds"],
    verdict.THESE_ROWS: ["On speed models trained on the fixed labels err ", LESS, "on these very images",
                         "(95% interval −0.50 to 2.50, p = 0.010)", "it is not shown, since the interval holds 0."],
    verdict.NOT_SHOWN: ["On speed no effect of training is shown: models trained on the fixed labels err ", LESS,
                        "(95% interval −0.50 to 2.50, p = 0.30)."],
    verdict.ONE_RUN: ["On speed models trained on the fixed labels err ", LESS, "can't tell an effect from chance",
                      "train more seeds."],
    verdict.NO_ROWS: ["On speed: the fixes leave no held-out sample to judge by."],
}  # fmt: skip


@pytest.mark.parametrize(("found", "words"), SENTENCES.items())
def test_each_sentence(found: str, words: list[str]) -> None:
    said = verdict.sentence("speed", piece(**CASES[found]))
    assert said.startswith(words[0]), said
    places = [said.find(word) for word in words]
    assert places == sorted(places) and min(places) >= 0, said
    needed = "To show an effect of this size with 80% power would take about 30 runs of each arm (here 10)."
    assert (needed in said) == (found in (verdict.THESE_ROWS, verdict.NOT_SHOWN))
    total = "1.00" if found == verdict.WORSE else "3.00"
    assert (f"by 2.00 points on top, which is no better model ({total} in all)" in said) == (found != verdict.NO_ROWS)
    assert said.endswith(".") and "  " not in said


def test_sentences_judge_where_no_verdict_was_given() -> None:
    one = piece()
    without = {key: value for key, value in one.items() if key != "verdict"}
    assert verdict.sentence("all", without) == verdict.sentence("all", one)


@pytest.mark.parametrize(
    ("name", "start"), [("all", "Over all rows "), ("speed", "On speed "), ("not speed", "Outside of speed ")]
)
def test_places_in_words(name: str, start: str) -> None:
    for options in CASES.values():
        assert verdict.sentence(name, piece(**options)).startswith(start.strip())


def test_the_sentence_counts_pairs() -> None:
    runs = {"seed=0": 1.0, "seed=1": -0.5, "seed=2": 0.0, "seed=3": 2.5}
    assert "better in 2 of 4 pairs of runs" in verdict.sentence("all", piece(training_runs=runs))
    assert "pairs of runs" not in verdict.sentence("all", piece())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"runs_for_80_power": 1450}, "would take about 1,450 runs of each arm (here 10)"),
        ({"runs_for_80_power": 8}, "A repetition with 10 runs of each arm would show"),
        ({"runs_for_80_power": None, "sd_samples": 0.0}, "would take more than 10,000 runs"),
        ({"runs_for_80_power": None, "sd_samples": 0.4}, "the 1,234 held-out groups of samples are too few"),
        ({"runs_for_80_power": 30, "runs": [3, 7]}, "(here 7)"),
    ],
)
def test_what_it_would_take(options: dict[str, Any], told: str) -> None:
    assert told in verdict.sentence("all", piece(ci=(-1, 3), p=0.4, **options))


def test_nothing_is_asked_for_where_there_is_no_effect_at_all() -> None:
    said = verdict.sentence("all", piece(training=0.0, ci=(0.0, 0.0), p=1.0, runs_for_80_power=None))
    assert "no effect of training is shown" in said
    assert "too few" not in said and "80% power" not in said


@pytest.mark.parametrize(
    ("total", "evaluation", "words"),
    [
        (3.0, 2.0, "Judging by cleaner labels lowers the error by 2.00 points on top, which is no better model (3"),
        (1.0, -1.5, "Judging by cleaner labels raises the error by 1.50 points on top"),
        (-0.5, 0.7, "Judging by cleaner labels lowers the error by 0.70 points on top"),
        (1.0, 0.0, "The cleaner yardstick changes nothing here."),
        (None, None, ""),
    ],
)  # fmt: skip
def test_the_yardsticks_share(total: float | None, evaluation: float | None, words: str) -> None:
    said = verdict.yardstick({"total": total, "evaluation": evaluation})
    assert said.startswith(words) and (said or not words)


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (None, ""),
        (0.0002, "p < 0.001"),
        (0.001, "p = 0.001"),
        (0.0342, "p = 0.034"),
        (0.2, "p = 0.20"),
        (1, "p = 1.00"),
    ],
)
def test_p_in_words(p: float | None, text: str) -> None:
    assert verdict.p_text(p) == text


def test_numbers_in_words() -> None:
    assert verdict.points(-0.346) == "0.35 points" and verdict.points(0.0012) == "0.0012 points"
    assert verdict.signed(-1.005e1) == "−10.05" and verdict.signed(0.5) == "0.50"


# --- no claim without proof ---


def summary(**pieces: dict[str, Any]) -> dict[str, Any]:
    return {"slices": pieces}


def test_no_words_claim_an_effect_where_the_interval_holds_0() -> None:
    ends, ps, leasts = (-2.0, -0.1, 0.0, 0.1, 2.0), (0.0001, 0.04, 0.05, 0.3, 1.0), (0.002, 0.04, 0.25)
    seen = set()
    for low, high, p, least in itertools.product(ends, ends, ps, leasts):
        if low > high:
            continue
        for training in {low, (low + high) / 2, high}:
            one = piece(training=training, ci=(low, high), p=p, least=least)
            said, head = verdict.sentence("all", one), verdict.headline(summary(all=one))
            proven = not low <= 0 <= high and p < 0.05
            assert bool(CLAIM.search(said)) == proven, (low, high, p, said)
            assert bool(SHORT_CLAIM.search(head)) == proven, (low, high, p, head)
            if low <= 0 <= high:
                assert "not shown" in said or "no effect of training is shown" in said
                assert "not shown for other images" in head or "no effect shown" in head
            if proven:
                way = "better" if training > 0 else "worse"
                assert f"made {way} models" in said and f"{way} models: " in head
                assert ("points less" in said) == (training > 0)
            seen.add(one["verdict"])
    assert seen == {verdict.BETTER, verdict.WORSE, verdict.HINT, verdict.THESE_ROWS, verdict.NOT_SHOWN}


def test_whole_comparisons_claim_what_their_interval_bears_out() -> None:
    rng = np.random.default_rng(0)
    given = pd.DataFrame({"sample_id": [f"s{i:02d}" for i in range(60)], "label": ["stop", "yield", "speed"] * 20})
    fixes = pd.DataFrame(
        {"new_label": ["invalid", "stop", "yield"]}, index=pd.Index(["s00", "s01", "s02"], dtype=object)
    )
    seen = set()
    for runs, better in itertools.product((1, 3, 7), (0.0, 0.1, 0.3, -0.3)):
        arms = []
        for name, rate in (("original", 0.4), ("fixed", 0.4 - better)):
            tables = {}
            for seed in range(runs):
                wrong = rng.random(60) < rate
                tables[f"seed={seed}"] = given.assign(pred=np.where(wrong, "other", given["label"]))
            arms.append(ArmRuns(name, tables))
        found = compare_arms(*arms, fixes, {"speed": "speed", "some": ["stop"]}, resamples=300, labels=False)
        for name, one in found["slices"].items():
            ci, said = one["effect"]["training_ci95"], one["sentence"]
            if ci is None or ci[0] <= 0 <= ci[1] or one["effect"]["p_value"] >= 0.05:
                assert not CLAIM.search(said), (name, said)
            assert said in markdown(found)
            seen.add(one["verdict"])
    assert {verdict.BETTER, verdict.WORSE, verdict.NOT_SHOWN, verdict.ONE_RUN} <= seen


# --- headline ---


def test_the_headline_tells_the_surest_first_and_all_rows_last_among_equals() -> None:
    said = verdict.headline(
        summary(
            all=piece(**CASES[verdict.NOT_SHOWN]),
            speed=piece(),
            **{"not speed": piece(training=None)},
            stop=piece(**CASES[verdict.NOT_SHOWN]),
            gone=piece(training=None),
        )
    )
    assert said.startswith(
        "Training on the fixed labels: on speed, better models: 1.00 points less error (95% interval 0.50 to 1.50, "
        "p = 0.010); on stop, no effect shown: 1.00 points less error"
    )
    assert said.index("on stop") < said.index("over all rows")
    assert "gone" not in said and "outside" not in said


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (verdict.BETTER, "better models: 1.00 points less error (95% interval 0.50 to 1.50, p = 0.010)."),
        (verdict.WORSE, "worse models: 1.00 points more error (95% interval −1.50 to −0.50, p = 0.010)."),
        (
            verdict.HINT,
            "a hint but no proof: 1.00 points less error (95% interval 0.50 to 1.50, p = 0.25), "
            "with too few runs to test.",
        ),
        (verdict.THESE_ROWS, "1.00 points less error on these very images, not shown for other images (95%"),
        (verdict.NOT_SHOWN, "no effect shown: 1.00 points less error (95% interval −0.50 to 2.50, p = 0.30)."),
        (verdict.ONE_RUN, "1.00 points less error, from too few runs to tell from chance."),
    ],
)
def test_each_headline(found: str, words: str) -> None:
    said = verdict.headline(summary(all=piece(**CASES[found])))
    assert said.startswith(f"Training on the fixed labels: over all rows, {words}"), said


def test_nothing_to_judge_by_is_said() -> None:
    assert verdict.headline(summary(all=piece(training=None))) == "The fixes leave no held-out sample to judge by."


def test_many_slices_are_counted_and_not_listed() -> None:
    said = verdict.headline(summary(**{f"s{i}": piece() for i in range(7)}))
    assert "; and 3 more slices below." in said and "on s3, " in said and "on s4, " not in said


@pytest.mark.parametrize(
    ("total", "evaluation", "words"),
    [
        (3.0, 2.0, "Of the 3.00 points by which the error on big falls in all, 2.00 come from judging by"),
        (-3.0, -2.0, "Of the 3.00 points by which the error on big rises in all, 2.00 come from judging by cleaner"),
        (-3.0, 1.0, "Judging by cleaner labels alone lowers the error on big by 1.00 points."),
    ],
)  # fmt: skip
def test_the_headline_ends_with_the_yardsticks_share(total: float, evaluation: float, words: str) -> None:
    big = piece(total=total, evaluation=evaluation)
    said = verdict.headline(summary(all=piece(total=0.5, evaluation=0.4), big=big))
    assert words in said
    assert "Of the" not in verdict.headline(summary(all=piece(total=1.0, evaluation=0.0)))
