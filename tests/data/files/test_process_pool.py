"""Worker processes: results, errors, deaths, interrupts, and what they may not do."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from mlfix_train.data.files.process_pool import JOBS_AHEAD, map_unordered
from mlfix_train.errors import DataError

pytestmark = pytest.mark.usefixtures("alarm")


def square(number: int) -> int:
    return number * number


def process_id(_: int) -> int:
    return os.getpid()


def fail_on_three(number: int) -> int:
    if number == 3:
        raise OSError(errno.ENOSPC, "No space left on device", "out.jpg")
    return number


def die_on_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_comes_back_with_its_result(workers: int) -> None:
    found = dict(map_unordered(square, range(30), workers))
    assert found == {number: number**2 for number in range(30)}
    assert dict(map_unordered(square, [], workers)) == {}


def test_one_worker_is_this_process() -> None:
    assert dict(map_unordered(process_id, [0], 1)) == {0: os.getpid()}
    assert os.getpid() not in dict(map_unordered(process_id, range(8), 2)).values()


def test_jobs_are_taken_as_they_are_needed() -> None:
    taken = []

    def jobs() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = map_unordered(square, jobs(), 2)
    next(results)
    results.close()
    assert len(taken) == 2 * JOBS_AHEAD


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_keeps_its_type_and_arguments(workers: int) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        list(map_unordered(fail_on_three, range(100), workers))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "out.jpg")


def test_a_worker_that_dies_is_an_error_that_names_its_job() -> None:
    with pytest.raises(DataError, match=r"worker process died while it worked on .*job-3") as caught:
        list(map_unordered(die_on_three, range(4), 2, describe=lambda number: f"job-{number}"))
    assert "SIGKILL(-9)" in str(caught.value), "how it ended"


SCRIPT = """
    import sys
    from mlfix_train.data.files.process_pool import map_unordered

    print("main script runs", flush=True)

    def modules(number):
        return "torch" in sys.modules, "lightning" in sys.modules

    print(sorted(set(result for _, result in map_unordered(modules, range(8), 2))))
"""


@pytest.mark.parametrize("how", ["file", "stdin"])
def test_a_script_without_main_guard_runs_once(tmp_path: Path, how: str) -> None:
    """With ``multiprocessing`` each worker would import the script again, or fail to find ``<stdin>``."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    with open(script) as source:
        command = [sys.executable, *([str(script)] if how == "file" else [])]
        result = subprocess.run(command, stdin=source, capture_output=True, text=True, check=True, timeout=150)
    assert result.stdout == "main script runs\n[(False, False)]\n"


INTERRUPTED = """
    import os, time
    from mlfix_train.data.files.process_pool import map_unordered

    def work(number):
        if number >= 2:
            time.sleep(60)
        return os.getpid()

    try:
        for _, worker in map_unordered(work, range(10), 2):
            print(worker, flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def test_an_interrupt_ends_parent_and_workers() -> None:
    """Ctrl-C in a terminal reaches the whole process group; jobs of a minute are not waited for."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    try:
        workers = [int(process.stdout.readline()) for _ in range(2)]
        output = None
        for _ in range(4):  # one that arrives within a destructor is dropped; a person presses again
            os.killpg(process.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                output, _ = process.communicate(timeout=12)  # a job takes a minute
                break
    finally:
        process.kill()
    assert (output, process.returncode) == ("interrupted\n", 0)
    wait_until(lambda: not any(is_running(worker) for worker in workers))


def test_workers_do_not_outlive_a_killed_parent() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    try:
        process.stdout.readline()
    finally:
        process.kill()
    process.communicate(timeout=50)  # returns once no worker holds the output any more; their jobs last a minute
    assert process.returncode == -signal.SIGKILL


def test_a_stopped_caller_stops_the_workers() -> None:
    started = time.monotonic()
    results = map_unordered(time.sleep, [0.0, *[60.0] * 5], 2)
    next(results)
    children = psutil.Process().children(recursive=True)
    results.close()
    assert time.monotonic() - started < 50
    wait_until(lambda: not any("loky.backend.popen" in " ".join(cmdline(child)) for child in children))


def wait_until(condition: Callable[[], bool], seconds: float = 100) -> None:
    """Waits for what the system does in its own time after a process was killed."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Returns whether a process works: one that only waits to be reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() if process.status() != psutil.STATUS_ZOMBIE else []
    except psutil.NoSuchProcess:
        return []
