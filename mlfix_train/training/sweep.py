"""Sweeps: what runs a command line asks for, several at a time, what became of each, and a table of it.

Hydra composes and, by default, runs the jobs of ``-m`` one after the other in this process, or hands them to a launcher
such as submitit's. With ``jobs`` or ``trainer.parallel_runs`` above 1 they run in :mod:`mlfix_train.training.launchers.local`.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mlfix_train.commands.progress import duration
from mlfix_train.config import build as config
from mlfix_train.config.explain import known_keys
from mlfix_train.data.cache import enable_cache
from mlfix_train.data.runs import FAILED, FINISHED, RunDirectory
from mlfix_train.errors import ConfigError, MlfixError, RunError, check_range, describe_os_error, did_you_mean
from mlfix_train.training.launchers import local as sweep_pool

log = logging.getLogger(__name__)

KEYS = ("outputs", "name", "arm", "seed", "split.folds", "split.fold")
"""What the place of a run depends on."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep: its overrides, and where it lies."""

    overrides: tuple[str, ...]
    path: Path


@dataclass(frozen=True)
class Plan:
    """The runs that a command line asks for, in the order in which they are started."""

    jobs: list[Job]
    settings: DictConfig


def ordered(arguments: Sequence[str]) -> list[str]:
    """Puts swept arms last, so that they alternate: a half-done sweep then has as many runs of each."""
    arms = [text for text in arguments if text.startswith("arm=") and "," in text]
    return [*(text for text in arguments if text not in arms), *arms]


