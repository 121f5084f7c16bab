"""How fast training is: ours, a bare PyTorch loop, and fastai with the published recipe, on the same data in one run.

    python scripts/bench_train.py <folder of class folders> --fastai <python that has fastai>

Every figure is measured in a process of its own; the contestants take turns, round after round, and ratios are taken
within a round, for machines are noisy. ResNet50 from random weights, 40 px, batch 128.

    rates    ours (`mlfix train`, everything on), a bare loop with the same settings, fastai        (--what rates)
    tried    the bare loop by precision, layout, matrix products, compile: what each gives          (--what tried)
    seeds    two seeds one after the other, side by side in processes, in threads, as fused models  (--what seeds)
    start    the second run of a sweep: seconds from its beginning to its first step                (--what start)
    audit    share of a run's time that the audit callback takes                                    (--what audit)
    sweep    what a run of a sweep takes in a warm worker beside its training, by launcher          (--what sweep)
    augment  held-out error by augmentation: photo, signs, none; against truth.csv, if it is there  (--what augment)

fastai is a benchmark tool here and no dependency: `python -m venv f && f/bin/pip install fastai`.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

SIZE, BATCH = 40, 128


def main() -> None:
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description="How fast training is.")
    parser.add_argument("root", help="folder of class folders, such as GTSRB")
    parser.add_argument("--what", nargs="+", default=["rates", "tried", "seeds", "start", "audit"])
    parser.add_argument("--fastai", help="a Python that has fastai")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12, help="of --what augment")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print("RATE", WORKERS[(asked := json.loads(options.worker))["kind"]](options, asked), flush=True)
        return
    with tempfile.TemporaryDirectory() as work:
        os.environ["BENCH_WORK"] = work
        for name in options.what:
            print(f"\n{name}", flush=True)
            PARTS[name](options)


def ask(options: argparse.Namespace, python: str = sys.executable, **asked: Any) -> float:
    """Measures in a process of its own; returns what it says."""
    command = [
        python,
        __file__,
        options.root,
        "--steps",
        str(options.steps),
        "--backbone",
        options.backbone,
        "--batch",
        str(options.batch),
        "--worker",
        json.dumps(asked),
    ]
    env = {**os.environ, **asked.get("env", {})}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("RATE ")]
    if not found:
        sys.exit(f"{asked} failed:\n{done.stderr[-2000:]}")
    return float(found[-1].split()[1])


def compare(options: argparse.Namespace, ways: dict[str, dict[str, Any]], unit: str = "samples/s") -> None:
    """Measures ways in turn and prints each beside the first."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, asked in ways.items():
            rates[name].append(ask(options, **asked))
    first = next(iter(rates.values()))
    for name, found in rates.items():
        ratios = [rate / base for rate, base in zip(found, first, strict=True)]
        print(
            f"  {name:<44} {statistics.median(found):8.1f} {unit}   {statistics.median(ratios):5.2f} of the first "
            f"({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


def rates(options: argparse.Namespace) -> None:
    """Ours, the bare loop, fastai."""
    ways = {"bare loop, the same settings": {"kind": "bare"}, "ours (mlfix train)": {"kind": "ours"}}
    plain = "loader.cache_on_device=false model.fast_convs=false"
    ways["ours, model.fast_convs=false"] = {"kind": "ours", "keys": plain}
    if options.fastai:
        ways["fastai, the published recipe"] = {"kind": "fastai", "python": options.fastai}
    compare(options, ways)


def tried(options: argparse.Namespace) -> None:
    """The bare loop, one thing after the other."""
    off = {"matmul": False, "bf16": False, "channels_last": False}
    compare(
        options,
        {
            "float32": {"kind": "bare", **off},
            "float32, channels_last": {"kind": "bare", **off, "channels_last": True},
            "bfloat16": {"kind": "bare", **off, "bf16": True},
            "bfloat16, channels_last": {"kind": "bare", "matmul": False},
            "the same, compiled": {"kind": "bare", "matmul": False, "compile": True},
            "the same, malloc keeps its pages": {
                "kind": "bare",
                "matmul": False,
                "env": {"MALLOC_TRIM_THRESHOLD_": "2147483647", "MALLOC_MMAP_MAX_": "0"},
            },
            "bfloat16, channels_last, matrix products": {"kind": "bare"},
            "the same, 3x3 convolutions of maps up to 25": {"kind": "bare", "largest": 25},
            "the same, one thread": {"kind": "bare", "threads": 1},
        },
    )


def seeds(options: argparse.Namespace) -> None:
    """Two seeds: samples a second of both together."""
    compare(
        options,
        {
            "one after the other, two threads": {"kind": "bare"},
            "side by side, a process and a thread each": {"kind": "pair"},
            "side by side, Python threads": {"kind": "threads"},
            "fused (torch.func.vmap over both)": {"kind": "fused"},
        },
    )


def start(options: argparse.Namespace) -> None:
    """From the beginning of a run to its first step, first and second run of a sweep."""
    first, second = (ask(options, kind="start", which=which) for which in (0, 1))
    print(f"  first run of a sweep {first:.2f} s, second {second:.2f} s until the first step begins")


def audit(options: argparse.Namespace) -> None:
    """What the audit callback takes of a run."""
    print(f"  {100 * ask(options, kind='audit'):.2f}% of the run's time in the audit callback")


def sweep(options: argparse.Namespace) -> None:
    """What a run of a sweep takes in a warm worker beside `Trainer.fit`: from the start of one to that of the next."""
    ways = {"local launcher": ("jobs=2",), "Ray": ("hydra/launcher=ray", "hydra.launcher.init.num_cpus=2")}
    for way, keys in ways.items():
        name = f"sweep-{len(keys)}"
        command = [sys.executable, "-m", "mlfix_train.cli.main", "train", "-m", "seed=range(0,8)"]
        command += [*train_keys(options, name, 2), *keys]
        subprocess.run(command, check=True, capture_output=True)
        outputs = Path(os.environ["BENCH_WORK"], "outputs", name)
        states = [json.loads(path.read_text()) for path in outputs.rglob("run.json")]
        states.sort(key=lambda state: state["started"])
        taken = []
        for pid in {state["pid"] for state in states}:
            own = [state for state in states if state["pid"] == pid]
            for one, after in itertools.pairwise(own[1:]):
                begins = [datetime.fromisoformat(state["started"]) for state in (one, after)]
                taken.append((begins[1] - begins[0]).total_seconds() - one["timings"]["fit_seconds"])
        print(f"  {way}: {statistics.median(taken):.2f} s a run, at most {max(taken):.2f} s ({len(taken)} warm runs)")


def augment(options: argparse.Namespace) -> None:
    """Trains the small network with each augmentation, two seeds each, and prints the held-out errors in percent."""
    import pandas as pd

    truth = Path(options.root).parent / "truth.csv"
    known = pd.read_csv(truth, index_col="sample_id")["true_label"] if truth.exists() else None
    work = os.environ["BENCH_WORK"]
    for name, key in {"photo": "augment=photo", "signs": "augment=signs", "none": "augment.enabled=false"}.items():
        command = [sys.executable, "-m", "mlfix_train.cli.main", "train", "-m", "seed=0,1", key, f"name={name}"]
        command += [
            f"data.root={options.root}",
            f"outputs={work}/augment",
            f"pixels.cache={work}/pixels",
            "model=small",
        ]
        command += ["pixels.size=32", f"recipe.epochs={options.epochs}", "logger=none", "audit.n_panels=0"]
        subprocess.run(command, check=True, capture_output=True)
        tables = [pd.read_parquet(path) for path in sorted(Path(work, "augment", name).rglob("predictions.parquet"))]
        errors = [100 * float((table["pred"] != table["label"]).mean()) for table in tables]
        text = f"  {name:<6} held-out error {', '.join(f'{error:.2f}' for error in errors)}"
        if known is not None:
            errors = [100 * float((table["pred"] != table["sample_id"].map(known)).mean()) for table in tables]
            text += f"; against truth.csv {', '.join(f'{error:.2f}' for error in errors)}"
        print(text, flush=True)


# What runs in processes of their own


def data(options: argparse.Namespace) -> Any:
    """Returns a DataModule's worth of uint8 images and labels."""
    from mlfix_train.data.pixels.store import PixelSpec, open_store
    from mlfix_train.data.readers.folder import read_folder
    from mlfix_train.data.samples import label_list

    table = read_folder(options.root)
    store = open_store(table, PixelSpec(size=SIZE), Path(os.environ["BENCH_WORK"]) / "pixels")
    return store, label_list(table), table


def build(options: argparse.Namespace, labels: int, asked: dict[str, Any]) -> Any:
    """Returns a step function of the bare loop."""
    import torch
    import torch.nn.functional as F

    from mlfix_train.data.loading.augment import augment, channel_tensors, normalize
    from mlfix_train.data.loading.spec import AugmentSpec
    from mlfix_train.models.backbones import fast_convs
    from mlfix_train.models.backbones.network import Network

    if asked.get("threads"):
        torch.set_num_threads(asked["threads"])
    network = Network(options.backbone, labels, "concat_pool", channels_last=asked.get("channels_last", True))
    fast_convs.MAX_POSITIONS = asked.get("largest", fast_convs.MAX_POSITIONS)
    if asked.get("matmul", fast_convs.has_amx()):
        fast_convs.use_fast_convs(network)
    if asked.get("compile"):
        network.compile()
    optimizer = torch.optim.AdamW(
        network.parameters(), 1e-3, betas=(0.95, 0.99), eps=1e-5, weight_decay=0.01, fused=True
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device)
    spec = AugmentSpec()

    def step(images: Any, target: Any, seed: int) -> Any:
        statistics = channel_tensors(network.mean, network.std, torch.device(device))
        x = normalize(augment(images.to(device), spec, seed), *statistics)
        with torch.autocast(device, torch.bfloat16, enabled=asked.get("bf16", True)):
            logits = network(x)
        loss = F.cross_entropy(logits.float(), target.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def bare(options: argparse.Namespace, asked: dict[str, Any]) -> float:
    """Returns the samples per second of the bare loop."""
    import torch

    store, labels, _ = data(options)
    step = build(options, len(labels), asked)
    images = torch.from_numpy(store[: 4 * options.batch]).permute(0, 3, 1, 2)
    target = torch.arange(len(images)) % len(labels)

    def run(count: int) -> float:
        begin = time.perf_counter()
        for number in range(count):
            part = slice((number % 4) * options.batch, (number % 4 + 1) * options.batch)
            step(images[part], target[part], number)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    run(4)
    return options.steps * options.batch / run(options.steps)


def pair(options: argparse.Namespace, asked: dict[str, Any]) -> float:
    """Returns the samples per second of two processes of one thread each."""
    half = json.dumps({"kind": "bare", "threads": 1})
    command = [
        sys.executable,
        __file__,
        options.root,
        "--steps",
        str(options.steps),
        "--backbone",
        options.backbone,
        "--batch",
        str(options.batch),
        "--worker",
        half,
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    return sum(float(process.communicate()[0].split()[-1]) for process in both)


def threads(options: argparse.Namespace, asked: dict[str, Any]) -> float:
    """Returns the samples per second of two models in Python threads of one process."""
    import threading

    import torch

    store, labels, _ = data(options)
    torch.set_num_threads(1)
    images = torch.from_numpy(store[: options.batch]).permute(0, 3, 1, 2)
    target = torch.arange(len(images)) % len(labels)
    steps = [build(options, len(labels), {}) for _ in range(2)]

    def train(step: Any, count: int) -> None:
        for number in range(count):
            step(images, target, number)

    def run(count: int) -> float:
        begin = time.perf_counter()
        both = [threading.Thread(target=train, args=(step, count)) for step in steps]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        return time.perf_counter() - begin

    run(3)
    return 2 * options.steps * options.batch / run(options.steps)


def fused(options: argparse.Namespace, asked: dict[str, Any]) -> float:
    """Returns the samples per second of two models stacked and mapped over (batch norms without running statistics)."""
    import copy

    import torch
    import torch.nn.functional as F
    from torch.func import functional_call, grad, stack_module_state, vmap

    from mlfix_train.models.backbones.network import Network

    store, labels, _ = data(options)
    models = [Network(options.backbone, len(labels), "linear") for _ in range(2)]
    for model in models:
        for part in model.modules():
            if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
                part.track_running_stats, part.running_mean, part.running_var = False, None, None
                part.num_batches_tracked = None
    params, buffers = stack_module_state(models)
    base = copy.deepcopy(models[0]).to("meta")
    for part in base.modules():
        if isinstance(part, torch.nn.ReLU):
            part.inplace = False
    images = torch.from_numpy(store[: options.batch]).permute(0, 3, 1, 2).float().div(255).bfloat16()
    target = torch.arange(len(images)) % len(labels)
    params = {name: value.detach().bfloat16() for name, value in params.items()}

    def loss(own: Any, more: Any) -> Any:
        return F.cross_entropy(functional_call(base, (own, more), (images,)).float(), target)

    step = vmap(grad(loss), in_dims=(0, 0))
    step(params, buffers)
    begin = time.perf_counter()
    count = max(2, options.steps // 6)
    for _ in range(count):
        found = step(params, buffers)
        params = {name: value - 1e-3 * found[name] for name, value in params.items()}
    return 2 * count * options.batch / (time.perf_counter() - begin)


def train_keys(options: argparse.Namespace, name: str, steps: int, *more: str) -> list[str]:
    """Returns the keys of a short `mlfix train`."""
    work = os.environ["BENCH_WORK"]
    return [
        f"data.root={options.root}",
        f"outputs={work}/outputs",
        f"pixels.cache={work}/pixels",
        f"name={name}",
        "overwrite=true",
        f"model.backbone={options.backbone}",
        "model.pretrained=false",
        f"loader.batch_size={options.batch}",
        "recipe.frozen_epochs=0",
        "recipe.epochs=2",
        "split.fraction=0.02",
        f"trainer.limit_train_batches={steps}",
        "trainer.check_val_every_n_epoch=2",
        "logger=none",
        "audit.n_panels=0",
        "report=line",
        *more,
    ]


def ours(options: argparse.Namespace, asked: dict[str, Any]) -> float:
    """Returns the samples per second of `mlfix train`, second epoch."""
    from mlfix_train import run_command

    keys = train_keys(options, "ours", options.steps, *asked.get("keys", "").split())
    run = run_command("train", *keys)
    with open(run.path / "metrics.csv", newline="") as file:
        return float(list(csv.DictReader(file))[-1]["samples_per_second"])


def starting(options: argparse.Namespace, asked: dict[str, Any]) -> float:
    """Returns the seconds from the beginning of the n-th run of a sweep to its first step."""
    begin = time.monotonic()
    from mlfix_train.commands import train
    from mlfix_train.config.compose import load
    from mlfix_train.data import cache
    from mlfix_train.models.classifier import Classifier

    cache.enable_cache()
    first: list[float] = []
    real = Classifier.on_train_batch_start

    def note(self: Any, batch: Any, batch_idx: int) -> None:
        if not first:
            first.append(time.monotonic())
        real(self, batch, batch_idx)

    Classifier.on_train_batch_start = note  # type: ignore[method-assign]
    for number in range(asked["which"] + 1):
        if number:
            begin = time.monotonic()
        first.clear()
        train.run(load("train", train_keys(options, f"start{number}", 2)))
    return first[0] - begin


def auditing(options: argparse.Namespace, asked: dict[str, Any]) -> float:
    """Returns the share of a whole run's time that the audit callback takes, its panels and files included."""
    from mlfix_train import run_command
    from mlfix_train.audit.callback import AuditCallback

    spent = [0.0]
    for name in (
        "on_train_start",
        "on_train_batch_end",
        "on_train_epoch_end",
        "on_validation_batch_end",
        "on_validation_epoch_end",
        "on_train_end",
    ):
        real = getattr(AuditCallback, name)

        def timed(self: Any, *args: Any, _real: Any = real, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                return _real(self, *args, **kwargs)
            finally:
                spent[0] += time.perf_counter() - begin

        setattr(AuditCallback, name, timed)
    keys = [
        key for key in train_keys(options, "audit", 100) if not key.startswith(("audit.", "split.", "trainer.check"))
    ]
    run = run_command("train", *keys)
    return spent[0] / float(run.read()["timings"]["fit_seconds"])


def fastai(options: argparse.Namespace, asked: dict[str, Any]) -> float:
    """Returns the samples per second of fastai's own loop with the published recipe's settings."""
    import random

    import torch
    from fastai.vision.all import (
        Callback,
        CategoryBlock,
        DataBlock,
        ImageBlock,
        Normalize,
        RandomSplitter,
        Resize,
        ResizeMethod,
        aug_transforms,
        get_image_files,
        imagenet_stats,
        parent_label,
        resnet50,
        vision_learner,
    )

    files = get_image_files(options.root)
    random.Random(0).shuffle(files)
    files = files[: (options.steps + 8) * options.batch * 2]
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=lambda _: files,
        get_y=parent_label,
        splitter=RandomSplitter(0.02, seed=0),
        item_tfms=Resize(SIZE, ResizeMethod.Squish),
        batch_tfms=[*aug_transforms(do_flip=False), Normalize.from_stats(*imagenet_stats)],
    )
    loaders = block.dataloaders(options.root, bs=options.batch, num_workers=2)
    learner = vision_learner(loaders, resnet50, pretrained=False)
    learner.unfreeze()
    times: list[float] = []

    class Clock(Callback):
        def after_batch(self) -> None:
            if self.training:
                times.append(time.perf_counter())
            if len(times) > options.steps + 4:
                from fastai.callback.core import CancelFitException

                raise CancelFitException

    torch.set_num_threads(os.cpu_count() or 1)
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(1, 1e-3, cbs=Clock())
    return (len(times) - 5) * options.batch / (times[-1] - times[4])


PARTS = {
    "rates": rates,
    "tried": tried,
    "seeds": seeds,
    "start": start,
    "audit": audit,
    "sweep": sweep,
    "augment": augment,
}
WORKERS = {
    "bare": bare,
    "pair": pair,
    "threads": threads,
    "fused": fused,
    "ours": ours,
    "start": starting,
    "audit": auditing,
    "fastai": fastai,
}

if __name__ == "__main__":
    main()
