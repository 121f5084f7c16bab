"""The interface between a run and what it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import lightning as L

from mlfix_train.data.runs import RunDirectory
from mlfix_train.data.samples import table_fingerprint


def describe_data(data: Any, held_out: int) -> dict[str, Any]:
    """Returns the entry ``data`` of ``run.json``: a fingerprint of the samples, and counts."""
    counts = {"samples": len(data.table), "held_out": held_out, "labels": len(data.labels)}
    return {"fingerprint": table_fingerprint(data.table), **counts}


class TrainingTask(Protocol):
    """What :func:`mlfix_train.training.run.train_run` needs from the task that it trains.

    Attributes:
        kind: Value of ``kind`` in ``run.json``.
        result_keys: Keys of :meth:`result`.
        images_per_sample: Images that pass through the network for one sample of a batch.
        data: The DataModule, with ``table``, ``labels`` and ``loader``.
        build_module: Builds the LightningModule; called once torch is seeded, as its weights are drawn at random.
    """

    kind: str
    result_keys: tuple[str, ...]
    images_per_sample: int
    data: Any
    build_module: Callable[[], L.LightningModule]

    def build_callback(self, directory: RunDirectory, title: str) -> Any:
        """Builds the Lightning callback that turns validation outputs into the files of a run.

        Its ``has_results`` is whether a validation has ended, on any rank.
        """

    def describe(self) -> dict[str, Any]:
        """Returns the entries of ``run.json`` about the inputs: ``data``, ``fixes`` and ``labels``."""

    def identity(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the task's own part of the identity, see :func:`mlfix_train.training.identity.run_identity`."""

    def is_complete(self, directory: RunDirectory) -> bool:
        """Returns whether a finished run still has the files that later steps need."""

    def result(self, directory: RunDirectory) -> dict[str, Any]:
        """Returns the headline numbers of a finished run for ``run.json``."""
