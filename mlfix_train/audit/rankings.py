"""Rankings: held-out samples, the least believable label first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mlfix_train.data.atomic import atomic_path
from mlfix_train.errors import DataError, RunError, listing

COLUMNS = (
    "sample_id", "given_label", "predicted_label", "suspicion", "label_score", "is_label_issue", "rank", "slice",
    "loss", "margin", "label_prob", "disagreement", "runs",
)  # fmt: skip


def rank_samples(runs: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Ranks samples by their mean loss over the runs that held them out.

    ``label_score`` is exp(-mean loss), the geometric mean of the given label's probability: 0 to 1, lower is worse, as
    in cleanlab. ``suspicion`` is 1 - label_score: 0 to 1, higher is worse. ``predicted_label`` is the label that most
    runs predict (ties: the surest); ``is_label_issue`` says that it is not the given one. ``disagreement`` is the
    share of runs that predict another label than the given one.

    Args:
        runs: one or more tables of predictions (see :mod:`mlfix_train.audit.predictions`).

    Returns:
        One row a sample with :data:`COLUMNS`, most suspicious first, ``rank`` from 1.

    Raises:
        RunError: no runs, or two runs that give one sample different labels.
        DataError: a loss that is no number.
    """
    if not runs:
        raise RunError("there are no predictions to rank", "train a run first")
    rows = pd.concat(runs, ignore_index=True)
    missing = [name for name in ("pred", "loss", "prob", "label_prob", "margin") if name not in rows.columns]
    if missing:
        raise RunError(f"the predictions lack the columns {listing(missing)}", "rank the predictions of mlfix train")
    bad = rows["sample_id"][~np.isfinite(rows["loss"].to_numpy(dtype=np.float64))]
    if len(bad):
        raise DataError(f"{len(bad):,} predictions have a loss that is no number: {listing(bad, 3)}", "train again")
    by_sample = rows.groupby("sample_id", sort=False)
    labels = by_sample["label"].agg(["first", "nunique"])
    torn = labels.index[labels["nunique"] > 1]
    if len(torn):
        raise RunError(
            f"the runs disagree on the given label of {len(torn):,} sample(s): {listing(torn, 3)}",
            "rank only runs of one data set together",
        )
    wrong = (rows["pred"] != rows["label"]).groupby(rows["sample_id"], sort=False).mean()
    means = by_sample[["loss", "margin", "label_prob"]].mean().astype(np.float64)
    score = np.exp(-means["loss"])
    table = pd.DataFrame(
        {
            "given_label": labels["first"],
            "predicted_label": _vote(rows).reindex(labels.index),
            "suspicion": -np.expm1(-means["loss"]),
            "label_score": score,
            **{name: means[name] for name in ("loss", "margin", "label_prob")},
            "disagreement": wrong,
            "runs": by_sample.size(),
        }
    )
    table["is_label_issue"] = table["predicted_label"] != table["given_label"]
    table["slice"] = table["given_label"].astype(str) + " → " + table["predicted_label"].astype(str)
    table = table.reset_index().sort_values(["loss", "sample_id"], ascending=[False, True], kind="stable")
    table["rank"] = np.arange(1, len(table) + 1)
    return table[list(COLUMNS)].reset_index(drop=True)


def _vote(rows: pd.DataFrame) -> pd.Series:
    """The most frequent prediction of each sample; of several, the one with the highest summed probability."""
    votes = rows.groupby(["sample_id", "pred"], sort=False)["prob"].agg(["size", "sum"]).reset_index()
    votes = votes.sort_values(["size", "sum", "pred"], ascending=[False, False, True], kind="stable")
    return votes.drop_duplicates("sample_id").set_index("sample_id")["pred"]


def write_ranking(ranking: pd.DataFrame, path: str | Path) -> Path:
    """Writes a ranking as CSV, atomically; returns the path."""
    with atomic_path(path) as temporary:
        ranking.to_csv(temporary, index=False, float_format="%.7g")
    return Path(path)
