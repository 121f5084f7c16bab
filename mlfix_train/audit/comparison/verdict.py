"""Verdicts: what a comparison shows and what it doesn't, in one plain sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlfix_train.audit.scores.slices import ALL

ALPHA = 0.05
SHOWN = 4
"""Slices that the headline names."""

BETTER, WORSE = "better", "worse"
HINT = "hint"
"""The interval leaves out 0, but with so few runs no permutation test can agree."""
THESE_ROWS = "these_rows"
"""The runs differ on these very samples; the interval, which speaks of other samples too, holds 0."""
NOT_SHOWN = "not_shown"
ONE_RUN = "one_run"
NO_ROWS = "no_rows"


def judge(effect: Mapping[str, Any]) -> str:
    """Returns the verdict on a training effect: shown if the 95% interval leaves out 0 and p is below 0.05."""
    if effect["training"] is None:
        return NO_ROWS
    if effect["training_ci95"] is None or effect["p_value"] is None:
        return ONE_RUN
    low, high = effect["training_ci95"]
    apart, small = not low <= 0 <= high, effect.get("q_value", effect["p_value"]) < ALPHA
    if apart and small:
        return BETTER if effect["training"] > 0 else WORSE
    if apart and effect["p_least"] >= ALPHA:
        return HINT
    return THESE_ROWS if small else NOT_SHOWN


def place(name: str) -> str:
    """Returns the name of a slice as part of a sentence."""
    if name == ALL:
        return "over all rows"
    return f"outside of {name.removeprefix('not ')}" if name.startswith("not ") else f"on {name}"


def points(value: float) -> str:
    """Returns a number of points, without its sign."""
    return f"{abs(value):.2f} points" if abs(value) >= 0.005 or abs(value) < 1e-6 else f"{abs(value):.2g} points"


def certainty(effect: Mapping[str, Any]) -> str:
    """Returns the interval and the p-value in words; empty where there is no interval."""
    if effect["training_ci95"] is None:
        return ""
    low, high = effect["training_ci95"]
    many = f", q = {effect['q_value']:.3f} among the slices" if "q_value" in effect else ""
    return f"95% interval {signed(low)} to {signed(high)}, {p_text(effect['p_value'])}{many}"


def signed(value: float) -> str:
    """Returns a number with two decimals and a true minus."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def p_text(p: float | None) -> str:
    """Returns ``p = 0.034``, ``p < 0.001``, or nothing."""
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def sentence(name: str, piece: Mapping[str, Any]) -> str:
    """Says in plain words what a slice shows and what not, and how much is the yardstick's."""
    effect = piece["effect"]
    where = place(name)
    where = where[0].upper() + where[1:]
    found = piece.get("verdict") or judge(effect)
    if found == NO_ROWS:
        return f"{where}: the fixes leave no held-out sample to judge by."
    less = "less" if effect["training"] >= 0 else "more"
    error = piece["error"]
    fact = (
        f"models trained on the fixed labels err {points(effect['training'])} {less} on the same clean rows, "
        f"{error['fixed_on_clean']:.2f}% instead of {error['original_on_clean']:.2f}%"
    )
    texts = {
        BETTER: f"{where} the fixed labels made better models: {_they(fact)} ({_sure(effect)}).",
        WORSE: f"{where} the fixed labels made worse models: {_they(fact)} ({_sure(effect)}).",
        HINT: f"{where} there is a hint of {'better' if effect['training'] > 0 else 'worse'} models, and no proof: "
        f"{_they(fact)} ({_sure(effect)}), but so few runs can't bring p below {effect['p_least']:.2g}; "
        "train 6 seeds or more.",
        THESE_ROWS: f"{where} {fact}: on these very images more than chance between runs explains ({_sure(effect)}); "
        f"for other images of the kind it is not shown, since the interval holds 0. {_more(piece)}",
        NOT_SHOWN: f"{where} no effect of training is shown: {fact} ({_sure(effect)}). {_more(piece)}",
        ONE_RUN: f"{where} {fact}; but {_lone(piece)}",
    }
    return " ".join(f"{texts[found]} {beyond_control(piece)} {yardstick(effect)}".split())


def _lone(piece: Mapping[str, Any]) -> str:
    if piece.get("groups_clean", 2) < 2:
        return "all its samples are of one group (photo or track), which says nothing of others: hold out more of them."
    return "one run of an arm can't tell an effect from chance: train more seeds."


def beyond_control(piece: Mapping[str, Any]) -> str:
    """Says how much of the training effect is more than taking out as many random samples does, where that is known."""
    cleaning = piece.get("control", {}).get("cleaning")
    if not cleaning or cleaning["training"] is None:
        return ""
    sure = certainty(cleaning)
    return (
        f"Against the control arm, which lost as many random samples, the fixed labels gain "
        f"{signed(cleaning['training'])} points{f' ({sure})' if sure else ''}."
    )


def _they(fact: str) -> str:
    return fact.replace("models trained on the fixed labels", "they")


