"""How fast `mlfix crop` is, beside decoding alone: the same photos, the same processes, taking turns in one run.

    python scripts/make_fake_mtsd.py fake --photos 400 --size 4032x3024
    python scripts/bench_crop.py fake

Prints photos per second of (a) decoding every photo to its full size and doing nothing with it, (b) cropping all its
boxes with the files written, and (c) the same without reduced decoding; how busy the cores were; how the memory of the
working processes went; and how unlike crops of reduced photos are. Every photo is read once before, so that the disk's
cache is warm.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mlfix_train.data.annotations.detect import read_boxes
from mlfix_train.data.crops import geometry as crops
from mlfix_train.data.crops.build import AT_A_TIME, plan_photos, usable_boxes
from mlfix_train.data.crops.geometry import CropSpec, crop_photo
from mlfix_train.data.crops.names import crop_ids
from mlfix_train.data.files.worker_pool import Answer, Job, run_jobs, serve


def decode(job: Job) -> Answer:
    """Decodes photos to their full size; or crops them, as ``mlfix crop`` does, where a spec is given."""
    if job["spec"] is None:
        for photo in job["photos"]:
            with Image.open(photo["path"]) as image:
                image.load()
        return {}
    if job["whole"]:
        crops.reduction = lambda placed, spec: 1
    spec = CropSpec(**job["spec"])
    return {"found": [crop_photo(photo, spec) for photo in job["photos"]]}


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="Cropping beside decoding alone.")
    parser.add_argument("data", help="folder of MTSD, COCO, YOLO or VOC")
    parser.add_argument("--size", type=int, default=40)
    parser.add_argument("--photos", type=int, default=0, help="only so many")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    found = read_boxes(options.data)
    boxes, spec = usable_boxes(found), CropSpec(size=options.size)
    boxes["sample_id"] = crop_ids(boxes, spec.ids, ".jpg", True)
    folder = Path(tempfile.mkdtemp(dir="."))
    jobs = list(plan_photos(found, boxes, spec, folder).values())[: options.photos or None]
    for sample in boxes["sample_id"]:
        (folder / sample).parent.mkdir(parents=True, exist_ok=True)
    megapixels = sum(job["width"] * job["height"] for job in jobs) / 1e6
    count = sum(len(job["boxes"]) for job in jobs)
    print(f"{len(jobs):,} photos ({megapixels / len(jobs):.1f} megapixels on the mean), {count:,} boxes, "
          f"{options.workers} processes, crops of {options.size} px")  # fmt: skip
    for job in jobs:
        Path(job["path"]).read_bytes()
    ways = {"decoding alone": (None, False), "cropping": (asdict(spec), False), "cropping, whole": (asdict(spec), True)}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    busy: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, (how, whole) in ways.items():
            seconds, share = timed(jobs, how, whole, options.workers)
            rates[name].append(len(jobs) / seconds)
            busy[name].append(share)
    base = rates["decoding alone"]
    for name in ways:
        ratios = [rate / other for rate, other in zip(rates[name], base, strict=True)]
        print(f"{name:<16} {np.median(rates[name]):7.1f} photos/s, {np.median(ratios):.2f} of decoding alone "
              f"({min(ratios):.2f} to {max(ratios):.2f}), cores busy {100 * np.median(busy[name]):.0f}%")  # fmt: skip
    unlike(jobs, spec)
    shutil.rmtree(folder)


def bundles(jobs: list[dict[str, Any]], how: Any, whole: bool) -> Iterator[Job]:
    """Yields the jobs that a process gets at a time."""
    for at in range(0, len(jobs), AT_A_TIME):
        yield {"photos": jobs[at : at + AT_A_TIME], "spec": how, "whole": whole}


def timed(jobs: list[dict[str, Any]], how: Any, whole: bool, workers: int) -> tuple[float, float]:
    """Returns the seconds that all photos take, and the share of the cores' time that was used; processes are warm."""
    warm = 2 * workers * AT_A_TIME
    memory = Memory() if how and not whole else None
    work = run_jobs(
        "bench_crop", decode, bundles(jobs[:warm] + jobs, how, whole), workers, lambda job: "in a benchmark"
    )
    for _ in range(2 * workers):
        next(work)
    before, started = cpu_seconds(), time.monotonic()
    for _ in work:
        pass
    seconds = time.monotonic() - started
    if memory:
        memory.report()
    return seconds, (cpu_seconds() - before) / seconds / (os.cpu_count() or 1)


def cpu_seconds() -> float:
    """Returns the processor's seconds of this process and of its children, the living ones too."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    total = own.ru_utime + own.ru_stime
    gone = resource.getrusage(resource.RUSAGE_CHILDREN)
    total += gone.ru_utime + gone.ru_stime
    for pid in children():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def children() -> list[int]:
    """Returns the processes that this one started."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


class Memory(threading.Thread):
    """Looks at the memory of the working processes twenty times a second until it is asked to report."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: list[float] = []
        self.over = False
        self.start()

    def run(self) -> None:
        """Looks."""
        while not self.over:
            total = 0
            for pid in children():
                try:
                    total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
                except (OSError, IndexError):
                    continue
            self.seen.append(total / 1e6)
            time.sleep(0.05)

    def report(self) -> None:
        """Prints the highest of each quarter of the time."""
        self.over = True
        parts = np.array_split(np.array(self.seen), 4)
        tops = ", ".join(f"{part.max():.0f}" for part in parts if len(part))
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"memory           working processes together, highest of each quarter: {tops} MB; this one {own:.0f} MB")


def unlike(jobs: list[dict[str, Any]], spec: CropSpec) -> None:
    """Prints how unlike crops of photos decoded at a part of their size are to those of whole ones, in decibels."""
    real, worst, reduced = crops.reduction, [], 0
    for job in jobs[:200]:
        pair = []
        for way in (real, lambda placed, spec: 1):
            factors: list[int] = []

            def spy(placed: Any, spec: CropSpec, way: Any = way, factors: list[int] = factors) -> int:
                factors.append(way(placed, spec))
                return factors[-1]

            crops.reduction = spy
            answers = crop_photo(job, CropSpec(**{**asdict(spec), "format": "png"}))
            if way is real and factors == [1]:
                break
            files = [file for (_, file), answer in zip(job["boxes"], answers, strict=True) if len(answer) == 4]
            pair.append([np.asarray(Image.open(file), float) for file in files])
        if len(pair) == 2:
            reduced += 1
            errors = [np.mean((a - b) ** 2) for a, b in zip(*pair, strict=True)]
            worst += [10 * np.log10(255**2 / max(error, 1e-9)) for error in errors]
    crops.reduction = real
    if worst:
        print(f"reduced          {reduced} of {min(200, len(jobs))} photos; crops like those of whole ones to "
              f"{min(worst):.1f} dB at worst, {np.median(worst):.1f} on the median")  # fmt: skip
    else:
        print(f"reduced          none of {min(200, len(jobs))} photos: each has a small box")


if __name__ == "__main__":
    if os.environ.get("BENCH_CROP_WORKER"):
        serve(decode)
    else:
        os.environ["BENCH_CROP_WORKER"] = "1"
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        main()
