"""The classifier task: trains on labels, and writes held-out predictions and an audit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import lightning as L
import pandas as pd

from mlfix_train.audit.callback import AuditCallback
from mlfix_train.data.fixes.table import fixes_fingerprint
from mlfix_train.data.loading.datamodule import DataModule
from mlfix_train.data.runs import RunDirectory
from mlfix_train.data.samples import table_fingerprint
from mlfix_train.training.tasks.base import describe_data

NEUTRAL = (("flip", 0.0), ("crop", 1.0), ("auto", False))
"""Settings of the augmentation that runs of before they existed have, too: they are not in the identity of either."""


class RunAudit(AuditCallback):
    """The audit of a run, whose user sets keys, not arguments, and that validates a finished checkpoint by itself."""

    remedies: ClassVar[Mapping[str, str]] = {
        "outputs": "return {'logits': logits} from the step; or set audit.outputs to the key of what the step returns "
        "that holds them, or to forward: what module(x) returned in the step",
        "class_names": "build the module with an output for each label: its argument `labels` gets their list",
    }

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Does not warn."""


class ClassifierTask:
    """Trains a classifier and audits its held-out predictions.

    Args:
        data: The samples, their split and the arm to train on.
        module: Builds the LightningModule from the list of classes.
        audit: Arguments of :class:`mlfix_train.audit.callback.AuditCallback`.
    """

    kind = "classifier"
    result_keys: tuple[str, ...] = ("held_out_error",)
    images_per_sample = 1

    def __init__(
        self,
        data: DataModule,
        module: Callable[[Sequence[str]], L.LightningModule],
        audit: Mapping[str, Any] | None = None,
    ) -> None:
        self.data = data
        self.build_module: Callable[[], L.LightningModule] = partial(module, data.labels)
        self._audit = dict(audit or {})

    def build_callback(self, directory: RunDirectory, title: str) -> Any:
        """Builds the callback that gathers the held-out predictions and writes the audit."""
        return RunAudit(directory.path, title, report=False, on_interrupt=False, log_prefix="val", **self._audit)

    def describe(self) -> dict[str, Any]:
        """Returns ``data``, ``fixes`` and ``labels`` for ``run.json``."""
        data, fixes = self.data, self.data.arm.fixes
        return {
            "data": describe_data(data, int(data.held_out.sum())),
            "fixes": None if fixes is None else {"count": len(fixes), "sha256": fixes_fingerprint(fixes)},
            "labels": data.labels,
        }

    def identity(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Returns arm, split, augmentation, sampling, and fingerprints of the samples and of the fixes used."""
        arm = self.data.arm
        used = arm.fixes if arm.name != "original" else None
        augment = {key: value for key, value in settings["augment"].items() if (key, value) not in NEUTRAL}
        return {
            **{key: settings[key] for key in ("arm", "split")},
            "augment": augment,
            "sampling": settings["loader"]["sampling"],
            "data": table_fingerprint(self.data.table),
            "fixes": None if used is None else fixes_fingerprint(used),
        }

    def is_complete(self, directory: RunDirectory) -> bool:
        """Returns whether the predictions are there."""
        return directory.predictions.exists()

    def result(self, directory: RunDirectory) -> dict[str, Any]:
        """Returns ``held_out_error``: percent of held-out samples whose prediction is not the given label."""
        rows = pd.read_parquet(directory.predictions, columns=["label", "pred"])
        return {"held_out_error": round(float(100 * (rows["label"] != rows["pred"]).mean()), 6)}
