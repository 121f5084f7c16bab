"""Training dynamics: the area under the margin of every training sample, gathered while a network learns.

A network learns right labels early and wrong ones late, against its other samples: the margin of the given label,
averaged over all times that a sample was trained on, is low for a wrong label (Pleiss et al., "Identifying Mislabeled
Data using the Area Under the Margin Ranking", NeurIPS 2020). It is an in-sample score: it speaks of samples that a run
trained on, and predictions of those that it held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.errors import RunError, format_list

COLUMNS = ("sample_id", "label", "aum", "times")


def margins(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns the logit of the label minus the best other logit, float32 ``N``, on the logits' device.

    Args:
        logits: ``N,C``, C >= 2.
        labels: int64 ``N``.
    """
    column = labels[:, None]
    x = logits.float()
    own = x.gather(1, column).squeeze(1)
    return own - x.scatter(1, column, -torch.inf).amax(1)


class MarginMeter:
    """Sums the margins of samples over a training, on the device, without waiting for it.

    Args:
        count: samples of the table, N.
        device: where the sums lie.
    """

    def __init__(self, count: int, device: torch.device | str = "cpu") -> None:
        self.total = torch.zeros(2, count, device=device)  # sum of margins, times seen; over all processes
        self.fresh = torch.zeros_like(self.total)  # the same of this epoch and process

    def add(self, logits: torch.Tensor, labels: torch.Tensor, index: torch.Tensor) -> None:
        """Takes in a training batch: logits ``n,C``, labels ``n``, rows of the table ``n``."""
        with torch.no_grad():
            found = margins(logits, labels)
            self.fresh.index_add_(1, index, torch.stack([found, torch.ones_like(found)]))

    def end_epoch(self) -> None:
        """Brings the sums of all processes together; every process calls it."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self.fresh)
        self.total += self.fresh
        self.fresh.zero_()

    def table(self, ids: Sequence[str] | np.ndarray, labels: Sequence[str] | np.ndarray) -> pd.DataFrame:
        """Returns a row for each sample that was trained on.

        Args:
            ids: N sample ids.
            labels: N labels that they were trained with.

        Returns:
            Columns ``sample_id``, ``label``, ``aum`` (mean margin in logits, lower is worse), ``times`` (seen).
        """
        sums, times = self.total.cpu().numpy().astype(np.float64)
        seen = times > 0
        return pd.DataFrame(
            {
                "sample_id": np.asarray(ids, dtype=object)[seen],
                "label": np.asarray(labels, dtype=object)[seen],
                "aum": (sums[seen] / times[seen]).astype(np.float32),
                "times": times[seen].astype(np.int32),
            }
        )


def write_dynamics(dynamics: pd.DataFrame, path: str | Path) -> Path:
    """Writes training dynamics as Parquet, atomically; returns the path."""
    with atomic_path(path) as temporary:
        dynamics.to_parquet(temporary, index=False)
    return Path(path)


def read_dynamics(path: str | Path) -> pd.DataFrame:
    """Reads training dynamics.

    Raises:
        RunError: the file can't be read, or lacks a column.
    """
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        hint = f"delete it: the audit goes without the run's area under the margin: rm '{path}'"
        raise RunError(f"{path} can't be read: {str(error).splitlines()[0]}", hint) from error
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise RunError(f"{path} lacks the columns {format_list(missing)}", "delete it, or train the run again")
    return table
