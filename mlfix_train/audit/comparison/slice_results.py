"""Errors and effects of all arms over one slice of the held-out samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlfix_train.audit.comparison.effects import (
    EffectComponent,
    EffectVariance,
    difference,
    effect_variance,
    error_component,
    estimate,
)
from mlfix_train.audit.comparison.intervals import bootstrap_interval
from mlfix_train.audit.comparison.significance import ALPHA, permutation_p_value, runs_needed, smallest_p_value
from mlfix_train.audit.comparison.study import Study


@dataclass(frozen=True)
class Resampling:
    """How intervals and p-values are computed.

    Args:
        seed: seed of resampling and permutation.
        resamples: number of resamples of the interval, and of permutations.
    """

    seed: int = 0
    resamples: int = 10_000


def slice_result(study: Study, mask: np.ndarray, paired: frozenset[str], resampling: Resampling) -> dict[str, Any]:
    """Returns one entry of ``slices`` in ``summary.json``.

    Args:
        study: the aligned predictions.
        mask: ``(N,)`` booleans, true for the samples of the slice.
        paired: names of the arms whose runs form pairs.
        resampling: seed and number of resamples.

    Returns:
        ``rows_original``, ``rows_clean``, ``groups_clean``; ``error`` and ``error_sd`` (percent; mean and standard
        deviation over runs) and ``runs`` (percent, each run), all by ``<arm>_on_<original|clean>``; ``effect`` (points;
        above 0 is better); ``macro`` (error averaged over labels); and ``control`` where there is a control arm, with
        the ``effect`` of excluding random samples and ``fixed_vs_control``.
    """
    clean_mask = mask & study.kept
    micro = _SliceErrors(study, mask, clean_mask, macro=False)
    macro = _SliceErrors(study, mask, clean_mask, macro=True)
    runs, fixed_paired = micro.runs(), "fixed" in paired
    result: dict[str, Any] = {
        "rows_original": int(mask.sum()),
        "rows_clean": int(clean_mask.sum()),
        "groups_clean": len(np.unique(study.groups[clean_mask])),
        "error": {key: _mean(values) for key, values in runs.items()},
        "error_sd": {key: _sd(values) for key, values in runs.items()},
        "effect": _total_effect(micro, "fixed", fixed_paired, resampling),
        "macro": {
            "error": {key: _mean(values) for key, values in macro.runs().items()},
            "effect": _total_effect(macro, "fixed", fixed_paired, resampling, all_intervals=False),
        },
        "runs": runs,
    }
    if "control" in study.runs:
        control_paired = "control" in paired
        both_paired = control_paired and fixed_paired
        result["control"] = {
            "effect": _total_effect(micro, "control", control_paired, resampling),
            "fixed_vs_control": _training_effect(micro, "control", "fixed", both_paired, resampling),
        }
    return result


class _SliceErrors:
    """The error of each arm over one slice, on original and on clean rows, as components of effects.

    Original rows: all samples of the slice with their given labels. Clean rows: those that the fixes keep, with their
    new labels. ``macro``: every label has the same weight; otherwise every sample has.
    """

    def __init__(self, study: Study, mask: np.ndarray, clean_mask: np.ndarray, macro: bool) -> None:
        self.study, self.macro = study, macro
        self.rows = {"original": np.flatnonzero(mask), "clean": np.flatnonzero(clean_mask)}
        self.truth = {"original": study.given, "clean": study.clean}
        self.cache: dict[tuple[str, str, str], EffectComponent | None] = {}

    def component(self, arm: str, kind: str, group_rows: str) -> EffectComponent | None:
        """Returns the error of an arm on rows of a kind, in groups numbered over the rows of kind ``group_rows``.

        ``None`` where there are no such rows, or no predictions for some (MLfix's own files of the fixed arm lack the
        excluded samples).
        """
        key = (arm, kind, group_rows)
        if key not in self.cache:
            self.cache[key] = self._component(*key)
        return self.cache[key]

    def _component(self, arm: str, kind: str, group_rows: str) -> EffectComponent | None:
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
        errors = {}
        for arm in self.study.runs:
            for kind in self.rows:
                component = self.component(arm, kind, kind)
                values = None if component is None else [round(float(x), 6) for x in component.runs]
                errors[f"{arm}_on_{kind}"] = values
        return errors


def _mean(values: list[float] | None) -> float | None:
    return round(float(np.mean(values)), 6) if values else None


def _sd(values: list[float] | None) -> float | None:
    return round(float(np.std(values, ddof=1)), 6) if values and len(values) > 1 else None


def _total_effect(
    errors: _SliceErrors, arm: str, paired: bool, resampling: Resampling, all_intervals: bool = True
) -> dict[str, Any]:
    """Splits the effect of an arm: total = evaluation (same models, clean labels) + training (better labels)."""
    before = errors.component("original", "original", "original")
    same_models = errors.component("original", "clean", "original")
    after = errors.component(arm, "clean", "original")
    result = {"total": None, "evaluation": None, **_training_effect(errors, "original", arm, paired, resampling)}
    if before is None or same_models is None or after is None:
        return result
    total, evaluation = difference(before, after, paired), difference(before, same_models, paired=True)
    result |= {"total": _rounded(estimate(total)), "evaluation": _rounded(estimate(evaluation))}
    if all_intervals:
        result["total_ci95"] = _interval(total, resampling)
        result["evaluation_ci95"] = _interval(evaluation, resampling)
    return result


def _training_effect(
    errors: _SliceErrors, first: str, second: str, paired: bool, resampling: Resampling
) -> dict[str, Any]:
    """Returns the error of arm ``first`` less that of ``second`` on clean rows, and how certain it is."""
    first_error = errors.component(first, "clean", "clean")
    second_error = errors.component(second, "clean", "clean")
    if first_error is None or second_error is None:
        return {"training": None, "training_ci95": None, "p_value": None, "runs": [0], "paired": paired}
    components = difference(first_error, second_error, paired)
    effect, variance = _rounded(estimate(components)), effect_variance(components)
    counts = [len(component.runs) for component in components]
    result: dict[str, Any] = {
        "training": effect,
        "training_ci95": _interval(components, resampling),
        "p_value": permutation_p_value(components, resampling.seed, resampling.resamples),
        "smallest_p_value": smallest_p_value(counts),
        "paired": paired,
        "runs": counts,
        "runs_for_80_power": _runs_for_80_power(effect, variance, len(counts)),
        "sd_runs": None if variance is None else float(np.sqrt(variance.total - variance.groups)),
        "sd_samples": None if variance is None else float(np.sqrt(variance.groups)),
    }
    if paired:
        names = errors.study.runs[first]
        result["training_runs"] = {name: round(float(x), 6) for name, x in zip(names, components[0].runs, strict=True)}
    return result


def _rounded(effect: float) -> float:
    return round(effect, 12) + 0.0  # never -0.0


def _runs_for_80_power(effect: float, variance: EffectVariance | None, n_components: int) -> int | None:
    """Returns the number of runs of each arm; at least so many that a permutation test can give p < 0.05."""
    needed = runs_needed(effect, variance)
    minimum = next(n for n in range(2, 10) if smallest_p_value([n] * n_components) < ALPHA)
    return None if needed is None else max(needed, minimum)


def _interval(components: Sequence[EffectComponent], resampling: Resampling) -> list[float] | None:
    """Returns the 95% interval, within what a difference of percentages can be."""
    interval = bootstrap_interval(components, resampling.seed, resampling.resamples)
    return None if interval is None else [min(100.0, max(-100.0, end)) for end in interval]
