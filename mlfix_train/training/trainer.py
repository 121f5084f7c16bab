"""Lightning's Trainer and its loggers, from the configuration."""

from __future__ import annotations

import inspect
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from omegaconf import DictConfig

from mlfix_train.config import build as config
from mlfix_train.data.runs import RunDirectory
from mlfix_train.errors import ConfigError, RunError, check_choice, check_range, did_you_mean

log = logging.getLogger(__name__)

NO_MEMORY = ("not enough memory", "can't allocate memory")
"""What torch says of a CPU without memory."""
LOGGERS = ("wandb", "csv", "none")
OURS = ("max_epochs", "callbacks", "logger", "use_distributed_sampler", "num_sanity_val_steps", "default_root_dir")


def best_precision(accelerator: str) -> str:
    """Returns ``bf16-mixed`` where the device computes in bfloat16, else ``32-true``.

    A CPU without AMX or AVX-512 BF16 emulates it: a ResNet18 at 32 px then trains about ten times slower than in
    float32.
    """
    if accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    if accelerator in ("cpu", "auto") and not torch.backends.mps.is_available():
        probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        if any(getattr(torch.cpu, probe, lambda: False)() for probe in probes):
            return "bf16-mixed"
    return "32-true"


def build_trainer(
    cfg: DictConfig, directory: RunDirectory, epochs: int, callbacks: list[Any], loggers: list[Any]
) -> Any:
    """Builds the Trainer of a run.

    Args:
        cfg: configuration of ``mlfix train``.
        directory: where checkpoints and metrics go.
        epochs: length of the training.
        callbacks: beside those of progress and checkpoints.
        loggers: Lightning loggers, may be none.

    Raises:
        ConfigError: an argument that the Trainer doesn't take, or a device that isn't there.
    """
    import lightning as L
    from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from mlfix_train.training.checkpoints import WholeCheckpointIO
    from mlfix_train.training.progress import EpochRecord

    _hush()
    arguments = config.plain(cfg.trainer)
    for name in ("parallel_runs", "profile_steps"):  # ours
        arguments.pop(name, None)
    known = [name for name in inspect.signature(L.Trainer.__init__).parameters if name not in ("self", *OURS)]
    for name in arguments:
        if name not in known:
            raise ConfigError(f"trainer.{name} is no key that can be set", did_you_mean(name, known))
    if arguments.get("precision") == "auto":
        arguments["precision"] = best_precision(str(arguments.get("accelerator", "auto")))
    terminal = sys.stderr.isatty()
    checkpoints = ModelCheckpoint(
        directory.path / "checkpoints", "last", save_top_k=1, enable_version_counter=False, save_on_train_epoch_end=True
    )
    record = EpochRecord(directory.path / "metrics.csv", f"{cfg.name}/{cfg.arm}/{directory.path.name}", not terminal)
    plugins = [*(arguments.pop("plugins", None) or []), WholeCheckpointIO()]
    bar = [TQDMProgressBar(refresh_rate=10)] if terminal else []
    try:
        return L.Trainer(
            **arguments,
            plugins=plugins,
            max_epochs=epochs,
            logger=loggers or False,
            callbacks=[*callbacks, record, checkpoints, *bar],
            enable_progress_bar=terminal,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=directory.path,
        )
    except (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"trainer: {first}", "see the trainer section of the settings: mlfix train --cfg job"
        ) from error


