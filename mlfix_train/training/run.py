"""``mlfix train``: one run, samples to predictions; finished runs are skipped, broken ones go on where they were."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from mlfix_train.config import build as config
from mlfix_train.data.runs import FAILED, FINISHED, INTERRUPTED, RUNNING, RunDirectory, differences
from mlfix_train.errors import ConfigError, RunError
from mlfix_train.training import classification, sorting

log = logging.getLogger(__name__)

PRODUCTS = (
    "predictions.parquet",
    "ranking.csv",
    "probabilities.npy",
    "dynamics.parquet",
    "fixes.csv",
    "metrics.csv",
    "checkpoints",
    "panels",
    "profile",
)


def run_path(cfg: DictConfig) -> Path:
    """Returns ``outputs/<name>/<arm>/seed=<n>[,fold=<k>]``."""
    fold = f",fold={cfg.split.fold}" if cfg.split.folds is not None else ""
    return Path(str(cfg.outputs)).expanduser() / str(cfg.name) / str(cfg.arm) / f"seed={cfg.seed}{fold}"


def task_of(cfg: DictConfig) -> Any:
    """Returns what is trained: the module ``classification`` or ``sorting``."""
    return sorting if config.is_sorting(cfg) else classification


def run(cfg: DictConfig) -> RunDirectory:
    """Trains a run.

    Args:
        cfg: the composed configuration of ``mlfix train``.

    Returns:
        The run directory, finished.

    Raises:
        MlfixError: anything in the data, fixes, settings or an earlier run that can't be used, with the hint.
    """
    from lightning.pytorch.utilities import rank_zero_only

    config.check_train(cfg)
    task = task_of(cfg)
    directory = RunDirectory(run_path(cfg))
    if rank_zero_only.rank:  # type: ignore[attr-defined] # a further process of one run: the first keeps the books
        _train(cfg, directory, task.build_data(cfg), {})
        return directory
    from mlfix_train.commands.progress import count_images

    started = time.monotonic()
    data = task.build_data(cfg, count_images)
    with directory.locked():
        about = describe(cfg, data)
        if not _needs_training(cfg, directory, about):
            print(f"{directory.path}: finished before, skipped (overwrite=true trains it again)", flush=True)
            return directory
        before = directory.read()
        about["wandb_id"] = before.get("wandb_id") or os.urandom(4).hex()
        directory.update(
            **about, status=RUNNING, started=_now(), host=socket.gethostname(), pid=os.getpid(), error=None,
            finished=None, timings={}, **dict.fromkeys(task.RESULTS),
        )  # fmt: skip
        with _bookkeeping(directory, before, bool(cfg.overwrite)):
            timings = _train(cfg, directory, data, about)
            _keep_weights(directory, str(cfg.checkpoint.keep), data.labels)
        timings["total_seconds"] = round(time.monotonic() - started, 2)
        directory.update(status=FINISHED, finished=_now(), timings=timings, **task.result(directory))
    task.report(directory, cfg.report == "line" or (cfg.report == "auto" and _in_sweep()))
    return directory


def _in_sweep() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def describe(cfg: DictConfig, data: Any) -> dict[str, Any]:
    """Returns what ``run.json`` keeps: settings, versions, fingerprints of the inputs, labels."""
    import lightning
    import timm
    import torch

    import mlfix_train

    versions = {"mlfix_train": mlfix_train.__version__, "python": sys.version.split()[0], "torch": torch.__version__}
    versions |= {"lightning": lightning.__version__, "timm": timm.__version__, "numpy": np.__version__}
    return {
        "kind": task_of(cfg).KIND,
        "config": _absolute(config.plain(cfg)),
        "identity": identity(cfg, data),
        "versions": versions,
        **task_of(cfg).describe(cfg, data),
    }


def identity(cfg: DictConfig, data: Any) -> dict[str, Any]:
    """Returns the settings that make a run the run that it is; what only changes its speed or its logs is left out."""
    full = config.plain(cfg)
    kept = {key: full[key] for key in ("seed", "model", "recipe")}
    kept["pixels"] = {key: full["pixels"][key] for key in ("size", "aspect")}
    speed = ("accelerator", "devices", "num_nodes", "strategy", "check_val_every_n_epoch", "parallel_runs",
             "profile_steps")  # fmt: skip
    kept["trainer"] = {key: value for key, value in full["trainer"].items() if key not in speed}
    return {**kept, **task_of(cfg).identity(cfg, data)}


def _absolute(settings: dict[str, Any]) -> dict[str, Any]:
    """Makes the paths in resolved settings absolute, so that other verbs find the data from any folder."""
    for section, key in (("data", "root"), ("data", "file"), ("pixels", "cache"), ("fixes", "path")):
        value = settings[section].get(key)
        if value:
            settings[section][key] = os.path.abspath(os.path.expanduser(str(value)))
    return settings


def _needs_training(cfg: DictConfig, directory: RunDirectory, about: dict[str, Any]) -> bool:
    """Whether there is something to do.

    Raises:
        RunError: the directory holds a run of other settings.
    """
    before = directory.read()
    if not before:
        return True
    if cfg.overwrite:
        return True
    if before.get("status") != FINISHED and not directory.checkpoint.exists():
        return True  # nothing was learnt yet: other settings lose nothing
    changed = differences(before.get("identity", {}), about["identity"])
    if changed:
        raise RunError(
            f"{directory.path} holds a run of other settings ({before.get('status')})",
            "give another name=, or overwrite=true to train it anew",
            [*changed[:8], *([f"... and {len(changed) - 8} more"] if len(changed) > 8 else [])],
        )
    return bool(before.get("status") != FINISHED or not task_of(cfg).is_complete(directory))


@contextmanager
def _bookkeeping(directory: RunDirectory, before: dict[str, Any], overwrite: bool) -> Iterator[None]:
    """Notes in ``run.json`` how a training ended, if it did not end well.

    Args:
        directory: of the run.
        before: ``run.json`` as it was; put back where a wrong setting stops the training before it begins.
        overwrite: whether the same command would begin anew.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        directory.update(status=INTERRUPTED, finished=_now())
        where = f"{directory.path}: interrupted"
        kept = directory.checkpoint.exists()
        again = "the same command without overwrite=true" if overwrite else "the same command"
        hint = f"{again} goes on from the last whole epoch" if kept else "no epoch was finished yet"
        print(f"\n{where}; {hint}", file=sys.stderr, flush=True)
        raise KeyboardInterrupt("said") from None
    except ConfigError:
        directory.forget(before)
        raise
    except BaseException as error:
        directory.update(status=FAILED, finished=_now(), error=f"{type(error).__name__}: {error}")
        raise


