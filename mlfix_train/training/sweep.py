"""Sweeps: many runs, how each attempt at one ended, and the states of all."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from mlfix_train.data.runs import FAILED, FINISHED, INTERRUPTED, RUNNING, RunDirectory
from mlfix_train.errors import ConfigError, MlfixError, RunError, check_range


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Args:
        path: Its run directory.
        job: What a launcher hands to the function that trains, such as a configuration.
    """

    path: Path
    job: Any = None


@dataclass(frozen=True)
class Attempt:
    """How one attempt to train a run ended.

    Args:
        run: The run.
        error: What stopped it; ``None`` if it was trained or skipped as finished.
        retried: Whether another attempt follows.
        value: What the function that trains returned.
    """

    run: SweepRun
    error: BaseException | None = None
    retried: bool = False
    value: Any = None


TrainFunction = Callable[[SweepRun], object]
"""Trains a run, and raises what stops it."""
AttemptCallback = Callable[[Attempt], None]
"""Called after each attempt, in the process of the sweep."""


def is_user_error(error: BaseException) -> bool:
    """Returns whether trying again would fail in the same way: a wrong setting, a full disk."""
    return isinstance(error, (MlfixError, OSError))


def count_workers(jobs: int | str, runs_per_device: int, gpus: int) -> tuple[int, int]:
    """Returns how many runs to train at a time, and over how many GPUs to spread them.

    Args:
        jobs: Runs at a time, or ``gpus``: one per GPU.
        runs_per_device: How many share a GPU (or the CPU), times ``jobs``.
        gpus: GPUs that are visible.

    Raises:
        ConfigError: ``jobs`` is neither a number from 1 nor ``gpus``, or there is no GPU.
    """
    check_range("runs_per_device", runs_per_device, 1, 64)
    if jobs == "gpus":
        if not gpus:
            raise ConfigError("jobs=gpus, but no GPU is visible", "set a number of processes: jobs=2")
        return gpus * runs_per_device, gpus
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise ConfigError(f"jobs={jobs} is neither a number of processes nor `gpus`", "set jobs=1 or more, or gpus")
    return jobs * runs_per_device, gpus if jobs > 1 else 0


def alternate_arms(overrides: Sequence[str]) -> list[str]:
    """Moves a sweep over arms to the end, so that the arms take turns: a half-done sweep has as many runs of each."""
    arms = [text for text in overrides if text.startswith("arm=") and "," in text]
    return [*(text for text in overrides if text not in arms), *arms]


def held_out_error(state: Mapping[str, Any]) -> float | None:
    """Returns what a sweep minimizes, from the content of ``run.json``.

    Returns:
        Percent of the held-out samples that are predicted otherwise than labelled; for a sorting network, of the
        samples whose nearest neighbour has another label. ``None`` if the run is not finished, or has no labels.
    """
    if state.get("status") != FINISHED:
        return None
    if state.get("agreement") is not None:
        return 100 - float(state["agreement"])
    error = state.get("held_out_error")
    return None if error is None else float(error)


def sweep_states(paths: Iterable[Path]) -> dict[Path, dict[str, Any]]:
    """Returns the content of ``run.json`` by run directory; for an unreadable one, a failed state with the error."""
    states: dict[Path, dict[str, Any]] = {}
    for path in paths:
        try:
            states[path] = RunDirectory(path).read()
        except RunError as error:
            states[path] = {"status": FAILED, "error": error.problem}
    return states


def all_finished(states: Iterable[dict[str, Any]]) -> bool:
    """Returns whether every run is finished."""
    return all(state.get("status") == FINISHED for state in states)


def mark_interrupted(paths: Iterable[Path]) -> None:
    """Records runs as interrupted that were running on this machine, in this process or in one that is gone."""
    for path, state in sweep_states(paths).items():
        pid = state.get("pid")
        if state.get("status") != RUNNING or state.get("host") != socket.gethostname() or not isinstance(pid, int):
            continue
        if pid == os.getpid() or not _is_alive(pid):
            with suppress(RunError):
                RunDirectory(path).update(status=INTERRUPTED)


def _is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD))
    except psutil.NoSuchProcess:
        return False
