"""What the fixes did to each single label, corrected for multiple testing."""

from typing import Any

import numpy as np
from scipy import stats

from mlfix_train.audit.comparison.effects import EffectComponent, difference, effect_variance, error_component
from mlfix_train.audit.comparison.intervals import student_interval
from mlfix_train.audit.comparison.significance import add_q_values, smallest_p_value
from mlfix_train.audit.comparison.study import REMOVED, Study

MIN_GROUPS = 5  # labels with fewer groups of held-out samples are listed, but not tested
FALSE_DISCOVERY_RATE = 0.05


def label_changes(study: Study, paired: bool) -> list[dict[str, Any]]:
    """Compares the error of the original and the fixed arm for every label, on clean samples.

    Returns:
        One dict per label, largest change first: ``label``, ``rows``, ``groups``, ``before`` and ``after`` (error in
        percent), ``training`` (points; above 0 is better), ``share`` (points of the training effect on all samples that
        this label makes up), ``standard_error``, ``ci95``, ``p_value`` (Student's t, with the variance of runs and
        samples), ``shrunk`` (the training effect, shrunk to its noise), ``q_value`` (Benjamini and Hochberg, 1995) and
        ``significant`` (q < 0.05).
    """
    rows = [_label_change(study, label, paired) for label in np.unique(study.clean[study.clean != REMOVED])]
    add_q_values(rows)
    shrink_effects(rows)
    for row in rows:
        row["significant"] = row["q_value"] is not None and row["q_value"] < FALSE_DISCOVERY_RATE
    return sorted(rows, key=lambda row: (-abs(row["training"]), -row["rows"], row["label"]))


def shrink_effects(rows: list[dict[str, Any]]) -> None:
    """Adds ``shrunk`` to effects with a ``standard_error``: what is left of each when its noise is taken off.

    The true effects are taken as normal, with the mean and variance that the observed ones have beyond their noise
    (empirical Bayes: Efron and Morris, JASA 70, 1975; moments of DerSimonian and Laird, 1986).
    """
    known = [row for row in rows if row["standard_error"]]
    for row in rows:
        row["shrunk"] = None
    if len(known) < 2:
        return
    effects = np.array([row["training"] for row in known])
    variances = np.array([row["standard_error"] for row in known]) ** 2
    weights = 1 / variances
    spread = float(weights @ (effects - np.average(effects, weights=weights)) ** 2) - (len(known) - 1)
    between = max(0.0, spread / float(weights.sum() - (weights**2).sum() / weights.sum()))
    mean = np.average(effects, weights=1 / (variances + between))
    for row, shrunk in zip(known, mean + (effects - mean) * between / (between + variances), strict=True):
        row["shrunk"] = round(float(shrunk), 6)


def arm_errors(study: Study, rows: np.ndarray) -> list[EffectComponent]:
    """Returns the errors of the original and the fixed arm on clean rows (numbers of samples), in percent."""
    groups = np.unique(study.groups[rows], return_inverse=True)[1]
    weights = np.full(len(rows), 100.0 / len(rows))
    arms = []
    for arm in ("original", "fixed"):
        wrong = study.preds[arm][:, rows] != study.clean[rows]
        arms.append(error_component(wrong, weights, np.full(len(rows), wrong.mean()), groups, int(groups.max()) + 1))
    return arms


def _label_change(study: Study, label: int, paired: bool) -> dict[str, Any]:
    rows = np.flatnonzero(study.clean == label)
    arms = arm_errors(study, rows)
    n_groups = arms[0].cells.shape[1]
    before, after = (float(arm.runs.mean()) for arm in arms)
    result: dict[str, Any] = {
        "label": str(study.labels[label]),
        "rows": len(rows),
        "groups": n_groups,
        "before": round(before, 6),
        "after": round(after, 6),
        "training": round(before - after, 6),
        "share": round((before - after) * len(rows) / int(study.kept.sum()), 6),
        "standard_error": None,
        "ci95": None,
        "p_value": None,
        "q_value": None,
        "significant": False,
    }
    effect = difference(arms[0], arms[1], paired)
    variance = effect_variance(effect)
    if variance is None or n_groups < MIN_GROUPS:
        return result
    if variance.total == 0:  # all runs and samples agree: bounded by what so few of them can show
        bound = max(smallest_p_value(variance.counts), 2.0 * 0.5**n_groups)
        result["p_value"] = 1.0 if result["training"] == 0 else min(1.0, bound)
        result["ci95"] = [before - after] * 2
        return result
    df, standard_error = variance.satterthwaite_df(), np.sqrt(variance.total)
    result["standard_error"] = float(standard_error)
    result["ci95"] = student_interval(before - after, variance)
    result["p_value"] = float(2 * stats.t.sf(abs(before - after) / standard_error, df))
    return result
