"""Loggers of a run: any of Lightning's, and Weights & Biases set up so that it never stops a training."""

from __future__ import annotations

import csv
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import rank_zero_only

from mlfix_train.audit.reporting.trackers import failure_of, switch_off
from mlfix_train.audit.reporting.wandb import open_run


def wandb_logger(
    save_dir: str | Path,
    project: str = "mlfix",
    entity: str | None = None,
    mode: str = "auto",
    group: str | None = None,
    tags: Sequence[str] = (),
    name: str = "",
    job_type: str = "train",
    id: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> Logger | None:
    """Starts a W&B run for Lightning: online if logged in, else offline; it never prompts.

    Args:
        save_dir: An offline run lies in ``<save_dir>/wandb``; ``wandb sync`` uploads it.
        project: W&B project.
        entity: W&B user or team; ``None`` for the default one.
        mode: ``auto`` (online if logged in, else offline), ``online``, ``offline`` or ``disabled``.
        group: Groups the runs of a study.
        tags: Tags, beside the job type.
        name: Name of the run.
        job_type: Job type of the run.
        id: Id of the run; an existing run with this id is resumed.
        config: Settings shown with the run.

    Returns:
        The logger; ``None`` if W&B is disabled, not installed, or can't write below ``save_dir``.
    """
    settings = {"project": project, "entity": entity, "mode": mode, "group": group, "tags": tags}
    run = open_run(settings, Path(save_dir), job_type, name, config or {}, id)
    if run is None:
        return None
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return WandbLogger(save_dir=save_dir, experiment=run)


@contextmanager
def open_loggers(
    build: Callable[[], Sequence[Logger]],
    epochs_done: int = 0,
    on_failure: Callable[[dict[str, str]], object] = lambda failed: None,
) -> Iterator[list[Logger]]:
    """Builds loggers, none in processes other than rank 0, and ends their W&B runs afterwards, on an error too.

    Without that, the next run of a sweep in the same process would log into the W&B run of this one.

    A logger that raises, when it starts or later, is switched off with a warning, and the training goes on.

    Args:
        build: Builds the loggers.
        epochs_done: Epochs that a resumed training has behind it; CSV loggers keep their rows.
        on_failure: Called at the end with the reasons by the names of the loggers that were switched off, if any.
    """
    loggers: list[Logger] = []
    started: list[Logger] = []
    exit_code = 1
    try:
        loggers += [] if getattr(rank_zero_only, "rank", 0) else build()
        for logger in sorted(loggers, key=lambda one: not isinstance(one, WandbLogger)):  # as Lightning starts them
            _guard(logger)
            try:
                _start(logger, epochs_done)
                started.append(logger)
            except Exception as error:
                switch_off(logger, error)
        yield [DummyLogger() if failure_of(logger) else logger for logger in loggers]  # some callbacks need one
        exit_code = 0
    finally:
        for logger in started:
            if isinstance(logger, WandbLogger):
                try:
                    logger.experiment.finish(exit_code=exit_code)
                except Exception as error:
                    switch_off(logger, error)
        failed = {type(logger).__name__: failure_of(logger) for logger in loggers if failure_of(logger)}
        if failed:
            on_failure(failed)


def _guard(logger: Logger) -> None:
    """Has the methods that log switch a logger off where they raise."""
    for name in dir(type(logger)):
        guarded = name.startswith("log_") or name in ("save", "finalize", "after_save_checkpoint", "watch")
        if guarded and inspect.isfunction(inspect.getattr_static(type(logger), name)):
            setattr(logger, name, partial(_log, logger, name))


def _log(logger: Logger, method: str, *args: Any, **kwargs: Any) -> Any:
    if failure_of(logger):
        return None
    try:
        return getattr(type(logger), method)(logger, *args, **kwargs)
    except Exception as error:
        return switch_off(logger, error)


def _start(logger: Logger, epochs_done: int) -> None:
    """Starts what a logger logs to."""
    if isinstance(logger, CSVLogger) and epochs_done:
        _start_with_rows(logger, epochs_done)
    getattr(logger, "experiment", None)


def _start_with_rows(logger: CSVLogger, epochs_done: int) -> None:
    """Starts a CSVLogger with the rows of the epochs that were trained, which it would delete.

    A row without an epoch goes by its step. A logger that numbers its versions takes the rows of the last one.
    """
    path = Path(logger.log_dir) / ExperimentWriter.NAME_METRICS_FILE
    before = path.with_name(f"{path.name}.before")  # the rows survive a kill at any moment
    if path.exists() and not before.exists():
        path.replace(before)
    versions = Path(logger.root_dir).glob(f"version_*/{path.name}")
    source = before if before.exists() else max(versions, key=lambda file: file.stat().st_mtime, default=None)
    rows = [] if source is None else _read_rows(source)
    epochs = [next((row[name] for name in row if name.split("-")[-1] == "epoch"), "") for row in rows]
    trained = [bool(epoch) and float(epoch) < epochs_done for epoch in epochs]
    last = max((float(row["step"]) for row, done in zip(rows, trained, strict=True) if done), default=-1.0)
    kept = zip(rows, epochs, trained, strict=True)
    logger.experiment.metrics = [row for row, epoch, done in kept if done or (not epoch and float(row["step"]) <= last)]
    logger.save()
    before.unlink(missing_ok=True)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """Reads the rows of a CSV file as dicts of strings."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
