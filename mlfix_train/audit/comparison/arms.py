"""The comparison of arms: what fixing the labels changed, split into its two effects, with their uncertainty.

Published comparisons often judge the original models on all held-out samples and the fixed models on those that remain
after the fixes, which mixes two effects. Here

    total      = error(original arm, original rows) - error(fixed arm, clean rows)
    evaluation = error(original arm, original rows) - error(original arm, clean rows)   same models, better labels
    training   = error(original arm, clean rows)    - error(fixed arm, clean rows)      better models, same labels

so that total = evaluation + training. Original rows: all held-out samples with their given labels. Clean rows: the
held-out samples that the fixes keep, with their new labels.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.audit.comparison import verdict
from mlfix_train.audit.comparison.families import judge_together
from mlfix_train.audit.comparison.fix_effects import fix_effects
from mlfix_train.audit.comparison.inputs import ArmLike, FixesLike, as_arm, as_fixes
from mlfix_train.audit.comparison.intervals import resampling_workers
from mlfix_train.audit.comparison.label_changes import label_changes
from mlfix_train.audit.comparison.looks import describe_looks
from mlfix_train.audit.comparison.sequential import LookPlan
from mlfix_train.audit.comparison.slice_results import SliceErrors, slice_result
from mlfix_train.audit.comparison.study import build_study, pair_runs
from mlfix_train.audit.comparison.verdict import Verdict
from mlfix_train.audit.scores.slices import ALL, SliceSpec, select_slices
from mlfix_train.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Comparison:
    """The result of :func:`compare_arms`, all of it in ``summary``, as in ``summary.json``; a table in a notebook."""

    summary: dict[str, Any]

    def __repr__(self) -> str:
        return f"<Comparison of {len(self.summary['slices']):,} slices: {self.headline}>"

    @property
    def headline(self) -> str:
        """What is shown, or not, in one sentence."""
        return str(self.summary["headline"])

    @property
    def table(self) -> pd.DataFrame:
        """One row per slice: errors in percent; effects in points (above 0 is better), interval and p-value."""
        rows = {}
        for name, result in self.summary["slices"].items():
            effect = result["effect"]
            rows[name] = {
                **{key: result[key] for key in ("rows_original", "rows_clean")},
                **result["error"],
                **{key: effect[key] for key in ("total", "evaluation", "training")},
                **dict(zip(("training_low", "training_high"), effect["training_ci95"] or (None, None), strict=True)),
                "p_value": effect["p_value"],
                "verdict": str(result["verdict"]),
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("slice")

    @property
    def label_changes(self) -> pd.DataFrame:
        """One row per label: error ``before`` and ``after``, training effect, interval, p- and q-value."""
        return pd.DataFrame(self.summary["labels"])

    def to_markdown(self) -> str:
        """Returns headline, tables, sentences and method as Markdown."""
        from mlfix_train.audit.reporting.comparison_report import comparison_markdown

        return comparison_markdown(self.summary)

    def report(self, folder: str | Path) -> list[Path]:
        """Writes ``summary.json``, ``compare.md``, ``compare.html`` and charts; returns the charts' paths."""
        from mlfix_train.audit.reporting.comparison_report import write_comparison

        return write_comparison(self.summary, Path(folder))

    def _repr_markdown_(self) -> str:
        return self.to_markdown()


