"""Verdicts: each one with its sentence, and no claim of an effect where the interval contains 0."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from comparison_helpers import summarize

from mlfix_train.audit.comparison import verdict
from mlfix_train.audit.comparison.study import ArmRuns
from mlfix_train.audit.comparison.verdict import Verdict
from mlfix_train.audit.reporting.comparison_report import comparison_markdown

CLAIM = re.compile(r"made the models (better|worse)")
SHORT_CLAIM = re.compile(r"^Fixing .* made (better|worse) models:")


def effect(
    training: float | None = 1.0,
    ci: tuple[float, float] | None = (0.5, 1.5),
    p: float | None = 0.01,
    least: float = 0.002,
    **more: Any,
) -> dict[str, Any]:
    if training is None:
        return {
            "total": None,
            "evaluation": None,
            "training": None,
            "training_ci95": None,
            "p_value": None,
            "runs": [0],
            "paired": True,
            **more,
        }
    return {
        "total": training + 2.0,
        "evaluation": 2.0,
        "training": training,
        "p_value": p,
        "smallest_p_value": least,
        "training_ci95": None if ci is None else list(ci),
        "runs": [10],
        "runs_for_80_power": 30,
        "paired": True,
        **more,
    }


def piece(**options: Any) -> dict[str, Any]:
    one = {"effect": effect(**options), "groups_clean": 1234}
    after = None if one["effect"]["training"] is None else 8.0 - one["effect"]["training"]
    one["error"] = {"original_on_original": 10.0, "original_on_clean": 8.0, "fixed_on_clean": after}
    return {**one, "verdict": verdict.judge(one["effect"])}


CASES = {
    Verdict.BETTER: {},
    Verdict.WORSE: {"training": -1.0, "ci": (-1.5, -0.5)},
    Verdict.SUGGESTIVE: {"p": 0.25, "least": 0.25, "runs": [3]},
    Verdict.CONDITIONAL_ON_SAMPLES: {"ci": (-0.5, 2.5)},
    Verdict.NOT_SHOWN: {"ci": (-0.5, 2.5), "p": 0.3},
    Verdict.TOO_FEW_RUNS: {"ci": None, "p": None},
    Verdict.NO_CLEAN_SAMPLES: {"training": None},
}


@pytest.mark.parametrize(("wanted", "options"), CASES.items())
def test_each_verdict(wanted: str, options: dict[str, Any]) -> None:
    assert verdict.judge(effect(**options)) == wanted


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"ci": (0.0, 2.0)}, Verdict.CONDITIONAL_ON_SAMPLES),
        ({"training": -1.0, "ci": (-2.0, 0.0)}, Verdict.CONDITIONAL_ON_SAMPLES),
        ({"ci": (1e-9, 2.0)}, Verdict.BETTER),
        ({"p": 0.05}, Verdict.NOT_SHOWN),
        ({"p": 0.049}, Verdict.BETTER),
        ({"p": 0.06, "least": 0.05}, Verdict.SUGGESTIVE),
        ({"p": 0.06, "least": 0.049}, Verdict.NOT_SHOWN),
        ({"training": -1.0, "ci": (-2.0, -0.1), "p": 0.5, "least": 0.5}, Verdict.SUGGESTIVE),
        ({"ci": (-1.0, 2.0), "p": 0.5, "least": 0.5}, Verdict.NOT_SHOWN),
        ({"ci": (0.2, 2.0), "p": None}, Verdict.TOO_FEW_RUNS),
        ({"training": 0.0, "ci": (0.0, 0.0), "p": 1.0}, Verdict.NOT_SHOWN),
    ],
)
def test_verdicts_at_their_edges(options: dict[str, Any], wanted: str) -> None:
    assert verdict.judge(effect(**options)) == wanted


LESS, MORE = "the error on the same clean samples is 1.00 points lower", "samples is 1.00 points higher"
ABOUT = "the error on the same clean samples is 1.0 points lower"  # an interval of 3 points gives fewer digits
SENTENCES = {
    Verdict.BETTER: [
        "On speed, training on the fixed labels made the models better: ",
        LESS,
        "7.00% instead of 8.00%",
        "(95% interval 0.50 to 1.50, p = 0.010).",
    ],
    Verdict.WORSE: [
        "On speed, training on the fixed labels made the models worse: ",
        MORE,
        "9.00% instead of 8.00%",
        "(95% interval 0.50 to 1.50, p = 0.010).",
    ],
    Verdict.SUGGESTIVE: [
        "On speed, there are signs of better models, but no proof: ",
        LESS,
        "(95% interval 0.50 to 1.50, p = 0.25)",
        "With so few runs p can't be lower than 0.25; train at least 6 seeds.",
    ],
    Verdict.CONDITIONAL_ON_SAMPLES: [
        "On speed, ",
        ABOUT,
        "On these very images the variation between runs alone does not explain it",
        "(95% interval −0.5 to 2.5, p = 0.010)",
        "an effect is not shown, since the interval contains 0.",
    ],
    Verdict.NOT_SHOWN: [
        "On speed, no effect of training on the fixed labels is shown: ",
        ABOUT,
        "(95% interval −0.5 to 2.5, p = 0.30).",
    ],
    Verdict.TOO_FEW_RUNS: ["On speed, ", LESS, "can't tell an effect from chance", "train more seeds."],
    Verdict.NO_CLEAN_SAMPLES: ["On speed: the fixes leave no held-out sample to evaluate on."],
}


@pytest.mark.parametrize(("found", "words"), SENTENCES.items())
def test_each_sentence(found: str, words: list[str]) -> None:
    said = verdict.sentence("speed", piece(**CASES[found]))
    assert said.startswith(words[0]), said
    places = [said.find(word) for word in words]
    assert places == sorted(places) and min(places) >= 0, said
    needed = "Showing an effect of this size with 80% power would take about 30 runs of each arm (here 10)."
    assert (needed in said) == (found in (Verdict.CONDITIONAL_ON_SAMPLES, Verdict.NOT_SHOWN))
    total = "1.00" if found == Verdict.WORSE else "3.00"
    evaluation = (
        "Evaluating on clean labels, which changes no model, lowers the error by 2.00 points; with the training "
        f"effect, the error is {total} points lower."
    )
    assert (evaluation in said) == (found != Verdict.NO_CLEAN_SAMPLES)
    assert said.endswith(".") and "  " not in said


def test_sentences_judge_where_no_verdict_was_given() -> None:
    one = piece()
    without = {key: value for key, value in one.items() if key != "verdict"}
    assert verdict.sentence("all", without) == verdict.sentence("all", one)


@pytest.mark.parametrize(
    ("name", "start"), [("all", "On all samples"), ("speed", "On speed"), ("not speed", "Outside speed")]
)
def test_sentences_begin_with_the_slice(name: str, start: str) -> None:
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
        ({"runs_for_80_power": None, "sd_samples": 0.4}, "the 1,234 groups of held-out samples are too few"),
        ({"runs_for_80_power": 30, "runs": [3, 7]}, "(here 7)"),
    ],
)
def test_what_it_would_take(options: dict[str, Any], told: str) -> None:
    assert told in verdict.sentence("all", piece(ci=(-1, 3), p=0.4, **options))


def test_nothing_is_asked_for_where_there_is_no_effect_at_all() -> None:
    said = verdict.sentence("all", piece(training=0.0, ci=(0.0, 0.0), p=1.0, runs_for_80_power=None))
    assert "no effect of training on the fixed labels is shown" in said
    assert "too few" not in said and "80% power" not in said


@pytest.mark.parametrize(
    ("total", "evaluation", "words"),
    [
        (3.0, 2.0, "lowers the error by 2.00 points; with the training effect, the error is 3.00"),
        (1.0, -1.5, "raises the error by 1.50 points; with"),
        (-0.5, 0.7, "lowers the error by 0.70 points; with the training effect, the error is 0.5"),
        (1.0, 0.0, "changes nothing here."),
        (None, None, ""),
    ],
)
def test_evaluation_sentence(total: float | None, evaluation: float | None, words: str) -> None:
    said = verdict.evaluation_sentence({"total": total, "evaluation": evaluation})
    assert words in said and bool(said) == bool(words)


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
def test_format_p(p: float | None, text: str) -> None:
    assert verdict.format_p(p) == text


def test_format_points_and_signed() -> None:
    assert verdict.format_points(-0.346) == "0.35 points" and verdict.format_points(0.0012) == "0.0012 points"
    assert verdict.signed(-1.005e1) == "−10.05" and verdict.signed(0.5) == "0.50"


# --- no claim without proof ---


def summary(**pieces: dict[str, Any]) -> dict[str, Any]:
    return {"slices": pieces, "fixes": {"total": 102}}


def test_no_text_claims_an_effect_where_the_interval_contains_0() -> None:
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
                assert "not shown" in said or "no effect of training on the fixed labels is shown" in said
                assert head.startswith("Not shown") or "no proof" in head
            if proven:
                way = "better" if training > 0 else "worse"
                assert f"made the models {way}" in said and f"made {way} models: " in head
                assert ("points lower" in said.partition("Evaluating")[0]) == (training > 0)
            seen.add(one["verdict"])
    assert seen == {
        Verdict.BETTER,
        Verdict.WORSE,
        Verdict.SUGGESTIVE,
        Verdict.CONDITIONAL_ON_SAMPLES,
        Verdict.NOT_SHOWN,
    }


def test_whole_comparisons_claim_only_what_their_interval_supports() -> None:
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
        found = summarize(*arms, fixes, {"speed": "speed", "some": ["stop"]}, resamples=300, details=False)
        for name, one in found["slices"].items():
            ci, said = one["effect"]["training_ci95"], one["sentence"]
            if ci is None or ci[0] <= 0 <= ci[1] or one["effect"]["p_value"] >= 0.05:
                assert not CLAIM.search(said), (name, said)
            assert said in comparison_markdown(found)
            seen.add(one["verdict"])
    assert {Verdict.BETTER, Verdict.WORSE, Verdict.NOT_SHOWN, Verdict.TOO_FEW_RUNS} <= seen


# --- headline ---

FIVE = {
    "shown": (
        piece(training=7.0, ci=(1.9, 11.6)),
        "Fixing 102 labels made better models: 7.0 points less error on speed (95% interval 1.9 to 11.6).",
    ),
    "not shown": (
        piece(ci=(-0.52, 2.5), p=0.3, runs_for_80_power=16),
        "Not shown yet: 1.0 points less error on speed (95% interval −0.5 to 2.5); about 6 more seeds would tell.",
    ),
    "hint": (
        piece(training=0.35, ci=(-0.03, 0.74), p=0.038),
        "A hint, no proof: 0.35 points less error on speed (95% interval −0.03 to 0.74); other images may differ.",
    ),
    "harm": (
        piece(training=-1.0, ci=(-1.51, -0.5)),
        "Fixing 102 labels made worse models: 1.00 points more error on speed (95% interval 0.50 to 1.51).",
    ),
    "too few": (piece(ci=None, p=None), "Too few runs to tell: 1.00 points less error on speed; train more seeds."),
    "signs": (
        piece(**CASES[Verdict.SUGGESTIVE]),
        "A hint, no proof: 1.00 points less error on speed (95% interval 0.50 to 1.50); train at least 6 seeds.",
    ),
}


@pytest.mark.parametrize(("one", "words"), FIVE.values(), ids=FIVE)
def test_each_headline(one: dict[str, Any], words: str) -> None:
    assert verdict.headline(summary(speed=one, all=piece(training=None))) == words


def test_headlines_have_at_most_25_words() -> None:
    looks = {"planned": True, "effect": 0.5, "next": 12}
    for one, _ in FIVE.values():
        for name, decision in itertools.product(
            ("all", "not speed", "a very long name of a slice"), ("continue", "futile")
        ):
            whole = {**summary(**{name: one}), "looks": {**looks, "decision": decision}}
            for said in (verdict.headline(whole), verdict.headline(summary(**{name: one}))):
                assert len(f"PARTIAL: {said}".split()) <= 25, said


def test_a_study_with_looks_says_what_comes_next() -> None:
    one = piece(ci=(-0.52, 2.5), p=0.3)
    looks = {"planned": True, "effect": 0.5, "next": 12, "decision": "continue"}
    said = verdict.headline({**summary(all=one), "looks": looks})
    assert said.startswith("Not shown yet: ") and said.endswith("; next look at 12 seeds.")
    said = verdict.headline({**summary(all=one), "looks": {**looks, "decision": "futile"}})
    assert said.startswith("Not shown: ") and said.endswith("; more seeds could hardly show 0.5 points.")


def test_the_headline_is_about_the_strongest_slice_or_the_primary_one() -> None:
    not_shown = piece(**CASES[Verdict.NOT_SHOWN])
    whole = summary(
        **{"all": not_shown, "not speed": piece(training=2.0), "speed": piece(), "gone": piece(training=None)}
    )
    assert "on speed" in verdict.headline(whole)
    assert "on all samples" in verdict.headline({**whole, "primary": "all"})
    whole["slices"]["speed"] = not_shown
    assert "outside speed" in verdict.headline(whole)
    del whole["slices"]["not speed"]
    assert "on speed" in verdict.headline(whole), "among equals the user's slice comes first"


def test_better_on_one_slice_and_worse_on_another_is_mixed() -> None:
    worse = piece(training=-1.0, ci=(-1.5, -0.5))
    said = verdict.headline(summary(all=piece(), speed=piece(training=2.0, ci=(1.0, 3.0)), rest=worse))
    assert said == (
        "Mixed: 2.0 points less error on speed (95% interval 1.0 to 3.0), 1.00 more on rest (0.50 to 1.50)."
    )


def test_headline_without_clean_samples_or_groups() -> None:
    assert verdict.headline(summary(all=piece(training=None))) == "The fixes leave no held-out sample to evaluate on."
    one_group = {**piece(ci=None, p=None), "groups_clean": 1}
    assert "hold out more photos or tracks" in verdict.headline(summary(all=one_group))


@pytest.mark.parametrize(
    ("interval", "digits"),
    [((1.9, 11.6), 1), ((-0.03, 0.74), 2), ((-30.0, 10.0), 0), ((0.001, 0.002), 4), ((1.0, 1.0), 2), (None, 2)],
)
def test_digits_are_as_many_as_the_interval_gives(interval: tuple[float, float] | None, digits: int) -> None:
    assert verdict.decimals({"training_ci95": interval}) == digits
