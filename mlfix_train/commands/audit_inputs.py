"""What ``mlfix audit`` is given: runs or files of predictions, their probabilities, training dynamics, and the data."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from mlfix_train.audit.predictions.dynamics import read_dynamics
from mlfix_train.audit.predictions.files import read_predictions_file
from mlfix_train.audit.predictions.held_out import HeldOut, merge_runs
from mlfix_train.audit.predictions.table import read_predictions
from mlfix_train.audit.scores.label_scores import check_probabilities
from mlfix_train.commands.compare_inputs import prediction_files
from mlfix_train.commands.progress import Countdown, count_images
from mlfix_train.config import build as config
from mlfix_train.data.pixels.store import PixelStore, open_store
from mlfix_train.data.runs import FINISHED, RunDirectory, find_runs
from mlfix_train.errors import DataError, MlfixError, RunError, format_list

log = logging.getLogger(__name__)


@dataclass
class Runs:
    """Runs as they were given.

    Attributes:
        directories: finished classifiers, or none where files were given.
        states: ``run.json`` of each.
        files: files of predictions, where they were given.
    """

    directories: list[RunDirectory] = field(default_factory=list)
    states: list[dict[str, Any]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.directories) + len(self.files)

    @property
    def names(self) -> list[str]:
        """The labels, in the order of the probabilities' columns; empty for files."""
        return list(self.states[0]["labels"]) if self.states else []

    def predictions(self) -> Iterator[pd.DataFrame]:
        """Yields the predictions of one run after the other."""
        count = Countdown("reading predictions", len(self))
        for done, path in enumerate(self.files, start=1):
            yield read_predictions_file(path)
            count(done, len(self))
        for done, run in enumerate(self.directories, start=1):
            yield read_predictions(run.predictions)
            count(done, len(self))


def load_runs(where: Any) -> Runs:
    """Finds the runs that ``runs`` names, leaving out what is not finished.

    Raises:
        RunError: none is finished, or they are of different data or labels.
    """
    files = prediction_files(where)
    if files:
        return Runs(files=sorted(files))
    found = [run for run in find_runs(where) if _usable(run)]
    if not found:
        hint = "wait for them, or start them again; a sorting network is for mlfix sort"
        raise RunError(f"runs={where}: none of these runs is finished", hint)
    states = [run.require() for run in found]
    _check_same(where, found, states)
    return Runs(found, states)


def _usable(run: RunDirectory) -> bool:
    try:
        if run.read().get("kind") == "sorting_network":
            log.warning("%s is a sorting network, which predicts nothing, and left out", run.path)
            return False
        if run.status == FINISHED:
            return True
    except RunError as error:
        log.warning("%s; left out", error.problem)
        return False
    log.warning("%s is %s and left out", run.path, run.status or "not started")
    return False


def _check_same(where: Any, runs: list[RunDirectory], states: list[dict[str, Any]]) -> None:
    prints = {state["data"]["fingerprint"] for state in states}
    if len(prints) > 1:
        raise RunError(
            f"runs={where} holds runs of {len(prints)} different data sets",
            "audit the runs of one data set (and one labelling) at a time",
            [f"{run.path}: {state['data']['samples']:,} samples, {state['data']['fingerprint'][:12]}"
             for run, state in zip(runs, states, strict=True)][:6],
        )  # fmt: skip
    for run, state in zip(runs, states, strict=True):
        if state["labels"] != states[0]["labels"]:
            other = sorted(set(state["labels"]) ^ set(states[0]["labels"]))
            raise RunError(
                f"{run.path} was trained on {len(state['labels'])} labels, {runs[0].path} on "
                f"{len(states[0]['labels'])}; they differ in {format_list(other, 5)}",
                "audit runs of the same labels together (fixes that add labels: give them to every arm)",
            )


def mean_probabilities(runs: Runs, held: HeldOut) -> np.ndarray | None:
    """Averages the whole probabilities over the runs that held a sample out, float32 ``N,C``.

    Returns:
        ``None`` where not all runs kept them.

    Raises:
        DataError: a matrix of another shape than its predictions, or rows that don't sum to one.
    """
    kept = [run for run in runs.directories if (run.path / "probabilities.npy").exists()]
    if not kept or len(kept) < len(runs):
        if kept:
            log.warning("%d of %d runs kept no probabilities (audit.probabilities=true): confident_score stays empty",
                        len(runs) - len(kept), len(runs))  # fmt: skip
        return None
    total = np.zeros((len(held), len(held.names)), np.float32)
    order = pd.Index(held.names).get_indexer(pd.Index(runs.names))
    columns = None if (order == np.arange(len(held.names))).all() else order
    count = Countdown("reading probabilities", len(kept))
    for done, run in enumerate(kept, start=1):
        path = run.path / "probabilities.npy"
        ids = pd.read_parquet(run.predictions, columns=["sample_id"])["sample_id"].to_numpy(dtype=object)
        rows = held.ids.get_indexer(pd.Index(ids))
        matrix = _read_matrix(path, (len(ids), len(runs.names)))
        for start in range(0, len(rows), 1 << 14):
            block = np.asarray(matrix[start : start + (1 << 14)], dtype=np.float32)
            place = rows[start : start + (1 << 14)]
            if columns is None:
                total[place] += block
            else:
                total[place[:, None], columns] += block
        count(done, len(kept))
    total /= held.runs[:, None].astype(np.float32)
    return total


