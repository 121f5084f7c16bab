"""Worker processes for decoding and cropping, by loky.

Unlike ``multiprocessing``'s, loky's workers do not import the user's main script, so this works in scripts without a
main guard and when Python reads its program from a pipe.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import TypeVar

from mlfix_train.errors import DataError, format_list

Job = TypeVar("Job")
Result = TypeVar("Result")

JOBS_AHEAD = 3
"""Jobs handed out per worker before the first result is waited for: bounds memory, and keeps the workers busy."""
IDLE_SECONDS = 30
"""After so long without a job a worker exits."""


def map_unordered(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int, describe: Callable[[Job], str] = str
) -> Iterator[tuple[Job, Result]]:
    """Applies a function to jobs in worker processes and yields (job, result) in order of completion.

    If the caller stops early (an error, Ctrl-C, a closed generator), the workers are killed at once.

    Args:
        function: is pickled once per job, as are the jobs and results; a function of an importable module is quickest.
        jobs: consumed lazily, a few per worker ahead of the results.
        workers: number of processes; 1 runs everything in this process.
        describe: what an error message calls a job, such as ``"photos/1.jpg"``.

    Raises:
        DataError: A worker died (killed, crashed, out of memory); names the jobs that were running.
        Exception: Whatever ``function`` raises, with the type and arguments that it had in the worker.
    """
    if workers == 1:
        for job in jobs:
            yield job, function(job)
        return
    from loky import ProcessPoolExecutor  # starting a pool is rare, importing it takes a while

    pool = ProcessPoolExecutor(workers, timeout=IDLE_SECONDS, initializer=exit_with_parent, initargs=(os.getpid(),))
    pending: dict[Future[Result], Job] = {}
    try:
        for job in jobs:
            with _interrupts_blocked():
                pending[pool.submit(function, job)] = job
            if len(pending) >= JOBS_AHEAD * workers:
                yield from _completed(pending, workers, describe)
        while pending:
            yield from _completed(pending, workers, describe)
    finally:
        pool.shutdown(wait=True, kill_workers=bool(pending))


def exit_with_parent(parent: int) -> None:
    """Makes a worker exit soon after its parent was killed: it would finish its jobs and hold the parent's output."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _completed(
    pending: dict[Future[Result], Job], workers: int, describe: Callable[[Job], str]
) -> Iterator[tuple[Job, Result]]:
    """Waits for at least one future, removes the finished ones from ``pending`` and yields their results."""
    from loky.process_executor import TerminatedWorkerError

    done, _ = wait(pending, return_when=FIRST_COMPLETED)
    for future in [future for future in pending if future in done]:
        try:
            result = future.result()
        except TerminatedWorkerError as error:
            # Jobs start in the order of submission, so the oldest unfinished ones were running.
            running = [describe(job) for job in list(pending.values())[:workers]]
            hint = "check these files, and whether there is enough memory; finished work is kept"
            details = [line for line in str(error).splitlines() if "exit code" in line]
            problem = f"a worker process died while it worked on {format_list(running)}"
            raise DataError(problem, hint, details) from error
        yield pending.pop(future), result


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Blocks Ctrl-C while workers may be started; they inherit that, so that the parent alone handles it."""
    resource_tracker.ensure_running()  # started on demand, it would unblock them again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
