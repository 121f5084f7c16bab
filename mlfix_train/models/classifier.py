"""The classifier: a network, its loss and its recipe as a LightningModule."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from mlfix_train.errors import RunError, format_list
from mlfix_train.models.backbones.network import Network
from mlfix_train.models.recipe_module import Batch, RecipeModule
from mlfix_train.models.recipes import Recipe


class Classifier(RecipeModule):
    """Any timm backbone, trained on labels by a recipe.

    It takes batches ``{image, label, index}``, such as those of
    :class:`mlfix_train.data.loading.datamodule.DataModule`, with images normalized by ``mean`` and ``std``.

    Args:
        labels: Names of the C classes, in the order of the logits.
        backbone, head, pretrained, weights, backbone_args, channels_last, image_size: See :class:`Network`.
        recipe, seed, fast_convs, compile, cuda_graph, optimizer, scheduler: See :class:`RecipeModule`.

    Raises:
        ConfigError: An unknown backbone or head, or arguments that don't fit it.
        RunError: Weights that are unavailable or don't fit.
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
        fast_convs: bool | str = "auto",
        compile: bool = False,
        cuda_graph: bool | str = "auto",
        seed: int = 0,
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        image_size: int | None = None,
    ) -> None:
        network = Network(backbone, len(labels), head, pretrained, weights, backbone_args, channels_last, image_size)
        super().__init__(network, recipe, seed, fast_convs, compile, optimizer, scheduler, cuda_graph)
        self.labels = list(labels)

    @property
    def head(self) -> nn.Module:
        """The network's head."""
        return self.network.head  # type: ignore[no-any-return]

    def training_images(self, batch: Batch) -> Tensor:
        """Returns the images of a batch, ``(N, 3, H, W)``."""
        return batch["image"]

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Returns ``loss``, the mean cross-entropy in nats, and the float32 ``logits`` ``(N, C)``."""
        logits = self.run_step(self.training_images(batch)).float()
        loss = F.cross_entropy(logits, batch["label"], label_smoothing=self.recipe.label_smoothing)
        self.log_loss(loss, len(logits))
        return {"loss": loss, "logits": logits.detach()}

    def validation_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Returns float32 ``logits`` ``(N, C)`` with ``label`` and ``index`` of the batch."""
        return {"logits": self(batch["image"]).float(), "label": batch["label"], "index": batch["index"]}

    def on_train_epoch_start(self) -> None:
        """Resets the optimizer's moments when the backbone is unfrozen."""
        if (
            self.make_optimizer is None
            and self.recipe.frozen_epochs
            and self.current_epoch == self.recipe.frozen_epochs
        ):
            for optimizer in self.trainer.optimizers:
                optimizer.state.clear()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the names of the classes."""
        checkpoint["labels"] = self.labels

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises a RunError unless a checkpoint is one of the same classes."""
        labels = list(checkpoint.get("labels", self.labels))
        if labels != self.labels:
            other = sorted(set(labels) ^ set(self.labels))
            how = f"they differ in {format_list(other)}" if other else "their order differs"
            problem = f"the checkpoint was made for {len(labels)} labels, the data has {len(self.labels)}; {how}"
            hint = "use the data that it was trained on, or start again with another name= (or overwrite=true)"
            raise RunError(problem, hint)
