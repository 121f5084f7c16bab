"""Measures the loop: the help text, the pixel store, memory, and a training epoch against a bare loop.

    python scripts/bench_loop.py <folder of class folders>

Prints one line a figure. The training epoch (ResNet18, 32 px) and the bare loop over random tensors (same model,
precision and batch) take turns in one run, and their ratio is what counts: machines are noisy.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Runs all measurements."""
    parser = argparse.ArgumentParser(description="Measures the loop's figures.")
    parser.add_argument("root", help="folder of class folders, such as GTSRB")
    parser.add_argument("--steps", type=int, default=40, help="training steps a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    measure_help()
    with tempfile.TemporaryDirectory() as work:
        measure_store(options.root, Path(work))
        measure_memory(Path(work))
        measure_epoch(options.root, Path(work), options.steps, options.rounds)


def measure_help() -> None:
    """`mlfix --help`, the whole process, median of 5."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "mlfix_train.cli.main", "--help"], check=True, capture_output=True, cwd=ROOT
        )
        times.append(time.perf_counter() - start)
    print(f"mlfix --help: {statistics.median(times):.2f} s (promised: under 1)", flush=True)


def measure_store(root: str, work: Path) -> None:
    """Building the pixel store at 32 px, and opening it again in a new process."""
    from mlfix_train.data.pixels.store import PixelSpec, open_store
    from mlfix_train.data.readers.folder import read_folder

    table = read_folder(root)
    start = time.perf_counter()
    open_store(table, PixelSpec(size=32), work / "pixels")
    print(
        f"pixel store of {len(table):,} images: built in {time.perf_counter() - start:.1f} s (promised: 12)", flush=True
    )
    times = []
    for _ in range(5):
        start = time.perf_counter()
        open_store(table, PixelSpec(size=32), work / "pixels")
        times.append(time.perf_counter() - start)
    print(
        f"pixel store: reopened in {statistics.median(times):.2f} s, every file's time and size looked at "
        "(promised: 0.5)",
        flush=True,
    )


def measure_memory(work: Path) -> None:
    """Resident memory while random batches are read from stores of growing size."""
    code = """
import resource, sys, json
import numpy as np
from pathlib import Path
from mlfix_train.data.pixels.store import PixelStore
folder, n = Path(sys.argv[1]), int(sys.argv[2])
folder.mkdir()
with open(folder / 'pixels.npy', 'wb') as file:
    np.lib.format.write_array_header_1_0(file, {'descr': '|u1', 'fortran_order': False, 'shape': (n, 40, 40, 3)})
    block = np.zeros(10_000 * 4800, np.uint8)
    for _ in range(n // 10_000):
        file.write(block)
(folder / 'store.json').write_text(json.dumps({'fingerprint': '', 'unreadable': {}}))
del block
store, rng = PixelStore(folder), np.random.default_rng(0)
def resident():
    return int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize() / 2**20
before, most = resident(), 0
for _ in range(n * 2 // 1000):
    store[rng.integers(n, size=1000)]
    most = max(most, resident())
print(f'{most - before:.0f}')
"""
    for n in (50_000, 200_000, 800_000):
        with tempfile.TemporaryDirectory(dir=work) as folder:
            grown = subprocess.run(
                [sys.executable, "-c", code, f"{folder}/store", str(n)],
                capture_output=True,
                text=True,
                check=True,
                cwd=ROOT,
            ).stdout.strip()
        print(
            f"reading a store of {n * 4800 / 2**20:,.0f} MB at random: resident memory grows by {grown} MB", flush=True
        )


def measure_epoch(root: str, work: Path, steps: int, rounds: int) -> None:
    """The train command's own Trainer, DataModule and model against a bare loop, turn by turn."""
    import torch
    import torch.nn.functional as F

    from mlfix_train.commands.train import build_task
    from mlfix_train.config.compose import load
    from mlfix_train.config.overrides import assign
    from mlfix_train.data.runs import RunDirectory
    from mlfix_train.models.schedules import parameter_groups
    from mlfix_train.training.trainer import best_precision, build_trainer

    keys = [
        "model=resnet18",
        "model.pretrained=false",
        "recipe=scratch",
        "recipe.epochs=1",
        "pixels.size=32",
        "logger=none",
    ]
    keys += [
        assign("data.root", root),
        assign("pixels.cache", work / "pixels"),
        assign("outputs", work),
    ]
    cfg = load("train", keys)
    precision = best_precision("cpu")
    batch = cfg.loader.batch_size
    task = build_task(cfg)
    data: Any = task.data
    ratios = []
    for number in range(rounds):
        clock = _Clock()
        limits = {"limit_train_batches": steps, "limit_val_batches": 0}
        run = RunDirectory(work / f"run{number}")
        trainer = build_trainer(run, 1, {**cfg.trainer, **limits}, callbacks=[clock])
        trainer.fit(task.build_module(), datamodule=data)
        ours = clock.rate(batch)
        bare: Any = task.build_module().network.train()  # type: ignore[union-attr]
        optimizer = torch.optim.AdamW(parameter_groups(bare.backbone, bare.head, 0.05), lr=1e-3, fused=True)
        images = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
        labels = torch.randint(len(data.labels), (batch,))
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision.startswith("bf16")):
                logits = bare(images)
            loss = F.cross_entropy(logits.float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            times.append(time.perf_counter() - start)
        loop = batch / statistics.median(times[3:])
        ratios.append(ours / loop)
        print(
            f"ResNet18, 32 px, batch {batch}, {precision}: ours {ours:.0f}, bare loop {loop:.0f} samples/s, "
            f"ratio {ratios[-1]:.2f}",
            flush=True,
        )
    print(f"training epoch against a bare loop: median ratio {statistics.median(ratios):.2f} (promised: 0.90)")
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:,.0f} MB")


class _Clock:
    """Times the steps of a Trainer, from the end of one to the end of the next, as a callback."""

    def __new__(cls) -> _Clock:
        """Makes the callback (Lightning is imported only now)."""
        import lightning as L

        class Clock(L.Callback):
            def __init__(self) -> None:
                self.ends: list[float] = []

            def on_train_batch_end(self, *_: object) -> None:
                self.ends.append(time.perf_counter())

            def rate(self, batch: int) -> float:
                steps = [b - a for a, b in zip(self.ends[3:], self.ends[4:], strict=False)]
                return batch / statistics.median(steps)

        return Clock()  # type: ignore[return-value]


if __name__ == "__main__":
    main()
