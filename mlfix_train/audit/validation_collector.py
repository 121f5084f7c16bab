"""Collects what a module returns in validation, over batches and processes: the base of callbacks that need all of it.

Shapes: N samples, B samples of a batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn

Arrays = dict[str, np.ndarray]


class ValidationCollector(L.Callback, ABC):
    """Collects outputs of ``validation_step`` over an epoch; the base of callbacks that process all of them at once.

    Subclasses name the ``keys`` of the outputs (tensors of one row per sample) and take the arrays in
    ``on_validation_epoch_end``. ``finish`` writes results, at the end of a training and of ``trainer.validate``.
    """

    keys: tuple[str, ...] = ("index",)

    def __init__(self) -> None:
        self._batches: list[Arrays] = []

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts a new collection."""
        self._batches = []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Copies the outputs of a batch to the CPU, floating-point ones as float32."""
        tensors = {key: outputs[key].detach() for key in self.keys}
        self._batches.append(
            {key: (x.float() if x.is_floating_point() else x).cpu().numpy() for key, x in tensors.items()}
        )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes and logs the results of the last validation of a training."""
        self.finish(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes and logs the results of ``trainer.validate``."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self.finish(trainer)

    @abstractmethod
    def finish(self, trainer: L.Trainer) -> None:
        """Writes and logs the results of the last validation, on rank 0."""


def datamodule_of(trainer: L.Trainer) -> Any:
    """Returns the DataModule of a training."""
    return trainer.datamodule  # type: ignore[attr-defined]


def gather_on_rank_zero(batches: Sequence[Arrays]) -> Arrays | None:
    """Concatenates the batches of all processes on rank 0, which keeps each ``index`` once, in ascending order.

    Args:
        batches: arrays of this process with the same keys, among them ``index``, int64 ``(B,)``.

    Returns:
        The same keys with N distinct samples; ``None`` on all other ranks, which receive nothing.
    """
    own = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        rank_zero = torch.distributed.get_rank() == 0
        received: list[Any] | None = [None] * torch.distributed.get_world_size() if rank_zero else None
        torch.distributed.gather_object(own, received, dst=0)
        if received is None:
            return None
        own = {key: np.concatenate([arrays[key] for arrays in received]) for key in own}
    _, first = np.unique(own["index"], return_index=True)
    return {key: values[first] for key, values in own.items()}