def _train(cfg: DictConfig, directory: RunDirectory, data: Any, about: dict[str, Any]) -> dict[str, float]:
    """Fits the model, from the last checkpoint where there is one; returns timings."""
    import lightning as L

    from mlfix_train.training import trainer as trainers

    L.seed_everything(int(cfg.seed), workers=True, verbose=False)
    clock = time.monotonic()
    data.prepare_data()
    timings = {"pixels_seconds": round(time.monotonic() - clock, 2)}
    model = config.build_model(cfg, data.labels)
    checkpoint = directory.checkpoint if directory.checkpoint.exists() and not cfg.overwrite else None
    if checkpoint:
        check_checkpoint(checkpoint, model)
        log.info("%s: going on from %s", directory.path, checkpoint)
    title = f"{cfg.name}, {cfg.arm}, {directory.path.name}"
    callback = task_of(cfg).build_callback(cfg, directory, title)
    loggers = trainers.build_loggers(cfg, directory, about)
    callbacks = [callback, *trainers.build_profiler(cfg, directory)]
    trainer = trainers.build_trainer(cfg, directory, model.recipe.total_epochs, callbacks, loggers)
    if cfg.overwrite and about:
        _clear(directory)
    clock = time.monotonic()
    try:
        images = 2 if config.is_sorting(cfg) else 1
        with trainers.as_single_run(), trainers.enough_memory(trainer, model, data, images):
            trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
            if trainer.interrupted:
                raise KeyboardInterrupt
            if not callback.gathered:  # killed between the last epoch and what is made of it
                trainer.validate(model, datamodule=data, verbose=False)
                callback.finish(trainer)
    finally:
        trainers.close_loggers(loggers)
    timings["fit_seconds"] = round(time.monotonic() - clock, 2)
    return timings


def _clear(directory: RunDirectory) -> None:
    """Removes what an earlier run left, once it is sure that the new one can begin; ``run.json`` is the new one's."""
    for name in PRODUCTS:
        path = directory.path / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def check_checkpoint(path: Path, model: Any) -> None:
    """Opens a checkpoint before the training is set up around it.

    Raises:
        RunError: it is damaged, or was made for other labels.
    """
    import zipfile

    import torch

    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums that torch.save wrote
            broken = archive.testzip()
        if broken:
            raise ValueError(f"the checksum of {broken} is wrong")
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        content["state_dict"], content["epoch"]
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise RunError(
            f"the checkpoint {path} is damaged: {reason}",
            f"delete it (the run then starts from its first epoch): rm '{path}'",
        ) from error
    model.on_load_checkpoint(content)


def _keep_weights(directory: RunDirectory, keep: str, labels: list[str]) -> None:
    """Replaces the checkpoint of a finished run, with the optimizer's memory, by its weights alone."""
    import torch

    from mlfix_train.data.files.atomic import atomic_path
    from mlfix_train.errors import check_choice

    check_choice("checkpoint.keep", keep, ("weights", "none"))
    if not directory.checkpoint.exists():
        return
    if keep == "weights":
        content = torch.load(directory.checkpoint, map_location="cpu", weights_only=True)
        with atomic_path(directory.path / "checkpoints" / "model.ckpt") as temporary:
            torch.save({"state_dict": content["state_dict"], "labels": labels, "epoch": content["epoch"]}, temporary)
    directory.checkpoint.unlink()


def _now() -> str:
    """Returns the time with its zone, to the millisecond: short runs that overlap can be told from those that don't."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


__all__ = ["check_checkpoint", "describe", "identity", "run", "run_path", "task_of"]
