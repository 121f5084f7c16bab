"""A ``lightning.Trainer`` from a dict of its arguments, with the defaults of a run directory."""

from __future__ import annotations

import inspect
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar, TQDMProgressBar
from lightning.pytorch.plugins.io import CheckpointIO

from mlfix_train.data.cache import cached
from mlfix_train.data.runs import RunDirectory
from mlfix_train.errors import ConfigError, did_you_mean
from mlfix_train.training.checkpoints import AtomicCheckpointIO
from mlfix_train.training.signals import SignalHandler

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

ARGUMENTS = tuple(name for name in inspect.signature(L.Trainer.__init__).parameters if name != "self")
"""Every argument of ``lightning.Trainer``."""
HARDWARE = ("accelerator", "devices", "num_nodes", "strategy")
UNKNOWN_METRIC = "conditioned on metric"
"""Part of the message of Lightning's EarlyStopping about a metric that is not logged."""
IGNORED_WARNINGS = (
    "does not have many workers|Checkpoint directory .* exists|dirpath has changed|number of training batches|"
    r"isinstance.*LeafSpec|sync_dist=True|lr_scheduler.step.*before.*optimizer.step|is_namedtuple_instance|TF32|"
    "litlogger|fork|tensorboardX|Experiment logs directory"
)
"""Pattern of warnings that are irrelevant to the user of a run."""
DISTRIBUTED_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that Lightning sets when it starts further processes."""


class LastCheckpoint(ModelCheckpoint):
    """Keeps the last epoch; works together with any other checkpoint callbacks."""

    @property
    def state_key(self) -> str:
        """Distinguishes it from the user's checkpoint callbacks."""
        return "LastCheckpoint"


class StopTraining(BaseException):
    """Ends a training at the end of a batch, in all its processes, because of a signal.

    Not a KeyboardInterrupt: at one, Lightning kills the other processes, and then this one for having lost them.
    """


