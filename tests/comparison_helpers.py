"""Crossed designs of runs and groups, and summaries of comparisons, for the tests of comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.audit.comparison.arms import compare_arms
from mlfix_train.audit.comparison.effects import EffectComponent, EffectVariance
from mlfix_train.audit.comparison.study import ArmRuns


def summarize(
    original: ArmRuns,
    fixed: ArmRuns,
    fixes: pd.DataFrame,
    slices: Mapping[str, Any] | None = None,
    control: ArmRuns | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Returns what ``summary.json`` holds."""
    return compare_arms(original, fixed, control, fixes=fixes, slices=slices, **options).summary


def crossed(
    rng: np.random.Generator, runs: int, groups: int, sd: tuple[float, float, float], effect: float = 0.0
) -> np.ndarray:
    """Draws ``R,G`` contributions: effect + run + group + rest, normal, with three standard deviations."""
    a, b, e = (s * rng.normal(size=size) for s, size in zip(sd, ((runs, 1), (1, groups), (runs, groups)), strict=True))
    return effect + a + b + e


def component_of(z: np.ndarray) -> EffectComponent:
    """A part whose mean over the groups is the run's value."""
    return EffectComponent(z.mean(1), z - z.mean())


def fixed_variance(
    runs: tuple[float, ...], groups: float = 0.0, n_groups: int = 1000, counts: int | tuple[int, ...] = 10
) -> EffectVariance:
    return EffectVariance(runs, (counts,) * len(runs) if isinstance(counts, int) else counts, groups, n_groups, 1.0)
