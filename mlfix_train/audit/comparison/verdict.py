"""What a comparison shows and what it does not: a verdict and a sentence for each slice, and one headline."""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from mlfix_train.audit.comparison.significance import ALPHA, MAX_RUNS
from mlfix_train.audit.scores.slices import ALL

NEGLIGIBLE = 0.005  # points that two decimals show as 0.00
MANY_SEEDS = 100  # the headline doesn't ask for more seeds than this


class Verdict(StrEnum):
    """The possible conclusions on a slice, strongest first (the headline is about the first in this order)."""

    BETTER = "better"
    """The 95% interval is above 0 and p < 0.05."""
    WORSE = "worse"
    """The 95% interval is below 0 and p < 0.05."""
    SUGGESTIVE = "suggestive"
    """The interval excludes 0, but with so few runs no permutation test can give p < 0.05."""
    CONDITIONAL_ON_SAMPLES = "conditional_on_samples"
    """The runs differ on these samples (p < 0.05), but the interval, which covers other samples too, contains 0."""
    NOT_SHOWN = "not_shown"
    TOO_FEW_RUNS = "too_few_runs"
    NO_CLEAN_SAMPLES = "no_clean_samples"


def judge(effect: Mapping[str, Any]) -> Verdict:
    """Returns the verdict on a training effect, an ``effect`` of ``summary.json``."""
    if effect["training"] is None:
        return Verdict.NO_CLEAN_SAMPLES
    if effect["training_ci95"] is None or effect["p_value"] is None:
        return Verdict.TOO_FEW_RUNS
    low, high = effect["training_ci95"]
    excludes_zero, significant = not low <= 0 <= high, effect["p_value"] < ALPHA
    if excludes_zero and significant:
        return Verdict.BETTER if effect["training"] > 0 else Verdict.WORSE
    if excludes_zero and effect["smallest_p_value"] >= ALPHA:
        return Verdict.SUGGESTIVE
    return Verdict.CONDITIONAL_ON_SAMPLES if significant else Verdict.NOT_SHOWN


def decimals(effect: Mapping[str, Any]) -> int:
    """Returns with how many decimals an effect deserves to be written: two digits of its uncertainty, at most 4."""
    interval = effect.get("training_ci95")
    half = (interval[1] - interval[0]) / 2 if interval else 0.0
    return min(4, max(0, 1 - math.floor(math.log10(half)))) if half > 1e-9 else 2


