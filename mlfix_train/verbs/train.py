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
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from mlfix_train import config
from mlfix_train.data.runs import FAILED, FINISHED, INTERRUPTED, RUNNING, RunDirectory, differences
from mlfix_train.errors import ConfigError, MlfixError, RunError

log = logging.getLogger(__name__)

PRODUCTS = (
    "predictions.parquet",
    "ranking.csv",
    "probabilities.npy",
    "fixes.csv",
    "metrics.csv",
    "checkpoints",
    "panels",
)


def run_path(cfg: DictConfig) -> Path:
    """Returns ``outputs/<name>/<arm>/seed=<n>[,fold=<k>]``."""
    fold = f",fold={cfg.split.fold}" if cfg.split.folds is not None else ""
    return Path(str(cfg.outputs)).expanduser() / str(cfg.name) / str(cfg.arm) / f"seed={cfg.seed}{fold}"


def run(cfg: DictConfig) -> RunDirectory:
    """Trains a run.

    Args:
        cfg: the composed configuration of ``mlfix train``.

    Returns:
        The run directory, finished.

    Raises:
        MlfixError: anything in the data, fixes, settings or an earlier run that can't be used, with the remedy.
    """
    from lightning.pytorch.utilities import rank_zero_only

    config.check_train(cfg)
    directory = RunDirectory(run_path(cfg))
    if rank_zero_only.rank:  # type: ignore[attr-defined] # a further process of one run: the first keeps the books
        _train(cfg, directory, config.build_datamodule(cfg), {})
        return directory
    from mlfix_train.verbs.progress import count_images

    started = time.monotonic()
    data = config.build_datamodule(cfg, count_images)
    with directory.locked():
        about = describe(cfg, data)
        if not _needs_training(cfg, directory, about):
            print(f"{directory.path}: finished before, skipped (overwrite=true trains it again)", flush=True)
            return directory
        before = directory.read()
        about["wandb_id"] = before.get("wandb_id") or os.urandom(4).hex()
        directory.update(
            **about, status=RUNNING, started=_now(), host=socket.gethostname(), pid=os.getpid(), error=None,
            finished=None, timings={}, held_out_error=None,
        )  # fmt: skip
        with _bookkeeping(directory, before, bool(cfg.overwrite)):
            timings = _train(cfg, directory, data, about)
            _keep_weights(directory, str(cfg.checkpoint.keep), data.labels)
        timings["total_seconds"] = round(time.monotonic() - started, 2)
        error = held_out_error(directory)
        directory.update(status=FINISHED, finished=_now(), timings=timings, held_out_error=error)
    report(directory, cfg.report == "line" or (cfg.report == "auto" and _in_sweep()))
    return directory


def _in_sweep() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def held_out_error(directory: RunDirectory) -> float:
    """Returns the share of held-out samples, in percent, whose prediction is not the given label."""
    import pandas as pd

    rows = pd.read_parquet(directory.predictions, columns=["label", "pred"])
    return round(float(100 * (rows["label"] != rows["pred"]).mean()), 6)


def describe(cfg: DictConfig, data: Any) -> dict[str, Any]:
    """Returns what ``run.json`` keeps: settings, versions, fingerprints of the inputs, labels."""
    import lightning
    import timm
    import torch

    import mlfix_train
    from mlfix_train.data.fixes import fixes_fingerprint
    from mlfix_train.data.samples import table_fingerprint

    fixes = data.arm.fixes
    versions = {"mlfix_train": mlfix_train.__version__, "python": sys.version.split()[0], "torch": torch.__version__}
    versions |= {"lightning": lightning.__version__, "timm": timm.__version__, "numpy": np.__version__}
    held_out = int(data.held_out.sum())
    return {
        "config": _absolute(config.plain(cfg)),
        "identity": identity(cfg, data),
        "versions": versions,
        "data": {
            "fingerprint": table_fingerprint(data.table),
            "samples": len(data.table),
            "held_out": held_out,
            "labels": len(data.labels),
        },
        "fixes": None if fixes is None else {"count": len(fixes), "sha256": fixes_fingerprint(fixes)},
        "labels": data.labels,
    }


def _absolute(settings: dict[str, Any]) -> dict[str, Any]:
    """Makes the paths in resolved settings absolute, so that other verbs find the data from any folder."""
    for section, key in (("data", "root"), ("data", "file"), ("pixels", "cache"), ("fixes", "path")):
        value = settings[section].get(key)
        if value:
            settings[section][key] = os.path.abspath(os.path.expanduser(str(value)))
    return settings


