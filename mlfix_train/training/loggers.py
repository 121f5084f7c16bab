"""Loggers of a run: any of Lightning's, and Weights & Biases set up so that it never stops a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

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
def open_loggers(build: Callable[[], Sequence[Logger]]) -> Iterator[list[Logger]]:
    """Builds loggers, none in processes other than rank 0, and ends their W&B runs afterwards, on an error too.

    Without that, the next run of a sweep in the same process would log into the W&B run of this one.
    """
    loggers: list[Logger] = []
    exit_code = 1
    try:
        loggers += [] if getattr(rank_zero_only, "rank", 0) else build()
        yield loggers
        exit_code = 0
    finally:
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.finish(exit_code=exit_code)
