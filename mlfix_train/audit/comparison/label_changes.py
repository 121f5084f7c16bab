"""What fixing did to each single label, with a correction for looking at many."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from mlfix_train.audit.comparison import effects as evidence
from mlfix_train.audit.comparison.study import REMOVED, Study

LEAST_GROUPS = 5
"""Labels with fewer groups of held-out samples are listed without a test: nothing can be said of other samples."""
FALSE_DISCOVERY_RATE = 0.05


def label_changes(study: Study, paired: bool) -> list[dict[str, Any]]:
    """Compares the error of both arms for every label, on clean rows.

    Args:
        study: with the arms ``original`` and ``fixed``.
        paired: the runs of the two belong together pair by pair.

    Returns:
        One dict a label, largest change first: ``label``, ``rows``, ``groups``, ``before`` and ``after`` (error in
        percent), ``training`` (points; more than 0 is better), ``ci95``, ``p_value`` (Student's t, with the variance of
        runs and samples), ``q_value`` (Benjamini and Hochberg 1995, by scipy) and ``shown`` (q < 0.05).
    """
    rows = [_change(study, label, paired) for label in np.unique(study.clean[study.clean != REMOVED])]
    tested = [row for row in rows if row["p_value"] is not None]
    if tested:
        adjusted = stats.false_discovery_control([row["p_value"] for row in tested], method="bh")
        for row, q in zip(tested, adjusted, strict=True):
            row["q_value"], row["shown"] = float(q), bool(q < FALSE_DISCOVERY_RATE)
    return sorted(rows, key=lambda row: (-abs(row["training"]), -row["rows"], row["label"]))


def _change(study: Study, label: int, paired: bool) -> dict[str, Any]:
    rows = np.flatnonzero(study.clean == label)
    own, groups = np.unique(study.groups[rows], return_inverse=True)
    weights = np.full(len(rows), 100.0 / len(rows))
    parts = []
    for arm in ("original", "fixed"):
        wrong = study.preds[arm][:, rows] != label
        parts.append(evidence.part(wrong, weights, np.full(len(rows), wrong.mean()), groups, len(own)))
    before, after = float(parts[0].runs.mean()), float(parts[1].runs.mean())
    result: dict[str, Any] = {
        "label": str(study.labels[label]), "rows": len(rows), "groups": len(own), "before": round(before, 6),
        "after": round(after, 6), "training": round(before - after, 6), "ci95": None, "p_value": None,
        "q_value": None, "shown": False,
    }  # fmt: skip
    effect = [evidence.add(parts[0], parts[1])] if paired else [parts[0], evidence.negate(parts[1])]
    found = evidence.variance(effect)
    if found is None or len(own) < LEAST_GROUPS:
        return result
    if found.total == 0:  # all runs and all samples alike: what chance would make of that many runs, and samples
        counts = [len(part.runs) for part in effect]
        chance = max(evidence.smallest_p(counts), 2.0 * 0.5 ** len(own))
        result["p_value"] = 1.0 if result["training"] == 0 else min(1.0, chance)
        result["ci95"] = [before - after] * 2
        return result
    df, error = found.freedom(), np.sqrt(found.total)
    half = float(stats.t.ppf(0.975, df) * error)
    result["ci95"] = [before - after - half, before - after + half]
    result["p_value"] = float(2 * stats.t.sf(abs(before - after) / error, df))
    return result
