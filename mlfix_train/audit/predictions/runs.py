"""Finished runs as the input of an audit: what they left on disk, and the data they were trained on.

Shapes: N held-out samples, C classes.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.audit.predictions.dynamics import read_dynamics
from mlfix_train.audit.predictions.files import (
    Paths,
    PredictionFile,
    expand_paths,
    find_prediction_files,
    open_predictions,
)
from mlfix_train.audit.predictions.held_out import HeldOut, merge_runs
from mlfix_train.audit.predictions.table import read_predictions
from mlfix_train.audit.scores.label_scores import check_probabilities
from mlfix_train.data.matching import IdMatcher
from mlfix_train.data.pixels.spec import PixelsConfig
from mlfix_train.data.pixels.store import PixelStore, open_store
from mlfix_train.data.runs import FINISHED, RunDirectory, find_runs
from mlfix_train.errors import DataError, MlfixError, RunError, format_list

log = logging.getLogger(__name__)

ProgressFactory = Callable[[str], Callable[[int, int], None]]
"""Maps the description of a step to a callback that is called with (done, total)."""
BLOCK = 1 << 14
"""Rows of probabilities in memory at a time."""


def no_progress(description: str) -> Callable[[int, int], None]:
    """Shows nothing: the default :data:`ProgressFactory`."""
    return lambda done, total: None


@dataclass
class AuditedRuns:
    """The runs of an audit: run directories, or files of predictions.

    Attributes:
        directories: finished classifier runs of the same data and labels; empty if there are files.
        states: ``run.json`` of each directory.
        files: files of predictions, by path.
    """

    directories: list[RunDirectory] = field(default_factory=list)
    states: list[dict[str, Any]] = field(default_factory=list, repr=False)
    files: dict[Path, PredictionFile] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.directories) + len(self.files)

    @property
    def class_names(self) -> list[str]:
        """The classes: of runs, in the column order of their probabilities; of files, those that the files name."""
        if self.states:
            return list(self.states[0]["labels"])
        return sorted({name for file in self.files.values() for name in file.class_names})

    @property
    def config(self) -> Mapping[str, Any]:
        """Configuration of the first run; empty for files."""
        config: Mapping[str, Any] = self.states[0]["config"] if self.states else {}
        return config

    @property
    def title(self) -> str:
        """Name and number of the runs."""
        name = str(self.config["name"]) if self.states else next(iter(self.files)).absolute().parent.name
        return f"{name}, {len(self)} run{'s' if len(self) > 1 else ''}"

    def held_out(self, progress: ProgressFactory = no_progress) -> HeldOut:
        """Reads the predictions and averages them over the runs.

        Raises:
            MlfixError: Predictions are missing or damaged, or disagree on a given label.
        """
        return merge_runs(self._predictions(progress("reading predictions")), self.class_names)

    def _predictions(self, progress: Callable[[int, int], None]) -> Iterator[pd.DataFrame]:
        yield from (file.table for file in self.files.values())
        for done, run in enumerate(self.directories, start=1):
            yield read_predictions(run.predictions)
            progress(done, len(self))


def load_runs(runs: Paths, labels: str | Path | None = None, progress: ProgressFactory = no_progress) -> AuditedRuns:
    """Finds the finished runs that paths or globs name; warns about runs that are not finished and skips them.

    Args:
        runs: run directories, directories of them, files of predictions (see
            :func:`mlfix_train.audit.predictions.files.open_predictions`), or globs of these.
        labels: given labels of a matrix of probabilities.
        progress: shows the reading of files.

    Raises:
        RunError: No run is finished, they have different data or labels, or a file can't be used.
    """
    files = sorted(set(find_prediction_files(runs)))
    if files:
        report, opened = progress("reading predictions"), {}
        for done, path in enumerate(files, start=1):
            opened[path] = open_predictions(path, labels)
            report(done, len(files))
        names = [set(one.table["sample_id"]) for one in opened.values()]
        if len(names) > 1 and set.intersection(*names) and all(name.isdigit() for some in names for name in some):
            text = (
                "%d files number their samples, and equal numbers are taken to be the same sample; if these are folds "
            )
            log.warning(text + "of one data set, name the samples (by sample_ids of AuditCallback)", len(files))
        return AuditedRuns(files=opened)
    patterns = str(runs) if isinstance(runs, (str, Path)) else [str(pattern) for pattern in runs]
    try:
        found = [run for run in find_runs(patterns) if _is_usable(run)]
    except RunError as error:
        folders = (Path(place) for places in expand_paths(runs).values() for place in places)
        matrix = next((path for folder in folders for path in sorted(folder.glob("*prob*.npy"))), None)
        if matrix is None:
            raise
        hint = f"name the matrix, whose labels are beside it: runs={matrix}; or pass arrays to Audit.from_predictions"
        raise RunError(error.problem, hint) from error
    if not found:
        hint = "wait for them or start them again; sorting networks are for mlfix sort"
        raise RunError(f"runs={patterns}: none of these runs is finished", hint)
    states = [run.require() for run in found]
    _check_same_data(patterns, found, states)
    return AuditedRuns(found, states)


def _is_usable(run: RunDirectory) -> bool:
    try:
        if run.read().get("kind") == "sorting_network":
            log.warning("%s is a sorting network, which predicts no labels: skipped", run.path)
            return False
        if run.status == FINISHED:
            return True
    except RunError as error:
        log.warning("%s: skipped", error.problem)
        return False
    log.warning("%s is %s: skipped", run.path, run.status or "not started")
    return False


def _check_same_data(patterns: str | list[str], runs: list[RunDirectory], states: list[dict[str, Any]]) -> None:
    fingerprints = {state["data"]["fingerprint"] for state in states}
    if len(fingerprints) > 1:
        lines = [
            f"{run.path}: {state['data']['samples']:,} samples, {state['data']['fingerprint'][:12]}"
            for run, state in zip(runs, states, strict=True)
        ]
        raise RunError(
            f"runs={patterns} contains runs of {len(fingerprints)} different data sets",
            "audit the runs of one data set (and one labelling) at a time",
            lines[:6],
        )
    for run, state in zip(runs, states, strict=True):
        if state["labels"] != states[0]["labels"]:
            other = sorted(set(state["labels"]) ^ set(states[0]["labels"]))
            raise RunError(
                f"{run.path} was trained on {len(state['labels'])} labels, {runs[0].path} on "
                f"{len(states[0]['labels'])}; they differ in {format_list(other, 5)}",
                "audit runs with the same labels together (if fixes add labels, set fixes.path for every arm)",
            )


def mean_probabilities(runs: AuditedRuns, held: HeldOut, progress: ProgressFactory = no_progress) -> np.ndarray | None:
    """Averages the probability matrices over the runs that held a sample out.

    Returns:
        float32 ``(N, C)``, rows and columns as in ``held``; ``None`` unless all runs kept their probabilities.

    Raises:
        DataError: A matrix has another shape than its predictions, or rows that don't sum to 1.
    """
    if runs.files:
        return _mean_of_files(list(runs.files.values()), held)
    kept = [run for run in runs.directories if (run.path / "probabilities.npy").exists()]
    if kept and len(kept) < len(runs):
        text = "%d of %d runs were trained without audit.probabilities=true: confident_score stays empty"
        log.warning(text, len(runs) - len(kept), len(runs))
    if not kept or len(kept) < len(runs):
        return None
    total = np.zeros((len(held), len(held.class_names)), np.float32)
    order = pd.Index(held.class_names).get_indexer(pd.Index(runs.class_names))
    same_columns = bool((order == np.arange(len(held.class_names))).all())
    report = progress("reading probabilities")
    for done, run in enumerate(kept, start=1):
        ids = pd.read_parquet(run.predictions, columns=["sample_id"])["sample_id"]
        rows = held.rows_of(ids)
        matrix = _read_matrix(run.path / "probabilities.npy", (len(ids), len(runs.class_names)))
        for start in range(0, len(rows), BLOCK):
            block = np.asarray(matrix[start : start + BLOCK], dtype=np.float32)
            target = rows[start : start + BLOCK]
            if same_columns:
                total[target] += block
            else:
                total[target[:, None], order] += block
        report(done, len(kept))
    total /= held.n_runs[:, None].astype(np.float32)
    return total


def _mean_of_files(files: Sequence[PredictionFile], held: HeldOut) -> np.ndarray | None:
    if any(file.probabilities is None for file in files):
        return None
    total = np.zeros((len(held), len(held.class_names)), np.float32)
    for file in files:
        columns = pd.Index(held.class_names).get_indexer(pd.Index(list(file.class_names)))
        total[held.rows_of(file.table["sample_id"])[:, None], columns] += np.asarray(file.probabilities)
    total /= held.n_runs[:, None].astype(np.float32)
    return total


def _read_matrix(path: Path, shape: tuple[int, int]) -> np.ndarray:
    hint = "delete it (the audit works without), or train the run again"
    try:
        matrix: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} can't be read: {str(error).splitlines()[0]}", hint) from error
    if matrix.shape != shape:
        raise DataError(f"{path} has the shape {matrix.shape}, its predictions are {shape}", hint)
    return check_probabilities(matrix, str(path))


def mean_aum(runs: AuditedRuns, held: HeldOut) -> np.ndarray | None:
    """Averages the area under the margin over the runs that trained on a sample with its given label.

    Returns:
        float64 ``(N,)``, NaN where no run did; ``None`` if no run kept its training dynamics.
    """
    total, times = np.zeros(len(held)), np.zeros(len(held))
    given = held.given_labels
    for run in runs.directories:
        path = run.path / "dynamics.parquet"
        if not path.exists():
            continue
        dynamics = read_dynamics(path)
        rows = held.rows_of(dynamics["sample_id"])
        used = rows >= 0
        used[used] = given[rows[used]] == dynamics["label"].to_numpy(dtype=object)[used]
        np.add.at(total, rows[used], dynamics["aum"].to_numpy(np.float64)[used])
        np.add.at(times, rows[used], 1)
    if not times.any():
        return None
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = total / np.where(times > 0, times, np.nan)
    return mean


@dataclass
class RunData:
    """The data that runs were trained on, as far as it still exists.

    Attributes:
        samples: sample table; ``None`` if it can't be read.
        pixels: images, rows as in ``samples``; ``None`` if they can't be read.
        problem: what is missing and why; empty if nothing is.
    """

    samples: pd.DataFrame | None = None
    pixels: PixelStore | None = None
    problem: str = ""


def open_run_data(
    runs: AuditedRuns,
    held: HeldOut,
    progress: ProgressFactory = no_progress,
    samples: pd.DataFrame | None = None,
    pixels: PixelsConfig | None = None,
) -> RunData:
    """Opens samples and images: those that are given, else those of the runs.

    If something of the runs is missing, the result names it, and nothing is raised.

    Args:
        runs: the runs.
        held: what they held out.
        progress: shows the decoding of images.
        samples: sample table to use, in place of that of the runs.
        pixels: how its images are decoded; by default as the runs did.

    Raises:
        DataError: ``samples`` are given, and lack some that are audited.
    """
    if samples is None and not runs.states:
        return RunData(problem="prediction files do not list images: set data.root=<folder>, or pass samples=")
    try:
        table = read_run_samples(runs.config) if samples is None else samples
        gone = held.sample_ids[~held.sample_ids.isin(table.index)]
        if len(gone):
            raise DataError(
                f"the data lacks {len(gone):,} of the {len(held):,} audited samples: {format_list(gone, 3)}",
                _how_to_name_samples(held),
                [] if samples is None else [f"the data has {format_list(samples.index, 3)}"],
            )
    except MlfixError as error:
        if samples is not None:
            raise
        return RunData(problem=str(error))
    given = held.given_labels
    changed = int((table.loc[held.sample_ids, "label"].to_numpy() != given).sum())
    if changed:
        text = "%d labels in the data have changed since training; the old ones are audited"
        if samples is not None:
            text = "%d labels in the data differ from those of the predictions; the latter are audited"
        log.warning(text, changed)
        table = table.copy()
        table.loc[held.sample_ids, "label"] = given
    try:
        settings = pixels or PixelsConfig(**runs.config.get("pixels", {"size": 64}))
        spec, limit, report = settings.spec(64), settings.max_unreadable, progress("decoding images")
        return RunData(table, open_store(table, spec, settings.cache, max_unreadable=limit, progress=report))
    except MlfixError as error:
        return RunData(table, None, str(error))


def _how_to_name_samples(held: HeldOut) -> str:
    if held.sample_ids[0] == "0":
        return (
            "rows of a matrix are matched to images by their labels: set labels=<CSV with sample_id and label>, or "
            "write the names of the classes to class_names.json beside the matrix"
        )
    return "use the data that was audited; sample_id is the image's path in the folder"


def match_ids(files: Iterable[PredictionFile], samples: pd.DataFrame) -> None:
    """Renames the samples of prediction files to those of the sample table, where that is certain.

    Names are matched as :class:`mlfix_train.data.matching.IdMatcher` does. Row numbers, as of a matrix, are those of
    the table if the labels are the same in each row.

    Args:
        files: their tables are changed.
        samples: sample table.

    Raises:
        DataError: Two predictions are of one sample.
    """
    tables = [file.table for file in files]
    ids = pd.Index(pd.concat([table["sample_id"] for table in tables]).unique())
    if ids.isin(samples.index).all():
        return
    matched = IdMatcher(samples).match(ids)
    renamed = matched.ids
    numbered = all(table["sample_id"].tolist() == [str(row) for row in range(len(samples))] for table in tables)
    if len(renamed) < len(ids) and numbered:
        given = samples["label"].to_numpy(dtype=object)
        if all((table["label"].to_numpy(dtype=object) == given).all() for table in tables):
            renamed = {str(row): str(name) for row, name in enumerate(samples.index)}
            log.info("rows of the predictions were matched to the samples, whose labels are in the same order")
    elif renamed:
        matched.log("the predictions")
    for table in tables:
        names = table["sample_id"].map(lambda name: renamed.get(name, name))
        repeated = names.duplicated(keep=False)
        if repeated.any():
            shown = format_list(table["sample_id"][repeated], 4)
            problem = f"{int(repeated.sum()):,} predictions are of samples that another is of, too: {shown}"
            raise DataError(problem, "keep one prediction for each image, called by its sample_id")
        table["sample_id"] = names


def read_run_samples(config: Mapping[str, Any]) -> pd.DataFrame:
    """Reads the sample table that a run was trained on.

    Args:
        config: ``config`` of its ``run.json``; section ``data`` names the reader and its arguments.

    Raises:
        MlfixError: The reader or its data can't be used.
    """
    table: pd.DataFrame = _call_target(config["data"])
    return table


def _call_target(section: Any) -> Any:
    """Calls what ``_target_`` names with the section's other keys, nested sections first."""
    if isinstance(section, list):
        return [_call_target(item) for item in section]
    if not isinstance(section, Mapping):
        return section
    arguments = {key: _call_target(value) for key, value in section.items() if key != "_target_"}
    if "_target_" not in section:
        return arguments
    module, _, name = str(section["_target_"]).rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RunError(
            f"the run's data._target_={section['_target_']} can't be imported: {error}",
            "make its module importable, as it was for training",
        ) from error
    return function(**arguments)
