"""A score of labels of the project's own: it becomes a column of the ranking."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mlfix_train.audit.scores.registry import Evidence, LabelScore


def ink_oddity(threshold: int = 128) -> LabelScore:
    """How far the bright area of an icon is from the median of its given label: crosses have less than squares."""

    def compute(evidence: Evidence) -> np.ndarray:
        samples = evidence.samples
        bright = [np.mean(np.asarray(Image.open(path).convert("RGB")).max(2) > threshold) for path in samples["path"]]
        ink = samples.assign(ink=bright)
        return (ink["ink"] - ink.groupby("label")["ink"].transform("median")).abs().to_numpy()

    description = "Distance of the bright area from the median of the label, 0 to 1."
    return LabelScore("ink_oddity", compute, True, description, needs=("samples",))