def identity(cfg: DictConfig, data: Any) -> dict[str, Any]:
    """Returns the settings that make a run the run that it is; what only changes its speed or its logs is left out."""
    from mlfix_train.data.fixes import fixes_fingerprint
    from mlfix_train.data.samples import table_fingerprint

    full = config.plain(cfg)
    kept = {key: full[key] for key in ("seed", "arm", "split", "augment", "model", "recipe")}
    kept["pixels"] = {key: full["pixels"][key] for key in ("size", "aspect")}
    kept["loader"] = {key: full["loader"][key] for key in ("batch_size", "sampling")}
    speed = ("accelerator", "devices", "num_nodes", "strategy", "check_val_every_n_epoch")
    kept["trainer"] = {key: value for key, value in full["trainer"].items() if key not in speed}
    kept["data"] = table_fingerprint(data.table)
    used = data.arm.fixes if data.arm.name != "original" else None
    kept["fixes"] = None if used is None else fixes_fingerprint(used)
    return kept


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
    return bool(before.get("status") != FINISHED or not directory.predictions.exists())


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
        remedy = f"{again} goes on from the last whole epoch" if kept else "no epoch was finished yet"
        print(f"\n{where}; {remedy}", file=sys.stderr, flush=True)
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

    from mlfix_train.audit.callback import AuditCallback
    from mlfix_train.verbs import trainer as trainers

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
    options = config.plain(cfg.audit)
    audit = config.checked(AuditCallback, options, "audit", folder=directory.path, title=title)
    loggers = trainers.build_loggers(cfg, directory, about)
    trainer = trainers.build_trainer(cfg, directory, model.recipe.total_epochs, [audit], loggers)
    if cfg.overwrite and about:
        _clear(directory)
    clock = time.monotonic()
    try:
        with trainers.as_single_run():
            trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
            if trainer.interrupted:
                raise KeyboardInterrupt
            if audit.predictions is None:  # killed between the last epoch and its predictions
                trainer.validate(model, datamodule=data, verbose=False)
                audit.finish(trainer)
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

    from mlfix_train.data.atomic import atomic_path
    from mlfix_train.errors import check_choice

    check_choice("checkpoint.keep", keep, ("weights", "none"))
    if not directory.checkpoint.exists():
        return
    if keep == "weights":
        content = torch.load(directory.checkpoint, map_location="cpu", weights_only=True)
        with atomic_path(directory.path / "checkpoints" / "model.ckpt") as temporary:
            torch.save({"state_dict": content["state_dict"], "labels": labels, "epoch": content["epoch"]}, temporary)
    directory.checkpoint.unlink()


def report(directory: RunDirectory, quiet: bool = False) -> None:
    """Prints what a person wants to know of a finished run."""
    import pandas as pd

    from mlfix_train.verbs.progress import duration

    state = directory.read()
    ranking = pd.read_csv(directory.path / "ranking.csv", keep_default_na=False, dtype={"given_label": str})
    wrong = 100 * ranking["is_label_issue"].mean()
    guessing = float(np.log(state["data"]["labels"]))
    if ranking["loss"].mean() > max(10.0, 3 * guessing):
        log.warning("%s: the held-out loss is %.3g, guessing would give %.2f: the training diverged; lower recipe.lr",
                    directory.path, ranking["loss"].mean(), guessing)  # fmt: skip
    if quiet:
        took = duration(state["timings"]["total_seconds"])
        print(f"           {directory.path}: held-out error {wrong:.2f}% ({took})", flush=True)
        return
    lines = [
        f"run        {directory.path} ({duration(state['timings']['total_seconds'])})",
        f"held out   {len(ranking):,} of {state['data']['samples']:,} samples, {state['data']['labels']} labels: "
        f"error {wrong:.2f}%",
        "doubtful   the labels that the model believes least:",
    ]
    if not ranking["is_label_issue"].any():
        lines[-1] = "doubtful   none: the model agrees with every held-out label; the highest losses:"
    for row in ranking.head(5).itertuples():
        lines.append(f"           {row.sample_id}: given {row.given_label}, predicted {row.predicted_label}, "
                     f"loss {row.loss:.2f}")  # fmt: skip
    lines.append(f"all        {directory.path / 'ranking.csv'}")
    lines.append(f"pictures   {directory.path / 'panels' / 'worst.png'} and {_count_others(directory)} more beside it")
    print("\n".join(lines), flush=True)


def _count_others(directory: RunDirectory) -> int:
    return len(list((directory.path / "panels").glob("*.png"))) - 1


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


__all__ = ["MlfixError", "check_checkpoint", "describe", "identity", "report", "run", "run_path"]
