"""Run directories, prediction files, DataFrames and arrays become arms; checks that the arms belong together."""

import hashlib
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.audit.comparison.study import ArmRuns
from mlfix_train.audit.predictions import files
from mlfix_train.audit.predictions.checks import match_names, probability_columns
from mlfix_train.audit.predictions.files import Paths
from mlfix_train.audit.predictions.table import REQUIRED, read_predictions
from mlfix_train.data.files.tables import column_text
from mlfix_train.data.fixes.table import COLUMNS as FIXES_COLUMNS
from mlfix_train.data.fixes.table import fixes_fingerprint, match_fixes, read_fixes
from mlfix_train.data.matching import IdMatcher
from mlfix_train.data.runs import FINISHED, RunDirectory, differences, find_runs
from mlfix_train.errors import RunError, format_list

log = logging.getLogger(__name__)

ArmLike = ArmRuns | Paths | Sequence[pd.DataFrame] | Mapping[str, pd.DataFrame] | np.ndarray
FixesLike = str | Path | Mapping[str, str] | pd.DataFrame

IGNORABLE = ("settings", "fixes", "labels", "copies")
"""Differences between arms that :func:`check_comparable` and :func:`check_distinct` can ignore."""
MIN_COPY_ROWS, MIN_COPY_LOSSES = 20, 6
"""Equal losses mean a copied run only if there are this many samples, and this many different losses."""


@dataclass
class LoadedArm:
    """An arm read from disk."""

    runs: ArmRuns
    states: dict[Path, dict[str, Any]] = field(default_factory=dict)  # run.json of each run; none for prediction files
    paths: list[str] = field(default_factory=list)  # of its runs or files
    partial: list[str] = field(default_factory=list)  # what is missing, such as unfinished runs
    published: bool = False  # whether the files are in the format of MLfix's published predictions


def as_arm(
    name: str, runs: ArmLike, labels: Sequence[str] | np.ndarray | None = None, sample_ids: Sequence[str] | None = None
) -> ArmRuns:
    """Returns an arm from whatever :func:`mlfix_train.audit.comparison.arms.compare_arms` takes.

    Raises:
        RunError: an array without labels, or of another shape; paths without finished runs.
    """
    if isinstance(runs, ArmRuns):
        return runs
    if isinstance(runs, Mapping):
        return ArmRuns(name, {run: _as_text(table, f"{name}[{run!r}]") for run, table in runs.items()})
    if isinstance(runs, (str, os.PathLike)):
        return load_arm(name, runs).runs
    if isinstance(runs, np.ndarray):
        if labels is None or runs.ndim != 2 or runs.shape[1] != len(labels):
            given = "no labels" if labels is None else f"{len(labels)} labels"
            raise RunError(
                f"{name}= is an array of shape {runs.shape}, with {given}",
                "pass predicted labels as an array of shape (runs, samples), and labels= with one label per sample",
            )
        ids = [str(number) for number in range(len(labels))] if sample_ids is None else list(sample_ids)
        table = pd.DataFrame({"sample_id": ids, "label": np.asarray(labels).astype(str)})
        tables = [table.assign(pred=row.astype(str)) for row in runs]
    else:
        tables = [item for item in runs if isinstance(item, pd.DataFrame)]
        if not tables:
            return load_arm(name, [str(item) for item in runs]).runs
        tables = [_as_text(table, f"{name}[{number}]") for number, table in enumerate(tables)]
    return ArmRuns(name, {str(number): table for number, table in enumerate(tables)}, seeded=False)


