"""What ``mlfix compare`` is given: run directories or prediction files of each arm, checked to belong together."""

from __future__ import annotations

import glob
import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from mlfix_train.audit.comparison.study import ArmRuns
from mlfix_train.audit.predictions.files import SUFFIXES, read_predictions_file, run_names
from mlfix_train.audit.predictions.table import read_predictions
from mlfix_train.data.fixes.table import fixes_fingerprint
from mlfix_train.data.runs import FINISHED, RunDirectory, differences, find_runs
from mlfix_train.errors import RunError, format_list

log = logging.getLogger(__name__)

ALLOWANCES = ("settings", "fixes", "labels", "copies")


@dataclass
class Arm:
    """An arm as it was given.

    Attributes:
        runs: its predictions.
        states: ``run.json`` of each finished run by its path; empty for files.
        paths: where the predictions lie.
        partial: what is missing, in words.
        published: the files are MLfix's own.
    """

    runs: ArmRuns
    states: dict[Path, dict[str, Any]] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)
    published: bool = False


def load_arm(name: str, where: Any) -> Arm:
    """Reads an arm: run directories (whole trees or globs), or files of predictions (globs too).

    Raises:
        RunError: nothing is there, runs of another arm, two runs of one seed, or no run that is finished.
    """
    files = prediction_files(where)
    if files:
        return _from_files(name, files)
    return _from_runs(name, where)


def prediction_files(where: Any) -> list[Path]:
    """Returns the files that a path, a glob or a list of them names, unless they are files of run directories."""
    patterns = [where] if isinstance(where, (str, os.PathLike)) else list(where)
    found: list[Path] = []
    for pattern in (os.path.expanduser(str(p)) for p in patterns):
        places = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
        found += [Path(p) for p in places if os.path.isfile(p) and Path(p).suffix.lower() in SUFFIXES]
    return [path for path in found if not (path.parent / "run.json").exists()]


def _from_files(name: str, files: list[Path]) -> Arm:
    seen: dict[str, Path] = {}
    for path in files:
        if os.path.realpath(path) in seen:
            raise RunError(f"{name}= names {path} twice", "give each file once")
        seen[os.path.realpath(path)] = path
    names = run_names(files)
    order = sorted(range(len(files)), key=lambda i: names[i].zfill(12) if names[i].isdigit() else names[i])
    tables = {names[i]: read_predictions_file(files[i]) for i in order}
    published = all(table.attrs.get("published") for table in tables.values())
    return Arm(ArmRuns(name, tables, seeded=False), {}, [str(files[i]) for i in order], [], published)


def _from_runs(name: str, where: Any) -> Arm:
    done: dict[Path, dict[str, Any]] = {}
    partial = []
    runs = find_runs(_directories(where), name)
    for directory in runs:
        if directory.status != FINISHED:
            partial.append(f"{name}: {directory.path} is {directory.status or 'not started'}")
            continue
        if not directory.predictions.exists():
            partial.append(f"{name}: {directory.path} has no {directory.predictions.name}; train it again")
            continue
        state = directory.require()
        arm = state["config"]["arm"]
        if arm != name:
            raise RunError(
                f"{name}={where} holds a run of the arm {arm}: {directory.path}",
                f"give the runs of arm={name}, such as {name}=outputs/<name>/{name}",
            )
        done[directory.path] = state
    if not done:
        raise RunError(
            f"{name}={where}: none of its {len(runs)} run(s) is finished",
            "wait for them, or start them again", partial[:6],
        )  # fmt: skip
    by_seed: dict[int, list[tuple[Path, dict[str, Any]]]] = {}
    for path, state in done.items():
        by_seed.setdefault(int(state["config"]["seed"]), []).append((path, state))
    tables = {}
    for seed, members in sorted(by_seed.items()):
        missing = _missing_folds(name, seed, members)
        if missing:
            partial.append(f"{name}: seed={seed} lacks the fold(s) {format_list(missing)} and is left out")
            continue
        rows = [_slim(read_predictions(RunDirectory(path).predictions)) for path, _ in members]
        tables[f"seed={seed}"] = rows[0] if len(rows) == 1 else pd.concat(rows, ignore_index=True)
    if not tables:
        raise RunError(f"{name}={where}: no seed has all its folds", "let them finish, then compare", partial[:6])
    return Arm(ArmRuns(name, tables), done, [str(path) for path in done], partial)