def plan(arguments: Sequence[str]) -> Plan:
    """Returns the runs that ``mlfix train -m <arguments>`` is about.

    Args:
        arguments: overrides as Hydra reads them, without options.

    Raises:
        ConfigError: a key or value that isn't one.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    given = parser.parse_overrides(list(arguments))
    fixed = [str(override.input_line) for override in given if not override.is_sweep_override()]
    settings = config.compose("train", fixed, with_hydra=True)
    known = set(known_keys("train"))
    for override in given:
        if override.is_sweep_override() and not override.is_add() and override.key_or_group not in known:
            raise ConfigError(
                f"{override.key_or_group} is no key of `mlfix train`",
                did_you_mean(override.key_or_group, sorted(known)),
            )
    swept = [f"{key}={value}" for key, value in dict(settings.hydra.sweeper.params or {}).items()]
    own = [text for text in arguments if not text.lstrip("+~").startswith("hydra")]
    batches = BasicSweeper.split_arguments(parser.parse_overrides([*swept, *own]), None)
    jobs = [Job(tuple(overrides), _path(settings, overrides, parser)) for overrides in batches[0]]
    return Plan(jobs, settings)


def _path(settings: DictConfig, overrides: Sequence[str], parser: Any) -> Path:
    """Returns the run directory of a job."""
    from mlfix_train.training.run import run_path

    places = {key: OmegaConf.select(settings, key) for key in KEYS}
    for override in parser.parse_overrides(list(overrides)):
        if override.key_or_group in KEYS:
            places[override.key_or_group] = override.value()
    cfg = OmegaConf.create({"split": {}})
    for key, value in places.items():
        OmegaConf.update(cfg, key, value)
    return run_path(cfg)


def attempt(work: Callable[[], Any], verb: str, retries: int, sweep: bool, folder: str = "") -> MlfixError | None:
    """Does one job's work; what stops it is returned, so that the other jobs go on.

    A fault that is not the user's is tried again in a sweep; outside of one it is raised as it is.

    Args:
        work: the job.
        verb: for the hint of a system's error.
        retries: how often a fault is tried again.
        sweep: whether other jobs follow.
        folder: where the job writes, for errors of the system's.
    """
    problem: MlfixError | None = None
    for left in range(retries if sweep else 0, -1, -1):
        try:
            work()
            return None
        except MlfixError as error:
            return error
        except OSError as error:
            if os.environ.get("MLFIX_TRACEBACK"):
                raise
            return describe_os_error(error, "outputs" if verb == "train" else "out", folder)
        except Exception as error:
            if not sweep:
                raise
            traceback.print_exc()
            problem = RunError(f"{type(error).__name__}: {error}", "see the traceback above; the same command goes on")
            if left:
                print(f"mlfix {verb}: {type(error).__name__}; trying this run again", file=sys.stderr, flush=True)
    return problem


def processes(settings: DictConfig) -> tuple[int, int]:
    """Returns how many runs to train at a time, and the number of GPUs to spread them over.

    ``trainer.parallel_runs`` of them share a device.

    Raises:
        ConfigError: ``jobs`` is neither a number from 1 nor ``gpus``, or there are no GPUs.
    """
    jobs, side_by_side = settings.jobs, settings.trainer.get("parallel_runs", 1)
    config.check_type("trainer.parallel_runs", side_by_side, "int")
    check_range("trainer.parallel_runs", side_by_side, 1, 64)
    if jobs == "gpus":
        gpus = _gpus()
        if not gpus:
            raise ConfigError("jobs=gpus, and no GPU is visible", "give a number of processes: jobs=2")
        return gpus * side_by_side, gpus
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise ConfigError(f"jobs={jobs} is neither a number of processes nor `gpus`", "give jobs=1 or more, or gpus")
    return jobs * side_by_side, _gpus() if jobs > 1 else 0


def _gpus() -> int:
    import torch

    return int(torch.cuda.device_count())


def run_processes(planned: Plan, count: int, gpus: int, verbose: bool = True) -> int:
    """Trains the runs of a plan, see :func:`mlfix_train.training.launchers.local.run_all`."""
    return sweep_pool.run_all(planned.jobs, int(planned.settings.retries), count, gpus, verbose)


def report(jobs: Sequence[Job]) -> bool:
    """Prints the table of states, a row a seed and a column an arm; returns whether all runs are finished."""
    states = {job.path: _state(job.path) for job in jobs}
    finished = sum(state.get("status") == FINISHED for state in states.values())
    counts: dict[str, int] = {}
    for state in states.values():
        name = str(state.get("status") or "not started")
        counts[name] = counts.get(name, 0) + 1
    told = ", ".join(
        f"{number} {name}" for name, number in sorted(counts.items(), key=lambda item: item[0] != FINISHED)
    )
    print(f"\nsweep      {len(states)} run{'s' if len(states) != 1 else ''}: {told}")
    for study in dict.fromkeys(path.parent.parent for path in states):
        own = {path: state for path, state in states.items() if path.parent.parent == study}
        arms = list(dict.fromkeys(path.parent.name for path in own))
        rows = list(dict.fromkeys(path.name for path in own))
        print(f"           {study}")
        table = [["", *arms], *([row, *(_cell(own.get(study / arm / row)) for arm in arms)] for row in rows)]
        widths = [max(map(len, column)) + 2 for column in zip(*table, strict=True)]
        for cells in table:
            print("           " + "".join(f"{c:<{w}}" for c, w in zip(cells, widths, strict=True)).rstrip())
    for path, state in states.items():
        if state.get("status") == FAILED:
            lines = str(state.get("error") or "").splitlines() or [""]
            print(f"failed     {path}: {lines[0][:200]}")
            print("\n".join(f"           {line.strip()}" for line in lines if line.strip().startswith("->")))
    if finished < len(states):
        print("           the same command goes on with what is not finished")
    sys.stdout.flush()
    return finished == len(states)


def _state(path: Path) -> dict[str, Any]:
    try:
        return RunDirectory(path).read()
    except RunError as error:
        return {"status": FAILED, "error": error.problem}


def _cell(state: dict[str, Any] | None) -> str:
    if state is None:
        return ""
    status = str(state.get("status") or "not started")
    if status != FINISHED:
        return status
    error, took = state.get("held_out_error"), state.get("timings", {}).get("total_seconds")
    words = f"{error:.2f}%" if error is not None else "finished"
    return words + (f" ({duration(took)})" if took is not None else "")


__all__ = ["Job", "Plan", "attempt", "enable_cache", "ordered", "plan", "processes", "report", "run_processes"]