def _as_text(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """Returns predictions with ids and labels as text, those of ``pred`` in the spelling of ``label``."""
    columns = [name for name in REQUIRED if name in table.columns]
    missing = {"sample_id", "label"} - set(columns)
    if missing:
        problem = f"{source} lacks the columns {format_list(sorted(missing))}; it has {format_list(table.columns, 8)}"
        raise RunError(problem, "pass sample_id, label and pred, or a column of probabilities for each class")
    if not all(pd.api.types.infer_dtype(table[name]) == "string" for name in columns):
        texts = {name: column_text(table[name], f"{source}: {{place}}", error_type=RunError) for name in columns}
        table = table.assign(**{name: pd.Series(text, table.index, object) for name, text in texts.items()})
    if "pred" not in columns:
        shares = probability_columns(table, table["label"].unique(), source, lambda row: f"row {row}")
        if shares is None:
            problem = f"{source} has no column pred, nor a column of probabilities for each label"
            raise RunError(problem, "add pred: the predicted label of each sample")
        best = table[list(shares.values())].to_numpy(np.float64).argmax(1)
        return table.assign(pred=np.array(list(shares), dtype=object)[best])
    if len(table):
        table = table.assign(pred=match_names(table["label"], table["pred"], source))
    return table


def as_fixes(fixes: FixesLike, reference: ArmRuns) -> pd.DataFrame:
    """Returns fixes as a table indexed by ``sample_id``, with ``new_label``.

    A file, a mapping and a table with a column ``sample_id`` are matched to the held-out samples of ``reference``.
    """
    if isinstance(fixes, Mapping):
        columns = {"sample_id": list(map(str, fixes)), "new_label": list(map(str, fixes.values()))}
        fixes = pd.DataFrame(columns, dtype=object)
    if isinstance(fixes, (str, os.PathLike)):
        return match_held_out(read_fixes(fixes), reference)
    if not isinstance(fixes, pd.DataFrame):
        hint = "pass a fixes file, a mapping of sample ids to new labels, or a DataFrame"
        raise RunError(f"fixes= is a {type(fixes).__name__}", hint)
    if "new_label" not in fixes.columns:
        raise RunError(f"fixes= has the columns {format_list(fixes.columns, 8)}", "pass sample_id and new_label")
    if "sample_id" not in fixes.columns:
        return fixes
    rest = {name: "" for name in FIXES_COLUMNS if name not in fixes.columns}
    return match_held_out(fixes.assign(**rest, row=range(1, len(fixes) + 1)), reference)


def match_held_out(fixes: pd.DataFrame, reference: ArmRuns, ignore: Collection[str] = ()) -> pd.DataFrame:
    """Matches fixes to the held-out samples of an arm (as ``match_fixes``), where the training samples are not known.

    ``attrs["outside"]`` of the result is the number of fixed samples that are not held out.
    """
    held_out = next(iter(reference.predictions.values())).set_index("sample_id")[["label"]]
    known = IdMatcher(held_out).match(fixes["sample_id"]).ids
    found = fixes[fixes["sample_id"].isin(known)]
    found.attrs.update(fixes.attrs)
    matched = match_fixes(found, held_out, (*ignore, "unknown_samples", "new_labels", "empty_labels"))
    matched.attrs["outside"] = fixes["sample_id"].nunique() - len(matched)
    if len(fixes) and not len(matched):
        text = "none of the %s fixes is of a held-out sample: fixes name %s, held-out samples %s"
        log.warning(text, f"{len(fixes):,}", fixes["sample_id"].iloc[0], held_out.index[0])
    return matched


def load_arm(name: str, where: Paths) -> LoadedArm:
    """Reads an arm from run directories (single ones, directories of them, globs) or prediction files (globs, too).

    Raises:
        RunError: nothing is there, a run of another arm, two runs of one seed, or no finished run.
    """
    paths = files.find_prediction_files(where)
    if not paths:
        return _load_runs(name, where)
    real = [os.path.realpath(path) for path in paths]
    for number, path in enumerate(paths):
        if real[number] in real[:number]:
            raise RunError(f"{name}= lists {path} twice", "list each file once")
    named = dict(zip(files.run_names(paths), paths, strict=True))
    order = sorted(named, key=lambda run: run.zfill(12) if run.isdigit() else run)
    tables = {run: files.read_predictions_file(named[run]) for run in order}
    published = all(table.attrs.get("published") for table in tables.values())
    arm = ArmRuns(name, tables, seeded=False)
    return LoadedArm(arm, paths=[str(named[run]) for run in order], published=published)


def _load_runs(name: str, where: Paths) -> LoadedArm:
    states: dict[Path, dict[str, Any]] = {}
    patterns, partial = [], []
    # A predictions file in a run directory stands for the run.
    for pattern, matches in files.expand_paths(where).items():
        only_files = bool(matches) and all(os.path.isfile(path) for path in matches)
        parents = [str(Path(path).parent) for path in matches if (Path(path).parent / "run.json").exists()]
        patterns += parents if only_files and parents else [pattern]
    runs = find_runs(patterns, name)
    for run in runs:
        if run.status != FINISHED:
            partial.append(f"{name}: {run.path} is {run.status or 'not started'}")
            continue
        if not run.predictions.exists():
            partial.append(f"{name}: {run.path} has no {run.predictions.name}; train it again")
            continue
        state = states[run.path] = run.require()
        arm = state["config"]["arm"]
        if arm != name:
            hint = f"use runs of arm={name}, such as {name}=outputs/<name>/{name}"
            raise RunError(f"{name}={where} contains a run of arm={arm}: {run.path}", hint)
    if not states:
        problem = f"{name}={where}: none of its {len(runs)} run(s) is finished"
        raise RunError(problem, "wait for them, or start them again", partial[:6])
    by_seed: dict[int, list[Path]] = {}
    for path, state in states.items():
        by_seed.setdefault(int(state["config"]["seed"]), []).append(path)
    tables = {}
    for seed, paths in sorted(by_seed.items()):
        missing = _missing_folds(name, seed, {path: states[path]["config"]["split"] for path in paths})
        if missing:
            partial.append(f"{name}: seed={seed} lacks the fold(s) {format_list(missing)} and is left out")
            continue
        folds = [read_predictions(RunDirectory(path).predictions) for path in paths]
        needed = [table[table.columns.intersection(["sample_id", "label", "pred", "loss"])] for table in folds]
        tables[f"seed={seed}"] = pd.concat(needed, ignore_index=True)
    if not tables:
        raise RunError(f"{name}={where}: no seed has all its folds", "let them finish, then compare", partial[:6])
    return LoadedArm(ArmRuns(name, tables), states, [str(path) for path in states], partial)


def _missing_folds(arm: str, seed: int, splits: Mapping[Path, Mapping[str, Any]]) -> list[int]:
    folds = [split["fold"] for split in splits.values()]
    if len(set(folds)) < len(folds):
        raise RunError(f"{arm} has seed={seed} twice: {format_list(splits)}", "compare the runs of one name= at a time")
    n_folds = next(iter(splits.values()))["folds"]
    return [] if n_folds is None else sorted(set(range(n_folds)) - set(folds))


def check_distinct(arms: Mapping[str, LoadedArm], ignore: Collection[str] = ()) -> None:
    """Checks that no run belongs to two arms, and that none is a copy of another (unless ``ignore`` has ``copies``).

    Raises:
        RunError: naming both runs.
    """
    arm_of_path: dict[str, str] = {}
    run_of_losses: dict[str, str] = {}
    for name, arm in arms.items():
        for path in arm.paths:
            real = os.path.realpath(path)
            if real in arm_of_path:
                problem = f"{arm_of_path[real]}= and {name}= contain the same run: {path}"
                raise RunError(problem, "use different runs for each arm")
            arm_of_path[real] = name
        for run, table in arm.runs.predictions.items():
            has_losses = "loss" in table.columns and len(table) >= MIN_COPY_ROWS
            if "copies" in ignore or not has_losses or table["loss"].nunique() < MIN_COPY_LOSSES:
                continue
            losses = hashlib.sha256(table.sort_values("sample_id")["loss"].to_numpy().tobytes()).hexdigest()
            if losses in run_of_losses:
                raise RunError(
                    f"{name} {run} has exactly the losses of {run_of_losses[losses]}: one is a copy of the other",
                    "use each run once (copies make an effect look more certain than it is), or set ignore=[copies]",
                )
            run_of_losses[losses] = f"{name} {run}"


def check_comparable(
    arms: Mapping[str, LoadedArm], fixes: pd.DataFrame | None, ignore: Collection[str] = (), fixes_path: object = ""
) -> None:
    """Checks that the arms differ only in arm, seed and fixes, and that the other arms were trained with these fixes.

    Prediction files record no settings, and pass; ``fixes`` is ``None`` if they can't be checked. ``settings``,
    ``fixes`` and ``labels`` in ``ignore`` allow such differences.

    Raises:
        RunError: naming the run and the settings that differ.
    """
    runs = {path: state for arm in arms.values() for path, state in arm.states.items()}
    if not runs:
        return
    first_path, first = next(iter(runs.items()))
    for path, state in runs.items():
        if state["labels"] != first["labels"] and "labels" not in ignore:
            other = sorted(set(state["labels"]) ^ set(first["labels"]))
            raise RunError(
                f"{path} was trained on {len(state['labels'])} labels, {first_path} on {len(first['labels'])}; they "
                f"differ in {format_list(other)}",
                "set fixes.path when training every arm (arm=original does not apply the fixes, but includes their "
                "labels), or set ignore=[labels]",
            )
        changed = differences(_shared_settings(first), _shared_settings(state))
        if changed and "settings" not in ignore:
            raise RunError(
                f"{path} and {first_path} were trained with different settings, so a difference would not show the "
                "effect of the fixes",
                "train all arms with the same settings, or set ignore=[settings] to compare them anyway",
                changed[:8],
            )
        used = state["identity"].get("fixes")
        if fixes is not None and "fixes" not in ignore and used not in (None, fixes_fingerprint(fixes)):
            hint = "use the fixes that it was trained with, or set ignore=[fixes] to evaluate it with these"
            raise RunError(f"{path} was not trained with fixes.path={fixes_path}, but with other fixes", hint)


def _shared_settings(state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that must be the same in all runs of a comparison."""
    shared = {key: value for key, value in state["identity"].items() if key not in ("arm", "seed", "fixes")}
    shared["split"] = {key: value for key, value in shared["split"].items() if key != "fold"}
    return shared
