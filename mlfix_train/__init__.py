"""mlfix-train: find wrong labels in image data, fix them, and prove what it bought.

The verbs of the ``mlfix`` command are functions in :mod:`mlfix_train.api`. Heavy libraries are imported inside the
verbs, so that ``import mlfix_train`` and ``mlfix --help`` are quick.
"""

__version__ = "0.1.0"
COMMANDS = ("crop", "train", "sort", "audit", "review", "compare", "export", "demo")
__all__ = ["COMMANDS", "__version__"]
