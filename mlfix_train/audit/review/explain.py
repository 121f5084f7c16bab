"""What the audit knows of one sample, in words."""

import math

from mlfix_train.audit.review.samples import FAULT, Samples

UNUSUAL = 0.95
"""Images whose outlier score is above those of this share of all are said to look unlike the others."""


def explain_sample(samples: Samples, row: int, probability: float | None = None) -> list[str]:
    """Returns sentences about a sample, what matters most first.

    Args:
        samples: of the review.
        row: of the sample.
        probability: that its label is wrong by the judged labels; ``None`` without them.
    """
    return [*_suspicion(samples, row, probability), *_predictions(samples, row), *_neighbours(samples, row)]


def _suspicion(samples: Samples, row: int, probability: float | None) -> list[str]:
    value = float(samples.suspicion[row]) if probability is None else probability
    if math.isnan(value):
        return ["The audit knows nothing of this image."] if samples.audited else []
    is_chance = probability is not None or samples.calibrated
    text = f"{_percent(value)} likely to be wrong" if is_chance else f"suspicion {_percent(value)}"
    return [f"{text[0].upper()}{text[1:]}, rank {int(samples.rank[row]) + 1:,} of {int((samples.rank >= 0).sum()):,}."]


def _predictions(samples: Samples, row: int) -> list[str]:
    given, suggested, predicted = (int(codes[row]) for codes in (samples.given, samples.suggested, samples.predicted))
    told = []
    if suggested >= 0:
        told.append(
            "All evidence together agrees with the given label."
            if suggested == given
            else f"All evidence together suggests {samples.label(suggested)}."
        )
    if predicted >= 0 and predicted != suggested:
        told.append(f"The models alone predict {samples.label(predicted)}.")
    confidence = _score(samples, "self_confidence", row)
    if confidence is not None:
        told.append(f"The models give the given label a chance of {_percent(confidence)}.")
    others, runs = _score(samples, "disagreement", row), _score(samples, "runs", row)
    if others and runs and runs > 1:
        told.append(f"{_percent(others).capitalize()} of the runs predict another label.")
    return told


def _neighbours(samples: Samples, row: int) -> list[str]:
    told = []
    disagreement, twins = (_score(samples, f"{name}_disagreement", row) for name in ("neighbour", "twin"))
    if disagreement is not None:
        copies = f" (near-copies: {_percent(twins)})" if twins else ""
        told.append(
            f"{_percent(disagreement).capitalize()} of the votes of similar images{copies} are for another label."
        )
    if samples.outlier_score is not None and not math.isnan(samples.outlier_score[row]):
        share = float((samples.outlier_score < samples.outlier_score[row]).mean())
        if share >= UNUSUAL:
            told.append(
                f"It looks unlike the other images of its label: more so than {math.floor(100 * share)}% of all."
            )
    if FAULT in samples.columns:
        codes, texts = samples.columns[FAULT]
        if texts[codes[row]]:
            told.append(f"Beside the label: {texts[codes[row]]}.")
    return told


def _score(samples: Samples, name: str, row: int) -> float | None:
    value = float(samples.scores[name][row]) if name in samples.scores else math.nan
    return None if math.isnan(value) else value


def _percent(share: float) -> str:
    if 0 < share < 0.005:
        return "less than 1%"
    return "more than 99%" if 0.995 <= share < 1 else f"{share:.0%}"