def signed(value: float, digits: int = 2) -> str:
    """Formats a number with so many decimals and a true minus sign."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def format_points(value: float, digits: int = 2) -> str:
    """Formats the size of an effect, without its sign."""
    size = abs(value)
    return f"{size:.{digits}f} points" if size >= 0.5 * 10**-digits or size < 1e-6 else f"{size:.2g} points"


def format_p(p: float | None) -> str:
    """Formats a p-value: ``p = 0.034``, ``p < 0.001``; empty for ``None``."""
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def interval_text(effect: Mapping[str, Any], of_size: bool = False) -> str:
    """Returns ``95% interval 0.10 to 0.60``, empty where there is no interval.

    ``of_size``: of what words such as "0.35 points more error" name, above 0 in their direction.
    """
    interval = effect["training_ci95"]
    if interval is None:
        return ""
    if of_size and effect["training"] < 0:
        interval = [-end for end in reversed(interval)]
    low, high = (signed(end, decimals(effect)) for end in interval)
    return f"95% interval {low} to {high}"


def certainty(effect: Mapping[str, Any], of_size: bool = False) -> str:
    """Returns the interval and the p-value as text, empty where there is no interval."""
    interval = interval_text(effect, of_size)
    return f"{interval}, {format_p(effect['p_value'])}" if interval else ""


SENTENCES = {
    Verdict.BETTER: "training on the fixed labels made the models {way}: {fact} ({sure}).",
    Verdict.WORSE: "training on the fixed labels made the models {way}: {fact} ({sure}).",
    Verdict.SUGGESTIVE: "there are signs of {way} models, but no proof: {fact} ({sure}). With so few runs p can't be "
    "lower than {smallest_p:.2g}; train at least 6 seeds.",
    Verdict.CONDITIONAL_ON_SAMPLES: "{fact} after training on the fixed labels. On these very images the variation "
    "between runs alone does not explain it ({sure}); for other images of this kind an effect is not shown, since the "
    "interval contains 0. {more_runs}",
    Verdict.NOT_SHOWN: "no effect of training on the fixed labels is shown: {fact} ({sure}). {more_runs}",
    Verdict.TOO_FEW_RUNS: "{fact} after training on the fixed labels, but {untested}",
}
HEADLINES = {
    Verdict.BETTER: "Fixing {fixes} made better models: {gain} ({interval}).",
    Verdict.WORSE: "Fixing {fixes} made worse models: {gain} ({interval}).",
    Verdict.SUGGESTIVE: "A hint, no proof: {gain} ({interval}); train at least 6 seeds.",
    Verdict.CONDITIONAL_ON_SAMPLES: "A hint, no proof: {gain} ({interval}); other images may differ.",
    Verdict.NOT_SHOWN: "Not shown{yet}: {gain} ({interval}){needed}.",
    Verdict.TOO_FEW_RUNS: "Too few runs to tell: {gain}; train more seeds.",
    Verdict.NO_CLEAN_SAMPLES: "The fixes leave no held-out sample to evaluate on.",
}
"""At most 25 words each with all that is filled in; tests count them."""
ONE_RUN = "a single run of an arm can't tell an effect from chance: train more seeds."
ONE_GROUP = "all samples belong to one group (photo or track), which says nothing about others: hold out more groups."


def _where(name: str) -> str:
    if name == ALL:
        return "on all samples"
    return f"outside {name.removeprefix('not ')}" if name.startswith("not ") else f"on {name}"


def sentence(name: str, result: Mapping[str, Any]) -> str:
    """Returns in plain words what a slice shows; ``result`` is its entry in ``slices`` of ``summary.json``."""
    effect, error, where = result["effect"], result["error"], _where(name)
    verdict, where = Verdict(result.get("verdict") or judge(effect)), where[0].upper() + where[1:]
    if verdict == Verdict.NO_CLEAN_SAMPLES:
        return f"{where}: the fixes leave no held-out sample to evaluate on."
    gain, sure, pairs = effect["training"], certainty(effect, of_size=True), effect.get("training_runs")
    digits = decimals(effect)
    if pairs:
        sure += f", better in {sum(gain > 0 for gain in pairs.values())} of {len(pairs)} pairs of runs"
    size, side = format_points(gain, digits), "lower" if gain >= 0 else "higher"
    text = SENTENCES[verdict].format(
        fact=f"the error on the same clean samples is {size} {side}, "
        f"{error['fixed_on_clean']:.{digits}f}% instead of {error['original_on_clean']:.{digits}f}%",
        way="better" if gain > 0 else "worse",
        sure=sure,
        smallest_p=effect.get("smallest_p_value", 1),
        more_runs=_runs_it_would_take(result),
        untested=ONE_GROUP if result.get("groups_clean", 2) < 2 else ONE_RUN,
    )
    return " ".join(f"{where}, {text} {_versus_control(result)} {evaluation_sentence(effect)}".split())


def _versus_control(result: Mapping[str, Any]) -> str:
    """Returns how much of the training effect exceeds that of excluding as many random samples, if known."""
    effect = result.get("control", {}).get("fixed_vs_control")
    if not effect or effect["training"] is None:
        return ""
    sure = f" ({certainty(effect)})" if certainty(effect) else ""
    gained = f"training on the fixed labels gains {signed(effect['training'], decimals(effect))} points{sure}."
    return f"Compared with the control arm, from which as many random samples were excluded, {gained}"


def _runs_it_would_take(result: Mapping[str, Any]) -> str:
    effect = result["effect"]
    if abs(effect["training"]) < 1e-9:
        return ""
    needed, present = effect["runs_for_80_power"], max(effect["runs"])
    if needed is None and effect.get("sd_samples") != 0:
        groups = f"the {result['groups_clean']:,} groups of held-out samples are too few"
        return f"More runs alone can't show an effect of this size: {groups}."
    if needed is not None and needed <= present:
        return f"A repetition with {present} runs of each arm would show an effect of this size with over 80% power."
    number = f"more than {MAX_RUNS:,} runs of each arm" if needed is None else f"about {needed:,} runs of each arm"
    return f"Showing an effect of this size with 80% power would take {number} (here {present})."


def evaluation_sentence(effect: Mapping[str, Any]) -> str:
    """Returns how much of the total effect comes from evaluating on clean labels, which changes no model."""
    total, evaluation = effect["total"], effect["evaluation"]
    if total is None:
        return ""
    if abs(evaluation) < NEGLIGIBLE:
        return "Evaluating on clean labels changes nothing here."
    change = f"{'lowers' if evaluation > 0 else 'raises'} the error by {abs(evaluation):.2f} points"
    both = f"with the training effect, the error is {abs(total):.2f} points {'lower' if total >= 0 else 'higher'}"
    return f"Evaluating on clean labels, which changes no model, {change}; {both}."


def headline(summary: Mapping[str, Any]) -> str:
    """Returns one sentence of at most 25 words: what is shown about the primary slice, or about the strongest one."""
    slices = summary["slices"]
    if summary.get("primary") is None:
        better, worse = (
            [name for name, result in slices.items() if result["verdict"] == verdict]
            for verdict in (Verdict.BETTER, Verdict.WORSE)
        )
        if better and worse:
            return _mixed(*((name, slices[name]["effect"]) for name in (_largest(slices, better), worse[-1])))
    name = headline_slice(summary)
    result = slices[name]
    effect, verdict = result["effect"], Verdict(result["verdict"])
    if verdict == Verdict.NO_CLEAN_SAMPLES:
        return HEADLINES[verdict]
    if verdict == Verdict.TOO_FEW_RUNS and result.get("groups_clean", 2) < 2:
        return f"Too few groups to tell: {_gain(name, effect)}; hold out more photos or tracks."
    n_fixes = summary["fixes"]["total"]
    needed = _needed(result, summary.get("looks"))
    return HEADLINES[verdict].format(
        fixes=f"{n_fixes:,} label{'' if n_fixes == 1 else 's'}",
        gain=_gain(name, effect),
        interval=interval_text(effect, of_size=True),
        yet=" yet" if "tell" in needed or "look" in needed else "",
        needed=needed,
    )


def headline_slice(summary: Mapping[str, Any]) -> str:
    """Returns the slice that the headline is about: the primary one, or that with the strongest verdict."""
    if summary.get("primary") is not None:
        return str(summary["primary"])
    strength, slices = list(Verdict), summary["slices"]

    def rank(name: str) -> tuple[int, bool, bool]:  # among equals the user's own slices come first
        return strength.index(Verdict(slices[name]["verdict"])), name.startswith("not "), name == ALL

    return str(min(slices, key=rank))


def _largest(slices: Mapping[str, Any], names: list[str]) -> str:
    return max(names, key=lambda name: abs(slices[name]["effect"]["training"]))


def _gain(name: str, effect: Mapping[str, Any]) -> str:
    size = format_points(effect["training"], decimals(effect))
    return f"{size} {'less' if effect['training'] >= 0 else 'more'} error {_short(name)}"


def _short(name: str) -> str:
    """Returns where an effect is, in at most three words."""
    words = _where(name).split()
    return " ".join(words) if len(words) <= 3 else " ".join([*words[:2], "…"])


def _mixed(better: tuple[str, Mapping[str, Any]], worse: tuple[str, Mapping[str, Any]]) -> str:
    ends = [interval_text(effect, of_size=True).removeprefix("95% interval ") for _, effect in (better, worse)]
    (gained, gain), (lost, loss) = better, worse
    more = f"{abs(loss['training']):.{decimals(loss)}f} more {_short(lost)}"
    return f"Mixed: {_gain(gained, gain)} (95% interval {ends[0]}), {more} ({ends[1]})."


def _needed(result: Mapping[str, Any], looks: Mapping[str, Any] | None) -> str:
    """Returns in a few words what would tell whether there is an effect."""
    effect = result["effect"]
    if looks is not None and looks["planned"]:
        if looks["decision"] == "futile":
            return f"; more seeds could hardly show {looks['effect']:g} points"
        if looks["decision"] == "continue":
            return f"; next look at {looks['next']} seeds"
    needed, present = effect["runs_for_80_power"], max(effect["runs"])
    if abs(effect["training"]) < 1e-9:
        return ""
    if needed is None:
        return "; too few held-out images" if effect.get("sd_samples") != 0 else ""
    if present < needed <= present + MANY_SEEDS:
        more = needed - present
        return f"; about {more} more seed{'' if more == 1 else 's'} would tell"
    return ""
