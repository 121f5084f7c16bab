"""Trains the runs of a sweep on a Ray cluster, by actors that stay for the whole sweep.

An actor keeps libraries, data and compiled networks. Run directories have to be on a disk that all nodes share; the
pixel store is built by the first run that needs it, once for each disk that it is on, while the others wait.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlfix_train.data.cache import enable_cache
from mlfix_train.data.runs import RunDirectory
from mlfix_train.errors import ConfigError, RunError
from mlfix_train.training.launchers.local import train_in_worker
from mlfix_train.training.launchers.pool import GRACE, Ended, NodeLostError, WorkerDiedError, run_in_pool
from mlfix_train.training.sweep import Attempt, AttemptCallback, SweepRun, TrainFunction, is_user_error

log = logging.getLogger(__name__)

DETECTION = 10.0
"""Seconds to wait for Ray to notice that the node of a lost worker is gone."""


def run_on_ray(
    runs: Sequence[SweepRun],
    train: TrainFunction,
    *,
    init: Mapping[str, Any],
    num_cpus: float = 1,
    num_gpus: float | None = None,
    retries: int = 1,
    on_attempt: AttemptCallback,
) -> list[Attempt]:
    """Trains as many runs at a time as a Ray cluster has room for.

    A run whose node dies is trained on elsewhere; one that failed unexpectedly is tried again by a new actor.

    Args:
        runs: The runs, in the order in which they are started.
        train: Trains one of them; a function that can be pickled.
        init: Arguments of ``ray.init``; unused where Ray is initialized already.
        num_cpus: CPUs of a run.
        num_gpus: GPUs of a run, such as 0.5; ``None``: one where the cluster has GPUs.
        retries: How often a run that failed unexpectedly is tried again.
        on_attempt: Called after each attempt.

    Returns:
        The last attempt at each run, in the order in which they ended.

    Raises:
        ConfigError: Ray is not installed, or no node has room for a run.
        RunError: The cluster can't be reached.
        RunInterrupted: A signal; the actors were interrupted too, and have written their state.
    """
    with ray_pool(init, num_cpus, num_gpus) as pool:
        return run_in_pool(pool, runs, train, retries, on_attempt)


@contextmanager
def ray_pool(init: Mapping[str, Any], num_cpus: float = 1, num_gpus: float | None = None) -> Iterator[RayPool]:
    """Opens a pool of actors, for :func:`mlfix_train.training.launchers.pool.run_in_pool`, several times.

    Args:
        init: Arguments of ``ray.init``; unused where Ray is initialized already. Without ``address``, and without
            ``RAY_ADDRESS`` in the environment, Ray starts here, whatever clusters run on this machine.
        num_cpus: CPUs of a run.
        num_gpus: GPUs of a run, such as 0.5; ``None``: one where the cluster has GPUs.

    Raises:
        ConfigError: Ray is not installed, or no node has room for a run.
        RunError: The cluster can't be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError("hydra/launcher=ray needs Ray", "pip install 'mlfix-train[ray]'") from error
    starts = not ray.is_initialized()
    if starts:
        if init.get("address") is None and "RAY_ADDRESS" not in os.environ:
            init = {**init, "address": "local"}
        handler = signal.getsignal(signal.SIGTERM)
        try:
            try:
                ray.init(**init)
            except Exception as error:  # it waits for 30 seconds only, too few on a busy machine
                if "timed out" not in str(error).lower():
                    raise
                log.warning("Ray did not start in time; trying once more")
                ray.shutdown()
                ray.init(**init)
        except Exception as error:  # Ray raises what it likes
            hint = "check hydra.launcher.init, whose keys are the arguments of ray.init"
            raise RunError(f"Ray can't be started: {' '.join(str(error).split())[:300]}", hint) from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray's would kill the actors before they have written their state
    try:
        if num_gpus is None:
            num_gpus = 1 if any(node["Resources"].get("GPU") for node in _nodes()) else 0
        pool = RayPool(num_cpus, num_gpus)
        try:
            yield pool
        finally:
            pool.close()
    finally:
        if starts:
            ray.shutdown()


