"""Signals that end a run: Ctrl-C, ``kill``, and those by which a cluster says that the time of a job is up.

The first one is remembered. A training stops at the end of its batch, anything else at once, and the state of the run
is written before the command ends. On SLURM, SIGUSR1 and SIGUSR2 also put the job back into the queue.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that end a run."""
REQUEUEING = (signal.SIGUSR1, signal.SIGUSR2)
"""Signals after which a SLURM job is requeued: those that people pass to ``sbatch --signal``."""
PATIENCE = 2.0
"""Seconds in which further signals count as the first one. After that, another one stops a training within a batch."""
RANKS = ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")
"""Environment variables that are 0, or missing, in the first process of a distributed training."""


class RunInterrupted(KeyboardInterrupt):
    """A signal ended a run.

    Args:
        signum: Number of the signal.
        problem: What was interrupted, and how to go on.
    """

    def __init__(self, signum: int, problem: str = "") -> None:
        super().__init__(signum, problem)
        self.signum, self.problem = signum, problem

    def __str__(self) -> str:
        return self.problem or f"interrupted by {self.name}"

    @property
    def name(self) -> str:
        """The name of the signal, such as ``SIGTERM``; ``Ctrl-C`` for SIGINT."""
        return "Ctrl-C" if self.signum == signal.SIGINT else signal.Signals(self.signum).name

    @property
    def exit_code(self) -> int:
        """The exit code of a command that ends by the signal: 128 plus its number, as shells have it."""
        return 128 + self.signum


class SignalHandler:
    """Turns the first signal into one :class:`RunInterrupted`, raised where it does no harm.

    Attributes:
        received: Number of the first signal, if there was one.
        is_training: Whether a training is under way that calls :meth:`check` after each batch.
        requeueing: Signals after which a SLURM job is requeued.
        hurry: Set by a further signal, at which nothing waits any longer for others to end in order.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.is_training, self.hurry = False, threading.Event()
        self.requeueing: tuple[int, ...] = REQUEUEING
        self._process, self._before = os.getpid(), dict[int, Any]()
        self._last, self._blocked = 0.0, 0

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "hurry"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, hurry=threading.Event())  # a spawned process has signals of its own

    def install(self, *more: int) -> None:
        """Sets the handlers of :data:`HANDLED` and ``more``, again if a library has set its own since.

        Signals that the process was started to ignore (``nohup``) stay ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in (*HANDLED, *more):
            before = self._before.setdefault(signum, signal.getsignal(signum))
            if before not in (signal.SIG_IGN, None):
                signal.signal(signum, self._handle)

    def restore(self) -> None:
        """Restores the handlers that were set before."""
        for signum, handler in self._before.items():
            if handler is not None:
                signal.signal(signum, handler)

    def receive(self, signum: int) -> None:
        """Remembers a signal, the first one only."""
        if self.received is None:
            self.received = signum

    def check(self) -> None:
        """Raises RunInterrupted if there was a signal."""
        if self.received is not None:
            self._last = time.monotonic()
            raise RunInterrupted(self.received)

    @contextmanager
    def blocked(self) -> Iterator[None]:
        """Puts signals off until the block has ended; for state that has to be written as a whole."""
        early = self.received
        self._blocked += 1
        try:
            yield
        finally:
            self._blocked -= 1
        if early is None:
            self.check()

    def _handle(self, signum: int, frame: Any) -> None:
        if os.getpid() != self._process:  # a fork, which is none of our business
            signal.signal(signum, self._before[signum])
            signal.raise_signal(signum)
            return
        now, again = time.monotonic(), self.received is not None
        self.receive(signum)
        if again:
            self.hurry.set()
        if self._blocked or (again and now - self._last < PATIENCE):
            return
        self._last = now
        if again or not self.is_training:
            self.check()

    def hand_on(self) -> None:
        """Does what the signal asks for beyond ending the run: the handler set before is called, or the job requeued.

        submitit's handler requeues its job, and ends the process.
        """
        before = self._before.get(self.received or 0)
        if callable(before) and before is not signal.default_int_handler:
            before(self.received, None)
        elif self.received in self.requeueing:
            requeue_job()


_active: list[SignalHandler] = []


@contextmanager
def handle_signals() -> Iterator[SignalHandler]:
    """Handles signals in a block as :class:`SignalHandler` does; blocks within it share its handler.

    Outside the main thread, which Python has no signals in, it does nothing.

    Raises:
        RunInterrupted: There was a signal.
    """
    handler = _active[0] if _active else SignalHandler()
    if _active or threading.current_thread() is not threading.main_thread():
        yield handler
        handler.check()
        return
    _active.append(handler)
    try:
        handler.install()
        yield handler
        handler.check()
    except BaseException as error:
        if handler.received is None or isinstance(error, SystemExit):
            raise
        with handler.blocked():
            handler.restore()
            handler.hand_on()
        raise error if isinstance(error, RunInterrupted) else RunInterrupted(handler.received) from error
    finally:
        _active.clear()
        handler.restore()


def job_id() -> str:
    """Returns the id of the SLURM job, or of submitit's local one, that this process belongs to; empty without one."""
    array, job = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_JOB_ID", "")
    if not job or os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return os.environ.get("SUBMITIT_LOCAL_JOB_ID", "")
    return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '0')}" if array else job


def is_restarted() -> bool:
    """Returns whether the job may have run before: SLURM counts its restarts, submitit's local jobs don't."""
    restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
    return restarts not in ("", "0") or (bool(job_id()) and job_id() == os.environ.get("SUBMITIT_LOCAL_JOB_ID"))


def requeue_job() -> None:
    """Requeues the SLURM job that this process is the first one of; does nothing in an interactive shell of SLURM's."""
    job = job_id()
    if not job or "SLURM_JOB_ID" not in os.environ or any(os.environ.get(name, "0") != "0" for name in RANKS):
        return
    command = [shutil.which("scontrol") or "scontrol", "requeue", job]
    try:
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip()
        log.warning("SLURM job %s could not be requeued (%s); submit it again to resume", job, reason)
    else:
        log.info("SLURM job %s is requeued, and resumes when it starts again", job)
