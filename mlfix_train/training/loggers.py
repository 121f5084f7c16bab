"""Loggers of a run: any of Lightning's, and Weights & Biases set up so that it never stops a training."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlfix_train.errors import check_choice

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

log = logging.getLogger(__name__)


def wandb_logger(
    save_dir: str | Path,
    project: str = "mlfix",
    entity: str | None = None,
    mode: str = "auto",
    group: str | None = None,
    tags: Sequence[str] = (),
    name: str | None = None,
    job_type: str | None = None,
    id: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> Logger | None:
    """Starts a W&B run for Lightning: online if logged in, else offline; it never prompts.

    Args:
        save_dir: An offline run lies in ``<save_dir>/wandb``, for ``wandb sync``.
        project: W&B project.
        entity: W&B user or team; ``None`` for the default one.
        mode: ``auto`` (online if logged in, else offline), ``online``, ``offline`` or ``disabled``.
        group: Groups the runs of a study.
        tags: Tags of the run.
        name: Name of the run.
        job_type: Job type of the run.
        id: Id of the run; an existing run with this id is resumed.
        config: Settings shown with the run.

    Returns:
        The logger; ``None`` if W&B is disabled, not installed, or can't write below ``save_dir``.
    """
    try:
        import wandb
        from lightning.pytorch.loggers import WandbLogger
    except ImportError:
        log.warning("wandb is not installed, so nothing is logged to it (logger=none turns this warning off)")
        return None
    from mlfix_train.audit.reporting.wandb import MODES, wandb_mode

    os.environ.setdefault("WANDB_SILENT", "true")
    chosen = wandb_mode(check_choice("mode", mode, MODES))
    if chosen == "disabled":
        return None
    options: dict[str, Any] = {
        "save_dir": Path(save_dir).resolve(),
        "project": project,
        "entity": entity,
        "group": group,
        "job_type": job_type,
        "tags": list(tags),
        "name": name,
        "id": id,
        "resume": "allow",
        "config": config,
        "settings": wandb.Settings(silent=True, console="off", init_timeout=60.0, x_disable_meta=False),
    }
    try:
        return _started(WandbLogger(mode=chosen, **options))
    except (wandb.errors.Error, TimeoutError, OSError) as error:
        if chosen == "offline":
            log.warning("W&B can't write below %s (%s): nothing is logged to it", save_dir, error)
            return None
        log.warning("W&B can't be reached (%s): this run is kept offline, `wandb sync` uploads it later", error)
        return _started(WandbLogger(mode="offline", **options))


def _started(logger: Logger) -> Logger:
    _ = logger.experiment  # starts the W&B run
    return logger


@contextmanager
def open_loggers(build: Callable[[], Sequence[Logger]]) -> Iterator[list[Logger]]:
    """Builds loggers, none in processes other than rank 0, and ends their W&B runs afterwards, on an error too.

    Without that, the next run of a sweep in the same process would log into the W&B run of this one.
    """
    from lightning.pytorch.utilities import rank_zero_only

    if getattr(rank_zero_only, "rank", 0):
        yield []
        return
    loggers: list[Logger] = []
    try:
        loggers += build()
        yield loggers
    except BaseException:
        _finish_wandb(loggers, exit_code=1)
        raise
    _finish_wandb(loggers, exit_code=0)


def _finish_wandb(loggers: Sequence[Logger], exit_code: int) -> None:
    from lightning.pytorch.loggers import WandbLogger

    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish(exit_code=exit_code)