def _read_matrix(path: Path, shape: tuple[int, int]) -> np.ndarray:
    hint = "delete it (the audit does without), or train the run again"
    try:
        matrix: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} can't be read: {str(error).splitlines()[0]}", hint) from error
    if matrix.shape != shape:
        raise DataError(f"{path} has the shape {matrix.shape}, its predictions are {shape}", hint)
    return check_probabilities(matrix, str(path))


def mean_aum(runs: Runs, held: HeldOut) -> np.ndarray | None:
    """Averages the area under the margin over the runs that trained on a sample with its given label, ``N``.

    Returns:
        NaN where no run did; ``None`` where no run kept its dynamics.
    """
    total, times = np.zeros(len(held)), np.zeros(len(held))
    given = np.asarray(held.names, dtype=object)[held.labels]
    for run in runs.directories:
        path = run.path / "dynamics.parquet"
        if not path.exists():
            continue
        found = read_dynamics(path)
        rows = held.ids.get_indexer(pd.Index(found["sample_id"].to_numpy(dtype=object)))
        fits = rows >= 0
        fits[fits] = given[rows[fits]] == found["label"].to_numpy(dtype=object)[fits]
        np.add.at(total, rows[fits], found["aum"].to_numpy(np.float64)[fits])
        np.add.at(times, rows[fits], 1)
    if not times.any():
        return None
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = total / np.where(times > 0, times, np.nan)
    return mean


@dataclass
class Source:
    """The data of the runs, as far as they are still there.

    Attributes:
        table: sample table; ``None`` where it can't be read.
        store: pixels; ``None`` where the images can't.
        why: what is missing, in words.
    """

    table: pd.DataFrame | None = None
    store: PixelStore | None = None
    why: str = ""

    def images(self, ids: list[str]) -> np.ndarray:
        """Returns the pixels of samples, uint8 ``n,H,W,3``; one that can't be read is grey."""
        assert self.table is not None and self.store is not None
        return np.asarray(self.store[self.table.index.get_indexer(pd.Index(ids))])

    def readable_rows(self) -> np.ndarray:
        """Returns the rows of the table whose image can be read."""
        assert self.table is not None and self.store is not None
        return np.flatnonzero(~self.table.index.isin(self.store.unreadable))


def open_source(runs: Runs, held: HeldOut) -> Source:
    """Opens table and pixels of the runs; what is missing is said, and the audit goes on without."""
    if not runs.states:
        return Source(why="files of predictions bring no images")
    settings = OmegaConf.create(runs.states[0]["config"])
    try:
        table = config.build_table(settings)
        gone = held.ids[~held.ids.isin(table.index)]
        if len(gone):
            raise DataError(
                f"{config.source_name(settings)} no longer holds {len(gone):,} of the ranked samples: "
                f"{format_list(gone, 3)}",
                "bring the images back, or train again on the data as it is now",
            )
        table = _as_trained(table, held)
    except MlfixError as error:
        return Source(why=str(error))
    try:
        pixels, store = config.pixel_settings(settings)
        return Source(table, open_store(table, pixels, **store, progress=count_images))
    except MlfixError as error:
        return Source(table, None, str(error))


def _as_trained(table: pd.DataFrame, held: HeldOut) -> pd.DataFrame:
    """Gives held-out samples the labels that the runs knew, where the data have others by now."""
    given = pd.Series(np.asarray(held.names, dtype=object)[held.labels], index=held.ids)
    changed = (table.loc[held.ids, "label"].to_numpy() != given.to_numpy()).sum()
    if changed:
        log.warning("%d labels in the data are others than when the runs were trained; the audit is of those of then",
                    changed)  # fmt: skip
        table = table.copy()
        table.loc[held.ids, "label"] = given.to_numpy()
    return table


def fixes_as_marks(cfg: DictConfig, table: pd.DataFrame | None) -> dict[str, str] | None:
    """Returns the fixes that ``fixes.path`` names, sample id to new label."""
    if table is None:
        return None
    fixes = config.build_fixes(cfg, table)
    return None if fixes is None else {str(name): str(new) for name, new in fixes["new_label"].items()}


def merged(runs: Runs) -> HeldOut:
    """Brings the predictions of all runs together."""
    return merge_runs(runs.predictions(), runs.names)
