"""What the tests of networks and trainings share: one thread, a folder of tiny pictures, a toy DataModule."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mlfix_train.data.samples import make_table


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """60 PNGs of three labels, 16 px, a color for each label beneath noise."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    ids, labels = [], []
    for number in range(60):
        label = ("blue", "green", "red")[number % 3]
        pixels = rng.integers(0, 120, (16, 16, 3), dtype=np.uint8)
        pixels[..., 2 - number % 3] += 100
        name = f"{label}/{number:02d}.png"
        (root / label).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(root / name)
        ids.append(name)
        labels.append(label)
    return make_table(ids, [str(root / name) for name in ids], labels)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


class Toy(L.LightningDataModule):
    """Four batches of six random images an epoch; ``poison`` gives (epoch, batch) an image of NaN."""

    def __init__(self, seed: int = 0, poison: tuple[int, int] | None = None, batches: int = 4) -> None:
        super().__init__()
        self.seed, self.poison, self.batches = seed, poison, batches

    def batch(self, number: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(100 + number)
        image = torch.randn(6, 3, 16, 16, generator=generator)
        label = torch.randint(3, (6,), generator=generator)
        return {"image": image, "label": label, "index": torch.arange(6) + 6 * number}

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        return torch.utils.data.DataLoader([self.batch(i) for i in range(self.batches)], batch_size=None)

    def on_before_batch_transfer(self, batch: dict[str, torch.Tensor], dataloader_idx: int) -> dict[str, torch.Tensor]:
        assert self.trainer is not None
        here = (self.trainer.current_epoch, int(batch["index"][0]) // 6)
        if here == self.poison:
            batch = {**batch, "image": torch.full_like(batch["image"], torch.nan)}
        return batch


@pytest.fixture
def toy() -> type[Toy]:
    return Toy


@pytest.fixture
def quiet_trainer(tmp_path: Path):
    """Makes Trainers that train on the CPU and write nothing unless told to."""

    def make(epochs: int, **options: object) -> L.Trainer:
        settings = {
            "max_epochs": epochs,
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "num_sanity_val_steps": 0,
            "use_distributed_sampler": False,
            "default_root_dir": tmp_path,
        }
        return L.Trainer(**{**settings, **options})  # type: ignore[arg-type]

    return make
