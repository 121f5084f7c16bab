"""Tables of predictions: what one run predicts for each held-out sample, one row each.

Columns: ``sample_id``, ``split``, ``label`` (the given label, in every arm), ``pred``, ``loss`` (cross-entropy in nats,
higher is worse), ``prob`` (of the predicted label), ``label_prob`` (of the given label; both 0 to 1), ``margin`` (logit
of the given label minus the best other logit; below 0 if the prediction differs).

Shapes: N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.errors import RunError, format_list

COLUMNS = ("sample_id", "split", "label", "pred", "loss", "prob", "label_prob", "margin")
REQUIRED = ("sample_id", "label", "pred")
"""Columns that any table of predictions needs."""
SMALLEST_PROBABILITY = 1e-38
"""Probabilities are raised to this before their logarithm is taken."""


def score_logits(logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Scores given labels by logits.

    Args:
        logits: float ``(N, C)``, C >= 2.
        labels: int ``(N,)``, 0 to C - 1.

    Returns:
        ``pred`` (int64) and ``loss``, ``prob``, ``label_prob``, ``margin`` (float32), each ``(N,)``, as in the columns.
    """
    x = np.asarray(logits, dtype=np.float64)
    rows = np.arange(len(x))
    top = x.max(1)
    log_sum = top + np.log(np.exp(x - top[:, None]).sum(1))
    own = x[rows, labels]
    others = x.copy()
    others[rows, labels] = -np.inf
    loss = np.maximum(log_sum - own, 0.0)
    scores = {"loss": loss, "prob": np.exp(top - log_sum), "label_prob": np.exp(-loss), "margin": own - others.max(1)}
    return {"pred": x.argmax(1), **{name: value.astype(np.float32) for name, value in scores.items()}}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns probabilities, float16 ``(N, C)``; rows sum to 1 within rounding."""
    x = np.asarray(logits, dtype=np.float32)
    e = np.exp(x - x.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True), dtype=np.float16)


def predictions_table(
    sample_ids: Sequence[str] | np.ndarray,
    labels: np.ndarray,
    logits: np.ndarray,
    class_names: Sequence[str],
    split: str = "val",
) -> pd.DataFrame:
    """Builds a table of predictions.

    Args:
        sample_ids: N ids.
        labels: int ``(N,)``, given labels, indices into ``class_names``.
        logits: float ``(N, C)``.
        class_names: the C classes.
        split: name of the samples' split.

    Returns:
        N rows with :data:`COLUMNS`.
    """
    scores = score_logits(logits, labels)
    names = np.asarray(class_names, dtype=object)
    return pd.DataFrame(
        {
            "sample_id": np.asarray(sample_ids, dtype=object),
            "split": split,
            "label": names[labels],
            "pred": names[scores.pop("pred")],
            **scores,
        }
    )


def write_predictions(predictions: pd.DataFrame, path: str | Path) -> Path:
    """Writes predictions as Parquet, atomically; returns the path."""
    with atomic_path(path) as temporary:
        predictions.to_parquet(temporary, index=False)
    return Path(path)


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Reads the predictions of a run.

    Raises:
        RunError: The file is missing or damaged, lacks a column, or has a sample twice.
    """
    path = Path(path)
    try:
        table = pd.read_parquet(path)
    except FileNotFoundError:
        raise RunError(f"{path} does not exist: this run has no predictions", "let the run finish") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} can't be read: {error}", "delete the run directory and train it again") from error
    missing = [name for name in REQUIRED if name not in table.columns]
    if missing:
        raise RunError(f"{path} lacks the columns {format_list(missing)}", f"predictions have {', '.join(COLUMNS)}")
    check_unique(table, path)
    return table


def check_unique(predictions: pd.DataFrame, path: Path) -> None:
    """Checks that each sample has one prediction.

    Raises:
        RunError: Samples occur more than once; the first ones are named.
    """
    repeated = predictions["sample_id"][predictions["sample_id"].duplicated()]
    if len(repeated):
        problem = f"{path} names {len(repeated):,} sample(s) twice: {format_list(repeated, 3)}"
        raise RunError(problem, "keep one row per sample")
