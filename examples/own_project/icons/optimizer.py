"""An optimizer and a schedule of the project's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class SignDescent(Optimizer):
    """Steps of one size against the sign of the averaged gradient."""

    def __init__(self, params: Iterable[Any], lr: float = 2e-3, momentum: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Makes a step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    mean = self.state[weight].setdefault("mean", torch.zeros_like(weight))
                    mean.lerp_(weight.grad, 1 - group["momentum"])
                    weight.add_(mean.sign(), alpha=-group["lr"])
        return loss


def linear_decay(optimizer: Optimizer, total_steps: int) -> LambdaLR:
    """The learning rate falls to zero in a line."""
    return LambdaLR(optimizer, lambda step: max(0.0, 1 - step / total_steps))
