"""The registry of label scores: what a score is, and what it can be computed from.

A score of your own is a function from :class:`Evidence` to an array, registered by a decorator. Its name becomes a
column of every ranking made afterwards in this process; with ``combine_as`` it also counts towards the suspicion::

    @label_score(higher_is_worse=False)
    def brightness_score(evidence: Evidence) -> np.ndarray:
        \"\"\"Share of bright pixels; dark images are suspicious.\"\"\"
        return my_brightness[evidence.held_out.sample_ids]

Shapes: N samples, C classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlfix_train.audit.predictions.held_out import HeldOut
from mlfix_train.audit.scores.knn import NeighbourScores


@dataclass(frozen=True)
class Evidence:
    """Everything labels can be judged by; all arrays have one row per held-out sample.

    Attributes:
        held_out: held-out predictions, averaged over runs.
        aum: float ``(N,)``, area under the margin in training; NaN where a sample was never trained on.
        neighbours: scores by the labels of similar images.
        probabilities: float ``(N, C)``, mean held-out probabilities.
        groups: int64 ``(N,)``, photo or track of each sample.
    """

    held_out: HeldOut
    aum: np.ndarray | None = None
    neighbours: NeighbourScores | None = None
    probabilities: np.ndarray | None = None
    groups: np.ndarray | None = None


ScoreFunction = Callable[[Evidence], np.ndarray | None]
"""Computes one number per held-out sample ``(N,)``, NaN where there is none; ``None`` if the evidence is missing."""


@dataclass(frozen=True)
class LabelScore:
    """A registered score of labels.

    Attributes:
        name: column of the ranking.
        compute: the function.
        higher_is_worse: direction: whether high or low values speak against the label.
        description: what it measures, its unit and range.
        combine_as: kind of evidence as which the score counts towards the suspicion; empty: it is only shown.
    """

    name: str
    compute: ScoreFunction
    higher_is_worse: bool
    description: str
    combine_as: str = ""

    def badness(self, evidence: Evidence) -> np.ndarray | None:
        """Returns the score turned so that higher is worse, float ``(N,)``; ``None`` if the evidence is missing."""
        values = self.compute(evidence)
        return values if values is None or self.higher_is_worse else -values


_SCORES: dict[str, LabelScore] = {}


def label_score(*, higher_is_worse: bool, combine_as: str = "") -> Callable[[ScoreFunction], ScoreFunction]:
    """Registers the decorated function as a score of labels: its name, and its docstring as the description.

    Args:
        higher_is_worse: direction of the score.
        combine_as: kind of evidence as which it counts towards the suspicion, such as ``dynamics``.

    Raises:
        ValueError: A score of this name exists.
    """

    def register(function: ScoreFunction) -> ScoreFunction:
        name = function.__name__
        if name in _SCORES:
            raise ValueError(f"a label score named {name!r} is already registered")
        _SCORES[name] = LabelScore(name, function, higher_is_worse, inspect.getdoc(function) or "", combine_as)
        return function

    return register


def unregister(name: str) -> None:
    """Removes a score from the registry."""
    del _SCORES[name]


def registered_scores() -> list[LabelScore]:
    """Returns all scores in the order of a ranking's columns: the built-in ones, then yours."""
    import mlfix_train.audit.scores.builtin  # noqa: F401  registers the built-in scores

    return list(_SCORES.values())
