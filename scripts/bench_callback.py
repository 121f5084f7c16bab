"""What AuditCallback costs in a plain Lightning project: whole runs with and without it, side by side.

    python scripts/bench_callback.py [--train 20000] [--val 5000] [--epochs 6] [--rounds 3]

A small convolutional network at 32 px on random pictures of 10 classes, tensors in memory, `trainer.fit` with two
loaders. With the callback, a run also ends in ranking, panels and report. Rounds alternate. A line each: the ratio of
both runs, in which a machine that others use shows, and the share of its run that the callback's own hooks took.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from mlfix_train import AuditCallback


class Module(L.LightningModule):
    """A classifier as a tutorial writes it."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[torch.nn.Module] = []
        for width, wider in ((3, 32), (32, 64), (64, 64)):
            layers += [torch.nn.Conv2d(width, wider, 3, padding=1), torch.nn.BatchNorm2d(wider), torch.nn.ReLU()]
            layers += [torch.nn.MaxPool2d(2)]
        self.net = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(1024, 10))

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


class TimedHooks(AuditCallback):
    """An AuditCallback that counts the seconds of its hooks, and of those after the last epoch."""

    seconds = at_end = 0.0

    HOOKS: ClassVar = [name for name in dir(AuditCallback) if name.startswith("on_") or name in ("setup", "teardown")]

    def __getattribute__(self, name: str) -> Any:
        """Returns a hook that is timed; anything else as it is."""
        found = super().__getattribute__(name)
        return partial(self.time, found) if name in TimedHooks.HOOKS else found

    def time(self, hook: Any, *args: Any, **kwargs: Any) -> None:
        """Calls a hook, and adds its seconds."""
        started = time.perf_counter()
        try:
            hook(*args, **kwargs)
        finally:
            took = time.perf_counter() - started
            self.seconds += took
            self.at_end += took if hook.__name__ == "on_train_end" else 0.0


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
    for name, default in (("train", 20_000), ("val", 5000), ("epochs", 6), ("rounds", 3)):
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
    ratios, shares = [], []
    with tempfile.TemporaryDirectory() as folder:
        fit(sets[1], sets[1], 1, [AuditCallback(Path(folder) / "warm", images=pictures)])
        for number in range(args.rounds):
            audit = TimedHooks(Path(folder) / str(number), images=pictures, probabilities=True)
            order = ([], [audit]) if number % 2 else ([audit], [])
            seconds = {bool(callbacks): fit(*sets, args.epochs, callbacks) for callbacks in order}
            ratios.append(seconds[True] / seconds[False])
            shares.append(audit.seconds / seconds[True])
            took = f"{seconds[False]:.1f} s without, {seconds[True]:.1f} s with"
            print(f"round {number}: {took}, ratio {ratios[-1]:.4f}", end="")
            print(f", in hooks {audit.seconds:.2f} s ({audit.at_end:.2f} s at the end): {shares[-1]:.2%}", flush=True)
    print(f"median ratio {statistics.median(ratios):.4f}, in hooks {statistics.median(shares):.2%}")


if __name__ == "__main__":
    main()