class RayPool:
    """Actors that train a run each; a :class:`mlfix_train.training.launchers.pool.WorkerPool`.

    Args:
        num_cpus: CPUs of an actor.
        num_gpus: GPUs of an actor.

    Raises:
        ConfigError: No node of the cluster has room for an actor.
    """

    def __init__(self, num_cpus: float, num_gpus: float) -> None:
        import ray

        self._needed = {"CPU": num_cpus, "GPU": num_gpus}
        self._actor = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_restarts=0)(RunActor)
        self._actors: dict[int, Any] = {}
        self._places: dict[int, Any] = {}
        self._running: dict[Any, tuple[int, SweepRun, int]] = {}
        self._failed: set[Path] = set()
        self._next = 0
        if not self._room():
            problem = f"no node of the Ray cluster has {num_cpus:g} CPUs and {num_gpus:g} GPUs for a run"
            raise ConfigError(problem, "lower hydra.launcher.num_cpus or hydra.launcher.num_gpus")

    def _room(self) -> int:
        """Returns how many actors the nodes have room for."""
        needed = {name: number for name, number in self._needed.items() if number}
        nodes = [node["Resources"] for node in _nodes()]
        fitting = ((int(node.get(name, 0) / number) for name, number in needed.items()) for node in nodes)
        return sum(min(numbers, default=1) for numbers in fitting)

    def is_busy(self) -> bool:
        """Returns whether a run is being trained."""
        return bool(self._running)

    def idle(self) -> list[int]:
        """Returns the actors that train nothing, then numbers of those that can be added."""
        busy = {worker for worker, _, _ in self._running.values()}
        free = max(0, self._room() - len(self._actors))
        return [*(worker for worker in self._actors if worker not in busy), *range(self._next, self._next + free)]

    def submit(self, worker: int, train: TrainFunction, run: SweepRun, left: int) -> None:
        """Has an actor train a run that may be tried again ``left`` times."""
        if worker not in self._actors:
            self._actors[worker] = self._actor.remote(os.getcwd())
            self._places[worker] = self._actors[worker].place.remote()
            self._next = max(self._next, worker + 1)
        reference = self._actors[worker].train.remote(train, run, run.path in self._failed)
        self._running[reference] = worker, run, left

    def wait(self) -> Iterator[Ended]:
        """Waits until a run ends, or for a moment."""
        import ray

        if not self._running:  # all nodes are lost; others may join
            log.info("no node of the Ray cluster has room for a run; waiting for one")
            time.sleep(DETECTION)
            return
        for reference in ray.wait(list(self._running), timeout=1.0)[0]:
            worker, run, left = self._running.pop(reference)
            try:
                value, error = ray.get(reference)
            except ray.exceptions.RayError as problem:
                value, error = None, self._what_happened(worker, problem)
            if error is not None and not is_user_error(error):
                self._failed.add(run.path)
                ray.kill(self._actors.pop(worker))
            yield run, left, value, error

    def _what_happened(self, worker: int, problem: Exception) -> WorkerDiedError:
        host, _, node = self._place(worker)
        deadline = time.monotonic() + DETECTION
        while node and time.monotonic() < deadline:
            if node not in [one["NodeID"] for one in _nodes()]:
                return NodeLostError(f"its node {host} is lost")
            time.sleep(0.2)
        return WorkerDiedError(f"its Ray worker died: {' '.join(str(problem).split())[:300]}")

    def _place(self, worker: int) -> tuple[str, int, str]:
        """Returns host, process and node of an actor; empty if it has not started."""
        import ray

        try:
            place: tuple[str, int, str] = ray.get(self._places[worker], timeout=1)
        except ray.exceptions.RayError:
            return "", 0, ""
        return place

    def interrupt(self, hurry: threading.Event, grace: float = GRACE) -> None:
        """Interrupts the runs, and waits until they have written their state, at most until ``hurry`` is set."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        for worker, _, _ in self._running.values():
            host, pid, node = self._place(worker)
            if host == socket.gethostname():
                os.kill(pid, signal.SIGINT)
            elif node:
                there = NodeAffinitySchedulingStrategy(node, soft=False)
                ray.remote(num_cpus=0)(_interrupt).options(scheduling_strategy=there).remote(pid)
        deadline, left = time.monotonic() + grace, list(self._running)
        while left and not hurry.is_set() and time.monotonic() < deadline:
            left = ray.wait(left, num_returns=len(left), timeout=0.2)[1]

    def close(self, kill: bool = False) -> None:
        """Ends the actors."""
        import ray

        for actor in self._actors.values():
            ray.kill(actor)


class RunActor:
    """Trains runs one after the other, in the main thread of a Ray worker.

    Args:
        folder: Where the sweep was started, for relative paths.
    """

    def __init__(self, folder: str) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # between runs
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray blocks it
        if os.path.isdir(folder):
            os.chdir(folder)
        else:
            log.warning("%s has no folder %s, where the sweep was started", socket.gethostname(), folder)
        enable_cache(True)

    def place(self) -> tuple[str, int, str]:
        """Returns host, process and node."""
        import ray

        return socket.gethostname(), os.getpid(), ray.get_runtime_context().get_node_id()

    def train(self, train: TrainFunction, run: SweepRun, again: bool) -> tuple[object, BaseException | None]:
        """Trains a run, and returns what ``train`` returned, and what stopped it."""
        try:
            if again:
                _wait_for(RunDirectory(run.path))
            return train_in_worker(train, run), None
        except BaseException as error:
            if isinstance(error, Exception) and not is_user_error(error):
                traceback.print_exc()  # Ray passes it on to the process of the sweep
            return None, error


def _nodes() -> list[dict[str, Any]]:
    """Returns the nodes of the cluster that are alive."""
    ray: Any = importlib.import_module("ray")  # these parts of it have no types
    return [node for node in ray.nodes() if node["Alive"]]


def _interrupt(pid: int) -> None:
    os.kill(pid, signal.SIGINT)


def _wait_for(directory: RunDirectory) -> None:
    """Waits until the process of an earlier attempt has released a run directory."""
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline:
        try:
            with directory.locked():
                return
        except RunError:
            time.sleep(0.5)
