"""Kills a sweep of four runs again and again, and checks that its predictions are those of an undisturbed one.

    python scripts/kill_runs.py [--kills 50] [--seed 0] [--out <folder>]

Each kill is SIGKILL, SIGTERM or SIGUSR1, within the first epoch of a run, later, while a checkpoint is saved, or after
a random time. The sweep is then started again, as SLURM would, by the same command; once it is finished, another one
begins. It fails if a sweep does not end, if predictions differ in a single bit, or if SIGTERM or SIGUSR1 leaves
`running` behind, or doesn't end the sweep within ten seconds. Libraries are imported once: an attempt is a fork of this
process.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mlfix_train.cli.main import run_safely
from mlfix_train.commands import train, train_sweep  # noqa: F401  imported before the forks
from mlfix_train.data.runs import RunDirectory

SEEDS = range(4)
KEYS = (
    *("model=small", "recipe.epochs=3", "recipe.frozen_epochs=1", "loader.batch_size=8", "pixels.size=16"),
    *("audit.n_panels=0", "logger=csv", "trainer.accelerator=cpu", "trainer.precision=32-true", "seed=range(0,4)"),
)
JOB = {"NTASKS": "1", "JOB_NAME": "train", "JOB_ID": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1)
MOMENTS = ("in a first epoch", "in a later epoch", "while saving", "at any time")
PROMPT = 10.0
"""Seconds in which a signal that can be handled has to end the sweep."""
LIMIT = 300.0
"""Seconds after which a sweep hangs."""


def main() -> None:
    """Kills as often as the command line says, and prints a line for each kill and a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="an empty folder; by default a temporary one")
    given = parser.parse_args()
    out = given.out or Path(tempfile.mkdtemp(prefix="kill_runs-"))
    rng, started = random.Random(given.seed), time.monotonic()
    os.environ |= {f"SLURM_{name}": value for name, value in JOB.items()} | {"OMP_NUM_THREADS": "1"}
    draw_images(out / "images")
    if finish(start(out, "undisturbed")) != 0:
        sys.exit(f"the undisturbed sweep failed, see {out}/undisturbed.log")
    wanted, wrong, done, sweeps = predictions(out / "undisturbed"), 0, Counter[str](), 0
    while sum(done.values()) < given.kills:
        name, code = f"sweep{sweeps}", None
        while code != 0:
            process = start(out, name)
            moment, signum = rng.choice(MOMENTS), rng.choice(SIGNALS)
            if sum(done.values()) < given.kills and wait_for(moment, out / name, process, rng):
                number, where = sum(done.values()) + 1, progress(out / name)
                sent = time.monotonic()
                os.kill(process, signum)
                code, took = finish(process), time.monotonic() - sent
                left = [run.status or "not started" for run in runs(out / name)]
                bad = signum != signal.SIGKILL and (
                    code not in (128 + signum, -signum) or took > PROMPT or bool(trained(out / name, process))
                )
                wrong += bad
                done[f"{signum.name} {moment}"] += 1
                print(
                    f"{number:3} of {given.kills}  {signum.name:7} {moment:16} {where}: ended after {took:.2f} s"
                    f" with {code}, {', '.join(left)}{'  WRONG' * bad}",
                    flush=True,
                )
            else:
                code = finish(process)
                if code != 0:
                    sys.exit(f"an attempt failed with {code}, see {out}/{name}.log")
        sweeps += 1
        different = sum(not a.equals(b) for a, b in zip(wanted, predictions(out / name), strict=True))
        wrong += different
        print(f"{name}: all runs finished, {len(wanted) - different} of {len(wanted)} bit-identical", flush=True)
    for what, count in sorted(done.items()):
        print(f"{count:3}  {what}")
    minutes = (time.monotonic() - started) / 60
    print(f"{sum(done.values())} kills of {sweeps} sweeps in {minutes:.1f} min: {wrong or 'nothing'} wrong")
    sys.exit(bool(wrong))


def draw_images(root: Path, per_label: int = 32) -> None:
    """Writes ``root/<label>/<n>.png``: noise with a bright channel, a different one for each of three labels."""
    noise = np.random.default_rng(0)
    for channel, label in enumerate(("red", "green", "blue")):
        (root / label).mkdir(parents=True)
        for number in range(per_label):
            image = noise.integers(0, 200, (16, 16, 3))
            image[..., channel] += 50
            Image.fromarray(image.astype(np.uint8)).save(root / label / f"{number:03}.png")


def start(out: Path, name: str) -> int:
    """Starts the sweep ``name`` in a fork of this process; returns its process id."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        with open(out / f"{name}.log", "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        real_fsync = os.fsync

        def fsync(file: int) -> None:  # a slow disk, so that there is a time to be killed in
            time.sleep(0.03)
            real_fsync(file)

        os.fsync = fsync  # type: ignore[assignment]
        keys = (f"data.root={out}/images", f"outputs={out}", f"name={name}", *KEYS)
        code = run_safely("train", ["-m", *keys])
        sys.stdout.flush()
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        os._exit(code)


def finish(process: int) -> int:
    """Waits for a process; returns its exit code, negative for a signal."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    sys.exit("a sweep hangs")


def wait_for(moment: str, folder: Path, process: int, rng: random.Random) -> bool:
    """Waits for a moment of the sweep in ``folder``; returns whether it came before the sweep ended."""
    epochs, delay = rng.randint(1, 3), rng.uniform(0, 4.0 if moment == "at any time" else 0.3)
    due: float | None = time.monotonic() + delay if moment == "at any time" else None
    while os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if due is not None and time.monotonic() >= due:
            return True
        if due is None:
            running = trained(folder, process)
            saved = running is not None and running.checkpoint.exists()
            came = {
                "in a first epoch": running is not None and not saved,
                "in a later epoch": saved and len(rows(running)) >= epochs,
                "while saving": running is not None and any(running.checkpoint.parent.glob(".*.tmp")),
            }[moment]
            due = time.monotonic() + (0 if moment == "while saving" else delay) if came else None
        time.sleep(0.001)
    return False


def runs(folder: Path) -> list[RunDirectory]:
    """Returns the runs of a sweep."""
    return [RunDirectory(folder / f"original/seed={seed}") for seed in SEEDS]


def trained(folder: Path, process: int) -> RunDirectory | None:
    """Returns the run that a process trains: ``running``, and not left behind by one that was killed."""
    return next((run for run in runs(folder) if (run.status, run.read().get("pid")) == ("running", process)), None)


def rows(run: RunDirectory | None) -> list[str]:
    """Returns the lines of ``metrics.csv``, one an epoch."""
    file = run.path / "metrics.csv" if run is not None else Path("nowhere")
    return file.read_text().splitlines()[1:] if file.exists() else []


def progress(folder: Path) -> str:
    """Returns the run that is trained and its epochs so far."""
    run = next((run for run in runs(folder) if run.status not in ("finished", "")), None)
    return "before a run" if run is None else f"{run.path.name} after {len(rows(run))} epochs"


def predictions(folder: Path) -> list[pd.DataFrame]:
    """Returns the predictions of the runs of a finished sweep."""
    return [pd.read_parquet(run.predictions) for run in runs(folder)]


if __name__ == "__main__":
    main()
