"""Everything worth measuring on a GPU, in one call; `scripts/bench_gpu.sh` runs it. Prints one table.

    python scripts/bench_gpu.py [--out $OUT] [--toy] [--minutes 6] [--only limits,epoch,...]

ResNet50 at 40 px on random pictures that lie on the device: rates by batch, precision, and how the step is launched
(eager, CUDA graph, compiled, both), bare; what Lightning and the audit take; full epochs at MTSD's size (206,386
pictures, 401 labels) by the very DataModule, module and callbacks of `mlfix train`, and what 40 runs of 16 epochs come
to; runs side by side; the sorting network; EfficientNet-Lite0 that embeds at 160 px; nearest neighbours among 200,000
and a million points. Beside each figure stands the most that the device could do: the larger of two times, that of the
operations at the rate of a large product and that of the bytes at the rate of a large copy. A part that fails is named
with its reason, and the others go on; parts that would begin after the time is up are left out, and named. `--toy`
tries all of it in small on a CPU.
"""

from __future__ import annotations

import argparse
import cProfile
import csv
import json
import os
import pstats
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
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
        self.begin = time.monotonic()
        self.until = self.begin + 60 * minutes
        self.rows: list[tuple[str, str, str]] = []
        self.samples, self.labels = (2_000, 12) if toy else (206_386, 401)
        self.backbone, self.batch = ("mlfix_small", 64) if toy else ("resnet50", 1024)
        self.bare_rate = 0.0
        self.compiles = self.profiles = False
        self.compute = self.copy = 0.0

    def row(self, what: str, value: str, limit: str = "") -> None:
        """Notes and prints a row."""
        self.rows.append((what, value, limit))
        print(f"{what:<74} {value:<40} {limit}", flush=True)

    def limit(self, flops: float, moved: float, count: int = 0) -> str:
        """Says the most that the device could do: seconds, or things per second if there are ``count`` of them."""
        if not self.compute:
            return ""
        seconds, why = max((flops / self.compute, "FLOP"), (moved / self.copy, "bytes"))
        return f"{count / seconds:,.0f} a second ({why})" if count else f"{seconds:.2f} s ({why})"

    def part(self, name: str, work: Callable[[], None]) -> None:
        """Runs a part unless the time is up."""
        if time.monotonic() > self.until:
            self.row(name, "left out: the time was up")
            return
        begin = time.monotonic()
        try:
            work()
        except Exception as error:
            traceback.print_exc()
            self.row(name, f"failed: {type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}")
        print(f"# {name}: {time.monotonic() - begin:.0f} s, {time.monotonic() - self.begin:.0f} s in all", flush=True)
        if DEVICE == "cuda":
            torch.cuda.empty_cache()
        self.write()

    def write(self) -> None:
        """Writes the table."""
        lines = ["| what | measured | the most |", "| --- | --- | --- |"]
        lines += [f"| {what} | {value} | {limit} |" for what, value, limit in self.rows]
        (self.out / "bench_gpu.md").write_text("\n".join(lines) + "\n")


