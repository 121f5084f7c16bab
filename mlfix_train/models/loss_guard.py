"""Watches a loss for NaN without waiting for the device at every step."""

from __future__ import annotations

import torch
from torch import Tensor

from mlfix_train.errors import RunError

EVERY = 25
"""Steps between two looks: on a GPU each look waits for the device."""


class LossWatch:
    """Stops a training whose loss is not finite."""

    def __init__(self) -> None:
        self.finite: Tensor | None = None

    def look(self, loss: Tensor, epoch: int, step: int, steps: int, lr: float) -> None:
        """Notes the loss of a step, and now and then looks at what was noted.

        Args:
            loss: a scalar, detached.
            epoch: number of the epoch, from 0.
            step: number of the step in it, from 0.
            steps: steps of the epoch.
            lr: ``recipe.lr``, for the error.

        Raises:
            RunError: a loss was NaN or infinite.
        """
        finite = torch.isfinite(loss)
        self.finite = finite if self.finite is None else self.finite & finite
        if (step + 1 >= steps or step % EVERY == 0) and not bool(self.finite):
            self.finite = None
            raise RunError(
                f"the loss became NaN or infinite in epoch {epoch}, at or before step {step + 1}",
                f"lower recipe.lr (it is {lr:g}) or try trainer.precision=32, with overwrite=true",
            )
