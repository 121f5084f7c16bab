"""The registry of label scores: every score that a ranking shows, and the evidence it is computed from.

**Add a score**: one function and its entry in the list below. One of your own is registered before you audit, or named
in the configuration of ``mlfix audit`` (``scores.<name>._target_=<module>.<LabelScore or function that makes one>``)::

    register_score(LabelScore("brightness", brightness, False, "Share of bright pixels, 0 to 1.", needs=("samples",)))

Its name becomes a column of the ranking, of the report and of the review page; with ``combine_as`` it also counts
towards the suspicion. Scores of held-out predictions are means over the runs that held a sample out.

Shapes: N samples, C classes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import pandas as pd

from mlfix_train.audit.predictions.held_out import HeldOut
from mlfix_train.audit.predictions.table import score_logits
from mlfix_train.audit.scores import pooling
from mlfix_train.audit.scores.image_properties import PROPERTIES as IMAGE_PROPERTIES
from mlfix_train.audit.scores.knn import NeighbourScores
from mlfix_train.audit.scores.label_scores import confident_score, confident_thresholds
from mlfix_train.audit.scores.pooling import Pool
from mlfix_train.errors import DataError, check_choice


@dataclass(frozen=True)
class Evidence:
    """Everything that labels are judged by; all arrays have one row per held-out sample.

    Attributes:
        held_out: held-out predictions, averaged over runs.
        aum: float ``(N,)``, area under the margin in training; NaN where a sample was never trained on.
        neighbours: scores by the labels of similar images.
        probabilities: float ``(N, C)``, mean held-out probabilities.
        probe_logits: float ``(N, C)``, by a linear layer on features of the images, fitted out of fold.
        run_probe_logits: float ``(N, C)``, by linear layers on features that runs kept of what they held out,
            fitted out of fold; 0 where there are none.
        predictor: what made the held-out predictions, such as ``runs``.
        unlearned: bool ``(N,)``, labels that no model could learn before predicting them, for all their samples are of
            one group; held-out predictions say nothing about them.
        groups: int64 ``(N,)``, photo or track of each sample; ``None`` if every sample is its own group.
        samples: sample table of the N samples, with their ``path``, ``group`` and metadata.
        image_properties: what :func:`mlfix_train.audit.scores.image_properties.measure_samples` found; N rows.
    """

    held_out: HeldOut
    aum: np.ndarray | None = None
    neighbours: NeighbourScores | None = None
    probabilities: np.ndarray | None = None
    groups: np.ndarray | None = None
    samples: pd.DataFrame | None = None
    probe_logits: np.ndarray | None = None
    run_probe_logits: np.ndarray | None = None
    predictor: str = "runs"
    unlearned: np.ndarray | None = None
    image_properties: pd.DataFrame | None = None

    def __repr__(self) -> str:
        given = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        return f"<Evidence about {len(self.held_out):,} samples: {', '.join(given)}>"

    @property
    def is_recorded_only(self) -> bool:
        """Whether all that is known is what runs recorded: loss, prediction and its probability."""
        others = (self.probabilities, self.probe_logits, self.run_probe_logits, self.neighbours)
        return all(values is None for values in others)

    @cached_property
    def pool(self) -> Pool:
        """All held-out predictions pooled, see :mod:`mlfix_train.audit.scores.pooling`."""
        n_classes = len(self.held_out.class_names)
        if self.is_recorded_only:
            return pooling.of_recorded(self.held_out, self.predictor)
        kinds = {self.predictor: pooling.of_held_out(self.held_out)}
        if self.probabilities is not None:
            kinds = {self.predictor: pooling.of_probabilities(self.probabilities)}
        if self.probe_logits is not None:
            kinds["probe"] = pooling.of_logits(self.probe_logits)
        if self.run_probe_logits is not None:
            kinds["run_probe"] = pooling.of_logits(self.run_probe_logits)
        if self.neighbours is not None:
            kinds["neighbours"] = pooling.of_votes(self.neighbours.votes, n_classes)
        return pooling.pool_predictions(kinds, self.held_out.labels, n_classes)


@dataclass(frozen=True)
class LabelScore:
    """A score of given labels.

    Attributes:
        name: column of the ranking.
        compute: maps the :class:`Evidence` to one number per held-out sample, ``(N,)``, NaN for none; it may return
            ``None`` for no scores at all.
        higher_is_worse: whether high values are evidence against the label; otherwise low ones are.
        description: what it measures, its unit and range.
        combine_as: kind of evidence as which it counts towards the suspicion; empty: it is only shown.
        needs: attributes of :class:`Evidence` that it needs; without one of them it is not computed.

    Example:
        >>> from mlfix_train import Audit
        >>> def entropy(evidence):
        ...     p = evidence.probabilities
        ...     return -(p * np.log(p)).sum(1)
        >>> score = LabelScore("entropy", entropy, True, "Entropy of the prediction, nats.", needs=("probabilities",))
        >>> with registered([score]):
        ...     ranking = Audit.from_predictions([0, 1], np.array([[0.5, 0.5], [0.1, 0.9]])).ranking
        >>> ranking["entropy"].round(2).tolist()
        [0.69, 0.33]
    """

    name: str
    compute: Callable[[Evidence], np.ndarray | None]
    higher_is_worse: bool
    description: str
    combine_as: str = ""
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = [field.name for field in fields(Evidence)]
        for name in self.needs:
            check_choice(f"needs of the score {self.name}", name, known)

    def values(self, evidence: Evidence) -> np.ndarray | None:
        """Returns the score, float ``(N,)``; ``None`` without its evidence.

        Raises:
            DataError: The score returned another number of values.
        """
        if any(getattr(evidence, name) is None for name in self.needs):
            return None
        values = self.compute(evidence)
        if values is None:
            return None
        found = np.asarray(values, np.float64)
        if found.shape != (len(evidence.held_out),):
            problem = f"the score {self.name} returned the shape {found.shape} for {len(evidence.held_out):,} samples"
            raise DataError(problem, "return one number per held-out sample, in the order of evidence.held_out")
        return found

    def oriented(self, evidence: Evidence) -> np.ndarray | None:
        """Returns the score such that higher is worse, float ``(N,)``; ``None`` without its evidence."""
        values = self.values(evidence)
        return values if values is None or self.higher_is_worse else -values


def _held_out(name: str) -> Callable[[Evidence], np.ndarray]:
    return lambda evidence: evidence.held_out.scores[name]


def _neighbours(name: str) -> Callable[[Evidence], np.ndarray | None]:
    return lambda evidence: evidence.neighbours.scores.get(name)  # type: ignore[union-attr]


def _confident_score(evidence: Evidence) -> np.ndarray:
    assert evidence.probabilities is not None
    labels = evidence.held_out.labels
    return confident_score(evidence.probabilities, labels, confident_thresholds(evidence.probabilities, labels))


def _probe_loss(name: str) -> Callable[[Evidence], np.ndarray]:
    return lambda evidence: score_logits(getattr(evidence, name), evidence.held_out.labels)["loss"]


def _image_property(name: str) -> Callable[[Evidence], np.ndarray]:
    return lambda evidence: evidence.image_properties[name].to_numpy()  # type: ignore[index]


def _aum(evidence: Evidence) -> np.ndarray | None:
    return None if evidence.aum is None or np.isnan(evidence.aum).all() else evidence.aum


SCORES: list[LabelScore] = [
    LabelScore("loss", _held_out("loss"), True, "Cross-entropy of the given label in nats."),
    LabelScore(
        "pooled_loss",
        lambda evidence: evidence.pool.loss,
        True,
        "Cross-entropy of the given label by all held-out predictions and neighbours together, nats.",
    ),
    LabelScore(
        "probe_loss",
        _probe_loss("probe_logits"),
        True,
        "Cross-entropy of the given label by a linear layer on features of the images, out of fold, nats.",
        needs=("probe_logits",),
    ),
    LabelScore(
        "run_probe_loss",
        _probe_loss("run_probe_logits"),
        True,
        "The same by linear layers on features that the runs kept of the samples they held out (audit.features).",
        needs=("run_probe_logits",),
    ),
    LabelScore("margin", _held_out("margin"), False, "Logit of the given label minus the best other logit."),
    LabelScore("self_confidence", _held_out("self_confidence"), False, "Probability of the given label, 0 to 1."),
    LabelScore("normalized_margin", _held_out("normalized_margin"), False, "cleanlab's normalized margin, 0 to 1."),
    LabelScore(
        "confident_score",
        _confident_score,
        False,
        "Margin over the confident-learning thresholds, 0 to 1.",
        needs=("probabilities",),
    ),
    LabelScore(
        "aum", _aum, False, "Area under the margin in logits, by runs trained on the sample.", "dynamics", ("aum",)
    ),
    LabelScore(
        "neighbour_disagreement",
        _neighbours("neighbour_disagreement"),
        True,
        "Weighted share of similar images of other groups that have another label, 0 to 1.",
        needs=("neighbours",),
    ),
    LabelScore(
        "twin_disagreement",
        _neighbours("twin_disagreement"),
        True,
        "Weighted share of similar images of any group that have another label, 0 to 1; only if there are groups.",
        "twin",
        ("neighbours",),
    ),
    LabelScore(
        "outlierness",
        lambda evidence: evidence.neighbours.outlierness,  # type: ignore[union-attr]
        True,
        "Distance to the nearest images; 1 is usual.",
        needs=("neighbours",),
    ),
    LabelScore(
        "disagreement",
        lambda evidence: evidence.held_out.disagreement,
        True,
        "Share of the runs predicting another label.",
    ),
    *(
        LabelScore(
            name, _image_property(name), True, f"{text} Says nothing about the label.", needs=("image_properties",)
        )
        for name, text in IMAGE_PROPERTIES.items()
    ),
]
"""All scores, in the order of the columns of a ranking."""


def register_score(score: LabelScore) -> None:
    """Adds a score to all rankings made from now on.

    Raises:
        ValueError: A score of this name, or of this kind of evidence, exists.
    """
    if any(score.name == other.name for other in SCORES):
        raise ValueError(f"a label score named {score.name!r} is already registered")
    if any(score.combine_as == other.combine_as for other in SCORES if score.combine_as):
        raise ValueError(f"the kind of evidence {score.combine_as!r} already has a score; choose another combine_as")
    SCORES.append(score)


@contextmanager
def registered(scores: Sequence[LabelScore]) -> Iterator[None]:
    """Registers further scores for a ``with`` block."""
    before = list(SCORES)
    try:
        for score in scores:
            register_score(score)
        yield
    finally:
        SCORES[:] = before
