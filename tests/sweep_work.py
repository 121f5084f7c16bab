"""What the workers of a sweep do in the tests of launchers: functions that they import in no time, without torch."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable

from hydra.core.utils import JobReturn, JobStatus

from mlfix_train.data.runs import FINISHED, INTERRUPTED, RUNNING, RunDirectory
from mlfix_train.errors import RunError
from mlfix_train.training.sweep import SweepRun


def do_instead(work: Callable[[SweepRun], None], context: object, task: object, run: SweepRun) -> JobReturn:
    """Does some work instead of training a planned run."""
    work(run)
    return JobReturn(status=JobStatus.COMPLETED)


def write_environment(run: SweepRun) -> None:
    run.path.mkdir(parents=True)
    seen = {"pid": os.getpid(), "gpu": os.environ["CUDA_VISIBLE_DEVICES"]}
    (run.path / "seen.json").write_text(json.dumps(seen))
    while len(list(run.path.parent.glob("*/seen.json"))) < 2:  # both workers are at work
        time.sleep(0.01)


def fail_by_name(run: SweepRun) -> None:
    if run.path.name == "refused":
        raise RunError("no", "so", ["a: 1 -> 2"])
    if run.path.name == "broken" and not (run.path / "tried").exists():
        run.path.mkdir()
        (run.path / "tried").touch()
        raise RuntimeError("out of luck")
    if run.path.name == "dead":
        os.kill(os.getpid(), signal.SIGKILL)


def refuse(run: SweepRun) -> None:
    raise RunError(f"{run.path} contains a run with other settings", "overwrite=true", ["recipe.epochs: 1 -> 2"])


def begin(run: SweepRun) -> RunDirectory:
    """Writes the state that a run begins with, and what was there before."""
    directory = RunDirectory(run.path)
    run.path.mkdir(parents=True, exist_ok=True)
    directory.update(status=RUNNING, pid=os.getpid(), before=directory.read())
    return directory


def end(directory: RunDirectory) -> None:
    directory.update(status=FINISHED)


def be_killed_once(run: SweepRun) -> None:
    """The process of the second run is killed at its first attempt."""
    directory = begin(run)
    if run.path.name == "seed=1" and not directory.read()["before"]:
        os.kill(os.getpid(), signal.SIGKILL)
    end(directory)


def be_interrupted_once(run: SweepRun) -> None:
    """The process of the second run gets a Ctrl-C of its own at its first attempt."""
    directory = begin(run)
    if run.path.name == "seed=1" and not directory.read()["before"]:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(600)
    end(directory)


def interrupt_the_sweep(run: SweepRun) -> None:
    """Once both workers are at work, one sends Ctrl-C to the process of the sweep."""
    directory = begin(run)
    try:
        if run.path.name == "seed=1":
            while RunDirectory(run.path.with_name("seed=0")).status != RUNNING:
                time.sleep(0.01)
            os.kill(os.getppid(), signal.SIGINT)
        time.sleep(600)
    except KeyboardInterrupt:
        directory.update(status=INTERRUPTED)
        raise


def wait_for_a_signal(run: SweepRun) -> None:
    run.path.mkdir(parents=True)
    (run.path / "pid").write_text(str(os.getpid()))
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        (run.path / "interrupted").touch()
        raise
