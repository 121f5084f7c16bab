"""Trains the runs of a sweep in worker processes of this machine.

A worker stays for the whole sweep, so that only its first run has to import libraries, read the data and compile the
network. Each worker is a loky executor of its own: one that dies takes no other down, and each has its own GPU.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import contextmanager, suppress
from typing import Any

from loky import ProcessPoolExecutor

from mlfix_train.data.cache import enable_cache
from mlfix_train.data.files.system import cpu_count
from mlfix_train.data.runs import FAILED, FINISHED, RunDirectory
from mlfix_train.errors import RunError
from mlfix_train.training.sweep import Attempt, AttemptCallback, SweepRun, TrainFunction, is_user_error

GRACE = 60.0
"""Seconds that an interrupted worker gets to write its state."""
RESEND = 10.0
"""Seconds after which an interrupt is sent again: a worker that was just starting its run ignored the first."""


class WorkerDiedError(Exception):
    """A worker process ended during a run, for example because the system was out of memory."""


def run_in_processes(
    runs: Sequence[SweepRun],
    train: TrainFunction,
    *,
    processes: int,
    gpus: int = 0,
    retries: int = 1,
    on_attempt: AttemptCallback,
    initializer: Callable[[], None] | None = None,
) -> list[Attempt]:
    """Trains runs ``processes`` at a time.

    A worker that dies, or in which a run failed unexpectedly, is replaced and the run tried again. Workers end with
    the process that started them, however that ends.

    Args:
        runs: The runs, in the order in which they are started.
        train: Trains one of them; a function that can be imported by name.
        processes: Number of workers; they share the cores.
        gpus: Number of GPUs that the workers are assigned to in turn; 0 leaves that to each worker.
        retries: How often a run that failed unexpectedly is tried again.
        on_attempt: Called after each attempt.
        initializer: Called first in each worker, for example to configure logging.

    Returns:
        The last attempt at each run, in the order in which they ended.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; the workers were interrupted too, and have written their state.
    """
    count = min(processes, len(runs))
    pool = _Pool([worker_environment(slot, count, gpus) for slot in range(count)], initializer)
    queue = deque((run, retries) for run in runs)
    last: list[Attempt] = []
    with interrupt_on_sigterm():
        try:
            while queue or pool.running:
                for slot in pool.idle()[: len(queue)]:
                    pool.submit(slot, train, *queue.popleft())
                for run, left, error in pool.wait():
                    retried = left > 0 and error is not None and not is_user_error(error)
                    if isinstance(error, WorkerDiedError):
                        _record_failure(run, error)
                    if retried:
                        queue.appendleft((run, left - 1))
                    attempt = Attempt(run, error, retried)
                    on_attempt(attempt)
                    last += [] if retried else [attempt]
        except BaseException:
            pool.interrupt()
            pool.close(kill=True)
            raise
    pool.close()
    return last


def worker_environment(slot: int, count: int, gpus: int) -> dict[str, str]:
    """Returns the environment variables of worker ``slot`` of ``count``: its share of the cores, and its GPU.

    GPUs are assigned in turn, those of ``CUDA_VISIBLE_DEVICES`` if it names as many; none for ``gpus=0``.
    """
    threads = {"OMP_NUM_THREADS": str(max(1, cpu_count() // count))}
    environment = threads if "OMP_NUM_THREADS" not in os.environ else {}
    if gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        names = visible if len(visible) >= gpus and visible[0] else [str(number) for number in range(gpus)]
        environment["CUDA_VISIBLE_DEVICES"] = names[slot % gpus]
    return environment


class _Pool:
    """Workers of one process each, and the runs that they train."""

    def __init__(self, environments: list[dict[str, str]], initializer: Callable[[], None] | None) -> None:
        self.environments, self.initializer = environments, initializer
        self.others = set(multiprocessing.active_children())
        self.executors: dict[int, ProcessPoolExecutor] = {}
        self.running: dict[Future[None], tuple[int, SweepRun, int]] = {}

    def idle(self) -> list[int]:
        """Returns the workers that train nothing."""
        return sorted(set(range(len(self.environments))) - {slot for slot, _, _ in self.running.values()})

    def submit(self, slot: int, train: TrainFunction, run: SweepRun, left: int) -> None:
        """Has a worker train a run that may be tried again ``left`` times."""
        if slot not in self.executors:
            start: dict[str, Any] = {"initializer": _start_worker, "initargs": (os.getpid(), self.initializer)}
            self.executors[slot] = ProcessPoolExecutor(max_workers=1, env=self.environments[slot], **start)
        self.running[self.executors[slot].submit(_train_in_worker, train, run)] = slot, run, left

    def wait(self) -> Iterator[tuple[SweepRun, int, BaseException | None]]:
        """Waits until a run ends; yields it with its retries left and what stopped it."""
        for future in wait(self.running, return_when=FIRST_COMPLETED).done:
            slot, run, left = self.running.pop(future)
            error = future.exception()
            if isinstance(error, BrokenExecutor):
                error = WorkerDiedError(_exit_reason(error))
            if error is not None and not is_user_error(error):  # the process may be in a bad state
                self.executors.pop(slot).shutdown(wait=True, kill_workers=True)
            yield run, left, error

    def interrupt(self) -> None:
        """Interrupts the runs, and waits until they have written their state."""
        deadline = time.monotonic() + GRACE
        while self.running and time.monotonic() < deadline:
            for process in set(multiprocessing.active_children()) - self.others:
                if process.pid is not None:
                    os.kill(process.pid, signal.SIGINT)
            if not wait(self.running, timeout=RESEND).not_done:
                break

    def close(self, kill: bool = False) -> None:
        """Ends the workers, at once or by themselves."""
        for executor in self.executors.values():
            executor.shutdown(wait=True, kill_workers=kill)


@contextmanager
def interrupt_on_sigterm() -> Iterator[None]:
    """Handles SIGTERM like Ctrl-C; does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit_reason(error: BrokenExecutor) -> str:
    name = re.search(r"SIG[A-Z]+", str(error))
    cause = f"was killed by {name[0]}" if name else f"ended: {str(error).splitlines()[0]}"
    return f"its process {cause}" + (" (out of memory?)" if name and name[0] == "SIGKILL" else "")


def _record_failure(run: SweepRun, error: WorkerDiedError) -> None:
    """Writes to ``run.json`` how a worker ended, if it could not do so itself."""
    directory = RunDirectory(run.path)
    with suppress(RunError):
        if directory.status not in ("", FINISHED, FAILED):
            directory.update(status=FAILED, error=str(error))


# What happens in the worker processes

_training = threading.Event()


def _start_worker(parent: int, initializer: Callable[[], None] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # between runs; also where the sweep was started to ignore it
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C in a terminal then reaches the sweep alone, which interrupts its workers
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    enable_cache(True)
    if initializer is not None:
        initializer()


def _end_with_parent(parent: int) -> None:
    """Interrupts the run, and ends the process, once the sweep's process is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    if _training.is_set():
        os.kill(os.getpid(), signal.SIGINT)
    deadline = time.monotonic() + GRACE
    while _training.is_set() and time.monotonic() < deadline:
        time.sleep(0.1)
    os._exit(1)


def _train_in_worker(train: TrainFunction, run: SweepRun) -> None:
    _training.set()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        train(run)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _training.clear()
        sys.stdout.flush()
        gc.collect()
        torch: Any = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()