def wait() -> None:
    """Waits for the device."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def bare_step(
    bench: Bench, batch: int, precision: str = "bf16", form: str = "eager", augmented: bool = True
) -> Callable[[int], None]:
    """Returns a step of a bare loop over pictures on the device.

    ``form``: eager; graph (forward and backward pass replayed as CUDA graphs); compiled; compiled graph.
    """
    from mlfix_train.data.loading.augment import IMAGENET_MEAN, IMAGENET_STD, augment, channel_tensors, normalize
    from mlfix_train.data.loading.spec import AugmentSpec
    from mlfix_train.models.backbones.network import Network

    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    network: Any = Network(bench.backbone, bench.labels, "linear" if bench.toy else "concat_pool").to(DEVICE)
    forward = network
    if form == "graph":
        forward = graphed(network, (batch, 3, 40, 40))
    elif form == "compiled":
        forward = torch.compile(network.forward)
    elif form == "compiled graph":
        forward = torch.compile(network.forward, mode="reduce-overhead")
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, betas=(0.95, 0.99), eps=1e-5, fused=True)
    images = torch.randint(0, 256, (4 * batch, 40, 40, 3), dtype=torch.uint8, device=DEVICE)
    target = torch.randint(0, bench.labels, (4 * batch,), device=DEVICE)
    spec = AugmentSpec()

    def step(number: int) -> None:
        rows = torch.arange(number % 4 * batch, (number % 4 + 1) * batch, device=DEVICE)
        x = images[rows].permute(0, 3, 1, 2)
        x = augment(x, spec, number) if augmented else x
        x = normalize(x, *channel_tensors(IMAGENET_MEAN, IMAGENET_STD, x.device))
        with torch.autocast(DEVICE, torch.bfloat16, enabled=precision == "bf16" and DEVICE == "cuda"):
            logits = forward(x)
        loss = F.cross_entropy(logits.float(), target[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def graphed(network: Any, shape: tuple[int, ...]) -> Any:
    """Returns the training step of a network as CUDA graphs, in bfloat16."""
    from mlfix_train.models.compile import maybe_graph

    images = torch.zeros(shape, device=DEVICE)
    return maybe_graph(network, True, images, lambda: torch.autocast(DEVICE, torch.bfloat16)) or network


def rate_of(step: Callable[[int], None], batch: int, seconds: float) -> float:
    """Returns samples per second over some seconds, after steps that warm up."""
    for number in range(6):
        step(number)
    wait()
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds or count < 4:
        for _ in range(8):
            step(count)
            count += 1
        wait()
    return count * batch / (time.perf_counter() - begin)


def step_limit(bench: Bench, batch: int) -> str:
    """Returns the limit of a training step, in images per second."""
    from profile_step import count_step

    from mlfix_train.models.backbones.network import Network

    network = Network(bench.backbone, bench.labels, "linear" if bench.toy else "concat_pool").to(DEVICE)
    return bench.limit(*count_step(network, torch.randn(batch, 3, 40, 40, device=DEVICE)), batch)


def launches(bench: Bench) -> None:
    """Rates by how the step is launched, at the published batch and at that of the default."""
    seconds = 0.5 if bench.toy else 2.0
    for batch in (32, bench.batch) if bench.toy else (bench.batch, 128):
        limit = step_limit(bench, batch)
        for form in ("eager", "graph", *(("compiled", "compiled graph") if bench.compiles else ())):

            def measure(batch: int = batch, form: str = form, limit: str = limit) -> None:
                step = bare_step(bench, batch, form=form)
                begin = time.perf_counter()
                step(0)
                wait()
                first = time.perf_counter() - begin
                found = rate_of(step, batch, seconds)
                if batch == bench.batch and form == "graph":
                    bench.bare_rate = found
                note = f"{found:,.0f} images/s (first step {first:.0f} s)"
                bench.row(f"bare loop, bfloat16, batch {batch:,}, {form}", note, limit)

            bench.part(f"{form}, batch {batch}", measure)


def sizes(bench: Bench) -> None:
    """Rates by batch and precision, eager."""
    seconds = 0.5 if bench.toy else 2.0
    for batch in (64,) if bench.toy else (512, 2048, 4096):
        found = rate_of(bare_step(bench, batch), batch, seconds)
        bench.row(f"bare loop, bfloat16, batch {batch:,}, eager", f"{found:,.0f} images/s")
    for precision in ("tf32", "fp32"):
        found = rate_of(bare_step(bench, bench.batch, precision), bench.batch, seconds)
        bench.row(f"bare loop, {precision}, batch {bench.batch:,}, eager", f"{found:,.0f} images/s")


def augmentation(bench: Bench) -> None:
    """What augmentation costs: on the processor, which draws, and on the device, which resamples."""
    from mlfix_train.data.loading.augment import augment
    from mlfix_train.data.loading.spec import AugmentSpec

    images = torch.randint(0, 256, (bench.batch, 3, 40, 40), dtype=torch.uint8, device=DEVICE)
    for number in range(5):
        augment(images, AugmentSpec(), number)
    wait()
    begin = time.perf_counter()
    for number in range(30):
        augment(images, AugmentSpec(), number)
    queued = (time.perf_counter() - begin) / 30
    wait()
    done = (time.perf_counter() - begin) / 30
    bench.row(
        f"augmentation of {bench.batch:,} pictures of 40 px",
        f"{1e3 * queued:.2f} ms until queued, {1e3 * done:.2f} ms until done",
    )
    bare = rate_of(bare_step(bench, bench.batch, augmented=False), bench.batch, 0.5 if bench.toy else 2.0)
    bench.row(f"bare loop, bfloat16, batch {bench.batch:,}, eager, no augmentation", f"{bare:,.0f} images/s")


def profile(bench: Bench) -> None:
    """Writes where the time of eager steps goes to ``profile.txt``, by kernel and by operation."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    step = bare_step(bench, bench.batch)
    for number in range(4):
        step(number)
    wait()
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if DEVICE == "cuda" else [])]
    with record(activities=kinds) as found:
        for number in range(6):
            step(number)
        wait()
    key = "self_device_time_total" if DEVICE == "cuda" else "self_cpu_time_total"
    averages = found.key_averages()
    text = [
        averages.table(sort_by=order, row_limit=40, max_name_column_width=90) for order in (key, "self_cpu_time_total")
    ]
    (bench.out / "profile.txt").write_text("\n\n".join(text))


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
    loader = LoaderSpec(
        batch_size=bench.batch, eval_batch_size=2 * bench.batch, sampling="balanced", cache_on_device=held
    )
    data = DataModule(table, held_out, work / "cache", pixels=PixelSpec(40), loader=loader, augmentation=AugmentSpec())
    data.store = PixelStore(folder)
    return data


