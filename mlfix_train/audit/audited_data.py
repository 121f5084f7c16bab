"""What is known about the samples that a training validates. Shapes: N samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.audit.reporting.images import RowImages, dataset_classes, dataset_samples, is_made_of_others


@dataclass(frozen=True)
class AuditedData:
    """What is known about the samples that a training validates, from its DataModule and its dataset.

    Attributes:
        sample_ids: the samples that ``index`` counts; ``None``: only their numbers are known.
        class_names: in the order of the logits.
        images: rows as in ``sample_ids``, see :class:`mlfix_train.audit.reporting.images.Images`.
        groups: object ``(N,)``, likewise.
        n_rows: rows of the validation dataset, if known.
        of_parts: whether ``sample_ids`` are the rows of a ``Subset`` or ``ConcatDataset``, which may not be what an
            ``index`` in the batch counts.
        arm: what the training learns from, see :mod:`mlfix_train.data.arms`.
        all_fixes: the fixes that are known.
    """

    sample_ids: pd.Index | None = None
    class_names: list[str] | None = None
    images: Any = None
    groups: np.ndarray | None = None
    n_rows: int | None = None
    of_parts: bool = False
    arm: str = "original"
    all_fixes: pd.DataFrame | None = None

    @property
    def fixes(self) -> pd.DataFrame | None:
        """The fixes that the training used."""
        return None if self.arm == "original" else self.all_fixes

    @classmethod
    def find(cls, datamodule: Any, dataset: Any) -> AuditedData:
        """Reads the samples of a DataModule with a sample ``table``, or of an ``ImageFolder`` or parts of some."""
        n_rows = len(dataset) if hasattr(dataset, "__len__") else None
        table, labels = getattr(datamodule, "table", None), getattr(datamodule, "labels", None)
        if isinstance(table, pd.DataFrame):
            arm, groups = getattr(datamodule, "arm", None), table.get("group")
            return cls(
                sample_ids=pd.Index([str(name) for name in table.index], dtype=object),
                class_names=None if labels is None else [str(name) for name in labels],
                images=getattr(datamodule, "store", None),
                groups=None if groups is None else groups.to_numpy(dtype=object),
                n_rows=n_rows,
                arm=getattr(arm, "name", "original"),
                all_fixes=getattr(arm, "fixes", None),
            )
        folder = dataset_samples(dataset)
        if folder is None:
            return cls(class_names=dataset_classes(dataset) or None, n_rows=n_rows)
        ids, paths, names = folder
        if len(paths) != n_rows:
            return cls(class_names=names or None, n_rows=n_rows)
        index, of_parts = pd.Index(ids, dtype=object), is_made_of_others(dataset)
        return cls(index, names or None, RowImages(paths), n_rows=n_rows, of_parts=of_parts)
