"""Settings of a training: the section ``recipe``. Does not import torch; :mod:`.schedules` turns it into rates."""

from dataclasses import dataclass

from mlfix_train.errors import ConfigError, check_choice, check_range

RECIPES = ("finetune", "scratch")


@dataclass(frozen=True)
class Recipe:
    """Length of the training, and the learning rates of the parts of the network. Presets are in ``configs/recipe``.

    Args:
        name: finetune (fastai's fine_tune, the published recipe: the head alone, then everything, earlier layers
            slower) | scratch (one cycle for a network without pretrained weights).
        epochs: Epochs in which everything is trained.
        frozen_epochs: Epochs before those in which only the head and the norms are trained.
        lr: Highest learning rate. With finetune: that of the head in the frozen epochs; halved after them.
        discriminative_lr_ratio: Learning rate of the head divided by that of the earliest layers, 1 or more.
        pct_start: Share of the unfrozen steps with a rising learning rate, 0.01 to 0.99.
        div_factor: Highest learning rate divided by the first, 1 or more.
        weight_decay: Decoupled weight decay, 0 to 10; none for norms and biases.
        label_smoothing: Label smoothing, 0 to 0.5; above 0, the losses of wrong labels stand out less.

    Raises:
        ConfigError: A value out of its range.
    """

    name: str = "finetune"
    epochs: int = 15
    frozen_epochs: int = 1
    lr: float = 2e-3
    discriminative_lr_ratio: float = 100.0
    pct_start: float = 0.3
    div_factor: float = 5.0
    weight_decay: float = 0.01
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_choice("name", self.name, RECIPES)
        for name in ("epochs", "frozen_epochs"):
            if not isinstance(getattr(self, name), int):
                raise ConfigError(f"{name}={getattr(self, name)} is not an integer", "use an integer")
        check_range("epochs", self.epochs, 1, 100_000)
        check_range("frozen_epochs", self.frozen_epochs, 0, 100_000)
        check_range("lr", self.lr, 1e-9, 100)
        check_range("discriminative_lr_ratio", self.discriminative_lr_ratio, 1, 1e6)
        check_range("pct_start", self.pct_start, 0.01, 0.99)
        check_range("div_factor", self.div_factor, 1, 1e6)
        check_range("weight_decay", self.weight_decay, 0, 10)
        check_range("label_smoothing", self.label_smoothing, 0, 0.5)

    @property
    def total_epochs(self) -> int:
        """Frozen and unfrozen epochs together."""
        return self.frozen_epochs + self.epochs
