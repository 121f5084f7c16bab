"""What the fixes did, fix by fix: to the held-out samples, to the labels they touch, and where that can't be told.

Two arms differ in all fixes at once, so the training effect of a single fix is never seen. What can be seen is how it
spreads over labels, over pairs of label and prediction, and over labels that were fixed in different ways.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.audit.comparison.effects import difference, effect_variance, estimate
from mlfix_train.audit.comparison.intervals import student_interval
from mlfix_train.audit.comparison.label_changes import MIN_GROUPS, arm_errors
from mlfix_train.audit.comparison.study import Study
from mlfix_train.audit.comparison.verdict import decimals, interval_text, signed
from mlfix_train.data.samples import INVALID

MOST_ROWS = 12  # of each table
CARRIERS = 3  # labels that are named as carrying the effect


def fix_effects(study: Study, fixes: pd.DataFrame, labels: Sequence[dict[str, Any]], paired: bool) -> dict[str, Any]:
    """Returns the entry ``by_fix`` of ``summary.json``.

    Args:
        study: aligned predictions.
        fixes: matched fixes by ``sample_id`` with ``new_label``; ``given_label`` where known.
        labels: from :func:`mlfix_train.audit.comparison.label_changes.label_changes`.
        paired: whether original and fixed arm are paired.

    Returns:
        ``pairs`` (by given and new label: number of ``fixes``, ``held_out`` ones, and how many percent of the original
        arm's predictions for those are wrong ``before`` and ``after``), ``evaluation`` (points of the evaluation effect
        from ``removed`` and from ``relabelled`` samples), ``training`` (effect, interval and rows of the labels that
        were fixed only by removing, only by relabelling, in both ways, or not), ``confusions`` (pairs of clean label
        and prediction by their part of the training effect) and ``sentences``.
    """
    table = _fix_table(study, fixes)
    evaluation = _evaluation_shares(study)
    training = _training_by_kind(study, table, paired)
    sentences = [
        _evaluation_sentence(study, table, evaluation),
        _training_sentence(training, table, int(fixes.attrs.get("outside", 0))),
        _carriers_sentence(labels),
    ]
    return {
        "pairs": _pairs(table),
        "evaluation": evaluation,
        "training": training,
        "confusions": _confusions(study),
        "sentences": [sentence for sentence in sentences if sentence],
    }


def _fix_table(study: Study, fixes: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per fix: given and new label, whether it is held out, and the errors before and after."""
    given = pd.Series(study.given_labels(), index=study.samples)
    known = fixes["given_label"] if "given_label" in fixes.columns else pd.Series(index=fixes.index, dtype=object)
    positions = study.samples.get_indexer(fixes.index)
    table = pd.DataFrame(
        {
            "given": given.reindex(fixes.index).fillna(known).fillna("").to_numpy(dtype=object),
            "new": fixes["new_label"].to_numpy(dtype=object),
            "held_out": positions >= 0,
            "before": np.nan,
            "after": np.nan,
        }
    )
    rows = positions[positions >= 0]
    preds = study.preds["original"][:, rows]
    wrong = {"before": preds != study.given[rows], "after": preds != study.clean[rows]}
    for key, value in wrong.items():
        table.loc[table["held_out"], key] = 100 * value.mean(0)
    table.loc[table["new"] == INVALID, "after"] = np.nan
    return table