class StopOnSignal(L.Callback):
    """Has a training end at the end of the batch in which one of its processes got a signal.

    It replaces what Lightning does at SIGTERM, which under DDP waits for processes that got none, and at SLURM's
    SIGUSR1, which is a second checkpoint, of the middle of an epoch, from which a run does not end as it would have.
    """

    def __init__(self, signals: SignalHandler, slurm: SLURMEnvironment | None = None) -> None:
        self.signals = signals
        self._more: tuple[int, ...] = ()
        if slurm is not None:  # the user's own, which says at which signal to requeue
            self._more = (int(slurm.requeue_signal),) if slurm.requeue_signal else ()
            signals.requeueing = self._more if slurm.auto_requeue else ()

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Replaces the handlers that Lightning has just set."""
        self.signals.install(*self._more)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Replaces the handlers that Lightning has just set, and has signals wait for the end of a batch."""
        self.signals.install(*self._more)
        self.signals.is_training = True
        self._stop(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Ends the training if there was a signal."""
        self._stop(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any) -> None:
        """Ends the training if there was a signal; not under DDP, where processes may validate unequal batches."""
        if trainer.world_size == 1:
            self._stop(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Ends the training if there was a signal since the last batch; its last checkpoint is written."""
        self.signals.is_training = False
        self._stop(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Has signals wait no longer."""
        self.signals.is_training = False

    def _stop(self, trainer: L.Trainer) -> None:
        received = self.signals.received or 0
        if trainer.world_size > 1:
            own = torch.tensor(float(received), device=trainer.strategy.root_device)
            received = int(trainer.strategy.reduce(own, reduce_op="max"))
        if received:
            self.signals.receive(received)
            raise StopTraining


@contextmanager
def only_own_checkpoints() -> Iterator[None]:
    """Has ``Trainer.fit`` load no other checkpoint than it is given.

    Without one, Lightning would take ``hpc_ckpt_*.ckpt`` in its root folder on SLURM, and has no setting against that.
    """
    detect = SLURMEnvironment.__dict__["detect"]
    SLURMEnvironment.detect = staticmethod(lambda: False)  # type: ignore[method-assign]
    try:
        yield
    finally:
        SLURMEnvironment.detect = detect  # type: ignore[method-assign]


def best_precision(accelerator: str) -> str:
    """Returns ``bf16-mixed`` if the device computes in bfloat16, else ``32-true``.

    A CPU without AMX or AVX-512 BF16 emulates it: a ResNet18 at 32 px then trains about ten times slower than in
    float32.
    """
    if accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    if accelerator in ("cpu", "auto") and not torch.backends.mps.is_available():
        features = torch.cpu.get_capabilities()
        if features.get("amx_bf16") or features.get("avx512_bf16"):
            return "bf16-mixed"
    return "32-true"


def build_trainer(
    directory: RunDirectory,
    epochs: int,
    options: Mapping[str, Any] | None = None,
    *,
    callbacks: Sequence[L.Callback] = (),
    loggers: Sequence[Logger] = (),
    progress_bar: bool = False,
    signals: SignalHandler | None = None,
) -> L.Trainer:
    """Builds the Trainer of a run.

    Args:
        directory: Where its checkpoints go.
        epochs: Length of the training, unless ``options`` has ``max_epochs``.
        options: Any arguments of ``lightning.Trainer``; ``precision: auto`` is :func:`best_precision`. ``callbacks``
            and ``plugins`` are added to ours, a ``logger`` replaces ``loggers``.
        callbacks: Callbacks of the run.
        loggers: Lightning loggers.
        progress_bar: Show a progress bar, unless ``options`` or a callback decides that.
        signals: Ends the training at the end of a batch if there is a signal; a ``SLURMEnvironment`` in ``plugins``
            says whether and when that requeues the job.

    Raises:
        ConfigError: An argument that the Trainer doesn't take, or a device that isn't there.
    """
    arguments = check_options(options or {})
    if arguments.get("precision") == "auto":
        arguments["precision"] = best_precision(str(arguments.get("accelerator", "auto")))
    own = [*callbacks, *_as_list(arguments.pop("callbacks", None))]
    if arguments.get("enable_checkpointing", True) is not False and not arguments.get("barebones"):
        last = directory.checkpoint
        own.append(LastCheckpoint(last.parent, last.stem, enable_version_counter=False, save_on_train_epoch_end=True))
    if not any(isinstance(callback, ProgressBar) for callback in own):
        progress_bar = bool(arguments.get("enable_progress_bar", progress_bar))
        own += [TQDMProgressBar(refresh_rate=10)] if progress_bar else []
        arguments["enable_progress_bar"] = progress_bar
    plugins = _as_list(arguments.pop("plugins", None))
    if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        plugins.append(AtomicCheckpointIO())
    if signals is not None:
        slurm = next((plugin for plugin in plugins if isinstance(plugin, SLURMEnvironment)), None)
        own.append(StopOnSignal(signals, slurm))
    defaults = {
        "max_epochs": epochs,
        "logger": list(loggers) or False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": directory.path,
        "use_distributed_sampler": False,
    }
    return _construct({**defaults, **arguments, "callbacks": own, "plugins": plugins})


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns Trainer arguments as a dict of those that are set.

    Raises:
        ConfigError: A name that ``lightning.Trainer`` doesn't take, or a value that our training can't have.
    """
    for name in options:
        if name not in ARGUMENTS:
            raise ConfigError(f"trainer.{name} is not an argument of lightning.Trainer", did_you_mean(name, ARGUMENTS))
    arguments = {name: value for name, value in options.items() if value is not None}
    if arguments.get("use_distributed_sampler"):
        problem = "would divide batches that are already divided among the processes"
        raise ConfigError(f"trainer.use_distributed_sampler=true {problem}", "leave it out")
    if arguments.get("limit_val_batches") == 0:
        problem = (
            "trainer.limit_val_batches=0 validates nothing, and a run ends with predictions of all held-out samples"
        )
        raise ConfigError(problem, "leave it out")
    if arguments.get("max_epochs") == -1 and arguments.get("max_steps", -1) == -1:
        problem = "trainer.max_epochs=-1 sets no end, but the one-cycle schedule needs one"
        raise ConfigError(problem, "set recipe.epochs, trainer.max_epochs or trainer.max_steps")
    return arguments


def count_processes(options: Mapping[str, Any]) -> int:
    """Returns how many processes a Trainer with these arguments trains in: its world size.

    Raises:
        ConfigError: A device that isn't there.
    """
    hardware = {name: options[name] for name in HARDWARE if options.get(name) is not None}
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    # The runs of a sweep that train in one process ask once: a Trainer looks through all installed packages.
    count: int = cached(("processes", repr(hardware)), lambda: _construct({**hardware, **off}).world_size)
    return count


@contextmanager
def explain_misconfiguration(more: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turns Lightning's message about incompatible settings into an error with a hint.

    Args:
        more: Further exceptions that can only come from settings.

    Raises:
        ConfigError: For example a callback that needs a logger, or monitors a metric that nothing logs.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, (MisconfigurationException, *more)) and UNKNOWN_METRIC not in str(error):
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = "see the sections trainer, callbacks and logger: mlfix train --cfg job"
        raise ConfigError(f"trainer: {first}", hint) from error


@explain_misconfiguration((ValueError, TypeError, RuntimeError, ImportError))
def _construct(arguments: dict[str, Any]) -> L.Trainer:
    return L.Trainer(**arguments)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def silence_lightning() -> None:
    """Turns off Lightning's hints and advertisements in this process; its errors still come through."""
    for name in (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.pytorch.accelerators.cuda",
        "lightning.pytorch.trainer.connectors.signal_connector",  # its handlers are replaced, see StopOnSignal
        "lightning.fabric",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", f".*({IGNORED_WARNINGS})")


@contextmanager
def own_process_group() -> Iterator[None]:
    """Ends the process group that a distributed training started, so that the next training can start its own."""
    before = {name: os.environ[name] for name in DISTRIBUTED_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        started = torch.distributed.is_available() and torch.distributed.is_initialized()
        if started and "LOCAL_RANK" not in before:
            torch.distributed.destroy_process_group()
            for name in DISTRIBUTED_VARIABLES:
                os.environ.pop(name, None)
            os.environ.update(before)
