"""The same sweep of four runs by every launcher: are the predictions the same, bit by bit? A line for each.

    python scripts/same_sweep.py                     # on small rendered images; some minutes
    python scripts/same_sweep.py --ways local ray

`wandb agent` is stood in for by its passing of arguments, the command of `configs/wandb/grid.yaml`; W&B stays off.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from PIL import Image

REPO = Path(__file__).resolve().parents[1]
SEEDS, RATES = (0, 1), (0.001, 0.003)
RUNS = [f"{{name}},recipe.lr={rate}/original/seed={seed}" for rate in RATES for seed in SEEDS]
KEYS = [
    *("data.root=photos", "model=small", "recipe.epochs=2", "recipe.frozen_epochs=0", "loader.batch_size=16"),
    *("pixels.size=24", "audit.n_panels=0", "logger=none", "trainer.accelerator=cpu", "trainer.precision=32-true"),
]
GRID = ["recipe.lr=0.001,0.003", "seed=0,1"]
CHOICES = ["recipe.lr=choice(0.001,0.003)", "seed=choice(0,1)"]
WAYS = {
    "one": ("one process", ["-m", *GRID]),
    "local": ("local launcher, jobs=2", ["-m", *GRID, "jobs=2"]),
    "ray": ("Ray", ["-m", *GRID, "hydra/launcher=ray", "hydra.launcher.init.num_cpus=2"]),
    "submitit": (
        "submitit's local executor",
        ["-m", *GRID, "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=30"],
    ),
    "joblib": ("joblib's launcher", ["-m", *GRID, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]),
    "optuna": (
        "Optuna's sweeper",
        ["-m", *CHOICES, "hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "hydra.sweeper.n_trials=4"],
    ),
    "wandb": ("wandb agent", []),
}


def main() -> None:
    """Trains the sweep in each way, and compares it with the first."""
    parser = argparse.ArgumentParser(description="The same sweep by every launcher.")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[way for way in WAYS if way != "joblib"])
    parser.add_argument("--keep", type=Path, help="work in this folder, and keep it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.keep or Path(temporary)
        draw(work / "photos")
        wanted, different = None, []
        for way in dict.fromkeys(["one", *options.ways]):
            began = time.monotonic()
            train(way, work)
            found = read(work / "outputs", way)
            wanted = wanted if wanted is not None else found
            same = all(one.equals(other) for one, other in zip(wanted, found, strict=True))
            result = "reference" if way == "one" else "identical" if same else "DIFFERENT"
            different += [] if same else [way]
            print(f"{WAYS[way][0]:<28} {len(found)} runs  {result:<10} {time.monotonic() - began:6.1f} s", flush=True)
    sys.exit(1 if different else 0)


def draw(root: Path, per_label: int = 30) -> None:
    """Writes noise of two tints into class folders."""
    rng = np.random.default_rng(0)
    for channel, label in enumerate(("red", "green")):
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(per_label):
            pixels = rng.integers(0, 200, (24, 24, 3))
            pixels[..., channel] += 30
            Image.fromarray(pixels.astype(np.uint8)).save(root / label / f"{number:03d}.png")


def train(way: str, work: Path) -> None:
    """Trains the sweep in one way."""
    if way != "wandb":
        mlfix(["train", *KEYS, f"name={way}", *WAYS[way][1]], work)
        return
    sweep = yaml.safe_load((REPO / "configs/wandb/grid.yaml").read_text(encoding="utf-8"))
    names = list(sweep["parameters"])
    for values in itertools.product(*(sweep["parameters"][name]["values"] for name in names)):
        flags = [f"--{name}={value}" for name, value in zip(names, values, strict=True)]
        command = [part for one in sweep["command"] for part in (flags if one == "${args}" else [one])]
        mlfix([*command[1:], *KEYS, f"name={way}"], work, WANDB_SWEEP_ID="stub", WANDB_MODE="disabled")


def mlfix(arguments: list[str], work: Path, **environment: str) -> None:
    """Runs the command, with one thread a process, so that all round alike."""
    path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **environment}
    command = [sys.executable, "-m", "mlfix_train.cli.main", *arguments]
    done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}\n{done.stdout}{done.stderr}")


def read(outputs: Path, way: str) -> list[pd.DataFrame]:
    """Returns the predictions of the runs, in the order of :data:`RUNS`."""
    files = (outputs / run.format(name=way) / "predictions.parquet" for run in RUNS)
    return [pd.read_parquet(file).sort_values("sample_id", ignore_index=True) for file in files]


if __name__ == "__main__":
    main()
