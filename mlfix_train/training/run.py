"""Fits one run in its run directory: a finished run is skipped, an interrupted one resumes from its last epoch."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

import lightning as L
import numpy
import timm
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

import mlfix_train
from mlfix_train.data.runs import FAILED, FINISHED, INTERRUPTED, RUNNING, RunDirectory, differences
from mlfix_train.errors import ConfigError, RunError, check_choice
from mlfix_train.training.checkpoints import check_checkpoint, keep_weights, remove_leftovers
from mlfix_train.training.loggers import open_loggers
from mlfix_train.training.memory import explain_out_of_memory
from mlfix_train.training.progress import EpochReport, MetricsRecorder
from mlfix_train.training.signals import SignalHandler, handle_signals, is_restarted, job_id
from mlfix_train.training.tasks.base import TrainingTask
from mlfix_train.training.trainer import (
    StopTraining,
    build_trainer,
    explain_misconfiguration,
    only_own_checkpoints,
    own_process_group,
)

log = logging.getLogger(__name__)

TABLES = (
    "predictions.parquet",
    "ranking.csv",
    "probabilities.npy",
    "features.npy",
    "dynamics.parquet",
    "fixes.csv",
    "metrics.csv",
)
OUTPUTS = (*TABLES, "checkpoints", "panels", "profile")
"""What a run writes into its directory, beside ``run.json``."""
KEEP = ("weights", "none")


@dataclass(frozen=True)
class RunOptions:
    """How a run is trained and recorded.

    Args:
        epochs: Length of the training; ``max_epochs`` in ``trainer`` wins.
        seed: Seeds everything random.
        title: Names the run in pictures.
        trainer: Arguments of ``lightning.Trainer``, see :func:`mlfix_train.training.trainer.build_trainer`.
        callbacks: Further Lightning callbacks.
        build_loggers: Builds the Lightning loggers; called with the content of ``run.json`` once it is certain that
            the run is trained, in the first process only.
        identity: The settings that make this run what it is, see :mod:`mlfix_train.training.identity`.
        config: All settings, for ``run.json``.
        overwrite: Train again although the directory holds a finished run, or one of another identity.
        keep: What to keep of the checkpoint of a finished run: ``weights`` or ``none``.
        on_epoch: Called after each epoch, in the first process only.
        progress_bar: Show Lightning's progress bar.

    Raises:
        ConfigError: ``keep`` is neither of its values.
    """

    epochs: int
    seed: int = 0
    title: str = ""
    trainer: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Sequence[L.Callback] = ()
    build_loggers: Callable[[Mapping[str, Any]], Sequence[Logger]] = lambda state: ()
    identity: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    overwrite: bool = False
    keep: str = "weights"
    on_epoch: Callable[[EpochReport], None] | None = None
    progress_bar: bool = False

    def __post_init__(self) -> None:
        check_choice("keep", self.keep, KEEP)


def train_run(directory: RunDirectory, task: TrainingTask, options: RunOptions) -> bool:
    """Trains a run, unless it is already finished.

    In the processes other than rank 0 that Lightning starts for a distributed training, only the training itself
    happens: rank 0 owns ``run.json``.

    The directory is locked against other processes meanwhile. Ctrl-C, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 end the
    training, at the end of a batch; SLURM jobs are requeued at the last two, see
    :mod:`mlfix_train.training.signals`.

    Returns:
        Whether it was trained; ``False`` if it had been finished before.

    Raises:
        MlfixError: The data, the settings, or an earlier run in this directory can't be used.
        RunInterrupted: A signal interrupted the training; ``run.json`` records it.
        KeyboardInterrupt: Something else did.
    """
    with handle_signals() as signals:
        if getattr(rank_zero_only, "rank", 0):
            try:
                _fit(directory, task, _settle_overwrite(directory.read(), options), {}, signals)
            except StopTraining:
                raise SystemExit(0) from None  # with an error, whatever started this process would kill rank 0
            return True
        with directory.locked():
            return _train_locked(directory, task, options, signals)


def _train_locked(directory: RunDirectory, task: TrainingTask, options: RunOptions, signals: SignalHandler) -> bool:
    started = time.monotonic()
    before = directory.read()
    options = _settle_overwrite(before, options)
    if not needs_training(directory, task, options):
        keep_weights(directory, options.keep, task.data.labels)  # if it was killed once it was finished
        return False
    remove_leftovers(directory)
    wandb_id = before.get("wandb_id") if not options.overwrite else None
    state = describe_run(task, options) | {"wandb_id": wandb_id or os.urandom(4).hex()}
    state |= {"job": job_id() or None, "overwriting": options.overwrite}
    process = {"host": socket.gethostname(), "pid": os.getpid(), "started": _now()}
    results: dict[str, Any] = {"error": None, "finished": None, "timings": {}, "failed_loggers": {}}
    results |= dict.fromkeys(task.result_keys)
    with _status_on_error(directory, before, signals):
        with signals.blocked():
            directory.update(**state, status=RUNNING, **process, **results)
        timings = _fit(directory, task, options, state, signals)
        timings["total_seconds"] = round(time.monotonic() - started, 2)
        outcome = task.result(directory)
        with signals.blocked():  # the checkpoint goes last: without it, a run that isn't finished would start again
            directory.update(status=FINISHED, finished=_now(), timings=timings, **outcome)
            keep_weights(directory, options.keep, task.data.labels)
    return True


def _settle_overwrite(before: Mapping[str, Any], options: RunOptions) -> RunOptions:
    """Returns the options with ``overwrite`` as what an earlier attempt left behind makes it.

    A job that was requeued has overwritten the old run at its first attempt. A run that was killed before it removed
    the files of the one that it overwrites has still to do so.
    """
    if options.overwrite and before.get("job") and before["job"] == job_id() and is_restarted():
        return replace(options, overwrite=bool(before.get("overwriting")))
    return replace(options, overwrite=options.overwrite or bool(before.get("overwriting")))


def needs_training(directory: RunDirectory, task: TrainingTask, options: RunOptions) -> bool:
    """Returns whether a run is still to be trained, or to be finished.

    Raises:
        RunError: The directory holds a run of another identity.
    """
    before = directory.read()
    finished = before.get("status") == FINISHED
    if not before or options.overwrite:
        return True
    if not finished and not directory.checkpoint.exists():
        return True  # nothing was learned yet, so other settings lose nothing
    changed = differences(before.get("identity", {}), options.identity)
    if changed:
        problem = f"{directory.path} contains a run with other settings ({before.get('status')})"
        details = [*changed[:8], *([f"... and {len(changed) - 8} more"] if len(changed) > 8 else [])]
        raise RunError(problem, "set another name=, or overwrite=true to train it again", details)
    return not finished or not task.is_complete(directory)


def describe_run(task: TrainingTask, options: RunOptions) -> dict[str, Any]:
    """Returns what ``run.json`` records before the training: settings, versions, hardware, inputs, labels."""
    versions = {"mlfix_train": mlfix_train.__version__, "python": sys.version.split()[0]}
    versions |= {module.__name__: module.__version__ for module in (torch, L, timm, numpy)}
    settings = {"kind": task.kind, "config": options.config, "identity": options.identity}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    hardware = {"machine": platform.machine(), "cpus": os.cpu_count(), "gpu": gpu}
    return {**settings, "versions": versions, "hardware": hardware, **task.describe()}


@contextmanager
def _status_on_error(directory: RunDirectory, before: Mapping[str, Any], signals: SignalHandler) -> Iterator[None]:
    """Records how a training ended early; a wrong setting, which stops it before it begins, restores ``before``."""
    try:
        yield
    except BaseException as error:
        interrupted = isinstance(error, (KeyboardInterrupt, SystemExit, StopTraining))
        outcome = {"status": INTERRUPTED} if interrupted else {"status": FAILED, "error": _describe(error)}
        with signals.blocked():
            try:
                if isinstance(error, ConfigError):
                    directory.restore(before)
                elif directory.status != FINISHED:
                    directory.update(**outcome, finished=_now())
            except OSError as failure:  # such as a disk that is full for run.json, too
                log.warning("%s can't be updated: %s", directory.path / "run.json", failure)
        if not interrupted:
            raise
        signals.check()
        raise KeyboardInterrupt from None


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _fit(
    directory: RunDirectory, task: TrainingTask, options: RunOptions, state: Mapping[str, Any], signals: SignalHandler
) -> dict[str, float]:
    """Fits the module, from the last checkpoint if there is one, and returns the timings.

    ``state`` is the content of ``run.json``, empty in processes other than rank 0.
    """
    L.seed_everything(options.seed, workers=True, verbose=False)
    module: Any = task.build_module()  # before anything is decoded: a network that does not fit is told at once
    clock = time.monotonic()
    task.data.prepare_data()
    timings = {"pixels_seconds": round(time.monotonic() - clock, 2)}
    if hasattr(module, "mean") and hasattr(module, "std"):
        task.data.mean, task.data.std = tuple(module.mean), tuple(module.std)  # what its backbone was pretrained with
    checkpoint = directory.checkpoint if directory.checkpoint.exists() and not options.overwrite else None
    epochs_done = 0
    if checkpoint is not None:
        epochs_done = check_checkpoint(checkpoint, module)
        log.info("%s: resuming from %s", directory.path, checkpoint)
    results = task.build_callback(directory, options.title)
    recorder = MetricsRecorder(directory.path / "metrics.csv", options.on_epoch)
    build = partial(options.build_loggers, state)
    with open_loggers(build, epochs_done, lambda failed: directory.update(failed_loggers=failed)) as loggers:
        callbacks = [results, *options.callbacks, recorder]
        more: dict[str, Any] = {"callbacks": callbacks, "loggers": loggers, "progress_bar": options.progress_bar}
        trainer = build_trainer(directory, options.epochs, options.trainer, signals=signals, **more)
        if options.overwrite and state:
            _remove_outputs(directory)
            directory.update(overwriting=False)
        clock = time.monotonic()
        explain_memory = explain_out_of_memory(trainer, module, task.data, task.images_per_sample)
        with own_process_group(), only_own_checkpoints(), explain_misconfiguration(), explain_memory:
            trainer.fit(module, datamodule=task.data, ckpt_path=checkpoint, weights_only=True)
            if trainer.interrupted:
                raise KeyboardInterrupt
            if not results.has_results:  # killed between the last epoch and its results
                trainer.validate(module, datamodule=task.data, verbose=False)
    timings["fit_seconds"] = round(time.monotonic() - clock, 2)
    return timings


def _remove_outputs(directory: RunDirectory) -> None:
    """Removes what an earlier run wrote, now that the new one is certain to begin; ``run.json`` is the new one's."""
    for path in (directory.path / name for name in OUTPUTS):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _now() -> str:
    """Returns the time with its zone, to the millisecond, so that even short runs show whether they overlapped."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
