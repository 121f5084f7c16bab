"""``mlfix train -m``: a sweep over many runs, on this machine or by one of Hydra's launchers."""

from __future__ import annotations

import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mlfix_train.commands import run_composed
from mlfix_train.commands.progress import format_duration
from mlfix_train.commands.train import command_line, run
from mlfix_train.config.compose import load
from mlfix_train.config.sweep import plan_sweep
from mlfix_train.config.train import TrainConfig
from mlfix_train.data.arms import warn_if_only_relabelled
from mlfix_train.data.fixes.table import read_fixes
from mlfix_train.data.runs import FAILED, FINISHED
from mlfix_train.errors import MlfixError, RunError, describe_os_error, own_code
from mlfix_train.training.launchers.local import WorkerDiedError, run_in_processes
from mlfix_train.training.launchers.serial import run_serially, train_with_retries
from mlfix_train.training.run import run_path
from mlfix_train.training.sweep import Attempt, SweepRun, all_finished, count_workers, is_user_error, sweep_states


def sweep(
    overrides: Sequence[str],
    initializer: Callable[[], None] | None = None,
    launch_by_hydra: Callable[[], Sequence[MlfixError]] | None = None,
) -> bool:
    """Trains the runs of a sweep and prints a table of them.

    Args:
        overrides: ``key=value`` strings as Hydra reads them, with swept values such as ``seed=range(0,20)``.
        initializer: Called first in each worker process.
        launch_by_hydra: Trains the runs with the launcher that ``hydra/launcher`` names, and returns the errors; if
            missing, they are trained on this machine.

    Returns:
        Whether all runs are finished.

    Raises:
        ConfigError: An unknown key or an invalid value.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    runs = plan_sweep(overrides)
    cfg: TrainConfig = load("train", runs[0].overrides)
    if any("arm=control" in one.overrides for one in runs) and cfg.fixes.path is not None:
        warn_if_only_relabelled(read_fixes(str(cfg.fixes.path)))
    processes, gpus = count_workers(cfg.jobs, cfg.runs_per_device, torch.cuda.device_count() if cfg.jobs != 1 else 0)
    failed = 0
    try:
        if launch_by_hydra is not None:
            failed = len(launch_by_hydra())
        else:
            printer = _AttemptPrinter(len(runs))
            if processes == 1:
                attempts = run_serially(runs, train_sweep_run, retries=cfg.retries, on_attempt=printer)
            else:
                options: dict[str, Any] = {"processes": processes, "gpus": gpus, "initializer": initializer}
                attempts = run_in_processes(runs, train_sweep_run, retries=cfg.retries, on_attempt=printer, **options)
            failed = sum(attempt.error is not None for attempt in attempts)
    finally:
        finished = print_sweep([run.path for run in runs])
        if failed:
            print(f"           {failed} could not be trained as requested; see the messages above", flush=True)
    return finished and not failed


def train_sweep_run(sweep_run: SweepRun) -> None:
    """Trains one run of a sweep; called in this process or in a worker."""
    cfg: TrainConfig = load("train", sweep_run.overrides)
    with command_line(sweep_run.overrides), name_own_code():
        run(replace(cfg, report="line") if cfg.report == "auto" else cfg)


@contextmanager
def name_own_code() -> Iterator[None]:
    """Adds to an unexpected error the line of the user's code that it comes from, as a note that survives pickling."""
    try:
        yield
    except Exception as error:
        place = "" if is_user_error(error) else own_code(error)
        if place:
            error.add_note(f"the error comes from {place}, not from mlfix-train")
        raise


def attempt_composed(cfg: Any) -> list[MlfixError]:
    """Trains one run of a sweep on its composed Hydra configuration; called by Hydra's launchers.

    Returns:
        What stopped it, if anything did; the other runs of the sweep are trained nevertheless.
    """
    fold = cfg.split.fold if cfg.split.folds is not None else None
    place = SweepRun(run_path(str(cfg.outputs), str(cfg.name), str(cfg.arm), cfg.seed, fold))
    retries = int(cfg.get("retries") or 0)

    def train(_: SweepRun) -> None:
        with name_own_code():
            run_composed("train", cfg)

    error = train_with_retries(place, train, retries, _PRINTER).error
    if error is None or isinstance(error, MlfixError):
        return [] if error is None else [error]
    problem = f"{place.path}: {type(error).__name__}: {error}"
    return [RunError(problem, "see the traceback above; the same command tries again")]


