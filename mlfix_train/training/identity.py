"""The identity of a run: every setting that changes what is learned, none that only changes speed or logs.

Two runs with the same identity would end with the same predictions up to rounding. It stands in ``run.json`` under
``identity``: a run directory is only resumed or skipped by a run of the same identity, and ``mlfix compare`` refuses to
mix runs of different ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MODEL_SPEED = {"compile", "cuda_graph", "channels_last", "fast_convs"}
"""Keys of ``model`` that only change its speed."""

HARDWARE = {"accelerator", "devices", "num_nodes", "strategy", "accumulate_grad_batches"}
"""They count through the effective batch size alone."""
SPEED = {"benchmark", "deterministic", "inference_mode", "use_distributed_sampler", "reload_dataloaders_every_n_epochs"}
VALIDATION = {"check_val_every_n_epoch", "val_check_interval", "num_sanity_val_steps"}
UNUSED = {"limit_test_batches", "limit_predict_batches"}
LOGS = {"logger", "log_every_n_steps", "enable_autolog_hparams", "profiler", "detect_anomaly", "model_registry"}
OUTPUT = {"enable_progress_bar", "enable_model_summary", "enable_checkpointing", "default_root_dir", "barebones"}
UNLEARNED = {"model": MODEL_SPEED, "trainer": HARDWARE | SPEED | VALIDATION | UNUSED | LOGS | OUTPUT}
"""Keys by section that are not part of the identity; everything else in these sections is.

``trainer.limit_val_batches`` is part of it: it decides which samples are predicted.
"""

PIXELS = ("size", "aspect")
"""The only keys of ``pixels`` that change the stored images."""

PROGRESS = {"ProgressBar", "RichProgressBar", "TQDMProgressBar", "ModelSummary", "RichModelSummary"}
MONITORS = {"DeviceStatsMonitor", "LearningRateMonitor", "ThroughputMonitor"}
OBSERVERS = PROGRESS | MONITORS | {"ModelCheckpoint", "OnExceptionCheckpoint"}
"""Lightning's callbacks that watch a training without changing it; any other callback is part of the identity."""


def effective_batch_size(batch_size: int, processes: int, accumulate_grad_batches: int = 1) -> int:
    """Returns the samples per optimizer step: of all processes (devices times nodes) and accumulated batches."""
    return batch_size * processes * accumulate_grad_batches


def run_identity(settings: Mapping[str, Any], processes: int, task: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the identity of a run.

    Args:
        settings: All settings of the run as plain values: the sections ``seed``, ``model``, ``recipe``, ``pixels``,
            ``loader``, ``trainer`` and ``callbacks``.
        processes: Training processes, see :func:`mlfix_train.training.trainer.count_processes`.
        task: The task's own part, see :class:`mlfix_train.training.tasks.base.TrainingTask`.
    """
    trainer, left_out = settings["trainer"], {*UNLEARNED["trainer"], "callbacks"}
    accumulated = int(trainer.get("accumulate_grad_batches") or 1)
    identity = {
        "seed": settings["seed"],
        "recipe": settings["recipe"],
        "model": {key: value for key, value in settings["model"].items() if key not in MODEL_SPEED},
        "pixels": {key: settings["pixels"][key] for key in PIXELS},
        "effective_batch_size": effective_batch_size(settings["loader"]["batch_size"], processes, accumulated),
        "trainer": {key: value for key, value in trainer.items() if value is not None and key not in left_out},
    }
    if settings.get("datamodule"):
        identity["datamodule"] = settings["datamodule"]
    callbacks = learning_callbacks(settings.get("callbacks")) + learning_callbacks(trainer.get("callbacks"))
    if callbacks:
        identity["callbacks"] = callbacks
    return {**identity, **task}


def learning_callbacks(section: Any) -> list[Any]:
    """Returns the callbacks of a section that may change what is learned, such as early stopping.

    The section is ``None``, one callback with ``_target_``, a list of them, or a dict of them by name.
    """
    if not section:
        return []
    if isinstance(section, Mapping):
        section = [section] if "_target_" in section else [section[name] for name in sorted(section)]
    return [one for one in section if one and str(one.get("_target_", "")).rpartition(".")[2] not in OBSERVERS]
