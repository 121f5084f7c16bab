"""How fast `mlfix crop` is next to decoding alone: the same photos and worker processes, taking turns in one run.

    python scripts/make_fake_mtsd.py fake --photos 400 --size 4032x3024
    python scripts/bench_crop.py fake

Prints photos per second of (a) decoding every photo at full size and doing nothing with it, (b) cropping all its boxes
and writing the files, and (c) the same without reduced decoding; the CPU utilization; the memory of the workers over
time; and how crops of photos decoded at reduced size differ from those of whole photos. Every photo is read once
before, so that it is in the page cache.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
from PIL import Image

from mlfix_train.data.annotations.formats import open_annotations
from mlfix_train.data.crops import photo as photo_module
from mlfix_train.data.crops.build import BATCH_SIZE, plan_crops
from mlfix_train.data.crops.geometry import decode_reduction
from mlfix_train.data.crops.photo import PhotoJob, crop_photo, crop_photos
from mlfix_train.data.crops.spec import CropSpec
from mlfix_train.data.files.process_pool import map_unordered
from mlfix_train.data.files.system import cpu_count

Function = Any


def decode_photos(jobs: list[PhotoJob]) -> None:
    """Decodes photos at full size."""
    for job in jobs:
        with Image.open(job.path) as image:
            image.load()


def crop_whole_photos(jobs: list[PhotoJob], spec: CropSpec, out: Path) -> None:
    """Crops photos as ``mlfix crop`` does, but without reduced decoding."""
    with mock.patch.object(photo_module, "decode_reduction", return_value=1):
        crop_photos(jobs, spec, out)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="Cropping next to decoding alone.")
    parser.add_argument("data", help="folder of MTSD, COCO, YOLO, VOC or CVAT")
    parser.add_argument("--size", type=int, default=40)
    parser.add_argument("--photos", type=int, default=0, help="only so many")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=cpu_count())
    options = parser.parse_args()
    spec, out = CropSpec(size=options.size), Path(tempfile.mkdtemp(dir="."))
    try:
        _, jobs = plan_crops(open_annotations(options.data).read(), spec)
        compare(jobs[: options.photos or None], spec, out, options.rounds, options.workers)
    finally:
        shutil.rmtree(out)


def compare(jobs: list[PhotoJob], spec: CropSpec, out: Path, rounds: int, workers: int) -> None:
    """Times decoding and cropping in turn, and prints the rates."""
    megapixels = sum(job.width * job.height for job in jobs) / 1e6 / len(jobs)
    boxes = sum(len(job.boxes) for job in jobs)
    print(
        f"{len(jobs):,} photos ({megapixels:.1f} megapixels on average), {boxes:,} boxes, {workers} processes, "
        f"crops of {spec.size} px"
    )
    for job in jobs:
        Path(job.path).read_bytes()
        for crop in job.crops:
            (out / crop).parent.mkdir(parents=True, exist_ok=True)
    ways: dict[str, Function] = {
        "decoding alone": decode_photos,
        "cropping": partial(crop_photos, spec=spec, out=out),
        "cropping, whole": partial(crop_whole_photos, spec=spec, out=out),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    busy: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, function in ways.items():
            seconds, utilization = measure(jobs, function, workers, report_memory=name == "cropping")
            rates[name].append(len(jobs) / seconds)
            busy[name].append(utilization)
    for name in ways:
        ratios = [rate / base for rate, base in zip(rates[name], rates["decoding alone"], strict=True)]
        print(
            f"{name:<16} {np.median(rates[name]):7.1f} photos/s, {np.median(ratios):.2f} of decoding alone "
            f"({min(ratios):.2f} to {max(ratios):.2f}), CPU utilization {np.median(busy[name]):.0%}"
        )
    compare_reduced(jobs, spec, out)


def measure(jobs: list[PhotoJob], function: Function, workers: int, report_memory: bool) -> tuple[float, float]:
    """Returns the seconds that all photos take, with warm workers, and the share of the cores' time that was used."""
    batches = [jobs[at : at + BATCH_SIZE] for at in range(0, len(jobs), BATCH_SIZE)]
    warm_up = 2 * workers
    results = map_unordered(function, batches[:warm_up] + batches, workers)
    for _ in range(warm_up):
        next(results)
    memory = MemoryMonitor() if report_memory else None
    before, started = cpu_seconds(), time.monotonic()
    for _ in batches[1:]:  # the last result ends the workers, and with them their counters
        next(results)
    used = cpu_seconds() - before
    list(results)
    seconds = time.monotonic() - started
    if memory:
        memory.report()
    return seconds, used / seconds / cpu_count()


def cpu_seconds() -> float:
    """Returns the CPU time of this process and its living children."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        times = process.cpu_times()
        total += times.user + times.system
    return total


class MemoryMonitor(threading.Thread):
    """Samples the memory of the workers twenty times a second until its report is asked for."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.megabytes: list[float] = []
        self.done = False
        self.start()

    def run(self) -> None:
        """Samples."""
        while not self.done:
            total = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue
            self.megabytes.append(total / 1e6)
            time.sleep(0.05)

    def report(self) -> None:
        """Prints the maximum of each quarter of the time."""
        self.done = True
        quarters = [part for part in np.array_split(np.array(self.megabytes), 4) if len(part)]
        maxima = ", ".join(f"{part.max():.0f}" for part in quarters)
        own = psutil.Process().memory_info().rss / 1e6
        print(f"memory           all workers, maximum of each quarter: {maxima} MB; this process {own:.0f} MB")


def compare_reduced(jobs: list[PhotoJob], spec: CropSpec, out: Path) -> None:
    """Prints the PSNR between crops of photos decoded at reduced size and of whole photos, in decibels."""
    spec, psnr, reduced = replace(spec, format="png"), [], 0
    for job in jobs[:200]:
        with mock.patch.object(photo_module, "decode_reduction", wraps=decode_reduction) as reduction:
            outcomes = crop_photo(job, spec, out)
            placements = reduction.call_args.args[0] if reduction.called else []
        if decode_reduction(placements, spec) == 1:
            continue
        reduced += 1
        files = [out / crop for crop, outcome in zip(job.crops, outcomes, strict=True) if not outcome.problem]
        images = [np.asarray(Image.open(file), float) for file in files]
        crop_whole_photos([job], spec, out)
        for file, image in zip(files, images, strict=True):
            error = np.mean((image - np.asarray(Image.open(file), float)) ** 2)
            psnr.append(10 * np.log10(255**2 / max(error, 1e-9)))
    total = min(200, len(jobs))
    if psnr:
        print(
            f"reduced          {reduced} of {total} photos; PSNR of their crops to those of whole photos: "
            f"{min(psnr):.1f} dB at worst, {np.median(psnr):.1f} dB median"
        )
    else:
        print(f"reduced          none of {total} photos: each has a small box")


if __name__ == "__main__":
    main()
