"""Times `mlfix compare` on the 40 published prediction files: 10,000 resamples, five slices and their complements.

    python scripts/bench_compare.py <folder of the unpacked archive> [--rounds 3] [--other <checkout>]

Each round is a process of its own; with another checkout of the project, the two take turns. Prints seconds, seconds of
processor time (which count less of what runs beside it) and peak memory of the largest process.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SLICES = ("speed", "^warning", "^regulatory", "^information", "^complementary")


def compare(folder: Path, checkout: Path) -> tuple[float, float, float]:
    """Runs the command once; returns seconds, seconds of processor time, and peak memory in GB of any run so far."""
    arms = [f"{arm}={folder}/predictions/{arm}-predictions-*.csv" for arm in ("original", "fixed")]
    slices = [f"slices.{pattern.removeprefix('^')}={pattern}" for pattern in SLICES]
    keys = [*arms, *slices, f"fixes.path={folder}/invalid-speed-limits.csv", "logger=none", "out=out"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        command = [sys.executable, "-m", "mlfix_train.cli.main", "compare", *keys]
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        subprocess.run(command, cwd=work, env=environment, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, used, after.ru_maxrss / 2**20


def main() -> None:
    """Prints a row for each round."""
    parser = argparse.ArgumentParser(description="Time of mlfix compare.")
    parser.add_argument("folder", type=lambda text: Path(text).resolve())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--other", type=lambda text: Path(text).resolve())
    options = parser.parse_args()
    here = Path(__file__).resolve().parents[1]
    print("| checkout | seconds | processor seconds | peak so far |\n| --- | --- | --- | --- |")
    for _ in range(options.rounds):
        for checkout in (here, *([options.other] if options.other else [])):
            seconds, used, peak = compare(options.folder, checkout)
            print(f"| {checkout.name} | {seconds:.1f} | {used:.1f} | {peak:.2f} GB |", flush=True)


if __name__ == "__main__":
    main()
