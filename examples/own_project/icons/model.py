"""The project's network, a plain LightningModule: ``trainer.fit`` takes it, and so does ``model._target_``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch.nn.functional as F
from torch import Tensor, nn

from icons.optimizer import SignDescent, linear_decay


class IconNet(L.LightningModule):
    """A small network.

    Of ``mlfix train`` it gets ``labels``, the names of the classes. The optimizer and the schedule are functions that
    make them, so that ``model.optimizer._target_`` can name others.
    """

    def __init__(
        self,
        labels: Sequence[str],
        width: int = 8,
        optimizer: Callable[..., Any] = SignDescent,
        scheduler: Callable[..., Any] = linear_decay,
    ) -> None:
        super().__init__()
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        layers: list[nn.Module] = [nn.BatchNorm2d(3)]
        for inputs, outputs in ((3, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
        self.net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(36 * width, len(labels)))

    def forward(self, image: Tensor) -> Tensor:
        """Maps images ``(N, 3, H, W)`` to logits ``(N, C)``."""
        return self.net(image)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Returns the loss; ``logits`` are there for the training dynamics."""
        logits = self(batch["image"])
        loss = F.cross_entropy(logits, batch["label"])
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(logits))
        return {"loss": loss, "logits": logits.detach()}

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Returns the logits: all that an audit needs."""
        return self(batch["image"])

    def configure_optimizers(self) -> Any:
        """Makes the optimizer and the schedule."""
        optimizer = self.make_optimizer(self.parameters())
        steps = int(self.trainer.estimated_stepping_batches)
        return [optimizer], [{"scheduler": self.make_scheduler(optimizer, total_steps=steps), "interval": "step"}]
