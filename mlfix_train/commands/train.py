"""``mlfix train``."""

from mlfix_train.training.run import run

__all__ = ["run"]
