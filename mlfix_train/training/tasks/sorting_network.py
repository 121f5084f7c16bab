"""The sorting-network task: image similarity is learned without labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import pandas as pd

from mlfix_train.audit.similarity.callback import NeighbourCallback
from mlfix_train.data.loading.views import ViewDataModule
from mlfix_train.data.runs import RunDirectory
from mlfix_train.training.checkpoints import weights_path
from mlfix_train.training.tasks.base import describe_data


class SortingNetworkTask:
    """Trains a sorting network, which ``mlfix sort network=<run>`` then uses.

    Args:
        data: The samples; their labels only measure how often nearest neighbours agree.
        module: Builds the LightningModule.
    """

    kind = "sorting_network"
    result_keys: tuple[str, ...] = ("agreement",)
    images_per_sample = 2

    def __init__(self, data: ViewDataModule, module: Callable[[], L.LightningModule]) -> None:
        self.data = data
        self.build_module = module

    def build_callback(self, directory: RunDirectory, title: str) -> Any:
        """Builds the callback that draws nearest neighbours."""
        return NeighbourCallback(directory.path, title)

    def describe(self) -> dict[str, Any]:
        """Returns ``data``, ``fixes`` and ``labels`` for ``run.json``."""
        return {"data": describe_data(self.data, held_out=0), "fixes": None, "labels": self.data.labels}

    def identity(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the views and a fingerprint of the sample ids.

        Labels are not part of it: the network never sees them, so fixing some leaves it as it is.
        """
        names = "\n".join(self.data.table.index)
        return {"views": settings["views"], "data": hashlib.sha256(names.encode()).hexdigest()}

    def is_complete(self, directory: RunDirectory) -> bool:
        """Returns whether the weights are there."""
        return weights_path(directory).exists()

    def result(self, directory: RunDirectory) -> dict[str, Any]:
        """Returns ``agreement``: percent of nearest neighbours with the same label, ``None`` without labels."""
        rows = pd.read_csv(directory.path / "metrics.csv")
        if "val_agreement" not in rows or rows["val_agreement"].isna().all():
            return {"agreement": None}
        return {"agreement": round(float(rows["val_agreement"].dropna().iloc[-1]), 3)}
