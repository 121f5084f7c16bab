"""Training dynamics: the area under the margin of every training sample, collected while a network learns.

A network learns correct labels early and wrong ones late, against its other samples. So the margin of the given label,
averaged over every time a sample is trained on, is low if the label is wrong (Pleiss et al., "Identifying Mislabeled
Data using the Area Under the Margin Ranking", NeurIPS 2020). It is an in-sample score: it judges the samples that a run
trained on, while predictions judge those that it held out.

Shapes: N samples of the table, B samples of a batch, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.errors import RunError, format_list

COLUMNS = ("sample_id", "label", "aum", "times")


def margins(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns the logit of the label (int64 ``(B,)``) minus the best other logit (``(B, C)``), float32 ``(B,)``."""
    column = labels[:, None]
    x = logits.float()
    own = x.gather(1, column).squeeze(1)
    return own - x.scatter(1, column, -torch.inf).amax(1)


class MarginMeter:
    """Sums up the margins of samples over a training, on the device and without synchronizing with it.

    Args:
        n_samples: N.
        device: device of the sums.

    Attributes:
        total: float32 ``(2, N)``, sum of margins and number of times seen, over all processes.
        current: the same, of the current epoch and this process.
        label: int64 ``(N,)``, code of the label that a sample was last trained with; -1 before.
    """

    def __init__(self, n_samples: int, device: torch.device | str = "cpu") -> None:
        self.total = torch.zeros(2, n_samples, device=device)
        self.current = torch.zeros_like(self.total)
        self.label = torch.full((n_samples,), -1, device=device)

    def state(self) -> dict[str, torch.Tensor]:
        """Returns the sums over all epochs that have ended, for a checkpoint."""
        return {"margins": self.total.cpu(), "labels": self.label.cpu()}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Continues from :meth:`state`; a state of another number of samples is not used."""
        if "labels" in state and state["margins"].shape == self.total.shape:
            self.total += state["margins"].to(self.total.device)
            self.label.copy_(state["labels"])

    def add(self, logits: torch.Tensor, labels: torch.Tensor, index: torch.Tensor) -> None:
        """Adds a training batch: logits ``(B, C)``, int64 labels ``(B,)``, int64 rows of the table ``(B,)``."""
        with torch.no_grad():
            found = margins(logits, labels)
            self.current.index_add_(1, index, torch.stack([found, torch.ones_like(found)]))
            self.label[index] = labels

    def end_epoch(self) -> None:
        """Adds up the epoch over all processes; every process must call it."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self.current)
            torch.distributed.all_reduce(self.label, torch.distributed.ReduceOp.MAX)
        self.total += self.current
        self.current.zero_()

    def table(self, sample_ids: Sequence[str] | np.ndarray | pd.Index, class_names: Sequence[str]) -> pd.DataFrame:
        """Returns one row per sample that was trained on.

        Args:
            sample_ids: N ids.
            class_names: the C classes.

        Returns:
            Columns ``sample_id``, ``label`` (that it was trained with), ``aum`` (mean margin in logits, lower is
            worse), ``times`` (seen).
        """
        sums, times = self.total.cpu().numpy().astype(np.float64)
        seen = times > 0
        return pd.DataFrame(
            {
                "sample_id": np.asarray(sample_ids, dtype=object)[seen],
                "label": np.asarray(class_names, dtype=object)[self.label.cpu().numpy()[seen]],
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
        RunError: The file can't be read, or lacks a column.
    """
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        hint = f"delete it to audit without this run's area under the margin: rm '{path}'"
        raise RunError(f"{path} can't be read: {str(error).splitlines()[0]}", hint) from error
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise RunError(f"{path} lacks the columns {format_list(missing)}", "delete it, or train the run again")
    return table
