"""How fast a training step is beside other jobs on the same cores, by how its threads wait for each other.

python scripts/bench_threads.py [--others 0 1 3] [--kind train loop] [--seconds 4] [--rounds 2]

Every way to wait trains a small network for some seconds beside 0, 1 and 3 other jobs: trainings with the defaults of
PyTorch, or single-threaded loops. The ways take turns, round by round; images/s are compared within a round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

WAYS: dict[str, dict[str, str]] = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "spin 1,000": {"GOMP_SPINCOUNT": "1000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
"""Environment variables by name; the first is what others are compared with."""
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")


def train(seconds: float) -> float:
    """Trains a small network on 32 px images in this process for some seconds; returns images/s."""
    import torch

    from mlfix_train.models.backbones.network import Network

    torch.manual_seed(0)
    network = Network("mlfix_small", 10)
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    images, labels = torch.randn(128, 3, 32, 32), torch.randint(10, (128,))

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    for _ in range(3):
        step()
    steps, start = 0, time.monotonic()
    while time.monotonic() - start < seconds:
        step()
        steps += 1
    return 128 * steps / (time.monotonic() - start)


def start(what: str, seconds: float, variables: dict[str, str]) -> subprocess.Popen[str]:
    """Starts a process that runs this script for one job."""
    env = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    command = [sys.executable, __file__, "--job", what, "--seconds", str(seconds)]
    return subprocess.Popen(command, env={**env, **variables}, stdout=subprocess.PIPE, text=True)


def measure(way: str, others: int, kind: str, seconds: float) -> float:
    """Returns the images/s of a training beside other jobs, which run from before it starts until it has ended."""
    busy = [start(kind, 600, {}) for _ in range(others)]
    try:
        time.sleep(6 if others and kind == "train" else 0)  # until they train
        out, _ = start("train", seconds, WAYS[way]).communicate()
    finally:
        for process in busy:
            process.kill()
            process.wait()
    return float(out)


def main() -> None:
    """Prints a table: images/s, and the ratio to the default of the same round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--others", type=int, nargs="+", default=[0, 1, 3])
    parser.add_argument("--kind", nargs="+", default=["train", "loop"], choices=["train", "loop"])
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--job", choices=["train", "loop"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.job == "loop":
        while True:
            pass
    if asked.job == "train":
        print(train(asked.seconds))
        return
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    for kind, others in [(kind, n) for kind in asked.kind for n in asked.others if n or kind == asked.kind[0]]:
        rounds = [{way: measure(way, others, kind, asked.seconds) for way in WAYS} for _ in range(asked.rounds)]
        parts = []
        for way in WAYS:
            speed = statistics.median(one[way] for one in rounds)
            ratio = statistics.median(one[way] / one["default"] for one in rounds)
            parts.append(f"{way} {speed:,.0f} ({ratio:.2f})")
        print(f"{others} other {kind}: images/s (ratio to default): {', '.join(parts)}", flush=True)


if __name__ == "__main__":
    main()
