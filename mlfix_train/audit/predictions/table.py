"""Predictions: what a run said of every held-out sample, one row each.

Columns: ``sample_id, split, label`` (the given label, in every arm), ``pred, loss`` (cross-entropy in nats, 0 or more,
higher is worse), ``prob`` (of the predicted label), ``label_prob`` (of the given label; both 0 to 1), ``margin``
(logit of the given label minus the best other logit; below 0 the prediction differs).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.errors import RunError, format_list

COLUMNS = ("sample_id", "split", "label", "pred", "loss", "prob", "label_prob", "margin")


def score_logits(logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Scores given labels by logits.

    Args:
        logits: float ``N,C``, C >= 2.
        labels: int ``N``, 0 to C - 1.

    Returns:
        ``pred`` (int64), ``loss``, ``prob``, ``label_prob``, ``margin`` (float32), each ``N``.
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
    """Returns probabilities, float16 ``N,C``, rows summing to 1 within rounding."""
    x = np.asarray(logits, dtype=np.float32)
    e = np.exp(x - x.max(1, keepdims=True))
    return (e / e.sum(1, keepdims=True)).astype(np.float16)


def predictions_table(
    sample_ids: Sequence[str], labels: np.ndarray, logits: np.ndarray, names: Sequence[str], split: str = "val"
) -> pd.DataFrame:
    """Builds the table of predictions.

    Args:
        sample_ids: N ids.
        labels: N given labels, as numbers into ``names``.
        logits: float ``N,C``.
        names: the C labels.
        split: what the held-out samples' split is called.

    Returns:
        N rows with :data:`COLUMNS`.
    """
    scores = score_logits(logits, labels)
    known = np.asarray(names, dtype=object)
    return pd.DataFrame(
        {
            "sample_id": np.asarray(sample_ids, dtype=object),
            "split": split,
            "label": known[labels],
            "pred": known[scores.pop("pred")],
            **scores,
        }
    )


def write_predictions(predictions: pd.DataFrame, path: str | Path) -> Path:
    """Writes predictions as Parquet, atomically; returns the path."""
    with atomic_path(path) as temporary:
        predictions.to_parquet(temporary, index=False)
    return Path(path)


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Reads predictions.

    Raises:
        RunError: the file is missing, damaged, lacks a column, or names a sample twice.
    """
    path = Path(path)
    try:
        table = pd.read_parquet(path)
    except FileNotFoundError:
        raise RunError(f"{path} does not exist: this run has no predictions", "let the run finish") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} can't be read: {error}", "delete the run directory, and train it again") from error
    missing = [name for name in ("sample_id", "label", "pred") if name not in table.columns]
    if missing:
        raise RunError(f"{path} lacks the columns {format_list(missing)}", f"predictions have {', '.join(COLUMNS)}")
    twice = table["sample_id"][table["sample_id"].duplicated()]
    if len(twice):
        raise RunError(
            f"{path} names {len(twice):,} sample(s) twice: {format_list(twice, 3)}", "each belongs there once"
        )
    return table
