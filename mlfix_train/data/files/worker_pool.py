"""Processes that work through jobs: JSON lines in, JSON lines out.

They are programs of their own (``python -m <module>``) rather than ``multiprocessing`` workers, because those import
the user's main script again, which breaks in scripts without a main guard and when Python reads from a pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from mlfix_train.errors import DataError

Job = dict[str, Any]
Answer = dict[str, Any]


def run_jobs(
    module: str,
    work: Callable[[Job], Answer],
    jobs: Iterable[Job],
    workers: int,
    names: Callable[[Job], str],
) -> Iterator[tuple[Job, Answer]]:
    """Works through jobs in ``workers`` processes (in this one if it is 1), yielding each with its answer as it comes.

    Args:
        module: a module whose main program calls :func:`serve` with ``work``.
        work: does one job; both are what JSON can hold.
        jobs: taken as they are needed.
        workers: number of processes.
        names: what an error calls a job.

    Raises:
        OSError: a job met one, such as a full disk.
        DataError: a process died; it names the job that it was at.
    """
    if workers == 1:
        for job in jobs:
            yield job, work(job)
        return
    local = threading.local()
    processes: list[_Process] = []

    def run(job: Job) -> tuple[Job, Answer]:
        if not hasattr(local, "process"):
            local.process = _Process(module)
            processes.append(local.process)
        answer: Answer = local.process.ask(job, names)
        return job, answer

    pool = ThreadPoolExecutor(workers)
    pending: set[Future[tuple[Job, Answer]]] = set()
    try:
        for job in jobs:
            pending.add(pool.submit(run, job))
            if len(pending) >= 3 * workers:
                ready, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in ready)
        while pending:
            ready, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in ready)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for process in processes:
            process.close()


class _Process:
    """One working process, held by one thread."""

    def __init__(self, module: str) -> None:
        home = str(Path(__file__).resolve().parents[3])
        path = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then closes its workers
        )

    def ask(self, job: Job, names: Callable[[Job], str]) -> Answer:
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise DataError(
                f"a decoding process died (exit code {self.process.wait()}) {names(job)}",
                "look for a broken file among these images, or for too little memory; what was decoded before is kept",
            )
        answer: Answer = json.loads(line)
        if "errno" in answer:
            raise OSError(answer["errno"], answer["error"], answer["file"])
        return answer

    def close(self) -> None:
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


def serve(work: Callable[[Job], Answer]) -> None:
    """Answers the jobs on standard input until it closes."""
    for line in sys.stdin:
        try:
            answer = work(json.loads(line))
        except OSError as error:
            answer = {"errno": error.errno, "error": error.strerror, "file": error.filename}
        try:
            print(json.dumps(answer), flush=True)
        except BrokenPipeError:  # whoever asked was killed
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that closing it says nothing
            return
