"""Errors and effects of all arms over one slice of the held-out samples."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mlfix_train.audit.comparison.effects import EffectComponent, difference, effect_variance, error_component, estimate
from mlfix_train.audit.comparison.families import SliceEffect
from mlfix_train.audit.comparison.intervals import bootstrap_interval
from mlfix_train.audit.comparison.significance import (
    fewest_runs,
    permutation_p_value,
    runs_needed,
    smallest_p_value,
)
from mlfix_train.audit.comparison.study import Study


def slice_result(
    micro: "SliceErrors",
    paired: frozenset[str],
    tested: Mapping[str, Any],
    macro: "tuple[SliceErrors, Mapping[str, Any]] | None" = None,
) -> dict[str, Any]:
    """Returns one entry of ``slices`` in ``summary.json``.

    Args:
        micro: the errors of the slice with the same weight for every sample.
        paired: names of the arms whose runs form pairs.
        tested: interval and p-value of the training effect, see
            :func:`mlfix_train.audit.comparison.families.judge_together`.
        macro: errors and test with the same weight for every label; ``None``: not asked for.

    Returns:
        ``rows_original``, ``rows_clean``, ``groups_clean``; ``error`` and ``error_sd`` (percent; mean and standard
        deviation over runs) and ``runs`` (percent, each run), all by ``<arm>_on_<original|clean>``; ``effect`` (points;
        above 0 is better); ``macro`` (error averaged over labels, if asked for); ``control`` where there is one, with
        the ``effect`` of excluding random samples and ``fixed_vs_control``.
    """
    study, clean_rows, runs = micro.study, micro.rows["clean"], micro.runs()
    result: dict[str, Any] = {
        "rows_original": len(micro.rows["original"]),
        "rows_clean": len(clean_rows),
        "groups_clean": len(np.unique(study.groups[clean_rows])),
        "error": _summarize(runs, np.mean),
        "error_sd": _summarize(runs, functools.partial(np.std, ddof=1), fewest=2),
        "effect": micro.total_effect("fixed", "fixed" in paired, tested=tested),
        "runs": runs,
    }
    if macro is not None:
        average, test = macro
        effect = average.total_effect("fixed", "fixed" in paired, all_intervals=False, tested=test)
        result["macro"] = {"error": _summarize(average.runs(), np.mean), "effect": effect}
    if "control" in study.runs:
        result["control"] = {
            "effect": micro.total_effect("control", "control" in paired),
            "fixed_vs_control": micro.training_effect("control", "fixed", {"control", "fixed"} <= paired),
        }
    return result


def _summarize(
    runs: Mapping[str, list[float] | None], statistic: Callable[[list[float]], Any], fewest: int = 1
) -> dict[str, float | None]:
    known = {key: values if values and len(values) >= fewest else None for key, values in runs.items()}
    return {key: None if values is None else round(float(statistic(values)), 6) for key, values in known.items()}


class SliceErrors:
    """The error of each arm over one slice, on original and on clean rows, and the effects that follow.

    Original rows: all samples of the slice with their given labels. Clean rows: those that the fixes keep, with their
    new labels. ``macro``: every label has the same weight; otherwise every sample has.
    """

    def __init__(self, study: Study, mask: np.ndarray, macro: bool, seed: int, resamples: int) -> None:
        self.study, self.macro, self.seed, self.resamples = study, macro, seed, resamples
        self.rows = {"original": np.flatnonzero(mask), "clean": np.flatnonzero(mask & study.kept)}
        self.truth = {"original": study.given, "clean": study.clean}
        self.component = functools.cache(self._component)

    def _component(self, arm: str, kind: str, group_rows: str) -> EffectComponent | None:
        """Returns the error of an arm on rows of a kind, in groups numbered over the rows of kind ``group_rows``.

        ``None`` where there are no such rows, or no predictions for some (MLfix's own files of the fixed arm lack the
        excluded samples).
        """
        rows = self.rows[kind]
        preds = self.study.preds[arm][:, rows]
        if not len(rows) or (preds < 0).any():
            return None
        truth = self.truth[kind][rows]
        wrong = preds != truth
        unique_groups = np.unique(self.study.groups[self.rows[group_rows]])
        groups = np.searchsorted(unique_groups, self.study.groups[rows])
        if self.macro:
            _, codes, counts = np.unique(truth, return_inverse=True, return_counts=True)
            weights = 100.0 / len(counts) / counts[codes]
            center = np.full(len(rows), float(wrong.mean(0) @ weights) / 100)
        else:
            weights, center = np.full(len(rows), 100.0 / len(rows)), np.full(len(rows), wrong.mean())
        return error_component(wrong, weights, center, groups, len(unique_groups))

    def runs(self) -> dict[str, list[float] | None]:
        """Returns the error of each run in percent, by ``<arm>_on_<kind>``."""
        found = {f"{arm}_on_{kind}": self.component(arm, kind, kind) for arm in self.study.runs for kind in self.rows}
        return {key: part if part is None else [round(float(x), 6) for x in part.runs] for key, part in found.items()}

    def fixed_effect(self, paired: bool) -> SliceEffect | None:
        """Returns the training effect of the fixed arm; ``None`` without clean rows."""
        errors = [self.component(arm, "clean", "clean") for arm in ("original", "fixed")]
        if errors[0] is None or errors[1] is None:
            return None
        groups = np.unique(self.study.groups[self.rows["clean"]])
        return SliceEffect(difference(errors[0], errors[1], paired), groups)

    def total_effect(
        self, arm: str, paired: bool, all_intervals: bool = True, tested: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Splits the effect of an arm: total = evaluation (same models, clean labels) + training (better labels)."""
        before = self.component("original", "original", "original")
        same_models = self.component("original", "clean", "original")
        after = self.component(arm, "clean", "original")
        result = {"total": None, "evaluation": None, **self.training_effect("original", arm, paired, tested)}
        if before is None or same_models is None or after is None:
            return result
        total, evaluation = difference(before, after, paired), difference(before, same_models, paired=True)
        result |= {"total": _rounded(estimate(total)), "evaluation": _rounded(estimate(evaluation))}
        if all_intervals:
            result |= {"total_ci95": self._interval(total), "evaluation_ci95": self._interval(evaluation)}
        return result

    def training_effect(
        self, first: str, second: str, paired: bool, tested: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Returns the error of arm ``first`` less that of ``second`` on clean rows, and how certain it is."""
        first_error, second_error = (self.component(arm, "clean", "clean") for arm in (first, second))
        if first_error is None or second_error is None:
            return {"training": None, "training_ci95": None, "p_value": None, "runs": [0], "paired": paired}
        components = difference(first_error, second_error, paired)
        effect, variance = _rounded(estimate(components)), effect_variance(components)
        counts = [len(component.runs) for component in components]
        needed = runs_needed(effect, variance)
        result: dict[str, Any] = {
            "training": effect,
            **(tested or self._test(components)),
            "smallest_p_value": smallest_p_value(counts),
            "paired": paired,
            "runs": counts,
            "runs_for_80_power": None if needed is None else max(needed, fewest_runs(len(counts))),
            "sd_runs": None if variance is None else float(np.sqrt(variance.total - variance.groups)),
            "sd_samples": None if variance is None else float(np.sqrt(variance.groups)),
        }
        if paired:
            runs = zip(self.study.runs[first], components[0].runs, strict=True)
            result["training_runs"] = {name: round(float(x), 6) for name, x in runs}
        return result

    def _test(self, components: Sequence[EffectComponent]) -> dict[str, Any]:
        p_value = permutation_p_value(components, self.seed, self.resamples)
        return {"training_ci95": self._interval(components), "p_value": p_value}

    def _interval(self, components: Sequence[EffectComponent]) -> list[float] | None:
        return bootstrap_interval(components, self.seed, self.resamples)


def _rounded(effect: float) -> float:
    return round(effect, 12) + 0.0  # never -0.0
