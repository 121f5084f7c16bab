"""Hydra's launchers of ``mlfix train -m``: this machine, a Ray cluster, and what plans the runs of any other.

Hydra finds plug-ins in the package ``hydra_plugins``, and imports them at the start of every command: heavy imports
happen inside the methods. Their settings are ``configs/hydra/launcher/*.yaml``.
"""

from __future__ import annotations

import copy
import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write

if TYPE_CHECKING:
    from mlfix_train.cli.sweep import SweepTask
    from mlfix_train.training.launchers.local import LocalPool
    from mlfix_train.training.launchers.ray import RayPool
    from mlfix_train.training.sweep import Attempt, SweepRun

log = logging.getLogger("mlfix_train.launchers")


class PlanningLauncher(Launcher):
    """Plans the runs that a sweeper asks for, has them trained, and tells the sweeper their held-out errors.

    The task function is a :class:`mlfix_train.cli.sweep.SweepTask`, which plans the runs and reports on them.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Takes what Hydra hands to a launcher."""
        self.context, self.config = hydra_context, config
        self.task: SweepTask = task_function  # type: ignore[assignment]
        self.task.folder = Path(config.hydra.sweep.dir)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Trains runs, and returns for each a job whose value is its held-out error.

        Args:
            job_overrides: The overrides of each run.
            initial_job_idx: The number of the first one.

        Raises:
            ConfigError: An unknown key, an invalid value, or two runs that would share a directory; nothing is trained.
        """
        setup_globals()
        with self.task.launching(self.config, self._compose, job_overrides, initial_job_idx) as planned:
            Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
            runs = {id(one): one for one in planned}
            attempts = self.task.train_until_decided([one.as_sweep_run() for one in runs.values()], self.train)
        by_path = {attempt.run.path: attempt for attempt in attempts}
        spared = JobReturn(status=JobStatus.COMPLETED)
        return [self._job_return(by_path[one.path]) if one.path in by_path else spared for one in planned]

    @abstractmethod
    def train(self, runs: Sequence[SweepRun]) -> list[Attempt]:
        """Trains planned runs, and returns the last attempt at each; its ``value`` is the ``JobReturn``."""

    def _compose(self, overrides: Sequence[str], number: int) -> DictConfig:
        config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        return config

    def _job_return(self, attempt: Attempt) -> JobReturn:
        if attempt.error is None:
            trained: JobReturn = attempt.value
            return trained
        failed = JobReturn(status=JobStatus.FAILED)
        failed.return_value = attempt.error
        if self.task.reads_values:
            return failed
        failed.status = JobStatus.COMPLETED  # the other runs of a grid go on
        failed.return_value = None
        return failed


class LocalLauncher(PlanningLauncher):
    """``hydra/launcher=local``, the default: trains on this machine, in this process or in warm workers.

    Workers stay for the whole sweep and keep libraries, data and compiled networks.

    Args:
        jobs: Runs trained in parallel, each in its own process; ``gpus``: one per GPU.
        runs_per_device: Runs that share a device; multiplies ``jobs``.
        retries: How often a run is retried after an unexpected failure.
    """

    def __init__(self, jobs: int | str = 1, runs_per_device: int = 1, retries: int = 1) -> None:
        self.jobs, self.runs_per_device, self.retries = jobs, runs_per_device, retries
        self._pool: LocalPool | None = None

    def train(self, runs: Sequence[SweepRun]) -> list[Attempt]:
        """Trains runs ``jobs * runs_per_device`` at a time."""
        from mlfix_train.training.launchers.local import local_pool
        from mlfix_train.training.launchers.pool import run_in_pool
        from mlfix_train.training.launchers.serial import run_serially
        from mlfix_train.training.sweep import count_workers

        gpus = 0
        if self.jobs != 1:
            import torch

            gpus = torch.cuda.device_count()
        processes, gpus = count_workers(self.jobs, self.runs_per_device, gpus)
        train = partial(train_planned, self.context, self.task)
        if processes == 1:
            return run_serially(runs, train, retries=self.retries, on_attempt=self.task.report)
        if self._pool is None:
            self._pool = self.task.resources.enter_context(local_pool(min(processes, len(runs)), gpus))
        return run_in_pool(self._pool, runs, train, self.retries, self.task.report)


class RayLauncher(PlanningLauncher):
    """``hydra/launcher=ray``: trains on a Ray cluster, or by Ray on this machine; needs the extra ``ray``.

    As many runs are trained at a time as the cluster has room for. Workers are actors that stay for the whole sweep; a
    run whose node dies is trained on by another, from its last checkpoint.

    Args:
        init: Arguments of ``ray.init``, such as ``address``.
        num_cpus: CPUs of a run.
        num_gpus: GPUs of a run, such as 0.5; ``None``: one where the cluster has GPUs.
        retries: How often a run is retried after an unexpected failure.
    """

    def __init__(
        self, init: Mapping[str, Any], num_cpus: float = 1, num_gpus: float | None = None, retries: int = 1
    ) -> None:
        self.init, self.num_cpus, self.num_gpus, self.retries = dict(init), num_cpus, num_gpus, retries
        self._pool: RayPool | None = None

    def train(self, runs: Sequence[SweepRun]) -> list[Attempt]:
        """Trains as many runs at a time as the cluster has room for."""
        from mlfix_train.training.launchers.pool import run_in_pool
        from mlfix_train.training.launchers.ray import ray_pool

        if self._pool is None:
            self._pool = self.task.resources.enter_context(ray_pool(self.init, self.num_cpus, self.num_gpus))
        train = partial(train_planned, self.context, self.task)
        return run_in_pool(self._pool, runs, train, self.retries, self.task.report)


class OtherLauncher(PlanningLauncher):
    """Plans the runs of any other launcher of Hydra's, such as joblib's or submitit's.

    Args:
        launcher: Section ``hydra.launcher`` of that one.
    """

    def __init__(self, launcher: DictConfig) -> None:
        self.launcher = launcher

    def train(self, runs: Sequence[SweepRun]) -> list[Attempt]:
        """Has the other launcher train the runs; each is retried where it is trained.

        Raises:
            RunError: The launcher itself failed.
        """
        from mlfix_train.cli.sweep import retried_task
        from mlfix_train.errors import MlfixError, RunError
        from mlfix_train.training.sweep import Attempt

        name = f"hydra/launcher={self.config.hydra.runtime.choices['hydra/launcher']}"
        for key in ("jobs", "runs_per_device"):
            if self.config[key] != 1:
                log.warning("%s=%s has no effect with %s, which has keys of its own", key, self.config[key], name)
        config = copy.deepcopy(self.config)
        with read_write(config), open_dict(config.hydra):
            config.hydra.launcher = self.launcher
        task = retried_task(int(config.retries))
        inner = Plugins.instance().instantiate_launcher(self.context, task, config)
        try:
            jobs = inner.launch([run.job.overrides for run in runs], self.task.first_number)
        except MlfixError:
            raise
        except Exception as error:
            hint = f"its own files are below {config.hydra.sweep.dir}; the same command trains the unfinished runs"
            raise RunError(f"{name} stopped: {type(error).__name__}: {error}", hint) from error
        attempts = [Attempt(run, error_of(job), value=job) for run, job in zip(runs, jobs, strict=True)]
        for attempt in attempts:
            self.task.report(attempt, with_traceback=False)
        return attempts


class PlanSweep(Callback):
    """Has the runs of a launcher that is not ours planned too; a callback of Hydra's (``hydra.callbacks``)."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Puts :class:`OtherLauncher` in front of the launcher."""
        from mlfix_train.config.sweep import sweep_folder

        ours = (f"{__name__}.{kind.__name__}" for kind in (LocalLauncher, RayLauncher))
        with read_write(config), open_dict(config.hydra):
            config.hydra.sweep.dir = sweep_folder(config)
            if config.hydra.launcher._target_ not in ours:
                other = f"{__name__}.{OtherLauncher.__name__}"
                config.hydra.launcher = {"_target_": other, "_recursive_": False, "launcher": config.hydra.launcher}


def train_planned(context: HydraContext, task: TaskFunction, run: SweepRun) -> JobReturn:
    """Trains a planned run in the process that it is called in, and raises what stops it."""
    setup_globals()
    folders: dict[str, Any] = {"job_dir_key": "hydra.sweep.dir", "job_subdir_key": "hydra.sweep.subdir"}
    job = run_job(hydra_context=context, task_function=task, config=run.job.cfg, **folders)
    error = error_of(job)
    if error is not None:
        raise error
    return job


def error_of(job: JobReturn) -> Exception | None:
    """Returns what stopped a job; ``None`` if it was completed."""
    import io
    from contextlib import redirect_stderr

    try:
        with redirect_stderr(io.StringIO()):  # where Hydra prints the overrides of a job that failed
            _ = job.return_value
    except Exception as error:
        return error
    return None
