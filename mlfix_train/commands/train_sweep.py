"""The runs of a sweep: how one is trained, and what is printed about them."""

from __future__ import annotations

import sys
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlfix_train.commands import run_composed
from mlfix_train.commands.progress import align_columns, format_duration
from mlfix_train.data.runs import FAILED, FINISHED
from mlfix_train.errors import MlfixError, describe_os_error, own_code
from mlfix_train.training.launchers.pool import WorkerDiedError
from mlfix_train.training.sweep import Attempt, all_finished, held_out_error, is_user_error, sweep_states


def train_composed(cfg: Any) -> float | None:
    """Trains one run of a sweep on its composed Hydra configuration, unless it is finished.

    Returns:
        What a sweep minimizes, see :func:`mlfix_train.training.sweep.held_out_error`.
    """
    with name_own_code():
        directory = run_composed("train", cfg)
    return held_out_error(directory.read())


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


class AttemptPrinter:
    """Prints what stopped a run, each message in full once, and how many runs are done.

    Args:
        total: Number of runs; ``None`` if their number is not to be printed.
    """

    def __init__(self, total: int | None = None) -> None:
        self.total, self.done = total, 0
        self.printed: set[str] = set()

    def __call__(self, attempt: Attempt, with_traceback: bool = True) -> None:
        """Prints how an attempt ended; the lines of an unexpected error are left out without ``with_traceback``."""
        if attempt.error is not None:
            self._print_error(attempt, attempt.error, with_traceback)
        if self.total is not None and not attempt.retried:
            self.done += 1
            print(f"sweep      {self.done} of {self.total} runs done", file=sys.stderr, flush=True)

    def _print_error(self, attempt: Attempt, error: BaseException, with_traceback: bool) -> None:
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
            if with_traceback:
                traceback.print_exception(error)
            reason = "; ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])
            message = f"mlfix train: {path}: {reason}{again}"
        print(message, file=sys.stderr, flush=True)


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


def print_best(paths: Sequence[Path]) -> None:
    """Prints the run with the lowest held-out error, if there is one."""
    errors = {path: held_out_error(state) for path, state in sweep_states(paths).items()}
    known = {path: error for path, error in errors.items() if error is not None}
    if known:
        best = min(known, key=lambda path: known[path])
        print(f"best       {best}: held-out error {known[best]:.2f}%", flush=True)


def _table(states: Mapping[Path, Mapping[str, Any]]) -> Iterator[str]:
    arms = list(dict.fromkeys(path.parent.name for path in states))
    rows = list(dict.fromkeys(path.name for path in states))
    cells = {(path.parent.name, path.name): _cell(state) for path, state in states.items()}
    return align_columns([["", *arms], *([row, *(cells.get((arm, row), "") for arm in arms)] for row in rows)])


def _cell(state: Mapping[str, Any]) -> str:
    status = str(state.get("status") or "not started")
    if status != FINISHED:
        return status
    error, took = state.get("held_out_error"), state.get("timings", {}).get("total_seconds")
    text = f"{error:.2f}%" if error is not None else "finished"
    return text + (f" ({format_duration(took)})" if took is not None else "")
