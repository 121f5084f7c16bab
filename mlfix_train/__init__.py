"""mlfix-train: find wrong labels in image data, fix them, and prove what it bought.

Every verb of the ``mlfix`` command is a function here that takes the same keys, for a notebook::

    import mlfix_train
    run = mlfix_train.train("data.root=photos", "seed=3")          # the run directory
    mlfix_train.compare("original=outputs/default/original", "fixed=outputs/default/fixed", "fixes.path=fixes.csv")

Heavy libraries are imported inside the verbs, so that ``import mlfix_train`` and ``mlfix --help`` are quick.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
VERBS = ("train", "audit", "compare", "demo")
__all__ = ["VERBS", "__version__", "audit", "compare", "demo", "train"]


def _run(verb: str, overrides: tuple[str, ...]) -> Any:
    from mlfix_train import config

    return config.call_verb(verb, config.compose(verb, list(overrides)))


def train(*overrides: str) -> Any:
    """Trains one run; takes the keys of ``mlfix train`` (``"data.root=photos"``), returns its ``RunDirectory``."""
    return _run("train", overrides)


def audit(*overrides: str) -> Any:
    """Ranks the held-out samples of runs; takes the keys of ``mlfix audit``, returns the ranking, a DataFrame."""
    return _run("audit", overrides)


def compare(*overrides: str) -> Any:
    """Compares arms; takes the keys of ``mlfix compare``, returns what ``summary.json`` holds, a dict."""
    return _run("compare", overrides)


def demo(*overrides: str) -> Any:
    """Runs the whole loop on rendered signs; takes the keys of ``mlfix demo``, returns its summary, a dict."""
    return _run("demo", overrides)