def full_epoch(bench: Bench) -> None:
    """Three epochs by the training path of `mlfix train`; the last is what counts."""
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
            "recipe.epochs=3",
            "recipe.frozen_epochs=0",
            f"outputs={work}",
            "logger=none",
        ]
        keys += ["model=small"] if bench.toy else []
        cfg = load("train", keys)
        model = build_module(cfg, labels=data.labels)
        directory = RunDirectory(work / "run")
        directory.path.mkdir()
        audit = AuditCallback(directory.path, "benchmark", n_panels=0, report=False)
        recorder = MetricsRecorder(directory.path / "metrics.csv")
        fit = build_trainer(directory, 3, cfg.trainer, callbacks=[audit, recorder])
        clock = cProfile.Profile() if bench.profiles else nullcontext()
        begin = time.perf_counter()
        with clock:
            fit.fit(model, datamodule=data)
        whole = time.perf_counter() - begin
        if isinstance(clock, cProfile.Profile):
            with open(bench.out / "epoch_profile.txt", "w") as text:
                for order in ("tottime", "cumtime"):
                    pstats.Stats(clock, stream=text).sort_stats(order).print_stats(80)
        with open(directory.path / "metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
    last = rows[-1]
    rate, seconds = float(last["samples_per_second"]), float(last["seconds"])
    note = ", with Python's profiler" if bench.profiles else ""
    held = "held on the device" if type(fit.train_dataloader).__name__ == "DeviceBatches" else "read batch by batch"
    bench.row(
        f"mlfix train, {bench.samples:,} pictures, {held}, batch {bench.batch:,}{note}",
        f"{rate:,.0f} training images/s",
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
    sizes = f"x = b.Bench({bench.toy}, 99, Path('.')); s = b.bare_step(x, x.batch, form='graph')"
    words = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from pathlib import Path; "
        f"import bench_gpu as b; {sizes}; "
        f"print('RATE', b.rate_of(s, x.batch, {0.5 if bench.toy else 6.0}))"
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
            f"{count} run(s) side by side in processes, graph, together",
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

    forward = graphed(encoder, (2 * batch, 3, 40, 40))

    def step(number: int) -> None:
        views = two_views(images, ViewSpec(), number)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
            z_a, z_b = projector(
                forward(normalize(views.flatten(0, 1), *channel_tensors(IMAGENET_MEAN, IMAGENET_STD, views.device)))
            ).chunk(2)
            loss = barlow_twins_loss(z_a, z_b, 5e-3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    found = rate_of(step, batch, 0.5 if bench.toy else 5.0)
    bench.row(f"sorting network (ResNet18 at 64 px), batch {batch}, graph", f"{found:,.0f} images/s of two views each")


def embedding(bench: Bench) -> None:
    """Features of EfficientNet-Lite0 (random weights) at 160 px, pictures read from memory, as `mlfix audit` does."""
    import timm
    from torch.utils.flop_counter import FlopCounterMode

    from mlfix_train.models.backbones.fold_norms import fold_batch_norms
    from mlfix_train.models.embedding.pretrained import PretrainedEmbedder

    network = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        network(torch.randn(1, 3, 160, 160))
    sizes: list[int] = []
    hooks = [
        part.register_forward_hook(lambda _m, _i, out: sizes.append(2 * out.numel()))
        for part in network.modules()
        if isinstance(part, torch.nn.Conv2d)
    ]
    network(torch.randn(1, 3, 160, 160))
    for hook in hooks:
        hook.remove()
    network = fold_batch_norms(network, torch.randn(2, 3, 160, 160))
    half = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    embedder = PretrainedEmbedder(network, "EfficientNet-Lite0", 160, device=DEVICE, **half)  # type: ignore[arg-type]
    for side, count in ((160, 400 if bench.toy else 60_000), (32, 400 if bench.toy else 60_000)):
        pixels = np.random.default_rng(0).integers(0, 256, (min(count, 20_000), side, side, 3), dtype=np.uint8)
        rows = np.arange(count) % len(pixels)
        for batch in (64,) if bench.toy else (256, 1024):
            embedder.features(pixels, rows[: 2 * batch], batch_size=batch, bfloat16=DEVICE == "cuda")
            begin = time.perf_counter()
            embedder.features(pixels, rows, batch_size=batch, bfloat16=DEVICE == "cuda")
            rate = count / (time.perf_counter() - begin)
            what = f"EfficientNet-Lite0 at 160 px, pictures of {side} px, batch {batch}"
            bench.row(what, f"{rate:,.0f} images/s", bench.limit(counter.get_total_flops(), 2 * sum(sizes), 1))


def neighbours(bench: Bench) -> None:
    """Nearest neighbours among 200,000 and a million points: on the processor (200,000), and on the device."""
    from mlfix_train.audit.similarity.neighbours import _search_on_gpu, nearest_neighbours

    rng = np.random.default_rng(0)
    for n, k in ((3_000, 20), (5_000, 10)) if bench.toy else ((200_000, 20), (1_000_000, 10)):
        centers = rng.normal(0, 1, (400, 128)).astype(np.float32)
        points = centers[rng.integers(0, 400, n)] + 0.5 * rng.normal(0, 1, (n, 128)).astype(np.float32)
        if n <= 200_000:
            nearest_neighbours(points[:2000], k)  # compiles
            begin = time.perf_counter()
            found = nearest_neighbours(points, k)
            bench.row(
                f"{k} nearest of {n:,} points x 128, {os.cpu_count()} cores",
                f"{time.perf_counter() - begin:.1f} s (recall {found.recall:.4f})",
            )
        # Each product once, each distance written and read once
        limit = bench.limit(2 * 128 * n * n, 8.0 * n * n)
        if DEVICE == "cuda":
            nearest_neighbours(points[:20_000], k, DEVICE)
        begin = time.perf_counter()
        found = (
            nearest_neighbours(points, k, DEVICE)
            if DEVICE == "cuda"
            else _search_on_gpu(torch.from_numpy(points), k, "cpu")
        )
        took = time.perf_counter() - begin
        bench.row(
            f"{k} nearest of {n:,} points x 128, on the device", f"{took:.1f} s (recall {found.recall:.4f})", limit
        )


def profiled_epoch(bench: Bench) -> None:
    """The same with Python's profiler on, which shows where the processor waits: ``epoch_profile.txt``."""
    bench.profiles = True
    full_epoch(bench)
    bench.profiles = False


def limits(bench: Bench) -> None:
    """What the device can do at most."""
    from profile_step import device_limits

    bench.compute, bench.copy = device_limits(torch.device(DEVICE), bench.toy)
    rates = f"{bench.compute / 1e12:.1f} TFLOP/s (bfloat16 product), {bench.copy / 1e9:,.0f} GB/s (copy)"
    bench.row("the most of the device", rates)


def main() -> None:
    """Runs all parts."""
    parser = argparse.ArgumentParser(description="Everything worth measuring on a GPU.")
    parser.add_argument("--out", default=".")
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--only", default="", help="names of parts, with commas")
    parser.add_argument("--compile", action="store_true", help="torch.compile, too: another 3 to 4 minutes")
    options = parser.parse_args()
    if DEVICE == "cpu" and not options.toy:
        sys.exit("no GPU that torch can use; --toy tries all of it in small on a CPU")
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    bench = Bench(options.toy, options.minutes, out)
    bench.compiles = options.compile
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU, toy sizes: no figure of these means anything"
    bench.row("device", f"{name}; torch {torch.__version__}")
    parts = {
        "limits": limits,
        "launches": launches,
        "epoch": full_epoch,
        "augmentation": augmentation,
        "profile": profile,
        "embedding": embedding,
        "neighbours": neighbours,
        "sorting": sorting,
        "sizes": sizes,
        "processes": side_by_side,
        "profiled": profiled_epoch,
    }
    wanted = [*filter(None, options.only.split(","))] or list(parts)
    for title in wanted:
        bench.part(title, lambda work=parts[title]: work(bench))
    print("\n" + (out / "bench_gpu.md").read_text())


if __name__ == "__main__":
    main()