def _pairs(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns the most frequent pairs of given and new label."""
    groups = table.groupby(["given", "new"], sort=False)
    rows = groups.agg(
        fixes=("new", "size"), held_out=("held_out", "sum"), before=("before", "mean"), after=("after", "mean")
    )
    rows = rows.sort_values(["held_out", "fixes"], ascending=False, kind="stable").head(MOST_ROWS).reset_index()
    return [
        {str(key): None if isinstance(value, float) and np.isnan(value) else value for key, value in row.items()}
        for row in rows.to_dict("records")
    ]


def _evaluation_shares(study: Study) -> dict[str, float | None]:
    """Splits the original arm's evaluation effect: first the removed samples go, then the others are relabelled."""
    preds, kept = study.preds["original"], study.kept
    if not kept.any():
        return {"removed": None, "relabelled": None}
    given = preds != study.given
    errors = given.mean(), given[:, kept].mean(), (preds[:, kept] != study.clean[kept]).mean()
    removed, relabelled = (round(100 * float(a - b) + 0.0, 6) for a, b in pairwise(errors))
    return {"removed": removed, "relabelled": relabelled}


def _training_by_kind(study: Study, table: pd.DataFrame, paired: bool) -> dict[str, dict[str, Any]]:
    """Returns the training effect on the labels that were fixed in each way."""
    is_removed = table["new"] == INVALID
    removed = {*table["given"][is_removed]}
    relabelled = {*table["given"][~is_removed], *table["new"][~is_removed]}
    members = {
        "removed": removed - relabelled,
        "relabelled": relabelled - removed,
        "both": removed & relabelled,
        "none": {*study.labels} - removed - relabelled,
    }
    result = {}
    for kind, names in members.items():
        codes = np.flatnonzero([name in names for name in study.labels])
        rows = np.flatnonzero(np.isin(study.clean, codes) & study.kept)
        result[kind] = {"labels": len(np.unique(study.clean[rows])), "rows": len(rows), **_effect(study, rows, paired)}
    return result


def _effect(study: Study, rows: np.ndarray, paired: bool) -> dict[str, Any]:
    """Returns the training effect on clean rows, with standard error and interval (Student's t)."""
    unknown: dict[str, Any] = {"training": None, "standard_error": None, "training_ci95": None}
    if not len(rows):
        return unknown
    first, second = arm_errors(study, rows)
    effect = difference(first, second, paired)
    variance, value = effect_variance(effect), estimate(effect)
    if variance is None or effect[0].cells.shape[1] < MIN_GROUPS:
        return {**unknown, "training": round(value, 6)}
    error, interval = float(np.sqrt(variance.total)), student_interval(value, variance)
    return {"training": round(value, 6), "standard_error": error, "training_ci95": interval}


def _confusions(study: Study) -> list[dict[str, Any]]:
    """Returns the pairs of clean label and prediction that changed most."""
    kept = np.flatnonzero(study.kept)
    if not len(kept):
        return []
    truth, n_labels = study.clean[kept].astype(np.int64), len(study.labels)
    rates: dict[str, pd.Series] = {}
    for arm in ("original", "fixed"):
        preds = study.preds[arm][:, kept]
        codes, counts = np.unique((truth * n_labels + preds)[preds != truth], return_counts=True)
        rates[arm] = pd.Series(counts / len(preds), index=codes)
    found = pd.DataFrame(rates).fillna(0.0)
    found["points"] = 100 * (found["original"] - found["fixed"]) / len(kept)
    found = found.reindex(found["points"].abs().sort_values(ascending=False, kind="stable").index).head(MOST_ROWS)
    rows = np.bincount(truth, minlength=n_labels)
    return [
        {
            "label": str(study.labels[code // n_labels]),
            "predicted": str(study.labels[code % n_labels]),
            "rows": int(rows[code // n_labels]),
            "before": 100 * float(row["original"]) / int(rows[code // n_labels]),
            "after": 100 * float(row["fixed"]) / int(rows[code // n_labels]),
            "points": round(float(row["points"]), 6),
        }
        for code, row in zip(found.index.astype(np.int64).tolist(), found.to_dict("records"), strict=True)
    ]


def _evaluation_sentence(study: Study, table: pd.DataFrame, evaluation: dict[str, float | None]) -> str:
    held_out = table[table["held_out"]]
    if held_out.empty:
        return "No fix is of a held-out sample, so the evaluation did not change."
    removed = int((held_out["new"] == INVALID).sum())
    relabelled = len(held_out) - removed
    text = f"Of {len(held_out):,} fixed held-out samples, {removed:,} were removed and {relabelled:,} relabelled."
    if evaluation["removed"] is None:
        return text
    return (
        f"{text} Of the evaluation effect on all samples, {signed(evaluation['removed'])} points come from the removed "
        f"ones and {signed(evaluation['relabelled'] or 0.0)} from the relabelled ones."
    )


def _training_sentence(training: dict[str, dict[str, Any]], table: pd.DataFrame, outside: int) -> str:
    """Returns what removing did against relabelling, by the labels that only one of them touched."""
    if outside:
        return (
            f"{outside:,} fixes are of training samples that these files don't name, so what removing and relabelling "
            "did to the models can't be told apart."
        )
    if table.empty:
        return ""
    removing = int((table["new"] == INVALID).sum())
    if removing in (0, len(table)):
        return "Every fix removes its sample; none relabels one." if removing else "Every fix relabels; none removes."
    one, other = training["removed"], training["relabelled"]
    missing = [kind for kind in ("removed", "relabelled") if training[kind]["training"] is None]
    if missing:
        both = len(missing) == 2
        fact = "Every fixed label was fixed in both ways" if both else f"No label had only {missing[0]} samples"
        return f"{fact}, so what removing and relabelling did can't be told apart."
    facts = [
        f"{signed(part['training'], decimals(part))} points ({part['labels']:,} labels"
        + (f"; {interval_text(part)})" if part["training_ci95"] else ")")
        for part in (one, other)
    ]
    text = f"Training effect where samples were only removed: {facts[0]}; where they were only relabelled: {facts[1]}."
    errors = one["standard_error"], other["standard_error"]
    if None in errors or abs(one["training"] - other["training"]) < 1.96 * float(np.hypot(*errors)):
        return f"{text} The two can't be told apart: they differ no more than chance allows."
    better = "removing" if one["training"] > other["training"] else "relabelling"
    return f"{text} The labels differ, too, so this is no proof that {better} is better."


def _carriers_sentence(labels: Sequence[dict[str, Any]]) -> str:
    """Returns which labels carry the training effect, by their shrunk effects."""
    known = [row for row in labels if row["shrunk"] is not None]
    if len(known) < 2:
        return "Which labels carry the training effect can't be told: too few of them have enough runs and samples."
    if len({row["shrunk"] for row in known}) == 1:
        return (
            "Which labels carry the training effect can't be told: the labels differ no more than chance makes them "
            f"(best guess for each: {signed(known[0]['shrunk'])} points)."
        )
    clean = sum(row["rows"] for row in labels)
    shares = sorted(known, key=lambda row: -abs(row["shrunk"] * row["rows"]))[:CARRIERS]
    texts = [f"{row['label']} ({signed(row['shrunk'] * row['rows'] / clean)})" for row in shares]
    return (
        f"The labels that carry most of the training effect, in points of the error on all samples: {', '.join(texts)}."
    )
