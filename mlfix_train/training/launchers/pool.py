"""Trains runs by a pool of workers: which run is next, what is tried again, and how a signal ends them all."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from mlfix_train.data.runs import FAILED, FINISHED, RunDirectory
from mlfix_train.errors import RunError
from mlfix_train.training.signals import handle_signals
from mlfix_train.training.sweep import Attempt, AttemptCallback, SweepRun, TrainFunction, is_user_error

GRACE = 60.0
"""Seconds that an interrupted worker gets to write its state."""


class WorkerDiedError(Exception):
    """A worker process ended during a run, for example because the system was out of memory."""


class NodeLostError(WorkerDiedError):
    """The machine on which a run was trained is gone; no fault of the run's."""


Ended = tuple[SweepRun, int, object, BaseException | None]
"""A run that ended, its retries left, what it returned, and what stopped it."""


class WorkerPool(Protocol):
    """Workers of one run each."""

    def idle(self) -> Sequence[int]:
        """Returns the workers that train nothing."""

    def submit(self, worker: int, train: TrainFunction, run: SweepRun, left: int) -> None:
        """Has a worker train a run that may be tried again ``left`` times."""

    def wait(self) -> Iterable[Ended]:
        """Waits until runs end, or for a moment."""

    def is_busy(self) -> bool:
        """Returns whether a run is being trained."""

    def interrupt(self, hurry: threading.Event, grace: float) -> None:
        """Interrupts the runs, and waits until they have written their state, at most until ``hurry`` is set."""

    def close(self, kill: bool = False) -> None:
        """Ends the workers, at once or by themselves."""


def run_in_pool(
    pool: WorkerPool, runs: Sequence[SweepRun], train: TrainFunction, retries: int, on_attempt: AttemptCallback
) -> list[Attempt]:
    """Trains runs by the workers of a pool, which stay; an error or a signal ends them.

    Args:
        pool: The workers.
        runs: The runs, in the order in which they are started.
        train: Trains one of them.
        retries: How often a run that failed unexpectedly is tried again. A run whose machine is lost always is.
        on_attempt: Called after each attempt.

    Returns:
        The last attempt at each run, in the order in which they ended.

    Raises:
        RunInterrupted: A signal; the workers were interrupted too, and have written their state.
    """
    queue = deque((run, retries) for run in runs)
    last: list[Attempt] = []
    with handle_signals() as signals:
        try:
            while queue or pool.is_busy():
                for worker in pool.idle()[: len(queue)]:
                    pool.submit(worker, train, *queue.popleft())
                for run, left, value, error in pool.wait():
                    lost = isinstance(error, NodeLostError)
                    retried = lost or (left > 0 and error is not None and not is_user_error(error))
                    if isinstance(error, WorkerDiedError):
                        _record_failure(run, error)
                    if retried:
                        queue.appendleft((run, left if lost else left - 1))
                    attempt = Attempt(run, error, retried, value)
                    on_attempt(attempt)
                    last += [] if retried else [attempt]
        except BaseException:
            with signals.blocked():
                pool.interrupt(signals.hurry, GRACE)
                pool.close(kill=True)
            raise
    return last


def _record_failure(run: SweepRun, error: WorkerDiedError) -> None:
    """Writes to ``run.json`` how a worker ended, if it could not do so itself."""
    directory = RunDirectory(run.path)
    with suppress(RunError):
        if directory.status not in ("", FINISHED, FAILED):
            directory.update(status=FAILED, error=str(error))
