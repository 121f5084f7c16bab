"""The classifier: a network, its loss and its recipe as a LightningModule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor

from mlfix_train.errors import RunError, format_list
from mlfix_train.models.backbones.network import Network
from mlfix_train.models.compile import check_compile, settle
from mlfix_train.models.loss_guard import LossWatch
from mlfix_train.models.recipes import CycleSchedule, Recipe, parameter_groups, seed_epoch

Batch = dict[str, Tensor]


class Classifier(L.LightningModule):
    """Any timm backbone, trained by a recipe; takes batches of :class:`mlfix_train.data.loading.datamodule.DataModule`.

    Args:
        labels: the classes, in the order of the logits.
        backbone: name of a timm model.
        recipe: how it is trained; a mapping of :class:`Recipe`'s fields will do.
        pretrained, weights, head, backbone_args, channels_last: see :class:`Network`.
        compile: compile the network by ``torch.compile``: true, false, or ``auto``, see
            :func:`mlfix_train.models.compile.settle`.
    """

    def __init__(
        self,
        labels: Sequence[str],
        backbone: str = "resnet50",
        recipe: Recipe | Mapping[str, Any] | None = None,
        head: str = "concat_pool",
        pretrained: bool = False,
        weights: str | Path | None = None,
        backbone_args: Mapping[str, Any] | None = None,
        channels_last: bool = True,
        compile: bool | str = False,
    ) -> None:
        super().__init__()
        self.labels = list(labels)
        self.recipe = recipe if isinstance(recipe, Recipe) else Recipe(**(recipe or {}))
        self.network = Network(backbone, len(self.labels), head, pretrained, weights, backbone_args, channels_last)
        check_compile(compile)
        self.compile_wanted = compile
        if compile is True:
            self.network.compile()
        self.watch = LossWatch()

    def forward(self, images: Tensor) -> Tensor:
        """Maps normalised images ``N,3,H,W`` to logits ``N,C``."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Returns the mean cross-entropy of a batch in nats, ``loss``, and its ``logits``, for the audit callback."""
        logits = self(batch["image"]).float()
        loss = F.cross_entropy(logits, batch["label"], label_smoothing=self.recipe.label_smoothing)
        self.watch.look(
            loss.detach(), self.current_epoch, batch_idx, int(self.trainer.num_training_batches), self.recipe.lr
        )
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(logits))
        return {"loss": loss, "logits": logits.detach()}

    def validation_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Returns float32 ``logits`` N,C with the ``label`` and ``index`` of the batch, for the audit callback."""
        logits = self.network.forward(batch["image"]).float()  # not compiled: batches differ in size
        return {"logits": logits, "label": batch["label"], "index": batch["index"]}

    def on_fit_start(self) -> None:
        """Compiles the network where that is asked for or pays."""
        settle(self, self.network, self.compile_wanted)

    def on_train_epoch_start(self) -> None:
        """Forgets the optimizer's memory where the backbone thaws."""
        if self.recipe.frozen_epochs and self.current_epoch == self.recipe.frozen_epochs:
            for optimizer in self.trainer.optimizers:
                optimizer.state.clear()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seeds dropout by (seed, epoch, process) before an epoch's first batch.

        Not before the epoch: a loader draws from the same stream when it starts, in a resumed run earlier than else.
        """
        seed_epoch(self, batch_idx)

    def configure_optimizers(self) -> Any:
        """Returns AdamW over the layer groups, with the recipe's cycles."""
        groups = parameter_groups(self.network.backbone, self.network.head, self.recipe.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=self.recipe.lr, betas=(0.95, 0.99), eps=1e-5, fused=True)
        schedule = CycleSchedule(optimizer, self.recipe, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Writes the label list into the checkpoint."""
        checkpoint["labels"] = self.labels

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks that a checkpoint was made for the same labels.

        Raises:
            RunError: it was made for others.
        """
        found = list(checkpoint.get("labels", self.labels))
        if found != self.labels:
            extra = sorted(set(found) ^ set(self.labels))
            raise RunError(
                f"the checkpoint was made for {len(found)} labels, the data has {len(self.labels)}; "
                f"they differ in {format_list(extra)}",
                "give the data that it was made with, or start anew with another name= (or overwrite=true)",
            )
