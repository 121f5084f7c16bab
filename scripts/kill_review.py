"""Kills the review server while people mark and the disk fills up, and counts acknowledged marks that are lost.

    python scripts/kill_review.py <work> [--kills 100] [--writers 6]

Each round starts `mlfix review` on the same folder, lets the writers mark through its API, and kills it (SIGKILL; every
tenth time SIGTERM). In every third round the disk is full for a while, often until the next server has started: a
small tmpfs with a file that fills it, where this may be mounted (as root); else a limit on the size of the server's
files, which fails in the same way. Each mark that was answered 200 has to be in `fixes.csv` right after the kill, and
in what the next server shows, and none that was answered 507; of a mark without an answer either is right.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import http.client
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

REPO = Path(__file__).resolve().parents[1]
LABELS = ("circle", "square", "triangle")
N_SAMPLES = 360
DISK = 2 << 20  # bytes


@dataclass
class Writer:
    """One reviewer, who marks samples of their own: what was answered, and what may be."""

    name: str
    samples: list[str]
    acknowledged: dict[str, str] = field(default_factory=dict)
    open: tuple[str, str] | None = None  # sent, and not answered
    answers: Counter[int] = field(default_factory=Counter)

    def write(self, link: str, seed: int) -> None:
        """Marks until the server is gone."""
        rng, ask = random.Random(seed), client(link)
        while True:
            sample = rng.choice(self.samples)
            given = sample.split("/")[0]
            label = rng.choice(["", "invalid", *(name for name in LABELS if name != given)])
            mark = {"sample_id": sample, "new_label": label or None}
            self.open = sample, label
            try:
                status, _ = ask("marks", {"marks": [mark], "reviewer": self.name})
            except (OSError, http.client.HTTPException):
                return
            self.answers[status] += 1
            self.open = None
            if status == 200:
                self.acknowledged[sample] = label

    def wrong(self, found: dict[str, str]) -> list[str]:
        """Returns the samples whose mark is not the acknowledged one, nor the one without an answer."""
        known = {(name, self.acknowledged.get(name, "")) for name in self.samples} | {self.open}
        return [name for name in self.samples if (name, found.get(name, "")) not in known]

    def settle(self, found: dict[str, str]) -> None:
        """Takes the mark without an answer for acknowledged if it was found."""
        if self.open is not None and found.get(self.open[0], "") == self.open[1]:
            self.acknowledged[self.open[0]] = self.open[1]
        self.open = None


def client(link: str) -> Callable[[str, Any], tuple[int, Any]]:
    """Returns a function that sends a request to a server, and returns the status and the response."""
    parts = urlsplit(link)
    headers = {"authorization": f"Bearer {parts.query.partition('=')[2]}", "content-type": "application/json"}
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port or 0, timeout=60)

    def ask(kind: str, payload: Any) -> tuple[int, Any]:
        connection.request("POST", f"/api/{kind}", json.dumps(payload), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    return ask


def shown(link: str) -> dict[str, str]:
    """Returns the marks that a server shows."""
    ask, marks = client(link), dict[str, str]()
    labels, view = ask("describe", {})[1]["labels"], ask("view", {"group_by": "all"})[1]
    for number in range(-(-view["count"] // 256)):
        block = ask("block", {"view": view["view"], "number": number})[1]
        for name, mark in zip(block["ids"], block["marks"], strict=True):
            if mark != -1:
                marks[name] = "invalid" if mark == -2 else labels[mark]
    return marks


def draw(root: Path) -> list[str]:
    """Writes the images, and returns their sample ids."""
    rng, ids = np.random.default_rng(0), []
    for number in range(N_SAMPLES):
        name = f"{LABELS[number % len(LABELS)]}/{number:03d}.png"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(root / name)
        ids.append(name)
    return ids


def mount(disk: Path) -> bool:
    """Mounts a small disk; returns whether that worked."""
    disk.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def fill(disk: Path, pid: int, mounted: bool) -> None:
    """Leaves no space on the disk."""
    if not mounted:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        return
    with open(disk / "filler", "wb", buffering=0) as file:
        block = 1 << 16
        while block:
            try:
                file.write(bytes(block))
            except OSError:
                block //= 2


def empty(disk: Path, pid: int, mounted: bool) -> None:
    """Makes space on the disk again."""
    if mounted:
        (disk / "filler").unlink(missing_ok=True)
        return
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def serve(work: Path, out: Path) -> tuple[subprocess.Popen[str], str]:
    """Starts the server; returns it and its link."""
    keys = [f"data.root={work / 'pictures'}", f"out={out}", f"pixels.cache={work / 'pixels'}", "pixels.size=8"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlfix_train.cli.main", "review", *keys, "order=none", "open=false", "port=0"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )
    assert process.stdout
    for line in process.stdout:
        if found := re.search(r"http\S+", line):
            return process, found[0]
    raise SystemExit("the server did not start")


def read_fixes(path: Path) -> dict[str, str]:
    """Returns the new label of each sample in the fixes file."""
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        return {row["sample_id"]: row["new_label"] for row in csv.DictReader(file)}


def main() -> None:
    """Runs all rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--writers", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    work, rng = args.work.resolve(), random.Random(args.seed)
    shutil.rmtree(work / "pictures", ignore_errors=True)
    ids, disk = draw(work / "pictures"), work / "disk"
    mounted = mount(disk)
    out, lost, leftovers, began = disk / "review", set[tuple[int, str]](), 0, time.monotonic()
    shutil.rmtree(out, ignore_errors=True)
    writers = [Writer(f"reviewer {n}", ids[n :: args.writers]) for n in range(args.writers)]
    print(f"disk: {f'a tmpfs of {DISK >> 20} MB' if mounted else 'a limit on the size of files (no right to mount)'}")
    is_full = False
    try:
        for number in range(args.kills + 1):  # the last one only looks
            server, link = serve(work, out)
            found = shown(link)
            lost |= {(number, name) for writer in writers for name in writer.wrong(found)}
            if not is_full:
                lost |= {(number, name) for name, _ in found.items() ^ read_fixes(out / "fixes.csv").items()}
            empty(disk, server.pid, mounted)
            for writer in writers:
                writer.settle(found)
            leftovers += len(list(out.glob(".mlfix-*.tmp")))
            if number == args.kills:
                server.terminate()
                server.wait()
                break
            threads = [
                threading.Thread(target=writer.write, args=(link, rng.randrange(1 << 30)), daemon=True)
                for writer in writers
            ]
            for thread in threads:
                thread.start()
            time.sleep(rng.uniform(0.2, 1.5))
            is_full = number % 3 == 2
            if is_full:
                fill(disk, server.pid, mounted)
                time.sleep(rng.uniform(0.1, 0.8))
                if rng.random() < 0.5:  # else killed while it is full
                    empty(disk, server.pid, mounted)
                    time.sleep(rng.uniform(0.1, 0.8))
            server.send_signal(signal.SIGTERM if number % 10 == 9 else signal.SIGKILL)
            server.wait()
            for thread in threads:
                thread.join()
            is_full = is_full and rng.random() < 0.5
            if not is_full:
                empty(disk, server.pid, mounted)
            found = read_fixes(out / "fixes.csv")
            lost |= {(number, name) for writer in writers for name in writer.wrong(found)}
            if (number + 1) % 10 == 0:
                total = sum((writer.answers for writer in writers), Counter())
                print(f"{number + 1} kills: {total[200]:,} acknowledged, {total[507]:,} refused, {len(lost)} lost")
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(disk)], check=False)
    total = sum((writer.answers for writer in writers), Counter())
    others = {status: count for status, count in total.items() if status not in (200, 507)}
    print(f"{args.kills} kills in {time.monotonic() - began:.0f} s with {args.writers} writers")
    print(f"answers: {total[200]:,} acknowledged, {total[507]:,} refused because the disk was full, others {others}")
    print(f"acknowledged marks lost, or refused ones kept: {len(lost)}; temporary files after a start: {leftovers}")
    sys.exit(bool(lost or leftovers or others))


if __name__ == "__main__":
    main()
