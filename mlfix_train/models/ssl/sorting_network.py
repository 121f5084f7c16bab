"""The sorting network: an encoder that learns image similarity without labels, by Barlow Twins."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from mlfix_train.errors import RunError, check_range
from mlfix_train.models.recipe_module import Batch, RecipeModule
from mlfix_train.models.recipes import Recipe
from mlfix_train.models.ssl.barlow_twins import barlow_twins_loss
from mlfix_train.models.ssl.encoder import Encoder, Projector


class SortingNetwork(RecipeModule):
    """Any timm backbone, trained on images alone.

    It takes batches ``{views, index}`` in training and ``{image, index}`` in validation, such as those of
    :class:`mlfix_train.data.loading.views.ViewDataModule`, with images normalized by ``mean`` and ``std``.

    Under DDP the cross-correlation is that of the whole batch, of all processes together; batch norms are those of each
    process unless ``trainer.sync_batchnorm=true`` (GPUs).

    Args:
        backbone, input_size, contrast, pretrained, weights, backbone_args, channels_last, image_size: See
            :class:`Encoder`.
        recipe, seed, fast_convs, compile, cuda_graph, optimizer, scheduler: See :class:`RecipeModule`.
        projector_width: Width of the projector's layers, and of the cross-correlation.
        projector_layers: Layers of the projector, 1 or more.
        redundancy: Weight of the off-diagonal in the loss, 0 to 10.

    Raises:
        ConfigError: An unknown backbone, or a value out of its range.
        RunError: Weights that are unavailable or don't fit.
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
        fast_convs: bool | str = "auto",
        compile: bool = False,
        cuda_graph: bool | str = "auto",
        seed: int = 0,
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        image_size: int | None = None,
    ) -> None:
        check_range("model.redundancy", redundancy, 0, 10)
        encoder = Encoder(backbone, input_size, contrast, pretrained, weights, backbone_args, channels_last, image_size)
        super().__init__(encoder, recipe, seed, fast_convs, compile, optimizer, scheduler, cuda_graph)
        self.projector = Projector(encoder.features, projector_width, projector_layers)
        self.redundancy = redundancy

    @property
    def head(self) -> nn.Module:
        """The projector."""
        return self.projector

    def training_images(self, batch: Batch) -> Tensor:
        """Returns the views of a batch, first and second ones, ``(2 * N, 3, H, W)``."""
        return batch["views"].flatten(0, 1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss of a batch of ``views``, ``(2, N, 3, H, W)``."""
        z_a, z_b = self.projector(self.run_step(self.training_images(batch))).chunk(2)
        loss = barlow_twins_loss(z_a, z_b, self.redundancy)
        self.log_loss(loss, len(z_a))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Returns float32 ``features`` ``(N, D)`` with the ``index`` of the batch."""
        return {"features": self(batch["image"]).float(), "index": batch["index"]}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises a RunError unless a checkpoint holds a network of the same shape."""
        own, loaded = self.state_dict(), checkpoint.get("state_dict", {})
        different = sorted(name for name in own if name not in loaded or loaded[name].shape != own[name].shape)
        if different:
            count = f"{different[0]} and {len(different) - 1} more tensors differ"
            hint = "use the settings that it was trained with, or start again with another name= (or overwrite=true)"
            raise RunError(f"the checkpoint was made for another network: {count}", hint)
