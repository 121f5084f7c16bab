"""Before against after: the errors of the arms, judged by the given labels and by the clean ones, and the effect taken
apart, with its uncertainty.

The published comparison lets the two effects of fixing run together: it judges the original arm by all held-out
samples and the fixed arm by those without the invalid ones. Here

    total      = error(original arm, original rows) - error(fixed arm, clean rows)
    evaluation = error(original arm, original rows) - error(original arm, clean rows)   the same models, judged anew
    training   = error(original arm, clean rows)    - error(fixed arm, clean rows)      better models, judged alike

so that total = evaluation + training. Clean rows: held-out samples that the fixes leave in, judged by their new label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from mlfix_train.audit.comparison import effects as evidence
from mlfix_train.audit.comparison import verdict
from mlfix_train.audit.comparison.effects import Part
from mlfix_train.audit.comparison.label_changes import label_changes
from mlfix_train.audit.comparison.study import ArmRuns, Study, build_study, pair_runs
from mlfix_train.audit.scores.slices import ALL, SliceSpec, select_slices

KINDS = ("original", "clean")
PLANNED = 5
"""More slices than this are taken for a search, whose p-values are corrected for their number."""


@dataclass(frozen=True)
class Settings:
    """How uncertainty is computed.

    Args:
        seed: of resampling and permutation.
        resamples: draws of each.
    """

    seed: int = 0
    resamples: int = 10_000


def compare_arms(
    original: ArmRuns,
    fixed: ArmRuns,
    fixes: pd.DataFrame,
    slices: Mapping[str, SliceSpec] | None = None,
    control: ArmRuns | None = None,
    *,
    groups: pd.Series | None = None,
    metadata: pd.DataFrame | None = None,
    paired: bool | None = None,
    seed: int = 0,
    resamples: int = 10_000,
    labels: bool = True,
) -> dict[str, Any]:
    """Compares arms over all held-out samples and over slices of them.

    Args:
        original: runs trained on the given labels.
        fixed: runs trained on the fixed labels.
        fixes: matched fixes, indexed by ``sample_id`` with ``new_label``.
        slices: name to what it holds, see :func:`mlfix_train.audit.scores.slices.select_slices`.
        control: runs trained with as many random samples taken out.
        groups: photo or track of each sample, by ``sample_id``; they are resampled as wholes.
        metadata: columns that slices may name, by ``sample_id``.
        paired: see :func:`mlfix_train.audit.comparison.study.pair_runs`.
        seed: of resampling and permutation.
        resamples: draws of each.
        labels: compute the changes of single labels too.

    Returns:
        What ``summary.json`` holds: ``slices.<name>`` with ``rows_original``, ``rows_clean``, ``error`` and
        ``error_sd`` (percent), ``effect`` (points; more than 0 is better), ``macro`` (labels weigh alike), ``runs``
        (errors of each run), ``verdict``, ``sentence``, and the same for ``control``; ``labels``; ``headline``.

    Raises:
        RunError: arms without runs, or that hold out different samples.
        ConfigError: a slice that matches nothing.
    """
    pairing = pair_runs([arm for arm in (original, fixed, control) if arm is not None], paired)
    study = build_study(pairing.arms, fixes, groups)
    masks = select_slices(slices or {}, study.given_labels(), study.samples, metadata)
    options = Settings(seed, resamples)
    held_out = int(fixes.index.isin(study.samples).sum())
    summary: dict[str, Any] = {
        "arms": {
            name: {"runs": runs, "paired": name in pairing.paired and "original" in pairing.paired}
            for name, runs in study.runs.items()
        },
        "left_out": pairing.left_out,
        "held_out": len(study.samples),
        "groups": int(study.groups.max(initial=-1)) + 1 if study.grouped else None,
        "fixes": {"total": len(fixes), "held_out": held_out, "training": len(fixes) - held_out},
        "slices": {name: _slice(study, mask, pairing.paired, options) for name, mask in masks.items()},
        "labels": label_changes(study, "fixed" in pairing.paired) if labels else [],
    }
    summary["slices_tested"] = correct_for_many(summary["slices"])
    for name, piece in summary["slices"].items():
        piece["verdict"] = verdict.judge(piece["effect"])
        piece["sentence"] = verdict.sentence(name, piece)
    summary["headline"] = verdict.headline(summary)
    return summary


def correct_for_many(slices: Mapping[str, Any]) -> dict[str, Any]:
    """Adds a q-value (Benjamini and Hochberg 1995, by scipy) to each slice's training effect where there are many.

    Complements (``not <name>``) are no questions of their own, and get no q-value.

    Returns:
        ``count`` of the slices that were tested, and whether they are ``corrected`` for their number.
    """
    effects = [piece["effect"] for name, piece in slices.items() if not name.startswith("not ")]
    tested = [effect for effect in effects if effect["p_value"] is not None]
    corrected = len(tested) > PLANNED
    if corrected:
        adjusted = stats.false_discovery_control([effect["p_value"] for effect in tested], method="bh")
        for effect, q in zip(tested, adjusted, strict=True):
            effect["q_value"] = float(q)
    return {"count": len(tested), "corrected": corrected}


def _slice(study: Study, mask: np.ndarray, paired: frozenset[str], options: Settings) -> dict[str, Any]:
    """Errors and effects over the samples of ``mask`` (bool N)."""
    clean = mask & study.kept
    plain = _Errors(study, mask, clean, macro=False)
    macro = _Errors(study, mask, clean, macro=True)
    arms = [arm for arm in study.runs if arm != "original"]
    result: dict[str, Any] = {
        "rows_original": int(mask.sum()),
        "rows_clean": int(clean.sum()),
        "groups_clean": len(np.unique(study.groups[clean])),
        "error": plain.means(),
        "error_sd": plain.spreads(),
        "effect": _effect(plain, "fixed", "fixed" in paired, options),
        "macro": {"error": macro.means(), "effect": _effect(macro, "fixed", "fixed" in paired, options, short=True)},
        "runs": plain.runs(),
    }
    if "control" in arms:
        pair = "control" in paired
        result["control"] = {
            "effect": _effect(plain, "control", pair, options),
            "cleaning": _difference(plain, "control", "fixed", pair and "fixed" in paired, options),
        }
    return result


class _Errors:
    """The errors of all arms over one slice, as parts of effects (see :mod:`mlfix_train.audit.comparison.effects`)."""

    def __init__(self, study: Study, mask: np.ndarray, clean: np.ndarray, macro: bool) -> None:
        self.study, self.macro = study, macro
        self.rows = {"original": np.flatnonzero(mask), "clean": np.flatnonzero(clean)}
        self.truth = {"original": study.given, "clean": study.clean}
        self.cache: dict[tuple[str, str, str], Part | None] = {}

    def part(self, arm: str, kind: str, numbering: str) -> Part | None:
        """The error of an arm on rows of a kind; groups are numbered over the rows of the kind ``numbering``."""
        key = (arm, kind, numbering)
        if key not in self.cache:
            self.cache[key] = self._part(*key)
        return self.cache[key]

    def _part(self, arm: str, kind: str, numbering: str) -> Part | None:
        rows = self.rows[kind]
        preds = self.study.preds[arm][:, rows]
        if not len(rows) or (preds < 0).any():  # MLfix's files of the fixed arm lack the removed rows
            return None
        truth = self.truth[kind][rows]
        wrong = preds != truth
        own = np.unique(self.study.groups[self.rows[numbering]])
        groups = np.searchsorted(own, self.study.groups[rows])
        if not self.macro:
            weights, centre = np.full(len(rows), 100.0 / len(rows)), np.full(len(rows), wrong.mean())
        else:
            _, codes, counts = np.unique(truth, return_inverse=True, return_counts=True)
            weights = 100.0 / len(counts) / counts[codes]
            centre = np.full(len(rows), float(wrong.mean(0) @ weights) / 100)
        return evidence.part(wrong, weights, centre, groups, len(own))

    def runs(self) -> dict[str, list[float] | None]:
        """Errors of each run, in percent, by ``<arm>_on_<kind>``."""
        found = {}
        for arm in self.study.runs:
            for kind in KINDS:
                one = self.part(arm, kind, kind)
                found[f"{arm}_on_{kind}"] = None if one is None else [round(float(x), 6) for x in one.runs]
        return found

    def means(self) -> dict[str, float | None]:
        """Mean over the runs of each error."""
        return {key: None if not values else round(float(np.mean(values)), 6) for key, values in self.runs().items()}

    def spreads(self) -> dict[str, float | None]:
        """Standard deviation between the runs of each error; ``None`` for fewer than two."""
        return {
            key: round(float(np.std(values, ddof=1)), 6) if values and len(values) > 1 else None
            for key, values in self.runs().items()
        }


def _effect(errors: _Errors, arm: str, paired: bool, options: Settings, short: bool = False) -> dict[str, Any]:
    """Takes the effect of an arm apart; ``short`` leaves out the intervals of total and evaluation effect."""
    before, middle = errors.part("original", "original", "original"), errors.part("original", "clean", "original")
    after = errors.part(arm, "clean", "original")
    training = _difference(errors, "original", arm, paired, options)
    result: dict[str, Any] = {"total": None, "evaluation": None, **training}
    if before is None or middle is None or after is None:
        return result
    total, evaluation = _apart(before, after, paired), [evidence.add(before, middle)]
    result |= {"total": round(evidence.estimate(total), 12) + 0.0,
               "evaluation": round(evidence.estimate(evaluation), 12) + 0.0}  # fmt: skip
    if not short:
        result["total_ci95"], result["evaluation_ci95"] = _interval(total, options), _interval(evaluation, options)
    return result


def _difference(errors: _Errors, first: str, second: str, paired: bool, options: Settings) -> dict[str, Any]:
    """The error of ``first`` less that of ``second`` on clean rows, in points, and how sure it is."""
    one, other = errors.part(first, "clean", "clean"), errors.part(second, "clean", "clean")
    if one is None or other is None:
        return {"training": None, "training_ci95": None, "p_value": None, "runs": [0], "paired": paired}
    parts = _apart(one, other, paired)
    effect, found = round(evidence.estimate(parts), 12) + 0.0, evidence.variance(parts)
    counts = [len(one.runs)] if paired else [len(one.runs), len(other.runs)]
    result: dict[str, Any] = {
        "training": effect,
        "training_ci95": _interval(parts, options),
        "p_value": evidence.permutation_p(parts, options.seed, options.resamples),
        "p_least": evidence.smallest_p(counts),
        "paired": paired,
        "runs": counts,
        "runs_for_80_power": _runs_needed(effect, found, len(counts)),
        "sd_runs": None if found is None else float(np.sqrt(found.total - found.groups)),
        "sd_samples": None if found is None else float(np.sqrt(found.groups)),
    }
    if paired:
        names = errors.study.runs[first]
        result["training_runs"] = {name: round(float(x), 6) for name, x in zip(names, parts[0].runs, strict=True)}
    return result


def _runs_needed(effect: float, found: evidence.Variance | None, sides: int) -> int | None:
    """The number of runs of each arm; never so few that no permutation test could bring p below 0.05."""
    needed = evidence.runs_needed(effect, found)
    fewest = next(n for n in range(2, 10) if evidence.smallest_p([n] * sides) < verdict.ALPHA)
    return None if needed is None else max(needed, fewest)


def _interval(parts: Sequence[Part], options: Settings) -> list[float] | None:
    """The 95% interval, within what a difference of percentages can be."""
    found = evidence.interval(parts, options.seed, options.resamples)
    return None if found is None else [min(100.0, max(-100.0, end)) for end in found]


def _apart(one: Part, other: Part, paired: bool) -> Sequence[Part]:
    return [evidence.add(one, other)] if paired else [one, evidence.negate(other)]


__all__ = ["ALL", "ArmRuns", "compare_arms"]
