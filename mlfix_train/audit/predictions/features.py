"""Features that a network computes of the samples it holds out: recorded in validation, and kept beside predictions.

They are the input of one layer, such as the last one: what the network knows of an image before it decides on a label.

Shapes: B samples of a batch, N held-out samples of a run, D features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.errors import ConfigError, DataError, did_you_mean, format_list

FILE = "features.npy"
"""float16 ``(N, D)``, rows as in the predictions."""
LARGEST = float(np.finfo(np.float16).max)


class FeatureRecorder:
    """Records the input of a layer while batches are validated.

    Args:
        layer: name of a layer, as ``module.named_modules()`` has it; ``True`` for the last ``torch.nn.Linear``.
    """

    def __init__(self, layer: str | bool) -> None:
        self.layer = layer
        self._hook: Any = None
        self._inputs: list[torch.Tensor] = []

    def attach(self, module: nn.Module) -> None:
        """Starts recording.

        Raises:
            ConfigError: The module has no such layer.
        """
        layers = dict(module.named_modules())
        linear = [name for name, part in layers.items() if isinstance(part, nn.Linear)]
        if self.layer is True and not linear:
            problem = f"features=True: {type(module).__name__} has no torch.nn.Linear, whose input would be recorded"
            raise ConfigError(problem, f"name a layer: features={next(reversed(layers))!r}, for example")
        name = linear[-1] if self.layer is True else str(self.layer)
        if name not in layers:
            hint = did_you_mean(name, list(layers)) or f"its linear layers are {format_list(linear, 5)}"
            raise ConfigError(f"features={name!r} is not a layer of {type(module).__name__}", hint)
        self.detach()
        self._hook = layers[name].register_forward_pre_hook(self._keep)

    def detach(self) -> None:
        """Stops recording."""
        if self._hook is not None:
            self._hook.remove()
        self._hook, self._inputs = None, []

    def start_batch(self) -> None:
        """Forgets what was recorded before the batch."""
        self._inputs = []

    def _keep(self, layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._inputs.append(arguments[0].detach())

    def take(self, n_samples: int) -> np.ndarray:
        """Returns the features of the batch that was validated, float16 ``(B, D)``.

        Raises:
            DataError: The layer ran several times or not at all, or has another input than one row per sample.
        """
        inputs, self._inputs = self._inputs, []
        if len(inputs) != 1 or inputs[0].ndim != 2 or len(inputs[0]) != n_samples:
            shapes = format_list([str(tuple(found.shape)) for found in inputs], 3) if inputs else "no input"
            problem = f"the layer of features={self.layer!r} got {shapes} for a batch of {n_samples} samples"
            raise DataError(problem, "name a layer that runs once per batch on (batch, features), after the pooling")
        features: np.ndarray = inputs[0].float().clamp(-LARGEST, LARGEST).half().cpu().numpy()
        return features


def write_features(features: np.ndarray, folder: Path) -> Path:
    """Writes features as float16 ``(N, D)``, atomically; returns the path."""
    path = folder / FILE
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, features.astype(np.float16, copy=False))
    return path


def read_features(folder: Path, n_samples: int) -> np.ndarray | None:
    """Returns the features of a run, float16 ``(N, D)``; ``None`` if it kept none.

    Raises:
        DataError: They can't be read, or are of other samples than the predictions.
    """
    path, hint = folder / FILE, "delete it (the audit works without), or train the run again"
    if not path.exists():
        return None
    try:
        features: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} can't be read: {str(error).splitlines()[0]}", hint) from error
    if features.ndim != 2 or len(features) != n_samples:
        raise DataError(f"{path} has the shape {features.shape}, and there are {n_samples:,} predictions", hint)
    bad = np.flatnonzero(~np.isfinite(features).all(1))
    if len(bad):
        raise DataError(f"{path}: row {bad[0]} contains NaN or infinity", hint)
    return features
