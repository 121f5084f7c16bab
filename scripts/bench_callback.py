"""What AuditCallback costs in a plain Lightning project: whole runs with and without it, side by side.

    python scripts/bench_callback.py [--train 6000] [--val 1500] [--epochs 4] [--rounds 3]

A ResNet18 at 32 px on random pictures of 10 classes, tensors in memory, `trainer.fit` with two loaders. With the
callback, a run also ends in ranking, panels and report. Rounds alternate; a line each, then the median of the ratios.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import timm
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from mlfix_train import AuditCallback


class Module(L.LightningModule):
    """A classifier as a tutorial writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = timm.create_model("resnet18", num_classes=10)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Returns the loss."""
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Returns the logits."""
        logits: torch.Tensor = self.net(batch[0])
        return logits

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns AdamW."""
        return torch.optim.AdamW(self.parameters(), 1e-3)


def fit(train: TensorDataset, val: TensorDataset, epochs: int, callbacks: list[Any]) -> float:
    """Trains once; returns the seconds of ``trainer.fit``."""
    L.seed_everything(0, verbose=False)
    off = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = L.Trainer(max_epochs=epochs, accelerator="cpu", logger=False, callbacks=callbacks, **off)
    module = Module()
    started = time.perf_counter()
    trainer.fit(module, DataLoader(train, 128, shuffle=True), DataLoader(val, 256))
    return time.perf_counter() - started


def main() -> None:
    """Prints seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("train", 6000), ("val", 1500), ("epochs", 4), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    rng = torch.Generator().manual_seed(0)
    sets = []
    for count in (args.train, args.val):
        labels = torch.randint(0, 10, (count,), generator=rng)
        images = torch.rand(count, 3, 32, 32, generator=rng) * 0.5 + labels[:, None, None, None] / 20
        sets.append(TensorDataset(images, labels))
    pictures = (sets[1].tensors[0].permute(0, 2, 3, 1) * 255).byte().numpy()
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        fit(*sets, 1, [AuditCallback(Path(folder) / "warm", images=pictures)])
        for number in range(args.rounds):
            audit = AuditCallback(Path(folder) / str(number), images=pictures, probabilities=True)
            order = ([], [audit]) if number % 2 else ([audit], [])
            seconds = {bool(callbacks): fit(*sets, args.epochs, callbacks) for callbacks in order}
            ratios.append(seconds[True] / seconds[False])
            print(f"round {number}: {seconds[False]:.1f} s without, {seconds[True]:.1f} s with, ratio {ratios[-1]:.4f}")
    print(f"median ratio {statistics.median(ratios):.4f}")


if __name__ == "__main__":
    main()
