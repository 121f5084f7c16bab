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
SHORT_CLAIM = re.compile(r"(?<!no effect shown: )\b(better|worse) models:")


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
        "(95% interval −1.50 to −0.50, p = 0.010).",
    ],
    Verdict.SUGGESTIVE: [
        "On speed, there are signs of better models, but no proof: ",
        LESS,
        "(95% interval 0.50 to 1.50, p = 0.25)",
        "With so few runs p can't be lower than 0.25; train at least 6 seeds.",
    ],
    Verdict.CONDITIONAL_ON_SAMPLES: [
        "On speed, ",
        LESS,
        "On these very images the variation between runs alone does not explain it",
        "(95% interval −0.50 to 2.50, p = 0.010)",
        "an effect is not shown, since the interval contains 0.",
    ],
    Verdict.NOT_SHOWN: [
        "On speed, no effect of training on the fixed labels is shown: ",
        LESS,
        "(95% interval −0.50 to 2.50, p = 0.30).",
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
        f"Evaluating on clean labels, which changes no model, lowers the error by 2.00 points ({total} in total)."
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
        (3.0, 2.0, "Evaluating on clean labels, which changes no model, lowers the error by 2.00 points (3.00 in"),
        (1.0, -1.5, "Evaluating on clean labels, which changes no model, raises the error by 1.50 points"),
        (-0.5, 0.7, "Evaluating on clean labels, which changes no model, lowers the error by 0.70 points (−0.50 in"),
        (1.0, 0.0, "Evaluating on clean labels changes nothing here."),
        (None, None, ""),
    ],
)
def test_evaluation_sentence(total: float | None, evaluation: float | None, words: str) -> None:
    said = verdict.evaluation_sentence({"total": total, "evaluation": evaluation})
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
def test_format_p(p: float | None, text: str) -> None:
    assert verdict.format_p(p) == text


def test_format_points_and_signed() -> None:
    assert verdict.format_points(-0.346) == "0.35 points" and verdict.format_points(0.0012) == "0.0012 points"
    assert verdict.signed(-1.005e1) == "−10.05" and verdict.signed(0.5) == "0.50"


# --- no claim without proof ---


def summary(**pieces: dict[str, Any]) -> dict[str, Any]:
    return {"slices": pieces}


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
                assert "not shown for other images" in head or "no effect shown" in head
            if proven:
                way = "better" if training > 0 else "worse"
                assert f"made the models {way}" in said and f"{way} models: " in head
                assert ("points lower" in said) == (training > 0)
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
        found = summarize(*arms, fixes, {"speed": "speed", "some": ["stop"]}, resamples=300, per_label=False)
        for name, one in found["slices"].items():
            ci, said = one["effect"]["training_ci95"], one["sentence"]
            if ci is None or ci[0] <= 0 <= ci[1] or one["effect"]["p_value"] >= 0.05:
                assert not CLAIM.search(said), (name, said)
            assert said in comparison_markdown(found)
            seen.add(one["verdict"])
    assert {Verdict.BETTER, Verdict.WORSE, Verdict.NOT_SHOWN, Verdict.TOO_FEW_RUNS} <= seen


# --- headline ---


def test_the_headline_names_the_strongest_first_and_all_rows_last_among_equals() -> None:
    said = verdict.headline(
        summary(
            all=piece(**CASES[Verdict.NOT_SHOWN]),
            speed=piece(),
            **{"not speed": piece(training=None)},
            stop=piece(**CASES[Verdict.NOT_SHOWN]),
            gone=piece(training=None),
        )
    )
    assert said.startswith(
        "Training on the fixed labels: on speed, better models: 1.00 points less error (95% interval 0.50 to 1.50, "
        "p = 0.010); on stop, no effect shown: 1.00 points less error"
    )
    assert said.index("on stop") < said.index("on all samples")
    assert "gone" not in said and "outside" not in said


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Verdict.BETTER, "better models: 1.00 points less error (95% interval 0.50 to 1.50, p = 0.010)."),
        (Verdict.WORSE, "worse models: 1.00 points more error (95% interval −1.50 to −0.50, p = 0.010)."),
        (
            Verdict.SUGGESTIVE,
            "signs of an effect but no proof: 1.00 points less error (95% interval 0.50 to 1.50, p = 0.25), "
            "with too few runs to test.",
        ),
        (
            Verdict.CONDITIONAL_ON_SAMPLES,
            "1.00 points less error on these very images, not shown for other images (95%",
        ),
        (Verdict.NOT_SHOWN, "no effect shown: 1.00 points less error (95% interval −0.50 to 2.50, p = 0.30)."),
        (Verdict.TOO_FEW_RUNS, "1.00 points less error, with too few runs to tell it from chance."),
    ],
)
def test_each_headline(found: str, words: str) -> None:
    said = verdict.headline(summary(all=piece(**CASES[found])))
    assert said.startswith(f"Training on the fixed labels: on all samples, {words}"), said


def test_headline_without_clean_samples() -> None:
    assert verdict.headline(summary(all=piece(training=None))) == "The fixes leave no held-out sample to evaluate on."


def test_many_slices_are_counted_and_not_listed() -> None:
    said = verdict.headline(summary(**{f"s{i}": piece() for i in range(7)}))
    assert "; and 3 more slices below." in said and "on s3, " in said and "on s4, " not in said


@pytest.mark.parametrize(
    ("total", "evaluation", "words"),
    [
        (3.0, 2.0, "Of the 3.00 points by which the error on big falls in total, 2.00 come from evaluating on"),
        (-3.0, -2.0, "Of the 3.00 points by which the error on big rises in total, 2.00 come from evaluating on clean"),
        (-3.0, 1.0, "Evaluating on clean labels alone lowers the error on big by 1.00 points."),
    ],
)
def test_the_headline_ends_with_the_share_of_the_evaluation_effect(total: float, evaluation: float, words: str) -> None:
    big = piece(total=total, evaluation=evaluation)
    said = verdict.headline(summary(all=piece(total=0.5, evaluation=0.4), big=big))
    assert words in said
    assert "Of the" not in verdict.headline(summary(all=piece(total=1.0, evaluation=0.0)))
