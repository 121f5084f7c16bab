"""The sorting network: an encoder trained without labels, by Barlow Twins, to tell what two views of an image share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from mlfix_train.errors import RunError, check_range
from mlfix_train.models.compile import check_compile, settle
from mlfix_train.models.loss_guard import LossWatch
from mlfix_train.models.recipes import CycleSchedule, Recipe, parameter_groups, seed_epoch
from mlfix_train.models.ssl.barlow_twins import barlow_twins_loss
from mlfix_train.models.ssl.encoder import Encoder, Projector

Batch = dict[str, Tensor]


class SortingNetwork(L.LightningModule):
    """Any timm backbone, trained on images alone; takes batches of :class:`mlfix_train.data.loading.view_datamodule.ViewDataModule`.

    Under DDP the cross-correlation is that of the whole batch, of all processes together; batch norms are those of each
    process unless ``trainer.sync_batchnorm=true`` (GPUs).

    Args:
        backbone, input_size, contrast, pretrained, weights, backbone_args, channels_last: see :class:`Encoder`.
        recipe: how it is trained; a mapping of :class:`Recipe`'s fields will do.
        projector_width: width of the projector's layers, and of the cross-correlation.
        projector_layers: layers of the projector, 1 or more.
        redundancy: weight of the off-diagonal in the loss.
        compile: compile the encoder by ``torch.compile``: true, false, or ``auto``, see
            :func:`mlfix_train.models.compile.settle`.
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        recipe: Recipe | Mapping[str, Any] | None = None,
        input_size: int | None = None,
        contrast: bool = True,
        projector_width: int = 2048,
        projector_layers: int = 2,
        redundancy: float = 5e-3,
        pretrained: bool = False,
        weights: str | Path | None = None,
        backbone_args: Mapping[str, Any] | None = None,
        channels_last: bool = True,
        compile: bool | str = False,
    ) -> None:
        super().__init__()
        check_range("model.redundancy", redundancy, 0, 10)
        self.recipe = recipe if isinstance(recipe, Recipe) else Recipe(**(recipe or {}))
        self.network = Encoder(backbone, input_size, contrast, pretrained, weights, backbone_args, channels_last)
        self.projector = Projector(self.network.features, projector_width, projector_layers)
        self.redundancy = redundancy
        check_compile(compile)
        self.compile_wanted = compile
        if compile is True:
            self.network.compile()
        self.watch = LossWatch()

    def forward(self, images: Tensor) -> Tensor:
        """Maps normalised images ``N,3,H,W`` to pooled features ``N,D``."""
        features: Tensor = self.network(images)
        return features

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss of a batch of ``views``, normalised, ``2,N,3,H,W``."""
        z_a, z_b = self.projector(self(batch["views"].flatten(0, 1))).chunk(2)
        loss = barlow_twins_loss(z_a, z_b, self.redundancy)
        self.watch.look(
            loss.detach(), self.current_epoch, batch_idx, int(self.trainer.num_training_batches), self.recipe.lr
        )
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(z_a))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Returns float32 ``features`` N,D with the ``index`` of the batch, for the callback of neighbours."""
        features = self.network.forward(batch["image"]).float()  # not compiled: batches differ in size
        return {"features": features, "index": batch["index"]}

    def on_fit_start(self) -> None:
        """Compiles the encoder where that is asked for or pays."""
        settle(self, self.network, self.compile_wanted, images=2)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seeds dropout by (seed, epoch, process), as the classifier does."""
        seed_epoch(self, batch_idx)

    def configure_optimizers(self) -> Any:
        """Returns AdamW with the recipe's cycle."""
        groups = parameter_groups(self.network.backbone, self.projector, self.recipe.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=self.recipe.lr, betas=(0.95, 0.99), eps=1e-5, fused=True)
        schedule = CycleSchedule(optimizer, self.recipe, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks that a checkpoint holds a network of this shape.

        Raises:
            RunError: it holds another.
        """
        own, found = self.state_dict(), checkpoint.get("state_dict", {})
        other = sorted(name for name in own if name not in found or found[name].shape != own[name].shape)
        if other:
            raise RunError(
                f"the checkpoint was made for another network: {other[0]} and {len(other) - 1} more tensors differ",
                "give the settings that it was made with, or start anew with another name= (or overwrite=true)",
            )