class _AttemptPrinter:
    """Prints what stopped a run, each message in full once, and how many runs are done.

    Args:
        total: Number of runs; ``None`` if their number is not to be printed.
    """

    def __init__(self, total: int | None = None) -> None:
        self.total, self.done = total, 0
        self.printed: set[str] = set()

    def __call__(self, attempt: Attempt) -> None:
        if attempt.error is not None:
            self._print_error(attempt, attempt.error)
        if self.total is not None and not attempt.retried:
            self.done += 1
            print(f"sweep      {self.done} of {self.total} runs done", file=sys.stderr, flush=True)

    def _print_error(self, attempt: Attempt, error: BaseException) -> None:
        path, again = attempt.run.path, "; trying it again" if attempt.retried else ""
        if isinstance(error, MlfixError):
            text = f"{error.problem}: as before" if str(error) in self.printed else str(error)
            self.printed.add(str(error))
            message = f"mlfix train: {text}"
        elif isinstance(error, OSError):
            message = f"mlfix train: {describe_os_error(error, 'outputs')}"
        elif isinstance(error, (WorkerDiedError, KeyboardInterrupt)):
            message = f"{path}: {error if isinstance(error, WorkerDiedError) else 'interrupted'}{again}"
        else:
            traceback.print_exception(error)
            reason = "; ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])
            message = f"mlfix train: {path}: {reason}{again}"
        print(message, file=sys.stderr, flush=True)


_PRINTER = _AttemptPrinter()
"""For runs that Hydra's launchers start one by one in this process."""


def print_sweep(paths: Sequence[Path]) -> bool:
    """Prints the state of each run of a sweep as a table, one row per seed and one column per arm.

    Returns:
        Whether all runs are finished.
    """
    states = sweep_states(paths)
    counts = Counter(str(state.get("status") or "not started") for state in states.values())
    summary = ", ".join(f"{counts[status]} {status}" for status in sorted(counts, key=lambda name: name != FINISHED))
    print(f"\nsweep      {len(states)} run{'s' if len(states) != 1 else ''}: {summary}")
    for study in dict.fromkeys(path.parent.parent for path in states):
        print(f"           {study}")
        for line in _table({path: state for path, state in states.items() if path.parent.parent == study}):
            print(f"           {line}")
    for path, state in states.items():
        if state.get("status") == FAILED:
            lines = str(state.get("error") or "").splitlines() or [""]
            print(f"failed     {path}: {lines[0][:200]}")
            for hint in (line.strip() for line in lines if line.strip().startswith("->")):
                print(f"           {hint}")
    complete = all_finished(states.values())
    if not complete:
        print("           the same command continues with the unfinished ones")
    sys.stdout.flush()
    return complete


def _table(states: Mapping[Path, Mapping[str, Any]]) -> Iterator[str]:
    arms = list(dict.fromkeys(path.parent.name for path in states))
    rows = list(dict.fromkeys(path.name for path in states))
    cells = {(path.parent.name, path.name): _cell(state) for path, state in states.items()}
    table = [["", *arms], *([row, *(cells.get((arm, row), "") for arm in arms)] for row in rows)]
    widths = [max(map(len, column)) + 2 for column in zip(*table, strict=True)]
    for line in table:
        yield "".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()


def _cell(state: Mapping[str, Any]) -> str:
    status = str(state.get("status") or "not started")
    if status != FINISHED:
        return status
    error, took = state.get("held_out_error"), state.get("timings", {}).get("total_seconds")
    text = f"{error:.2f}%" if error is not None else "finished"
    return text + (f" ({format_duration(took)})" if took is not None else "")
