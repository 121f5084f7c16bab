"""Worker processes of this machine that train the runs of a sweep.

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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import contextmanager
from typing import Any

from loky import ProcessPoolExecutor

from mlfix_train.data.cache import enable_cache
from mlfix_train.data.files.system import cpu_count
from mlfix_train.training.launchers.pool import GRACE, Ended, WorkerDiedError, run_in_pool
from mlfix_train.training.sweep import Attempt, AttemptCallback, SweepRun, TrainFunction, is_user_error

RESEND = 5.0
"""Seconds after which an interrupt is sent again: a worker that was just starting its run ignored the first."""


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
        train: Trains one of them; a function that can be pickled.
        processes: Number of workers; they share the cores.
        gpus: Number of GPUs that the workers are assigned to in turn; 0 leaves that to each worker.
        retries: How often a run that failed unexpectedly is tried again.
        on_attempt: Called after each attempt.
        initializer: Called first in each worker, for example to configure logging.

    Returns:
        The last attempt at each run, in the order in which they ended.

    Raises:
        RunInterrupted: A signal; the workers were interrupted too, and have written their state.
    """
    with local_pool(min(processes, len(runs)), gpus, initializer) as pool:
        return run_in_pool(pool, runs, train, retries, on_attempt)


@contextmanager
def local_pool(processes: int, gpus: int = 0, initializer: Callable[[], None] | None = None) -> Iterator[LocalPool]:
    """Opens a pool of workers, for :func:`mlfix_train.training.launchers.pool.run_in_pool`, several times.

    Args:
        processes: Number of workers; they share the cores.
        gpus: Number of GPUs that the workers are assigned to in turn; 0 leaves that to each worker.
        initializer: Called first in each worker.
    """
    pool = LocalPool([worker_environment(slot, processes, gpus) for slot in range(processes)], initializer)
    try:
        yield pool
    finally:
        pool.close()


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


class LocalPool:
    """Workers of one process each; a :class:`mlfix_train.training.launchers.pool.WorkerPool`.

    Args:
        environments: The environment variables of each worker.
        initializer: Called first in each worker.
    """

    def __init__(self, environments: list[dict[str, str]], initializer: Callable[[], None] | None = None) -> None:
        self.environments, self.initializer = environments, initializer
        self.others = set(multiprocessing.active_children())
        self.executors: dict[int, ProcessPoolExecutor] = {}
        self.running: dict[Future[object], tuple[int, SweepRun, int]] = {}

    def is_busy(self) -> bool:
        """Returns whether a run is being trained."""
        return bool(self.running)

    def idle(self) -> list[int]:
        """Returns the workers that train nothing."""
        return sorted(set(range(len(self.environments))) - {slot for slot, _, _ in self.running.values()})

    def submit(self, worker: int, train: TrainFunction, run: SweepRun, left: int) -> None:
        """Has a worker train a run that may be tried again ``left`` times."""
        if worker not in self.executors:
            start: dict[str, Any] = {"initializer": _start_worker, "initargs": (os.getpid(), self.initializer)}
            self.executors[worker] = ProcessPoolExecutor(max_workers=1, env=self.environments[worker], **start)
        self.running[self.executors[worker].submit(train_in_worker, train, run)] = worker, run, left

    def wait(self) -> Iterator[Ended]:
        """Waits until a run ends."""
        for future in wait(self.running, return_when=FIRST_COMPLETED).done:
            worker, run, left = self.running.pop(future)
            error = future.exception()
            if isinstance(error, BrokenExecutor):
                error = WorkerDiedError(_exit_reason(error))
            if error is not None and not is_user_error(error):  # the process may be in a bad state
                self.executors.pop(worker).shutdown(wait=True, kill_workers=True)
            yield run, left, None if error is not None else future.result(), error

    def interrupt(self, hurry: threading.Event, grace: float = GRACE) -> None:
        """Interrupts the runs, and waits until they have written their state, at most until ``hurry`` is set."""
        deadline, again = time.monotonic() + grace, 0.0
        while self.running and not hurry.is_set() and time.monotonic() < deadline:
            if time.monotonic() >= again:
                again = time.monotonic() + RESEND
                for process in set(multiprocessing.active_children()) - self.others:
                    if process.pid is not None:
                        os.kill(process.pid, signal.SIGINT)
            if not wait(self.running, timeout=0.2).not_done:
                break

    def close(self, kill: bool = False) -> None:
        """Ends the workers, at once or by themselves."""
        for executor in self.executors.values():
            executor.shutdown(wait=True, kill_workers=kill)


def _exit_reason(error: BrokenExecutor) -> str:
    name = re.search(r"SIG[A-Z]+", str(error))
    cause = f"was killed by {name[0]}" if name else f"ended: {str(error).splitlines()[0]}"
    return f"its process {cause}" + (" (out of memory?)" if name and name[0] == "SIGKILL" else "")


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


def train_in_worker(train: TrainFunction, run: SweepRun) -> object:
    """Trains a run in a worker, where SIGINT interrupts it, and frees its memory afterwards."""
    _training.set()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return train(run)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _training.clear()
        sys.stdout.flush()
        gc.collect()
        if not gc.get_freeze_count():
            gc.freeze()  # libraries and cached data, which stay: to look through them takes longer than all the rest
        torch: Any = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()
