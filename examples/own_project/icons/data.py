"""The project's data: a reader for ``mlfix``, a plain dataset for Lightning, and a DataModule of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import Dataset

from mlfix_train.data.loading.datamodule import DataModule
from mlfix_train.data.samples import make_table


def read_icons(root: str, file: str = "labels.tsv") -> pd.DataFrame:
    """Reads a folder of pictures with a list of labels: ``data._target_=icons.data.read_icons data.root=pictures``."""
    names, labels = zip(*(line.split("\t") for line in Path(root, file).read_text().splitlines()), strict=True)
    paths = [str(Path(root, name).absolute()) for name in names]
    return make_table(names, paths, labels, source=root)


class IconDataset(Dataset):
    """Pictures and class numbers, as any Lightning project has them."""

    def __init__(self, table: pd.DataFrame, classes: list[str]) -> None:
        pixels = np.stack([np.asarray(Image.open(path).convert("RGB"), np.float32) / 255 for path in table["path"]])
        self.images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        self.labels = torch.tensor([classes.index(label) for label in table["label"]])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {"image": self.images[row], "label": self.labels[row]}


class MirroringDataModule(DataModule):
    """mlfix-train's DataModule with an augmentation of the project's: half of the training icons are mirrored.

    ``datamodule._target_=icons.data.MirroringDataModule datamodule.share=0.5``
    """

    def __init__(self, share: float = 0.5, **options: object) -> None:
        super().__init__(**options)
        self.share, self.mirrored = share, 0

    def on_after_batch_transfer(self, batch: dict[str, torch.Tensor], dataloader_idx: int) -> dict[str, torch.Tensor]:
        """Mirrors, then augments and normalizes as mlfix-train does."""
        if self.is_training:
            chosen = torch.rand(len(batch["image"])) < self.share
            batch["image"][chosen] = batch["image"][chosen].flip(-1)
            self.mirrored += int(chosen.sum())
        return super().on_after_batch_transfer(batch, dataloader_idx)
