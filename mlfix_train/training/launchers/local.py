"""The runs of a sweep in processes that stay: each trains one run after the other, so that only its first one has to
import libraries, read the data and compile the network."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from mlfix_train.data.runs import FAILED, FINISHED, RunDirectory
from mlfix_train.errors import RunError

UNEXPECTED = 70
"""Exit code of ``mlfix`` for a fault that is not the user's; such a run is tried again."""
GRACE = 60.0
"""Seconds that interrupted processes get to write down where they are."""
ANSWERS = "MLFIX_ANSWERS"
"""Names the file descriptor that a working process writes exit codes to."""


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Worker:
    """A process that trains runs, one at a time.

    Args:
        slot: its number, from 0.
        count: of all of them, among whom cores are divided.
        gpus: GPUs dealt in turn; 0: as the process finds it.
    """

    def __init__(self, slot: int, count: int, gpus: int) -> None:
        environment = dict(os.environ)
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cores() // count)))
        if gpus:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
            names = visible if len(visible) >= gpus and visible[0] else [str(i) for i in range(gpus)]
            environment["CUDA_VISIBLE_DEVICES"] = names[slot % gpus]
        self.gone = False
        self._answers, theirs = os.pipe()
        environment[ANSWERS] = str(theirs)
        command = [sys.executable, "-m", "mlfix_train.cli.main", "--sweep-worker"]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, pass_fds=(theirs,), preexec_fn=_heed_interrupts
        )
        os.close(theirs)

    def begin(self, overrides: tuple[str, ...]) -> None:
        """Has it train a run; ``overrides`` are those of ``mlfix train``."""
        assert self.process.stdin
        line = json.dumps([*overrides, "jobs=1", "trainer.parallel_runs=1", "report=line"]) + "\n"
        try:
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it died; `result` tells

    def result(self) -> int | None:
        """Returns the exit code of the run, or that of the process where it died; ``None`` while it trains."""
        if not select.select([self._answers], [], [], 0)[0]:
            return None
        line = os.read(self._answers, 64)  # nothing: the process is gone
        if line:
            return int(line)
        self.gone = True
        self.process.wait()
        return int(self.process.returncode) or UNEXPECTED

    def close(self, interrupt: bool = False) -> None:
        """Ends it: at once where it waits for a run, after writing down where it is where it trains one."""
        if interrupt and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        if self.process.stdin and not self.process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()

    def wait(self, seconds: float) -> None:
        """Waits for its end, and kills it if that takes longer."""
        try:
            self.process.wait(seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self.process.kill()
            self.process.wait()
        os.close(self._answers)


def run_all(jobs: list[Any], retries: int, count: int, gpus: int, verbose: bool = True) -> int:
    """Trains runs, ``count`` at a time, GPUs dealt in turn.

    A process that dies of a fault that is not the user's (a crash, no memory) is replaced and its run tried again.

    Args:
        jobs: :class:`mlfix_train.training.sweep.Job`.
        retries: how often a run is tried again.
        count: processes.
        gpus: see :class:`Worker`.
        verbose: say on standard error how many are done.

    Returns:
        How many runs failed, or were refused.

    Raises:
        KeyboardInterrupt: the user's; the processes have then been interrupted too.
    """
    waiting = [(job, retries) for job in jobs]
    count = min(count, len(jobs))
    workers: dict[int, Worker] = {}
    running: dict[int, tuple[Any, int]] = {}
    total, done, failed = len(waiting), 0, 0
    try:
        while waiting or running:
            for slot in range(count):
                if slot not in running and waiting:
                    running[slot] = waiting.pop(0)
                    if slot not in workers:
                        workers[slot] = Worker(slot, count, gpus)
                    workers[slot].begin(running[slot][0].overrides)
            time.sleep(0.05)
            for slot, (job, left) in list(running.items()):
                code = workers[slot].result()
                if code is None:
                    continue
                del running[slot]
                if workers[slot].gone or code == UNEXPECTED:
                    _retire(workers.pop(slot))
                    _note_death(job, code)
                    if left:
                        print(f"{job.path}: {_death(code)}; trying it again", file=sys.stderr, flush=True)
                        waiting.insert(0, (job, left - 1))
                        continue
                done += 1
                failed += code != 0
                if verbose:
                    print(f"sweep      {done} of {total} runs done", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        _end(list(workers.values()), interrupt=True)
        raise
    _end(list(workers.values()))
    return failed


def _retire(worker: Worker) -> None:
    """Ends a process that met a fault: what it holds may be broken."""
    worker.process.kill()
    worker.close()
    worker.wait(GRACE)


def _end(workers: list[Worker], interrupt: bool = False) -> None:
    for worker in workers:
        worker.close(interrupt)
    deadline = time.monotonic() + GRACE
    for worker in workers:
        worker.wait(max(0.1, deadline - time.monotonic()))


def _heed_interrupts() -> None:
    """Lets a new process heed Ctrl-C even where we were started to ignore it, and (on Linux) the parent's death."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG


def _death(code: int) -> str:
    if 0 <= code <= 128:
        return "failed"
    number = -code if code < 0 else code - 128
    name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
    return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def _note_death(job: Any, code: int) -> None:
    """Writes into ``run.json`` how a process ended that could not do so itself."""
    directory = RunDirectory(job.path)
    try:
        status = directory.read().get("status")
    except RunError:
        status = FAILED
    if code != UNEXPECTED and status not in (None, FINISHED, FAILED):
        directory.update(status=FAILED, error=f"its process was {_death(code)}")


def serve(train: Callable[[list[str]], int]) -> int:
    """Trains the runs that are asked for on standard input until it closes; what a working process does.

    Args:
        train: trains a run and returns its exit code.

    Returns:
        The exit code of the process.
    """
    import gc

    from mlfix_train.data import cache

    answers = int(os.environ.pop(ANSWERS))
    cache.enable_cache()
    try:
        for line in sys.stdin:
            code = train(json.loads(line))
            if code == 130:
                return code
            with contextlib.suppress(BrokenPipeError):  # nobody reads what it prints
                sys.stdout.flush()
            os.write(answers, f"{code}\n".encode())
            gc.collect()
            torch = sys.modules.get("torch")
            if torch is not None and torch.cuda.is_available():
                torch.cuda.empty_cache()
    except KeyboardInterrupt:
        return 130
    return 0
