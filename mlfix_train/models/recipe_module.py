"""What the classifier and the sorting network share: a recipe, one result per seed, compiling, a guard against NaN."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from mlfix_train.errors import ConfigError, RunError
from mlfix_train.models.backbones.fast_convs import has_amx, use_fast_convs
from mlfix_train.models.compile import Forward, maybe_compile, maybe_graph
from mlfix_train.models.recipes import Recipe
from mlfix_train.models.schedules import build_optimizer, epoch_seed

Batch = dict[str, Tensor]
STEP_ARGUMENTS = ("T_max", "total_steps", "num_training_steps")
"""What the number of training steps is called by learning-rate schedules."""
CHECK_EVERY = 25
"""Steps between two checks; on a GPU each check waits for the device."""


class RecipeModule(L.LightningModule, ABC):
    """A backbone and a head, trained by a :class:`Recipe`.

    Args:
        network: Maps normalized images to a tensor; it has ``backbone``, ``mean`` and ``std``.
        recipe: How it is trained; a mapping of the recipe's fields will do.
        seed: Of dropout and whatever else draws from torch's generator in a training step; with the epoch and the
            process, so that a resumed run draws what it would have drawn.
        fast_convs: Compute small convolutions as matrix products: true, false, or ``auto``, on CPUs with AMX.
        compile: Compile the network, see :func:`mlfix_train.models.compile.maybe_compile`.
        cuda_graph: Record the training step as CUDA graphs: true, false, or ``auto``: on one GPU, unless it is
            compiled; see :func:`mlfix_train.models.compile.maybe_graph`.
        optimizer: Makes an optimizer from the parameters, in place of the recipe's AdamW and cycles; of the recipe, the
            epochs and label smoothing still count. ``functools.partial(torch.optim.SGD, lr=0.1)`` for example.
        scheduler: Makes a learning-rate schedule from the optimizer, stepped after each batch; it gets the number of
            training steps as ``T_max``, ``total_steps`` or ``num_training_steps``, if it takes one of these.

    Attributes:
        mean, std: Per channel, images in 0..1 are normalized by them before they go into the network.
        fast_step: Forward pass of ``network`` in a training step, compiled or as a CUDA graph, once a training has
            begun; ``None`` runs it eagerly.

    Raises:
        ConfigError: A value that one of the keys does not take.
    """

    def __init__(
        self,
        network: Any,
        recipe: Recipe | Mapping[str, Any] | None,
        seed: int,
        fast_convs: bool | str,
        compile: bool,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        cuda_graph: bool | str = "auto",
    ) -> None:
        super().__init__()
        if compile is not True and compile is not False:
            raise ConfigError(f"model.compile={compile} is not true or false", "use true or false")
        for key, value in (("fast_convs", fast_convs), ("cuda_graph", cuda_graph)):
            if value is not True and value is not False and value != "auto":
                raise ConfigError(f"model.{key}={value} is not auto, true or false", "use auto, true or false")
        if scheduler is not None and optimizer is None:
            raise ConfigError(
                "model.scheduler needs model.optimizer", "set model.optimizer._target_, such as torch.optim.SGD"
            )
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.network = network
        self.mean, self.std = network.mean, network.std
        self.recipe = recipe if isinstance(recipe, Recipe) else Recipe(**(recipe or {}))
        self.seed, self.compile_wanted, self.graph_wanted = seed, compile, cuda_graph
        self.fast_step: Forward | None = None
        self._is_prepared = False
        if fast_convs is True or (fast_convs == "auto" and has_amx()):
            use_fast_convs(network)

    @property
    @abstractmethod
    def head(self) -> nn.Module:
        """What is trained from the start, on top of the backbone."""

    def forward(self, images: Tensor) -> Tensor:
        """Runs the network, not compiled: batches may differ in size."""
        output: Tensor = self.network(images)
        return output

    @abstractmethod
    def training_images(self, batch: Batch) -> Tensor:
        """Returns the images of a batch that go through the network in a training step."""

    def run_step(self, images: Tensor) -> Tensor:
        """Runs the network on the images of a training step, compiled or as a CUDA graph if that is set."""
        return self(images) if self.fast_step is None else self.fast_step(images)

    def log_loss(self, loss: Tensor, n_samples: int) -> None:
        """Logs ``train/loss``, the mean over an epoch."""
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True, batch_size=n_samples)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Compiles or records the network before the first step, and seeds torch before the first one of every epoch.

        Not before the epoch: a loader draws from the same generator when it starts, in a resumed run earlier.
        """
        if not self._is_prepared:
            self._is_prepared = True
            images, precision = self.training_images(batch), self.trainer.precision_plugin.forward_context
            self.fast_step = maybe_compile(
                self.network, self.compile_wanted, tuple(images.shape), self.device, precision
            )
            if self.fast_step is None and (self.graph_wanted is True or self.trainer.world_size == 1):
                self.fast_step = maybe_graph(self.network, self.graph_wanted, images, precision)
        if batch_idx == 0:
            torch.manual_seed(epoch_seed(self.seed, self.current_epoch, self.global_rank))

    def on_fit_end(self) -> None:
        """Releases the memory of CUDA graphs."""
        self.fast_step, self._is_prepared = None, False

    def configure_callbacks(self) -> list[L.Callback]:
        """Returns the guard against NaN losses, a new one for each training."""
        return [NonFiniteLossGuard(self.divergence_hint)]

    @property
    def divergence_hint(self) -> str:
        """What to do about a loss or logits that are NaN."""
        return f"lower recipe.lr (it is {self.recipe.lr:g}) or try trainer.precision=32, with overwrite=true"

    def configure_optimizers(self) -> Any:
        """Returns the given optimizer and schedule, or AdamW over the layer groups with the recipe's cycles."""
        steps = int(self.trainer.estimated_stepping_batches)
        if self.make_optimizer is not None:
            optimizer = self.make_optimizer(self.parameters())
            if self.make_scheduler is None:
                return optimizer
            taken = {name: steps for name in STEP_ARGUMENTS if self._scheduler_needs(name)}
            return [optimizer], [{"scheduler": self.make_scheduler(optimizer, **taken), "interval": "step"}]
        return build_optimizer(self.network.backbone, self.head, self.recipe, steps)

    def _scheduler_needs(self, argument: str) -> bool:
        """Whether the schedule takes an argument that is not yet set."""
        takes = argument in inspect.signature(self.make_scheduler).parameters  # type: ignore[arg-type]
        return takes and argument not in getattr(self.make_scheduler, "keywords", {})


class NonFiniteLossGuard(L.Callback):
    """Raises an error once a training loss is NaN or infinite; at most 25 steps late, and before the epoch ends.

    Of Lightning's own checks, ``EarlyStopping(check_finite=True)`` looks at the end of an epoch and then ends the
    training as if it were complete, and ``Trainer(detect_anomaly=True)`` traces every backward pass.
    """

    def __init__(self, hint: str) -> None:
        self.hint = hint
        self._finite: Tensor | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Records whether the loss is finite; every few steps, raises a RunError if one was not."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, Tensor):
            return  # a module that optimizes by itself need not return its loss
        finite = torch.isfinite(loss.detach())
        self._finite = finite if self._finite is None else self._finite & finite
        last = batch_idx + 1 >= trainer.num_training_batches
        if (last or batch_idx % CHECK_EVERY == 0) and not bool(self._finite):
            place = f"in epoch {trainer.current_epoch}, at or before step {batch_idx + 1}"
            raise RunError(f"the loss became NaN or infinite {place}", self.hint)
