"""A study: the arms' predictions brought together sample by sample, and judged by the given and by the clean labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from mlfix_train.data.fixes.table import apply_fixes
from mlfix_train.errors import RunError, format_list

REMOVED = -1


@dataclass(frozen=True)
class ArmRuns:
    """The held-out predictions of one arm.

    Args:
        name: ``original``, ``fixed`` or ``control``.
        predictions: run name (its seed) to a table with ``sample_id``, ``label`` and ``pred``; the folds of a seed are
            one table.
        seeded: the names are seeds, and runs of one name in two arms differ in nothing but their training labels.
    """

    name: str
    predictions: Mapping[str, pd.DataFrame] = field(repr=False)
    seeded: bool = True


@dataclass(frozen=True)
class Study:
    """Everything that a comparison needs, over N held-out samples and L labels.

    Args:
        samples: N ids.
        labels: L names.
        given: N given labels, as numbers into ``labels``.
        clean: N labels after the fixes; :data:`REMOVED` where a sample is taken out.
        groups: N group numbers.
        grouped: whether any group holds more than one sample.
        runs: arm to the names of its R runs.
        preds: arm to int32 ``R,N`` predicted labels; -1 where a run's table lacks the sample.
    """

    samples: pd.Index
    labels: np.ndarray
    given: np.ndarray
    clean: np.ndarray
    groups: np.ndarray
    grouped: bool
    runs: Mapping[str, list[str]]
    preds: Mapping[str, np.ndarray]

    @property
    def kept(self) -> np.ndarray:
        """N booleans, false where the fixes take the sample out."""
        return self.clean != REMOVED

    def given_labels(self) -> np.ndarray:
        """N given labels by name."""
        return np.asarray(self.labels[self.given], dtype=object)


@dataclass(frozen=True)
class Pairing:
    """Which runs are compared: ``arms`` with those runs alone, ``paired`` arms, and who was left out, in words."""

    arms: list[ArmRuns]
    paired: frozenset[str]
    left_out: list[str]


def pair_runs(arms: Sequence[ArmRuns], paired: bool | None = None) -> Pairing:
    """Finds the seeds that the arms have in common.

    With two common seeds or more the arms are reduced to them, so that errors and effects speak of the same runs (with
    one, if it is all that an arm has: a sweep that has just begun); otherwise all runs count and nothing is paired. A
    control arm that lacks more than a fifth of the seeds that the others have in common stays unpaired with all its
    runs, rather than cost them theirs.

    Args:
        arms: original, fixed and perhaps control.
        paired: ``None`` pairs seeded arms; ``True`` pairs by name whatever the names are; ``False`` pairs nothing.

    Raises:
        RunError: ``paired=True``, and fewer than two names are common.
    """
    able = [arm for arm in arms if paired or (paired is None and arm.seeded)]
    if all(arm in able for arm in arms[:2]):
        pair = _common(arms[:2])
        everywhere = _common(able)
        members, common = (able, everywhere) if len(everywhere) >= 0.8 * len(pair) else (list(arms[:2]), pair)
        sizes = [len(arm.predictions) for arm in members]
        if len(common) >= 2 or (common and (max(sizes) == 1 or (not paired and min(sizes) == 1))):
            names = {arm.name for arm in members}
            reduced = [_only(arm, common) if arm.name in names else arm for arm in arms]
            gone = [f"{arm.name} {run}" for arm in members for run in arm.predictions if run not in common]
            if len(members) < len(able):
                gone.append("no pairs of the control arm, which lacks too many of these seeds")
            return Pairing(reduced, frozenset(names), gone)
    if paired:
        raise RunError(
            "paired=true: the arms have fewer than two runs of the same name",
            "give files whose names end in the same numbers, or paired=false",
        )
    return Pairing(list(arms), frozenset(), [])


def _common(arms: Sequence[ArmRuns]) -> list[str]:
    return [run for run in arms[0].predictions if all(run in arm.predictions for arm in arms[1:])]


def _only(arm: ArmRuns, runs: Sequence[str]) -> ArmRuns:
    return replace(arm, predictions={run: arm.predictions[run] for run in runs})


def build_study(arms: Sequence[ArmRuns], fixes: pd.DataFrame, groups: pd.Series | None = None) -> Study:
    """Brings the predictions of arms together.

    Args:
        arms: the first is the reference: all its runs hold out the same samples.
        fixes: matched fixes, indexed by ``sample_id`` with ``new_label``.
        groups: group of each sample (photo or track) by ``sample_id``; ``None`` lets every sample stand alone.

    Raises:
        RunError: arms without runs, or that hold out other samples or give them other labels. Runs of other arms may
            lack samples that the fixes remove.
    """
    given = _reference(arms)
    new, keep = apply_fixes(given, fixes)
    kept = keep.to_numpy()
    names = pd.Index(sorted({*given, *new[kept]}), dtype=object)
    runs, preds = {}, {}
    for arm in arms:
        rows = []
        for run, table in arm.predictions.items():
            place = _check(table, given, kept, f"{arm.name} {run}", f"{arms[0].name} {next(iter(arms[0].predictions))}")
            found = table["pred"].astype(object).to_numpy()
            strange = sorted({str(name) for name in set(found) - set(names)})
            if strange:
                names = names.append(pd.Index(strange, dtype=object))
            row = np.full(len(given), -1, dtype=np.int32)
            row[place] = names.get_indexer(pd.Index(found, dtype=object))
            rows.append(row)
        runs[arm.name], preds[arm.name] = list(arm.predictions), np.array(rows)
    clean = np.where(kept, names.get_indexer(pd.Index(new.to_numpy(dtype=object))), REMOVED)
    codes, grouped = _group_codes(given.index, groups)
    return Study(
        given.index, names.to_numpy(dtype=object), names.get_indexer(pd.Index(given.to_numpy(dtype=object))), clean,
        codes, grouped, runs, preds,
    )  # fmt: skip


def _reference(arms: Sequence[ArmRuns]) -> pd.Series:
    for arm in arms:
        if not arm.predictions:
            raise RunError(
                f"the arm {arm.name} has no runs with predictions", f"train some: mlfix train arm={arm.name}"
            )
    table = next(iter(arms[0].predictions.values()))
    return table.set_index("sample_id")["label"].astype(object).sort_index()


def _check(table: pd.DataFrame, given: pd.Series, kept: np.ndarray, name: str, first: str) -> np.ndarray:
    """Returns the place of each row of a run's table among the samples."""
    place = np.asarray(given.index.get_indexer(pd.Index(table["sample_id"])))
    missing = np.ones(len(given), dtype=bool)
    missing[place[place >= 0]] = False
    unknown = table["sample_id"].to_numpy(dtype=object)[place < 0]
    other = [*unknown, *given.index[missing & kept]]
    if name.split()[0] == first.split()[0]:
        other = [*unknown, *given.index[missing]]
    differs = (place >= 0) & (
        given.to_numpy(dtype=object)[np.maximum(place, 0)] != table["label"].to_numpy(dtype=object)
    )
    if other:
        what = f"{len(other):,} samples differ: {format_list(other, 3)}"
    elif differs.any():
        what = f"{int(differs.sum()):,} samples have another given label, such as {table['sample_id'][differs].iloc[0]}"
    else:
        return place
    raise RunError(
        f"{name} and {first} do not hold out the same samples with the same labels: {what}",
        "compare runs of one data set and one split (split.*); the arm is set by arm=, not by other data",
    )


def _group_codes(samples: pd.Index, groups: pd.Series | None) -> tuple[np.ndarray, bool]:
    if groups is None:
        return np.arange(len(samples)), False
    own = pd.Series(samples, index=samples, dtype=object)
    known = groups.reindex(samples).astype(object)
    codes = pd.factorize(known.where(known.notna(), own))[0]
    return codes, int(codes.max(initial=-1)) + 1 < len(samples)
