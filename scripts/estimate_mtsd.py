"""Estimates the time, memory and disk that `reproduce_mtsd.sh` will take, by trying a little of each step.

    python scripts/estimate_mtsd.py <MTSD> --runs 125 [keys of mlfix train ...]

Crops some photos in parallel, then trains two short epochs on the crops in a separate process, with the experiment's
settings (and the given keys, such as model.pretrained=false). Prints what these measurements extrapolate to, and
deletes its files.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from mlfix_train.commands.progress import format_duration
from mlfix_train.data.annotations.mtsd import Mtsd
from mlfix_train.data.crops.build import crop_in_parallel, plan_crops
from mlfix_train.data.crops.photo import PhotoJob
from mlfix_train.data.crops.spec import CropSpec
from mlfix_train.errors import MlfixError

PHOTOS, ROWS, EPOCHS = 64, 6_000, 16


def main() -> None:
    """Parses the arguments and estimates."""
    parser = argparse.ArgumentParser(description="Estimates what reproducing the MTSD experiment takes.")
    parser.add_argument("data", help="folder of MTSD")
    parser.add_argument("--runs", type=int, default=125, help="number of trainings")
    parser.add_argument("--at-a-time", type=int, default=1, help="number of trainings in parallel")
    options, keys = parser.parse_known_args()
    work = Path(tempfile.mkdtemp(prefix="estimate-"))
    try:
        estimate(options, keys, work)
    except MlfixError as error:
        sys.exit(f"estimate: {error}")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def estimate(options: argparse.Namespace, keys: list[str], work: Path) -> None:
    """Tries a little of each step and prints the totals."""
    spec = CropSpec(ids="positions")
    boxes, jobs = plan_crops(Mtsd(options.data).read(), spec)
    photos, n = len(jobs), len(boxes)
    print(f"found      {n:,} boxes in {photos:,} photos; trying {min(PHOTOS, photos)} of them and a short training")
    rate, bytes_a_crop = try_cropping(boxes, jobs, spec, work)
    epoch, start, run_bytes, memory = try_training(keys, work, n)
    epochs = epochs_of(keys)
    training = options.runs * (epochs * epoch + start) / options.at_a_time
    rows = [
        ("crop", photos / rate, n * bytes_a_crop / 1e9, ""),
        (f"{options.runs} trainings of {epochs} epochs", training, options.runs * run_bytes / 1e9, f"{memory:.1f} GB"),
        ("decoded crops", 0.0, n * 40 * 40 * 3 / 1e9, ""),
    ]  # fmt: skip
    print(f"{'step':<36}{'time':>14}{'disk':>12}   memory")
    for name, seconds, disk, memory_text in rows:
        print(f"{name:<36}{format_duration(seconds) if seconds else '':>14}{disk:>9.2f} GB   {memory_text}")
    total = sum(row[1] for row in rows)
    print(f"{'total':<36}{days(total):>14}{sum(row[2] for row in rows):>9.2f} GB")
    free = shutil.disk_usage(os.getcwd()).free / 1e9
    print(f"free here  {free:,.0f} GB")
    if free < sum(row[2] for row in rows):
        print("           not enough")


def days(seconds: float) -> str:
    """Formats a duration, in days if it is long."""
    return f"{seconds / 86400:.1f} days" if seconds > 2 * 86400 else format_duration(seconds)


def epochs_of(keys: list[str]) -> int:
    """Returns the number of epochs of a run with these keys."""
    from mlfix_train.config.compose import compose

    recipe = compose("train", ["experiment=mtsd_speed_limits", "data.root=x", *keys]).recipe
    return int(recipe.epochs + recipe.frozen_epochs)


def try_cropping(boxes: pd.DataFrame, jobs: list[PhotoJob], spec: CropSpec, work: Path) -> tuple[float, float]:
    """Returns photos per second, and the bytes on disk per crop."""
    jobs = random.Random(0).sample(jobs, min(PHOTOS, len(jobs)))
    part = boxes[boxes["photo"].isin([job.name for job in jobs])].reset_index(drop=True)
    for sample in part["sample_id"]:
        (work / "crops" / sample).parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    list(crop_in_parallel(jobs, spec, work / "crops", None))
    rate = len(jobs) / (time.monotonic() - started)
    files = list((work / "crops").rglob("*.jpg"))
    block = 4096
    disk = sum(-(-file.stat().st_size // block) * block for file in files) / max(len(files), 1)
    table = part.assign(path=[str(work / "crops" / sample) for sample in part["sample_id"]])
    table = table[[os.path.exists(path) for path in table["path"]]][["path", "label"]]
    rows = pd.concat([table] * (ROWS // max(len(table), 1) + 1), ignore_index=True).head(ROWS)
    rows.insert(0, "sample_id", [f"{row}" for row in range(len(rows))])
    rows.to_csv(work / "rows.csv", index=False)
    return rate, disk


def try_training(keys: list[str], work: Path, n: int) -> tuple[float, float, float, float]:
    """Returns seconds per epoch of ``n`` samples, other seconds per run, bytes per run, and peak memory in GB."""
    import torch

    steps = 4 if torch.cuda.is_available() else 2
    given = [key for key in keys if not key.startswith(("recipe.epochs", "recipe.frozen", "data."))]
    command = [
        "train", "experiment=mtsd_speed_limits", "data=table", f"data.file={work / 'rows.csv'}", "split.train_only=[]",
        f"outputs={work / 'outputs'}", "logger=none", *given, "recipe.epochs=2", "recipe.frozen_epochs=0", "name=try",
        f"trainer.limit_train_batches={steps}",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "mlfix_train.cli.main", *command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"the short training failed:\n{done.stderr.strip()}")
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    run = work / "outputs/try/original/seed=0"
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    last = rows[-1]
    speed, seconds = float(last["samples_per_second"]), float(last["seconds"])
    held_out = len(pd.read_parquet(run / "predictions.parquet"))
    batch = next((int(key.split("=")[1]) for key in given if key.startswith("loader.batch_size=")), 1024)
    validation = max(seconds - steps * min(batch, ROWS - held_out) / speed, 0.0) / held_out
    tables = sum(file.stat().st_size for file in run.iterdir() if file.suffix in (".parquet", ".csv", ".npy"))
    run_bytes = sum(file.stat().st_size for file in run.rglob("*") if file.is_file())
    other = json.loads((run / "run.json").read_text())["timings"]["total_seconds"]
    other = max(other - sum(float(row["seconds"]) for row in rows), 0.0)
    return 0.8 * n / speed + 0.2 * n * validation, other, run_bytes - tables + tables * n / ROWS, memory


if __name__ == "__main__":
    main()