def _hush() -> None:
    """Silences what Lightning says of itself; what it says of a mistake still comes through."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for words in (
        ".*does not have many workers.*", ".*Checkpoint directory .* exists.*", ".*dirpath has changed.*",
        ".*number of training batches.*",
        ".*isinstance.*LeafSpec.*", ".*sync_dist=True.*", ".*lr_scheduler.step.*before.*optimizer.step.*",
        ".*is_namedtuple_instance.*", ".*TF32.*", ".*litlogger.*", ".*fork.*", ".*tensorboardX.*",
    ):  # fmt: skip
        warnings.filterwarnings("ignore", words)


@contextmanager
def enough_memory(trainer: Any, model: Any, data: Any, images: int = 1) -> Iterator[None]:
    """Says which batch fits where the device has too little memory.

    Args:
        trainer: Lightning's; its device is where the batch is tried, for it takes the model off it as it fails.
        model: the LightningModule.
        data: the DataModule.
        images: images a sample: 2 for a sorting network.

    Raises:
        RunError: out of memory, with the key and the batch.
    """
    told = ""
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        told = str(error)
        if not isinstance(error, torch.OutOfMemoryError) and not any(words in told for words in NO_MEMORY):
            raise
        error.__traceback__ = None  # its frames hold what fills the memory
    if not told:
        return
    from mlfix_train.models.compile import largest_batch

    device, tried = trainer.strategy.root_device, data.loader.batch_size
    for optimizer in trainer.optimizers:
        optimizer.state.clear()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    judging = "validating" in told or trainer.validating
    fits = largest_batch(model, device, data.pixels.size, tried, images)
    if judging:
        key, hint = f"loader.eval_batch_size={data.loader.eval_batch_size}", "a smaller loader.eval_batch_size"
    else:
        key = f"loader.batch_size={tried}"
        hint = f"loader.batch_size={fits} fits" if fits else (
            "not even two samples fit: a smaller model or pixels.size, or another device")  # fmt: skip
    raise RunError(
        f"out of memory on {device} with {key}: {told.splitlines()[0][:160]}",
        f"{hint}; with overwrite=true the run begins anew",
    )


def build_profiler(cfg: DictConfig, directory: RunDirectory) -> list[Any]:
    """Builds the callback of ``trainer=profile``; none where no steps are to be profiled."""
    steps = cfg.trainer.get("profile_steps", 0)
    config.check_type("trainer.profile_steps", steps, "int")
    check_range("trainer.profile_steps", steps, 0, 10_000)
    if not steps:
        return []
    from mlfix_train.training.profile import StepProfile

    return [StepProfile(directory.path / "profile", int(steps))]


def build_loggers(cfg: DictConfig, directory: RunDirectory, about: dict[str, Any]) -> list[Any]:
    """Builds the loggers of a run; processes other than the first get none."""
    from lightning.pytorch.utilities import rank_zero_only

    settings = config.plain(cfg.logger)
    kind = check_choice("logger.kind", settings.get("kind"), LOGGERS)
    if kind == "none" or rank_zero_only.rank:  # type: ignore[attr-defined]
        return []
    if kind == "csv":
        from lightning.pytorch.loggers import CSVLogger

        return [CSVLogger(directory.path, name="csv", version="")]
    logger = _wandb_logger(cfg, settings, directory, about)
    return [] if logger is None else [logger]


def _wandb_logger(
    cfg: DictConfig, settings: dict[str, Any], directory: RunDirectory, about: dict[str, Any]
) -> Any | None:
    """Starts a W&B run: grouped by name, job type by arm, resumed under its old id; ``None`` where W&B is missing."""
    try:
        import wandb
        from lightning.pytorch.loggers import WandbLogger
    except ImportError:
        log.warning("wandb is not installed: nothing is logged to it (logger=none says so without this line)")
        return None
    from mlfix_train.audit.reporting.wandb import MODES, wandb_mode

    os.environ.setdefault("WANDB_SILENT", "true")
    mode = wandb_mode(check_choice("logger.mode", settings["mode"], MODES))
    if mode == "disabled":
        return None
    job = f"train-{cfg.arm}" if cfg.split.folds is None else "out-of-fold"
    options: dict[str, Any] = {
        "project": settings["project"], "entity": settings["entity"], "group": settings["group"], "job_type": job,
        "tags": [str(cfg.arm), *settings["tags"]], "id": about.get("wandb_id"), "resume": "allow",
        "name": f"{cfg.name}-{cfg.arm}-{directory.path.name.replace('=', '').replace(',', '-')}",
        "config": {**about.get("config", {}), "data_fingerprint": about.get("data", {}).get("fingerprint")},
        "settings": wandb.Settings(silent=True, console="off", init_timeout=60.0, x_disable_meta=False),
    }  # fmt: skip
    try:
        logger = WandbLogger(save_dir=directory.path.resolve(), mode=mode, **options)
        _ = logger.experiment
        return logger
    except (wandb.errors.Error, TimeoutError, OSError) as error:
        if mode == "offline":
            log.warning("W&B can't write below %s (%s): nothing is logged to it", directory.path, error)
            return None
        log.warning("W&B can't be reached (%s): this run is kept offline, `wandb sync` sends it later", error)
        logger = WandbLogger(save_dir=directory.path.resolve(), mode="offline", **options)
        _ = logger.experiment
        return logger


def close_loggers(loggers: list[Any]) -> None:
    """Ends the W&B run, so that the next run of a sweep gets its own."""
    for logger in loggers:
        if type(logger).__name__ == "WandbLogger":
            logger.experiment.finish()


@contextmanager
def as_single_run() -> Iterator[None]:
    """Lets Lightning start further processes of this very run.

    Under DDP Lightning starts the command line again. Inside a sweep that would be the whole sweep, and inside Hydra it
    would be a rewritten one; this puts the command of the one run there instead, and ends its process group after it.
    """
    from hydra.core.hydra_config import HydraConfig

    instance = HydraConfig.instance()
    hydra: Any = instance.cfg
    argv, environment = sys.argv, dict(os.environ)
    try:
        if hydra is not None:
            sys.argv = [argv[0], str(hydra.hydra.job.config_name), *hydra.hydra.overrides.task]
            instance.cfg = None
        yield
    finally:
        instance.cfg, sys.argv = hydra, argv
        if torch.distributed.is_available() and torch.distributed.is_initialized() and "LOCAL_RANK" not in environment:
            torch.distributed.destroy_process_group()  # the next run of a sweep starts a group of its own
            for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
                os.environ.pop(name, None)
                if name in environment:
                    os.environ[name] = environment[name]
