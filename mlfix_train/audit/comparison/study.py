"""The predictions of all arms aligned by sample, with the given and the clean label of each, and which runs pair up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from mlfix_train.data.fixes.table import apply_fixes
from mlfix_train.errors import RunError, format_list

REMOVED = -1  # the clean label of a sample that the fixes exclude
MIN_CONTROL_OVERLAP = 0.8
"""Fraction of the common seeds of original and fixed arm that the control arm must have to be paired with them."""


@dataclass(frozen=True)
class ArmRuns:
    """The held-out predictions of one arm.

    Args:
        name: ``original``, ``fixed`` or ``control``.
        predictions: run name to a table with ``sample_id``, ``label`` (as given) and ``pred``, all folds in one.
        seeded: the names are seeds: runs of the same name in two arms differ only in the labels they were trained on.
    """

    name: str
    predictions: Mapping[str, pd.DataFrame] = field(repr=False)
    seeded: bool = True


@dataclass(frozen=True)
class Study:
    """Aligned predictions of all arms, over N held-out samples and L labels."""

    samples: pd.Index  # (N,) sample ids
    labels: np.ndarray  # (L,) label names
    given: np.ndarray  # (N,) given labels, as indices into labels
    clean: np.ndarray  # (N,) labels after the fixes; REMOVED for excluded samples
    groups: np.ndarray  # (N,) group numbers
    runs: Mapping[str, list[str]]  # arm to the names of its R runs
    preds: Mapping[str, np.ndarray]  # arm to (R, N) predicted labels, int32; -1 where a run's table lacks the sample

    @property
    def grouped(self) -> bool:
        """Whether any group has more than one sample."""
        return int(self.groups.max(initial=-1)) + 1 < len(self.samples)

    @property
    def kept(self) -> np.ndarray:
        """``(N,)`` booleans: false for samples that the fixes exclude."""
        return np.asarray(self.clean != REMOVED)

    def given_labels(self) -> np.ndarray:
        """Returns the ``(N,)`` given labels by name."""
        return np.asarray(self.labels[self.given], dtype=object)


@dataclass(frozen=True)
class Pairing:
    """Arms with the compared runs only, names of those whose runs form pairs, and which runs are not compared."""

    arms: list[ArmRuns]
    paired: frozenset[str]
    left_out: list[str]


def pair_runs(arms: Sequence[ArmRuns], paired: bool | None = None) -> Pairing:
    """Pairs runs of the same seed.

    With at least two common seeds, the arms are reduced to these, so that errors and effects refer to the same runs
    (one common seed is enough if an arm has no more: a sweep that has just started). Otherwise nothing is paired and
    all runs count. A control arm that lacks more than a fifth of the common seeds of the other two stays unpaired and
    keeps all its runs, rather than cost the others theirs.

    Args:
        arms: original, fixed and, optionally, control.
        paired: ``None`` pairs arms whose run names are seeds; ``True`` pairs runs of the same name in any case;
            ``False`` pairs nothing.

    Raises:
        RunError: ``paired=True`` with fewer than two common names.
    """
    candidates = [arm for arm in arms if paired or (paired is None and arm.seeded)]
    if all(arm in candidates for arm in arms[:2]):
        main_seeds, all_seeds = _common_runs(arms[:2]), _common_runs(candidates)
        overlaps = len(all_seeds) >= MIN_CONTROL_OVERLAP * len(main_seeds)
        members, common = (candidates, all_seeds) if overlaps else (list(arms[:2]), main_seeds)
        sizes = [len(arm.predictions) for arm in members]
        if len(common) >= 2 or (common and (max(sizes) == 1 or (not paired and min(sizes) == 1))):
            kept = {arm.name: {run: arm.predictions[run] for run in common} for arm in members}
            reduced = [replace(arm, predictions=kept.get(arm.name, arm.predictions)) for arm in arms]
            left_out = [f"{arm.name} {run}" for arm in members for run in arm.predictions if run not in common]
            if len(members) < len(candidates):
                left_out.append("the pairing of the control arm (it lacks too many of these seeds)")
            return Pairing(reduced, frozenset(kept), left_out)
    if paired:
        hint = "use files whose names end in the same numbers, or set paired=false"
        raise RunError("paired=true: the arms have fewer than two runs of the same name", hint)
    return Pairing(list(arms), frozenset(), [])


def _common_runs(arms: Sequence[ArmRuns]) -> list[str]:
    return [run for run in arms[0].predictions if all(run in arm.predictions for arm in arms[1:])]


def build_study(arms: Sequence[ArmRuns], fixes: pd.DataFrame, groups: pd.Series | None = None) -> Study:
    """Aligns the predictions of all arms by sample.

    Args:
        arms: all runs of the first hold out the same samples; those of the others may lack what the fixes exclude.
        fixes: matched fixes, indexed by ``sample_id``, with ``new_label``.
        groups: group (photo or track) of each sample by ``sample_id``; without it every sample is its own group.

    Raises:
        RunError: an arm without runs, or runs that hold out other samples or with other given labels.
    """
    for arm in arms:
        if not arm.predictions:
            hint = f"train some: mlfix train arm={arm.name}"
            raise RunError(f"the arm {arm.name} has no runs with predictions", hint)
    table = next(iter(arms[0].predictions.values()))
    given = table.set_index("sample_id")["label"].astype(object).sort_index()
    new_labels, keep = apply_fixes(given, fixes)
    kept = keep.to_numpy()
    names = pd.Index(sorted({*given, *new_labels[kept]}), dtype=object)
    reference = f"{arms[0].name} {next(iter(arms[0].predictions))}"
    runs, preds = {}, {}
    for arm in arms:
        runs[arm.name] = list(arm.predictions)
        preds[arm.name] = np.full((len(arm.predictions), len(given)), -1, dtype=np.int32)
        for row, (run, table) in zip(preds[arm.name], arm.predictions.items(), strict=True):
            required = np.ones(len(given), dtype=bool) if arm is arms[0] else kept
            positions = _positions(table, given, required, f"{arm.name} {run}", reference)
            predicted = table["pred"].astype(object).to_numpy()
            unknown = sorted({str(name) for name in set(predicted) - set(names)})
            names = names.append(pd.Index(unknown, dtype=object))
            row[positions] = names.get_indexer(pd.Index(predicted, dtype=object))
    clean = np.where(kept, names.get_indexer(pd.Index(new_labels.to_numpy(dtype=object))), REMOVED)
    codes = np.arange(len(given))
    if groups is not None:
        known = groups.reindex(given.index).astype(object)
        codes = pd.factorize(known.where(known.notna(), pd.Series(given.index, index=given.index, dtype=object)))[0]
    given_codes = names.get_indexer(pd.Index(given.to_numpy(dtype=object)))
    return Study(given.index, names.to_numpy(dtype=object), given_codes, clean, codes, runs, preds)


def _positions(table: pd.DataFrame, given: pd.Series, required: np.ndarray, run: str, reference: str) -> np.ndarray:
    """Returns the position of each row of a run's table among the N samples; all ``required`` ones must be there."""
    positions = np.asarray(given.index.get_indexer(pd.Index(table["sample_id"])))
    missing = np.ones(len(given), dtype=bool)
    missing[positions[positions >= 0]] = False
    unmatched = [*table["sample_id"].to_numpy(dtype=object)[positions < 0], *given.index[missing & required]]
    if unmatched:
        problem = f"{len(unmatched):,} samples differ: {format_list(unmatched, 3)}"
    else:
        relabeled = given.to_numpy(dtype=object)[positions] != table["label"].to_numpy(dtype=object)
        if not relabeled.any():
            return positions
        first = table["sample_id"][relabeled].iloc[0]
        problem = f"{int(relabeled.sum()):,} samples have a different given label, such as {first}"
    raise RunError(
        f"{run} and {reference} do not hold out the same samples with the same labels: {problem}",
        "compare runs of the same data and split (split.*); arms differ in arm=, not in their data",
    )
