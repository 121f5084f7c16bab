"""Every verb of the ``mlfix`` command as a function that takes the same keys, for a notebook.

    from mlfix_train import api as mlfix

    run = mlfix.train("data.root=photos", "seed=3")       # a RunDirectory: run.path, run.read(), run.predictions
    ranking = mlfix.audit(f"runs={run.path}")             # a DataFrame
    mlfix.compare("original=outputs/default/original", "fixed=outputs/default/fixed", "fixes.path=fixes.csv")

A mistake raises :class:`mlfix_train.errors.MlfixError`, whose text names it and its hint.
"""

from __future__ import annotations

from typing import Any

__all__ = ["audit", "compare", "crop", "demo", "export", "review", "sort", "train"]


def _run(command: str, overrides: tuple[str, ...], function: str = "run") -> Any:
    from mlfix_train.commands import run_command

    return run_command(command, *overrides, function=function)


def crop(*overrides: str) -> Any:
    """Crops the boxes of photos; takes the keys of ``mlfix crop`` (``"data.root=mtsd"``), returns the sample table."""
    return _run("crop", overrides)


def train(*overrides: str) -> Any:
    """Trains one run; takes the keys of ``mlfix train`` (``"data.root=photos"``), returns its ``RunDirectory``."""
    return _run("train", overrides)


def sort(*overrides: str) -> Any:
    """Sorts images by visual similarity; takes the keys of ``mlfix sort``, returns the order, a DataFrame."""
    return _run("sort", overrides)


def audit(*overrides: str) -> Any:
    """Ranks the held-out samples of runs; takes the keys of ``mlfix audit``, returns the ranking, a DataFrame."""
    return _run("audit", overrides)


def review(*overrides: str) -> Any:
    """Returns the page where wrong labels are marked as a widget of a notebook; takes the keys of ``mlfix review``.

    ``widget.fixes`` is the path of the fixes file, up to date at every mark.
    """
    return _run("review", overrides, "show")


def compare(*overrides: str) -> Any:
    """Compares arms; takes the keys of ``mlfix compare``, returns what ``summary.json`` holds, a dict."""
    return _run("compare", overrides)


def export(*overrides: str) -> Any:
    """Writes an audit for another tool; takes the keys of ``mlfix export``, returns the files."""
    return _run("export", overrides)


def demo(*overrides: str) -> Any:
    """Runs the whole loop on rendered signs; takes the keys of ``mlfix demo``, returns its summary, a dict."""
    return _run("demo", overrides)