def compare_arms(
    original: ArmLike,
    fixed: ArmLike,
    control: ArmLike | None = None,
    *,
    fixes: FixesLike,
    slices: Mapping[str, SliceSpec] | None = None,
    primary: str | None = None,
    plan: LookPlan | None = None,
    earlier_looks: Sequence[int] = (),
    labels: Sequence[str] | np.ndarray | None = None,
    sample_ids: Sequence[str] | None = None,
    groups: pd.Series | None = None,
    metadata: pd.DataFrame | None = None,
    paired: bool | None = None,
    seed: int = 0,
    resamples: int = 10_000,
    details: bool = True,
) -> Comparison:
    """Compares arms over all held-out samples and over slices of them.

    Each arm is given as one of: run directories (a path, a glob, or a list of them), prediction files, a list of
    DataFrames with ``sample_id``, ``label`` and ``pred`` (one per run; a mapping gives them names), an array ``(R, N)``
    of predicted labels (with ``labels``), or an :class:`~mlfix_train.audit.comparison.study.ArmRuns`.

    Args:
        original: runs trained on the given labels.
        fixed: runs trained with the fixes.
        control: runs trained with as many random samples excluded.
        fixes: path of a fixes file, a mapping of ``sample_id`` to new label (or ``invalid``), or a DataFrame with
            ``sample_id`` and ``new_label``.
        slices: name to specification, see :func:`mlfix_train.audit.scores.slices.select_slices`; a string is a regular
            expression on the given label. From two on, all p-values and intervals are simultaneous.
        primary: a slice named beforehand: tested alone, the others only where it is shown.
        plan: of a study that is looked at while it is trained; ``all`` is primary unless another slice is.
        earlier_looks: runs of each arm at looks that were taken without a plan; the result says so.
        labels: ``(N,)`` given labels, for arms that are arrays.
        sample_ids: ``(N,)`` sample ids, for arms that are arrays; by default 0, 1, ... as text.
        groups: photo or track of each sample, by ``sample_id``; groups are resampled as a whole.
        metadata: columns that slices may refer to, by ``sample_id``.
        paired: see :func:`mlfix_train.audit.comparison.study.pair_runs`.
        seed: of resampling and permutation.
        resamples: number of resamples and of permutations.
        details: compute the macro average, the change of every single label and what each fix did, too.

    Returns:
        The comparison. Its ``summary`` has ``slices.<name>`` (see
        :func:`mlfix_train.audit.comparison.slice_results.slice_result`) with ``verdict`` and ``sentence``, ``labels``
        (see :func:`mlfix_train.audit.comparison.label_changes.label_changes`) and ``headline``.

    Raises:
        RunError: arms without runs, or that hold out different samples.
        FixesError: a fixes file that can't be read.
        ConfigError: a slice that matches nothing; a primary slice that there isn't.

    Example:
        >>> import numpy as np
        >>> from mlfix_train import compare_arms
        >>> labels = np.array(["cat", "dog"] * 20)
        >>> labels[0] = "dog"  # wrong
        >>> original = np.tile(np.where(np.arange(40) < 8, "cat", labels), (3, 1))  # (runs, samples), predicted labels
        >>> fixed = np.tile(np.where(np.arange(40) < 4, "cat", labels), (3, 1))
        >>> comparison = compare_arms(original, fixed, fixes={"0": "cat"}, labels=labels, resamples=200)
        >>> comparison.table.loc["all", ["total", "evaluation", "training"]].tolist()
        [7.5, 2.5, 5.0]
    """
    given = {"original": original, "fixed": fixed, "control": control}
    arms = [as_arm(name, runs, labels, sample_ids) for name, runs in given.items() if runs is not None]
    pairing = pair_runs(arms, paired)
    fix_table = as_fixes(fixes, arms[0])
    study = build_study(pairing.arms, fix_table, groups)
    masks = select_slices(slices or {}, study.given_labels(), study.samples, metadata)
    if plan is not None and primary is None:
        primary = ALL
    if primary is not None and primary not in masks:
        raise ConfigError(f"primary={primary} is no slice", did_you_mean(primary, list(masks)))
    runs = min(len(study.runs[arm]) for arm in ("original", "fixed"))
    plan = None if plan is None else plan.at(runs)
    paired_fixed = "fixed" in pairing.paired
    errors = {
        macro: {name: SliceErrors(study, mask, macro, seed, resamples) for name, mask in masks.items()}
        for macro in (False, True)
    }
    tested, looks = {}, None
    for macro, by_slice in errors.items() if details else [(False, errors[False])]:
        effects = {name: one.fixed_effect(paired_fixed) for name, one in by_slice.items()}
        tested[macro], found = judge_together(effects, primary, plan, seed, resamples)
        looks = looks or found

    def result_of(name: str) -> dict[str, Any]:
        macro = (errors[True][name], tested[True][name]) if details else None
        return slice_result(errors[False][name], pairing.paired, tested[False][name], macro)

    with ThreadPoolExecutor(resampling_workers(resamples)) as pool:
        results = list(pool.map(result_of, masks))
    labels_changed = label_changes(study, paired_fixed) if details else []
    held_out = int(fix_table.index.isin(study.samples).sum())
    total = len(fix_table) + int(fix_table.attrs.get("outside", 0))
    summary: dict[str, Any] = {
        "arms": {
            name: {"runs": names, "paired": {name, "original"} <= pairing.paired} for name, names in study.runs.items()
        },
        "left_out": pairing.left_out,
        "held_out": len(study.samples),
        "groups": int(study.groups.max(initial=-1)) + 1 if study.grouped else None,
        "fixes": {"total": total, "held_out": held_out, "training": total - held_out},
        "slices": dict(zip(masks, results, strict=True)),
        "primary": primary,
        "labels": labels_changed,
        "by_fix": fix_effects(study, fix_table, labels_changed, paired_fixed) if details else None,
        "settings": {"resamples": resamples, "seed": seed, "slices": dict(slices or {}), "primary": primary},
    }
    summary["slices_tested"] = sum(result["effect"]["p_value"] is not None for result in summary["slices"].values())
    for name, result in summary["slices"].items():
        result["verdict"] = verdict.judge(result["effect"])
        result["sentence"] = verdict.sentence(name, result)
    shown = primary is not None and summary["slices"][primary]["verdict"] in (Verdict.BETTER, Verdict.WORSE)
    summary["looks"] = describe_looks(plan, looks, [*earlier_looks, runs], len(arms), shown)
    summary["verdict"] = summary["slices"][verdict.headline_slice(summary)]["verdict"]
    summary["headline"] = verdict.headline(summary)
    return Comparison(summary)
