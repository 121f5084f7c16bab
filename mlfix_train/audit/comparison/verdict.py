"""What a comparison shows and what it does not: a verdict for each slice, as a value and as a sentence."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from mlfix_train.audit.comparison.significance import ALPHA, MAX_RUNS
from mlfix_train.audit.scores.slices import ALL

HEADLINE_SLICES = 4  # number of slices that the headline names
NEGLIGIBLE = 0.005  # points that two decimals show as 0.00


class Verdict(StrEnum):
    """The possible conclusions, strongest first (the headline names slices in this order)."""

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
    excludes_zero, significant = not low <= 0 <= high, effect.get("q_value", effect["p_value"]) < ALPHA
    if excludes_zero and significant:
        return Verdict.BETTER if effect["training"] > 0 else Verdict.WORSE
    if excludes_zero and effect["smallest_p_value"] >= ALPHA:
        return Verdict.SUGGESTIVE
    return Verdict.CONDITIONAL_ON_SAMPLES if significant else Verdict.NOT_SHOWN


def signed(value: float) -> str:
    """Formats a number with two decimals and a true minus sign."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def format_points(value: float) -> str:
    """Formats the size of an effect, without its sign."""
    size = abs(value)
    return f"{size:.2f} points" if size >= NEGLIGIBLE or size < 1e-6 else f"{size:.2g} points"


def format_p(p: float | None) -> str:
    """Formats a p-value: ``p = 0.034``, ``p < 0.001``; empty for ``None``."""
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def certainty(effect: Mapping[str, Any]) -> str:
    """Returns the interval and the p-value as text, empty where there is no interval."""
    if effect["training_ci95"] is None:
        return ""
    low, high = effect["training_ci95"]
    q = f", q = {effect['q_value']:.3f} over the slices" if "q_value" in effect else ""
    return f"95% interval {signed(low)} to {signed(high)}, {format_p(effect['p_value'])}{q}"


TEXTS = {
    Verdict.BETTER: ("training on the fixed labels made the models {way}: {fact} ({sure}).", "better models: {size}"),
    Verdict.WORSE: ("training on the fixed labels made the models {way}: {fact} ({sure}).", "worse models: {size}"),
    Verdict.SUGGESTIVE: (
        "there are signs of {way} models, but no proof: {fact} ({sure}). With so few runs p can't be lower than "
        "{smallest_p:.2g}; train at least 6 seeds.",
        "signs of an effect but no proof: {size}, with too few runs to test",
    ),
    Verdict.CONDITIONAL_ON_SAMPLES: (
        "{fact} after training on the fixed labels. On these very images the variation between runs alone does "
        "not explain it ({sure}); for other images of this kind an effect is not shown, since the interval contains 0. "
        "{more_runs}",
        "{gain} on these very images, not shown for other images{sure}",
    ),
    Verdict.NOT_SHOWN: (
        "no effect of training on the fixed labels is shown: {fact} ({sure}). {more_runs}",
        "no effect shown: {size}",
    ),
    Verdict.TOO_FEW_RUNS: (
        "{fact} after training on the fixed labels, but {untested}",
        "{gain}, with too few runs to tell it from chance",
    ),
}
"""The sentence about a slice, and the clause in the headline (``size`` is the gain with its certainty)."""
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
    gain, sure, pairs = effect["training"], certainty(effect), effect.get("training_runs")
    if pairs:
        sure += f", better in {sum(gain > 0 for gain in pairs.values())} of {len(pairs)} pairs of runs"
    text = TEXTS[verdict][0].format(
        fact=f"the error on the same clean samples is {format_points(gain)} {'lower' if gain >= 0 else 'higher'}, "
        f"{error['fixed_on_clean']:.2f}% instead of {error['original_on_clean']:.2f}%",
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
    gained = f"training on the fixed labels gains {signed(effect['training'])} points{sure}."
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
    return f"Evaluating on clean labels, which changes no model, {change} ({signed(total)} in total)."


def headline(summary: Mapping[str, Any]) -> str:
    """Returns one paragraph on all slices that the user asked for: what is shown, and what is not."""
    named = {name: result for name, result in summary["slices"].items() if not name.startswith("not ")}
    strength = list(Verdict)
    ranked = sorted(named, key=lambda name: (strength.index(named[name]["verdict"]), name == ALL))
    if ALL in ranked and ranked.index(ALL) >= HEADLINE_SLICES:  # always mentioned
        ranked.remove(ALL)
        ranked.insert(HEADLINE_SLICES - 1, ALL)
    judged = [name for name in ranked if named[name]["verdict"] != Verdict.NO_CLEAN_SAMPLES]
    clauses = [f"{_where(name)}, {_clause(named[name])}" for name in judged]
    if not clauses:
        return "The fixes leave no held-out sample to evaluate on."
    more = len(clauses) - HEADLINE_SLICES
    text = "; ".join(clauses[:HEADLINE_SLICES]) + (f"; and {more} more slices below" if more > 0 else "")
    return f"Training on the fixed labels: {text}.{_evaluation_share(named)}"


def _clause(result: Mapping[str, Any]) -> str:
    """Returns the verdict on a slice in a few words."""
    effect, verdict = result["effect"], Verdict(result["verdict"])
    gain = f"{format_points(effect['training'])} {'less' if effect['training'] >= 0 else 'more'} error"
    sure = f" ({certainty(effect)})" if certainty(effect) else ""
    text = TEXTS[verdict][1].format(gain=gain, sure=sure, size=gain + sure)
    versus = result.get("control", {}).get("fixed_vs_control")
    if verdict in (Verdict.NOT_SHOWN, Verdict.TOO_FEW_RUNS) or not versus or versus["training"] is None:
        return text
    ends = versus["training_ci95"]
    interval = f" ({signed(ends[0])} to {signed(ends[1])})" if ends else ""
    return f"{text}, {signed(versus['training'])} against the control arm{interval}"


def _evaluation_share(named: Mapping[str, Any]) -> str:
    """Returns a sentence on how much of the largest total effect comes from evaluating on clean labels."""
    effects = {name: result["effect"] for name, result in named.items() if result["effect"]["total"] is not None}
    if not effects:
        return ""
    name, effect = max(effects.items(), key=lambda item: abs(item[1]["total"]))
    total, evaluation, where = effect["total"], effect["evaluation"], _where(name)
    if abs(evaluation) < NEGLIGIBLE:
        return ""
    if total * evaluation < 0 or abs(evaluation) > abs(total):
        lowers = "lowers" if evaluation > 0 else "raises"
        return f" Evaluating on clean labels alone {lowers} the error {where} by {format_points(evaluation)}."
    return (
        f" Of the {abs(total):.2f} points by which the error {where} {'falls' if total >= 0 else 'rises'} in total, "
        f"{signed(evaluation if total >= 0 else -evaluation)} come from evaluating on clean labels."
    )