def _sure(effect: Mapping[str, Any]) -> str:
    text = certainty(effect)
    each = effect.get("training_runs")
    if each:
        better = sum(value > 0 for value in each.values())
        text += f", better in {better} of {len(each)} pairs of runs"
    return text


def _more(piece: Mapping[str, Any]) -> str:
    """Says what it would take to show an effect of this size."""
    effect = piece["effect"]
    if abs(effect["training"]) < 1e-9:
        return ""
    needed, have = effect["runs_for_80_power"], max(effect["runs"])
    if needed is None and effect.get("sd_samples") == 0:
        return "To show an effect of this size with 80% power would take more than 10,000 runs of each arm."
    if needed is None:
        return (f"An effect of this size can't be shown by more runs alone: the {piece['groups_clean']:,} held-out "
                "groups of samples are too few.")  # fmt: skip
    if needed <= have:
        return f"A repetition with {have} runs of each arm would show an effect of this size with more than 80% power."
    return f"To show an effect of this size with 80% power would take about {needed:,} runs of each arm (here {have})."


def yardstick(effect: Mapping[str, Any]) -> str:
    """Says how much of the total comes from judging by cleaner labels."""
    total, evaluation = effect["total"], effect["evaluation"]
    if total is None:
        return ""
    if abs(evaluation) < 0.005:
        return "The cleaner yardstick changes nothing here."
    lowers = "lowers" if evaluation > 0 else "raises"
    return (
        f"Judging by cleaner labels {lowers} the error by {abs(evaluation):.2f} points on top, "
        f"which is no better model ({signed(total)} in all)."
    )


def headline(summary: Mapping[str, Any]) -> str:
    """Returns one sentence over all slices that the user asked for: what was shown, and what not."""
    named = {name: piece for name, piece in summary["slices"].items() if not name.startswith("not ")}
    told = []
    ranked = sorted(named.items(), key=lambda item: (_order(item[1]), item[0] == ALL))
    place_of_all = next((i for i, (name, _) in enumerate(ranked) if name == ALL), 0)
    if place_of_all >= SHOWN:  # whatever else there is, all rows are spoken of
        ranked.insert(SHOWN - 1, ranked.pop(place_of_all))
    for name, piece in ranked:
        effect, found = piece["effect"], piece["verdict"]
        if found == NO_ROWS:
            continue
        told.append(f"{place(name)}, {_short(effect, found)}{_cleaning(piece)}")
    if not told:
        return "The fixes leave no held-out sample to judge by."
    text = "; ".join(told[:SHOWN]) + (f"; and {len(told) - SHOWN} more slices below" if len(told) > SHOWN else "")
    return f"Training on the fixed labels: {text}.{_share(named)}"


def _cleaning(piece: Mapping[str, Any]) -> str:
    cleaning = piece.get("control", {}).get("cleaning")
    if not cleaning or cleaning["training"] is None or piece["verdict"] not in (BETTER, WORSE, HINT, THESE_ROWS):
        return ""
    ends = cleaning["training_ci95"]
    sure = f" ({signed(ends[0])} to {signed(ends[1])})" if ends else ""
    return f", {signed(cleaning['training'])} against the control arm{sure}"


def _share(named: Mapping[str, Any]) -> str:
    """Says of the slice with the largest total how much of it is the yardstick's."""
    totals = {name: piece["effect"] for name, piece in named.items() if piece["effect"]["total"] is not None}
    if not totals:
        return ""
    name, effect = max(totals.items(), key=lambda item: abs(item[1]["total"]))
    if abs(effect["evaluation"]) < 0.005:
        return ""
    if effect["total"] * effect["evaluation"] < 0 or abs(effect["evaluation"]) > abs(effect["total"]):
        lowers = "lowers" if effect["evaluation"] > 0 else "raises"
        size = points(effect["evaluation"])
        return f" Judging by cleaner labels alone {lowers} the error {place(name)} by {size}."
    falls = "falls" if effect["total"] >= 0 else "rises"
    return (
        f" Of the {abs(effect['total']):.2f} points by which the error {place(name)} {falls} in all, "
        f"{signed(effect['evaluation'] if effect['total'] >= 0 else -effect['evaluation'])} come from judging by "
        "cleaner labels."
    )


def _order(piece: Mapping[str, Any]) -> int:
    return [BETTER, WORSE, HINT, THESE_ROWS, NOT_SHOWN, ONE_RUN, NO_ROWS].index(piece["verdict"])


def _short(effect: Mapping[str, Any], found: str) -> str:
    size = points(effect["training"])
    less = f"{size} {'less' if effect['training'] >= 0 else 'more'} error"
    sure = "" if effect["training_ci95"] is None else f" ({certainty(effect)})"
    return {
        BETTER: f"better models: {less}{sure}",
        WORSE: f"worse models: {less}{sure}",
        HINT: f"a hint but no proof: {less}{sure}, with too few runs to test",
        THESE_ROWS: f"{less} on these very images, not shown for other images{sure}",
        NOT_SHOWN: f"no effect shown: {less}{sure}",
        ONE_RUN: f"{less}, from too few runs to tell from chance",
    }[found]
