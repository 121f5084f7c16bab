"""Everything worth measuring on a GPU, in one call; `scripts/bench_gpu.sh` runs it. Prints one table.

    python scripts/bench_gpu.py [--out $OUT] [--toy] [--minutes 8]

ResNet50 at 40 px on random pictures that lie on the device: rates by batch, precision and compile, bare; what Lightning
and the audit take; one full epoch at MTSD's size (206,386 pictures, 401 labels) by the very DataModule, module and
callbacks of `mlfix train`, and what 40 runs of 16 epochs come to; two runs side by side; the sorting network; 20
nearest neighbours among 200,000 points. A part that fails is named with its reason, and the others go on; parts that
would begin after the time is up are left out, and named. `--toy` tries all of it in small on a CPU.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RUNS, EPOCHS = 40, 16


class Bench:
    """Sizes, the time that is left, and the rows found.

    Args:
        toy: everything small.
        minutes: after which no part begins.
        out: folder for ``bench_gpu.md`` and the profile.
    """

    def __init__(self, toy: bool, minutes: float, out: Path) -> None:
        self.toy, self.out = toy, out
        self.until = time.monotonic() + 60 * minutes
        self.rows: list[tuple[str, str]] = []
        self.samples, self.labels = (2_000, 12) if toy else (206_386, 401)
        self.backbone, self.batch = ("mlfix_small", 64) if toy else ("resnet50", 1024)
        self.epoch_rate = self.bare_rate = 0.0

    def row(self, what: str, value: str) -> None:
        """Notes and prints a row."""
        self.rows.append((what, value))
        print(f"{what:<66} {value}", flush=True)

    def part(self, name: str, work: Callable[[], None]) -> None:
        """Runs a part unless the time is up."""
        if time.monotonic() > self.until:
            self.row(name, "left out: the time was up")
            return
        try:
            work()
        except Exception as error:
            traceback.print_exc()
            self.row(name, f"failed: {type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}")
        if DEVICE == "cuda":
            torch.cuda.empty_cache()

    def write(self) -> None:
        """Writes the table."""
        lines = ["| what | measured |", "| --- | --- |", *(f"| {what} | {value} |" for what, value in self.rows)]
        (self.out / "bench_gpu.md").write_text("\n".join(lines) + "\n")
        print("\n" + "\n".join(lines))


def wait() -> None:
    """Waits for the device."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def bare_step(
    bench: Bench, batch: int, precision: str, compiled: bool, augmented: bool = True
) -> Callable[[int], None]:
    """Returns a step of a bare loop over pictures on the device."""
    from mlfix_train.data.loading.augment import IMAGENET_MEAN, IMAGENET_STD, augment, channel_tensors, normalize
    from mlfix_train.data.loading.spec import AugmentSpec
    from mlfix_train.models.backbones.network import Network

    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    network = Network(bench.backbone, bench.labels, "linear" if bench.toy else "concat_pool").to(DEVICE)
    if compiled:
        network.compile()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, betas=(0.95, 0.99), eps=1e-5, fused=True)
    images = torch.randint(0, 256, (4 * batch, 40, 40, 3), dtype=torch.uint8, device=DEVICE)
    target = torch.randint(0, bench.labels, (4 * batch,), device=DEVICE)
    spec = AugmentSpec()

    def step(number: int) -> None:
        rows = torch.arange(number % 4 * batch, (number % 4 + 1) * batch, device=DEVICE)
        x = images[rows].permute(0, 3, 1, 2)
        x = augment(x, spec, number) if augmented else x
        x = normalize(x, *channel_tensors(IMAGENET_MEAN, IMAGENET_STD, x.device))
        with torch.autocast(DEVICE, torch.bfloat16, enabled=precision == "bf16"):
            logits = network(x)
        loss = F.cross_entropy(logits.float(), target[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def rate_of(step: Callable[[int], None], batch: int, seconds: float) -> float:
    """Returns samples per second over some seconds, after steps that warm up."""
    for number in range(4):
        step(number)
    wait()
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds or count < 4:
        for _ in range(4):
            step(count)
            count += 1
        wait()
    return count * batch / (time.perf_counter() - begin)


def throughput(bench: Bench) -> None:
    """Rates by batch, precision and compile."""
    seconds = 0.5 if bench.toy else 3.0
    for batch in (32, 64) if bench.toy else (128, 256, 512, 1024, 2048, 4096):
        found = rate_of(bare_step(bench, batch, "bf16", False), batch, seconds)
        bench.row(f"bare loop, bfloat16, batch {batch:,}", f"{found:,.0f} images/s")
    for precision in ("tf32", "fp32"):
        found = rate_of(bare_step(bench, bench.batch, precision, False), bench.batch, seconds)
        bench.row(f"bare loop, {precision}, batch {bench.batch:,}", f"{found:,.0f} images/s")
    found = rate_of(bare_step(bench, bench.batch, "bf16", False, augmented=False), bench.batch, seconds)
    bench.row(f"bare loop, bfloat16, batch {bench.batch:,}, no augmentation", f"{found:,.0f} images/s")


def compiled(bench: Bench) -> None:
    """The rate with the network compiled, and what compiling takes."""
    step = bare_step(bench, bench.batch, "bf16", True)
    begin = time.perf_counter()
    step(0)
    wait()
    took = time.perf_counter() - begin
    bench.bare_rate = rate_of(step, bench.batch, 0.5 if bench.toy else 4.0)
    bench.row(
        f"bare loop, bfloat16, batch {bench.batch:,}, compiled",
        f"{bench.bare_rate:,.0f} images/s (first step {took:.0f} s)",
    )


def fake_data(bench: Bench, work: Path) -> Any:
    """Returns a DataModule of random pictures at MTSD's size, labels as unevenly spread as its are."""
    from mlfix_train.data.loading.datamodule import DataModule
    from mlfix_train.data.loading.spec import AugmentSpec, LoaderSpec
    from mlfix_train.data.pixels.store import PixelSpec, PixelStore

    rng = np.random.default_rng(0)
    folder = work / "store"
    folder.mkdir()
    pixels = np.lib.format.open_memmap(folder / "pixels.npy", "w+", np.uint8, (bench.samples, 40, 40, 3))
    for start in range(0, bench.samples, 10_000):
        part = pixels[start : start + 10_000]
        part[:] = rng.integers(0, 256, part.shape, dtype=np.uint8)
    pixels.flush()
    (folder / "store.json").write_text(json.dumps({"fingerprint": "random", "unreadable": {}}))
    weights = 1 / (1 + np.arange(bench.labels))
    codes = np.concatenate(
        [np.arange(bench.labels), rng.choice(bench.labels, bench.samples - bench.labels, p=weights / weights.sum())]
    )
    ids = [f"label-{code:03d}/{number}.jpg" for number, code in enumerate(codes)]
    index = pd.Index(ids, name="sample_id")
    table = pd.DataFrame(
        {"path": ids, "label": [f"label-{code:03d}" for code in codes], "group": ids, "split": ""}, index=index
    )
    held_out = np.zeros(bench.samples, bool)
    held_out[rng.permutation(bench.samples)[: bench.samples // 5]] = True
    held = True if bench.toy else "auto"
    loader = LoaderSpec(batch_size=bench.batch, eval_batch_size=2 * bench.batch, cache_on_device=held)
    data = DataModule(table, held_out, work / "cache", pixels=PixelSpec(40), loader=loader, augmentation=AugmentSpec())
    data.store = PixelStore(folder)
    return data


def full_epoch(bench: Bench) -> None:
    """Two epochs by the training path of `mlfix train`; the second is what counts."""
    from mlfix_train.audit.callback import AuditCallback
    from mlfix_train.commands.train import build_module
    from mlfix_train.config.compose import load
    from mlfix_train.data.runs import RunDirectory
    from mlfix_train.training.progress import MetricsRecorder
    from mlfix_train.training.trainer import build_trainer

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = fake_data(bench, work)
        keys = [
            "data.root=x",
            "model.pretrained=false",
            "recipe.epochs=2",
            "recipe.frozen_epochs=0",
            f"outputs={work}",
            "logger=none",
            "model.compile=true",
        ]
        keys += ["model=small", "model.compile=false"] if bench.toy else []
        cfg = load("train", keys)
        model = build_module(cfg, labels=data.labels)
        directory = RunDirectory(work / "run")
        directory.path.mkdir()
        audit = AuditCallback(directory.path, "benchmark", n_panels=0, report=False)
        recorder = MetricsRecorder(directory.path / "metrics.csv")
        fit = build_trainer(directory, 2, cfg.trainer, callbacks=[audit, recorder])
        begin = time.perf_counter()
        fit.fit(model, datamodule=data)
        whole = time.perf_counter() - begin
        with open(directory.path / "metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
    second = rows[-1]
    rate, seconds = float(second["samples_per_second"]), float(second["seconds"])
    held = "held on the device" if type(fit.train_dataloader).__name__ == "DeviceBatches" else "read batch by batch"
    bench.row(
        f"mlfix train, {bench.samples:,} pictures, {held}, batch {bench.batch:,}", f"{rate:,.0f} training images/s"
    )
    if bench.bare_rate:
        bench.row(
            "of the bare loop with the same settings (Lightning, audit, sampling)",
            f"{100 * rate / bench.bare_rate:.1f}%",
        )
    train = len(data.train_rows) / rate
    bench.row(
        "one full epoch, its validation included",
        f"{seconds:.1f} s ({train:.1f} s training, {seconds - train:.1f} s validation)",
    )
    beside = whole - sum(float(row["seconds"]) for row in rows)
    bench.row("beside the epochs (store to the device, compiling, rankings and panels)", f"{beside:.1f} s a run")
    hours = RUNS * (EPOCHS * seconds + beside) / 3600
    bench.row(f"{RUNS} runs of {EPOCHS} epochs, projected", f"{hours:.2f} hours, one after the other")
    if DEVICE == "cuda":
        bench.row("memory of the device at most", f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB")


def side_by_side(bench: Bench) -> None:
    """Two and three processes on one device, together against one."""
    sizes = f"x = b.Bench({bench.toy}, 99, Path('.')); s = b.bare_step(x, x.batch, 'bf16', False)"
    words = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from pathlib import Path; "
        f"import bench_gpu as b; {sizes}; "
        f"print('RATE', b.rate_of(s, x.batch, {0.5 if bench.toy else 12.0}))"
    )
    alone = 0.0
    for count in (1, 2, 3):
        env = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
        many = [
            subprocess.Popen([sys.executable, "-c", words], stdout=subprocess.PIPE, text=True, env=env)
            for _ in range(count)
        ]
        total = sum(float(process.communicate()[0].split("RATE")[1]) for process in many)
        alone = alone or total
        bench.row(
            f"{count} run(s) side by side in processes, not compiled, together",
            f"{total:,.0f} images/s, {total / alone:.2f} of one",
        )


def sorting(bench: Bench) -> None:
    """A step of the sorting network."""
    from mlfix_train.data.loading.augment import IMAGENET_MEAN, IMAGENET_STD, channel_tensors, normalize
    from mlfix_train.data.loading.spec import ViewSpec
    from mlfix_train.data.loading.views import two_views
    from mlfix_train.models.ssl.barlow_twins import barlow_twins_loss
    from mlfix_train.models.ssl.encoder import Encoder, Projector

    batch = 64 if bench.toy else 256
    encoder = Encoder("mlfix_small" if bench.toy else "resnet18", None if bench.toy else 64, True).to(DEVICE)
    projector = Projector(encoder.features, 2048, 2).to(DEVICE)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *projector.parameters()], 1e-3, fused=True)
    images = torch.randint(0, 256, (batch, 40, 40, 3), dtype=torch.uint8, device=DEVICE).permute(0, 3, 1, 2)

    def step(number: int) -> None:
        views = two_views(images, ViewSpec(), number)
        with torch.autocast(DEVICE, torch.bfloat16):
            z_a, z_b = projector(
                encoder(normalize(views.flatten(0, 1), *channel_tensors(IMAGENET_MEAN, IMAGENET_STD, views.device)))
            ).chunk(2)
            loss = barlow_twins_loss(z_a, z_b, 5e-3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    found = rate_of(step, batch, 0.5 if bench.toy else 5.0)
    bench.row(f"sorting network (ResNet18 at 64 px), batch {batch}", f"{found:,.0f} images/s of two views each")


def neighbours(bench: Bench) -> None:
    """Twenty nearest neighbours: ours on the processor, and all distances on the device."""
    from mlfix_train.audit.similarity.neighbours import nearest_neighbours

    n, k = (3_000 if bench.toy else 200_000), 20
    rng = np.random.default_rng(0)
    centers = rng.normal(0, 1, (400, 128)).astype(np.float32)
    points = centers[rng.integers(0, 400, n)] + 0.5 * rng.normal(0, 1, (n, 128)).astype(np.float32)
    nearest_neighbours(points[:2000], k)  # compiles
    begin = time.perf_counter()
    found = nearest_neighbours(points, k)
    bench.row(
        f"{k} nearest neighbours of {n:,} points x 128, ours, {os.cpu_count()} cores",
        f"{time.perf_counter() - begin:.1f} s (recall {found.recall:.3f})",
    )
    x = torch.from_numpy(points).to(DEVICE)
    squares = (x * x).sum(1)
    wait()
    begin = time.perf_counter()
    for start in range(0, n, 4096):
        part = x[start : start + 4096]
        (squares - 2 * part @ x.T).topk(k + 1, largest=False)
    wait()
    bench.row("the same by all distances on the device, exact", f"{time.perf_counter() - begin:.1f} s")


def limits(bench: Bench) -> None:
    """What the device can do at most."""
    from profile_step import device_limits

    compute, copy = device_limits(torch.device(DEVICE))
    bench.row("the device's most", f"{compute / 1e12:.1f} TFLOP/s (bfloat16 product), {copy / 1e9:,.0f} GB/s (copy)")


def main() -> None:
    """Runs all parts."""
    parser = argparse.ArgumentParser(description="Everything worth measuring on a GPU.")
    parser.add_argument("--out", default=".")
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--minutes", type=float, default=6.5)
    options = parser.parse_args()
    if DEVICE == "cpu" and not options.toy:
        sys.exit("no GPU that torch can use; --toy tries all of it in small on a CPU")
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    bench = Bench(options.toy, options.minutes, out)
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU, toy sizes: no figure of these means anything"
    bench.row("device", f"{name}; torch {torch.__version__}")
    for title, work in (
        ("limits", limits),
        ("compiled", compiled),
        ("full epoch", full_epoch),
        ("throughput", throughput),
        ("sorting network", sorting),
        ("side by side", side_by_side),
        ("neighbours", neighbours),
    ):
        bench.part(title, lambda work=work: work(bench))
    bench.write()


if __name__ == "__main__":
    main()
