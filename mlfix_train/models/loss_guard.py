"""Stops a training whose loss is not finite, without waiting for the device at every step."""

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor

from mlfix_train.errors import RunError

CHECK_EVERY = 25
"""Steps between two checks; on a GPU each check waits for the device."""


class NonFiniteLossGuard(L.Callback):
    """Raises an error once a training loss is NaN or infinite; at most 25 steps late, and before the epoch ends.

    Of Lightning's own checks, ``EarlyStopping(check_finite=True)`` looks at the end of an epoch and then ends the
    training as if it were complete, and ``Trainer(detect_anomaly=True)`` traces every backward pass.
    """

    def __init__(self, hint: str = "lower the learning rate") -> None:
        self.hint = hint
        self._finite: Tensor | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forgets the losses of an earlier training."""
        self._finite = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Records whether the step's loss is finite; checks all recorded ones now and then.

        Raises:
            RunError: A loss was NaN or infinite.
        """
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, Tensor):
            return  # a module that optimizes by itself need not return its loss
        finite = torch.isfinite(loss.detach())
        self._finite = finite if self._finite is None else self._finite & finite
        last = batch_idx + 1 >= trainer.num_training_batches
        if (last or batch_idx % CHECK_EVERY == 0) and not bool(self._finite):
            place = f"in epoch {trainer.current_epoch}, at or before step {batch_idx + 1}"
            raise RunError(f"the loss became NaN or infinite {place}", self.hint)
