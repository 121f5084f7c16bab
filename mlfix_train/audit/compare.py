"""Before against after: error of both arms, judged by the given labels and by the clean ones, and the effect taken
apart.

The published comparison lets the two effects of fixing run together: it judges the original arm by all held-out
samples and the fixed arm by those without the invalid ones. Here

    total      = error(original arm, original rows) - error(fixed arm, clean rows)
    evaluation = error(original arm, original rows) - error(original arm, clean rows)   the same models, judged anew
    training   = error(original arm, clean rows)    - error(fixed arm, clean rows)      better models, judged alike

so that total = evaluation + training. Clean rows: held-out samples that the fixes leave in, judged by their new label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.audit.slices import select_labels
from mlfix_train.data.fixes import apply_fixes
from mlfix_train.errors import ConfigError, RunError, listing

ALL = "all"


@dataclass(frozen=True)
class ArmRuns:
    """The held-out predictions of one arm.

    Args:
        name: ``original``, ``fixed`` or ``control``.
        predictions: run name (its seed) to a table of predictions; the folds of a seed are one table.
    """

    name: str
    predictions: Mapping[str, pd.DataFrame] = field(repr=False)


@dataclass(frozen=True)
class Judged:
    """Which predictions of an arm are wrong.

    Args:
        runs: R names.
        original: bool ``R,N``: differs from the given label.
        clean: bool ``R,M``: differs from the clean label, over the rows that the fixes leave in.
    """

    runs: list[str]
    original: np.ndarray
    clean: np.ndarray


def compare_arms(
    original: ArmRuns,
    fixed: ArmRuns,
    fixes: pd.DataFrame,
    slices: Mapping[str, str] | None = None,
    control: ArmRuns | None = None,
) -> dict[str, Any]:
    """Compares arms over all held-out samples and over slices of them.

    Args:
        original: runs trained on the given labels.
        fixed: runs trained on the fixed labels.
        fixes: matched fixes, indexed by ``sample_id`` with ``new_label``.
        slices: name to a regular expression on the given label.
        control: runs trained with as many random samples taken out.

    Returns:
        What ``summary.json`` holds: ``slices.<name>`` with ``rows_original``, ``rows_clean``, ``error`` (percent),
        ``effect`` (points; more than 0 is better), ``runs`` (errors of each run), and the same for ``control``.

    Raises:
        RunError: arms without runs, or that hold out different samples.
        ConfigError: a slice that matches nothing.
    """
    arms = [arm for arm in (original, fixed, control) if arm is not None]
    labels = _common_labels(arms)
    new, keep = apply_fixes(labels, fixes)
    judged = {arm.name: _judge(arm, labels, new, keep) for arm in arms}
    names = labels.to_numpy(dtype=object)
    masks = {ALL: np.ones(len(labels), dtype=bool)}
    for name, pattern in (slices or {}).items():
        if name in masks or f"not {name}" in masks:
            raise ConfigError(f"slices.{name}: this name is taken", "name the slice otherwise")
        masks[name] = select_labels(list(names), name, pattern)
        masks[f"not {name}"] = ~masks[name]
    kept = keep.to_numpy()
    held_out_fixes = int(fixes.index.isin(labels.index).sum())
    return {
        "arms": {arm.name: {"runs": list(judged[arm.name].runs)} for arm in arms},
        "held_out": len(labels),
        "fixes": {"total": len(fixes), "held_out": held_out_fixes, "training": len(fixes) - held_out_fixes},
        "slices": {
            name: _slice(judged, mask, mask[kept], control is not None) for name, mask in masks.items() if mask.any()
        },
    }


def _common_labels(arms: Sequence[ArmRuns]) -> pd.Series:
    """Returns the given label of each held-out sample, after checking that all runs hold out the same."""
    reference: pd.Series | None = None
    first = ""
    for arm in arms:
        if not arm.predictions:
            raise RunError(
                f"the arm {arm.name} has no runs with predictions", f"train some: mlfix train arm={arm.name}"
            )
        for run, table in arm.predictions.items():
            labels = table.set_index("sample_id")["label"].astype(object).sort_index()
            if reference is None:
                reference, first = labels, f"{arm.name} {run}"
                continue
            if labels.index.equals(reference.index) and (labels.to_numpy() == reference.to_numpy()).all():
                continue
            other = labels.index.symmetric_difference(reference.index)
            what = (
                f"{len(other):,} samples differ: {listing(other, 3)}"
                if len(other)
                else f"{int((labels.to_numpy() != reference.to_numpy()).sum()):,} samples have another given label"
            )
            raise RunError(
                f"{arm.name} {run} and {first} do not hold out the same samples with the same labels: {what}",
                "compare runs of one data set and one split (split.*); the arm is set by arm=, not by other data",
            )
    assert reference is not None
    return reference


def _judge(arm: ArmRuns, labels: pd.Series, new: pd.Series, keep: pd.Series) -> Judged:
    kept = keep.to_numpy()
    given, clean = labels.to_numpy(dtype=object), new.to_numpy(dtype=object)[kept]
    original, cleaned = [], []
    for table in arm.predictions.values():
        pred = table.set_index("sample_id")["pred"].astype(object).reindex(labels.index).to_numpy()
        original.append(pred != given)
        cleaned.append(pred[kept] != clean)
    return Judged(list(arm.predictions), np.array(original, dtype=bool), np.array(cleaned, dtype=bool))


def _slice(judged: Mapping[str, Judged], rows: np.ndarray, clean_rows: np.ndarray, control: bool) -> dict[str, Any]:
    """Errors and effects over some rows (``rows``: bool N; ``clean_rows``: bool M)."""
    errors: dict[str, float | None] = {}
    runs: dict[str, list[float | None]] = {}
    for arm, found in judged.items():
        for kind, wrong, mask in (("original", found.original, rows), ("clean", found.clean, clean_rows)):
            each = 100 * wrong[:, mask].mean(1) if mask.any() else np.full(len(wrong), np.nan)
            runs[f"{arm}_on_{kind}"] = [_number(value) for value in each]
            errors[f"{arm}_on_{kind}"] = _number(each.mean())
    result = {
        "rows_original": int(rows.sum()),
        "rows_clean": int(clean_rows.sum()),
        "error": errors,
        "effect": _effect(errors, runs, judged, "fixed"),
        "runs": runs,
    }
    if control:
        result["control"] = {"effect": _effect(errors, runs, judged, "control")}
    return result


def _effect(
    errors: Mapping[str, float | None],
    runs: Mapping[str, list[float | None]],
    judged: Mapping[str, Judged],
    arm: str,
) -> dict[str, Any]:
    """Takes the effect of an arm apart; ``training_runs`` are the differences of runs of one seed, by seed."""
    before, middle, after = errors["original_on_original"], errors["original_on_clean"], errors[f"{arm}_on_clean"]
    if before is None or middle is None or after is None:
        nothing = dict.fromkeys(("total", "evaluation", "training", "training_ci95", "p_value"))
        return {**nothing, "training_runs": {}}
    first = dict(zip(judged["original"].runs, runs["original_on_clean"], strict=True))
    second = dict(zip(judged[arm].runs, runs[f"{arm}_on_clean"], strict=True))
    pairs = {seed: (value, second[seed]) for seed, value in first.items() if seed in second}
    return {
        "total": before - after,
        "evaluation": before - middle,
        "training": middle - after,
        "training_runs": {seed: a - b for seed, (a, b) in pairs.items() if a is not None and b is not None},
        "training_ci95": None,
        "p_value": None,
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)


def sentence(summary: Mapping[str, Any], name: str = ALL) -> str:
    """Says in one plain sentence what a slice shows."""
    piece = summary["slices"][name]
    effect = piece["effect"]
    if effect["total"] is None:
        return f"{name}: the fixes leave no held-out sample to judge by."
    training, evaluation = effect["training"], effect["evaluation"]
    pairs = effect["training_runs"].values()
    better = sum(value > 0 for value in pairs)
    less = "less" if training >= 0 else "more"
    return (
        f"{name}: models trained on the fixed labels err {abs(training):.2f} points {less} on the same clean rows "
        f"(better in {better} of {len(pairs)} pairs of runs). Another {evaluation:.2f} points of the total "
        f"{effect['total']:.2f} come from the cleaner yardstick alone, not from better models."
    )


def markdown(summary: Mapping[str, Any]) -> str:
    """Returns the comparison as a Markdown table with its sentences."""
    arms = summary["arms"]
    counts = ", ".join(f"{len(arm['runs'])} {name}" for name, arm in arms.items())
    fixes = summary["fixes"]
    lines = [
        "# Before against after",
        "",
        *[f"- {sentence(summary, name)}" for name in summary["slices"]],
        "",
        f"Runs: {counts}. Held out: {summary['held_out']:,} samples. Fixes: {fixes['total']:,}, of them "
        f"{fixes['training']:,} in training and {fixes['held_out']:,} held out.",
        "",
        "Error in %, mean of the runs (standard deviation); effects in points, more than 0 is better.",
        "",
        "| rows | original arm, original rows | original arm, clean rows | fixed arm, clean rows "
        "| evaluation effect | training effect |"
        + (" control, clean rows | control effect |" if "control" in arms else ""),
        "| --- | --- | --- | --- | --- | --- |" + (" --- | --- |" if "control" in arms else ""),
    ]
    for name, piece in summary["slices"].items():
        cells = [f"{name} ({piece['rows_original']:,} / {piece['rows_clean']:,})"]
        cells += [_cell(piece, key) for key in ("original_on_original", "original_on_clean", "fixed_on_clean")]
        cells += [_points(piece["effect"][key]) for key in ("evaluation", "training")]
        if "control" in arms:
            cells += [_cell(piece, "control_on_clean"), _points(piece["control"]["effect"]["training"])]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Intervals and tests are not computed yet: read small effects with care."]
    return "\n".join(lines) + "\n"


def _cell(piece: Mapping[str, Any], key: str) -> str:
    values = [value for value in piece["runs"][key] if value is not None]
    if not values:
        return "–"
    spread = f" ({np.std(values, ddof=1):.2f})" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{spread}"


def _points(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"