def _directories(where: Any) -> list[str]:
    """Names the directory of a run whose file of predictions was given."""
    patterns = [where] if isinstance(where, (str, os.PathLike)) else list(where)
    places: list[str] = []
    for pattern in (os.path.expanduser(str(p)) for p in patterns):
        found = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
        if found and all(os.path.isfile(p) for p in found):
            places += [str(Path(p).parent) for p in found if (Path(p).parent / "run.json").exists()] or [pattern]
        else:
            places.append(pattern)
    return places


def _slim(table: pd.DataFrame) -> pd.DataFrame:
    return table[[name for name in ("sample_id", "label", "pred", "loss") if name in table.columns]]


def _missing_folds(arm: str, seed: int, members: list[tuple[Path, dict[str, Any]]]) -> list[int]:
    folds = [state["config"]["split"]["fold"] for _, state in members]
    if len(set(folds)) < len(folds):
        raise RunError(
            f"{arm} seed={seed} stands twice: {format_list([path for path, _ in members])}",
            "give the runs of one name= at a time",
        )
    count = members[0][1]["config"]["split"]["folds"]
    return [] if count is None else sorted(set(range(count)) - set(folds))


def check_distinct(arms: Mapping[str, Arm], allow: list[str]) -> None:
    """Checks that no run stands in two arms, and that no two runs are copies of each other.

    Raises:
        RunError: naming both.
    """
    where: dict[str, str] = {}
    prints: dict[str, str] = {}
    for name, arm in arms.items():
        for path in arm.paths:
            real = os.path.realpath(path)
            if real in where:
                raise RunError(f"{where[real]}= and {name}= name the same run: {path}", "give each arm its own runs")
            where[real] = name
        for run, table in arm.runs.predictions.items():
            if "loss" not in table.columns or "copies" in allow:
                continue
            content = hashlib.sha256(table.sort_values("sample_id")["loss"].to_numpy().tobytes()).hexdigest()
            if content in prints and len(table) >= 20 and table["loss"].nunique() > 5:
                raise RunError(
                    f"{name} {run} holds the very losses of {prints[content]}: one is a copy of the other",
                    "give each run once (copies make an effect look surer than it is), or allow=[copies]",
                )
            prints[content] = f"{name} {run}"


def check_alike(arms: Mapping[str, Arm], fixes: pd.DataFrame | None, allow: list[str], fixes_path: Any) -> None:
    """Checks that the arms differ in nothing but arm, seed and fixes, and that the fixed arm had these very fixes.

    Args:
        arms: as loaded; files say nothing of their settings and pass.
        fixes: the matched fixes; ``None`` where they could not be matched against the whole data.
        allow: ``settings``, ``fixes`` and ``labels`` let differences pass.
        fixes_path: what the user calls the fixes.

    Raises:
        RunError: naming the run and the settings that differ.
    """
    first: tuple[Path, dict[str, Any], list[str]] | None = None
    for arm in arms.values():
        for path, state in arm.states.items():
            known = state["identity"]
            used = known.get("fixes")
            kept = {key: value for key, value in known.items() if key not in ("arm", "seed", "fixes")}
            kept["split"] = {key: value for key, value in kept["split"].items() if key != "fold"}
            first = first or (path, kept, state["labels"])
            if state["labels"] != first[2] and "labels" not in allow:
                other = sorted(set(state["labels"]) ^ set(first[2]))
                raise RunError(
                    f"{path} was trained on {len(state['labels'])} labels, {first[0]} on {len(first[2])}; they differ "
                    f"in {format_list(other)}",
                    "give fixes.path to the training of every arm (arm=original leaves the fixes alone, and knows "
                    "their labels), or allow=[labels]",
                )
            changed = differences(first[1], kept)
            if changed and "settings" not in allow:
                raise RunError(
                    f"{path} was trained with other settings than {first[0]}: their difference is no effect "
                    "of the fixes",
                    "train both arms alike, or allow=[settings] to compare them all the same",
                    changed[:8],
                )
            if fixes is not None and used is not None and used != fixes_fingerprint(fixes) and "fixes" not in allow:
                raise RunError(
                    f"{path} was trained with other fixes than fixes.path={fixes_path}",
                    "give the fixes that it was trained with, or allow=[fixes] to judge it by these",
                )
