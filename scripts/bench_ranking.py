"""Times and weighs an audit at full size: 200,000 samples x 401 labels x 20 runs, and its page in a browser.

    python scripts/bench_ranking.py work

Makes rendered signs, a table that names each of them many times, 20 runs that all hold out every sample (the largest
case) with whole probabilities and training dynamics, and embeddings; then runs `mlfix audit` in a process of its own
and prints its seconds, its peak memory, and, where Chromium and playwright are, how long report.html takes to show
pictures. What is there is not made again; some 4 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from mlfix_train.audit.predictions.dynamics import write_dynamics
from mlfix_train.audit.predictions.table import predictions_table, softmax, write_predictions
from mlfix_train.audit.similarity.order_files import samples_fingerprint, write_embeddings, write_order
from mlfix_train.commands.inputs import read_samples
from mlfix_train.config.compose import compose
from mlfix_train.data.samples import table_fingerprint, write_table
from mlfix_train.data.synthetic.signs import read_signs


def main() -> None:
    """Makes the inputs, audits, and prints the figures."""
    parser = argparse.ArgumentParser(description="An audit at full size.")
    parser.add_argument("work", type=Path)
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--labels", type=int, default=401)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    table, true = make_table(work, options.samples, options.labels)
    make_runs(work, table, true, options.runs)
    out = work / "audit"
    shutil.rmtree(out, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "mlfix_train.cli.main",
        "audit",
        f"runs={work / 'outputs'}",
        f"order={work / 'sort'}",
        f"out={out}",
        "logger=none",
    ]
    started = time.monotonic()
    subprocess.run(command, check=True)
    took = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    seconds = json.loads((out / "audit.json").read_text(encoding="utf-8"))["seconds"]
    steps = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())
    ranking = sum(seconds[name] for name in ("predictions", "neighbours", "ranking"))
    print(f"whole audit {took:.1f} s ({steps}); peak {peak:.2f} GB")
    print(f"ranking     {ranking:.1f} s (predictions, neighbours and ranking)")
    size = (out / "report.html").stat().st_size
    print(f"report.html {size / 1e6:.1f} MB" + opened(out / "report.html"))


def make_table(work: Path, count: int, labels: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Returns a sample table whose images are rendered signs, each named many times, and the true label's numbers."""
    signs = read_signs(work / "signs", 60, 0, 40)
    rng = np.random.default_rng(0)
    true = np.sort(np.minimum((rng.pareto(1.0, count) * labels / 12).astype(int), labels - 1))  # few common, many rare
    given = np.where(rng.random(count) < 0.01, rng.integers(labels, size=count), true)
    names = [f"class-{i:03d}" for i in range(labels)]
    path = signs["path"].to_numpy()[(true * 7 + rng.integers(7, size=count)) % len(signs)]
    ids = [f"{names[t]}/photo-{i // 3:06d}-{i % 3}.jpg" for i, t in enumerate(true)]
    columns = {
        "sample_id": ids,
        "path": path,
        "label": [names[g] for g in given],
        "group": [f"photo-{i // 3:06d}" for i in range(count)],
        "split": "",
    }
    table = pd.DataFrame(columns).set_index("sample_id")
    write_table(table, work / "samples.csv")
    return table, true


def make_runs(work: Path, table: pd.DataFrame, true: np.ndarray, runs: int) -> None:
    """Writes runs that hold out everything, and an order with embeddings."""
    keys = ["data=table", f"data.file={work / 'samples.csv'}", f"outputs={work / 'outputs'}", "pixels.size=40"]
    settings = OmegaConf.to_container(compose("train", [*keys, "name=full"]), resolve=True)
    read = read_samples(settings["data"])
    names = sorted(set(read["label"]))
    given = pd.Index(names).get_indexer(pd.Index(read["label"]))
    data = {"fingerprint": table_fingerprint(read), "samples": len(read), "held_out": len(read), "labels": len(names)}
    for seed in range(runs):
        folder = work / f"outputs/full/original/seed={seed}"
        if (folder / "run.json").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed + 1)
        parts, tables = [], []
        for start in range(0, len(read), 20_000):
            rows = slice(start, start + 20_000)
            logits = rng.normal(size=(len(true[rows]), len(names))).astype(np.float32)
            logits[np.arange(len(logits)), np.minimum(true[rows], len(names) - 1)] += 7
            parts.append(softmax(logits))
            tables.append(predictions_table(read.index[rows], given[rows], logits, names))
        np.save(folder / "probabilities.npy", np.concatenate(parts))
        write_predictions(pd.concat(tables, ignore_index=True), folder / "predictions.parquet")
        aum = (np.where(given == true, 5.0, -3.0) + 2 * rng.normal(size=len(read))).astype(np.float32)
        columns = {"sample_id": read.index, "label": read["label"].to_numpy(), "aum": aum, "times": 10}
        write_dynamics(pd.DataFrame(columns), folder / "dynamics.parquet")
        state = {"kind": "classifier", "config": settings, "identity": {}, "data": data, "labels": names}
        state["status"] = "finished"
        (folder / "run.json").write_text(json.dumps(state))
        print(f"made run {seed + 1} of {runs}", file=sys.stderr, flush=True)
    if not (work / "sort/order.parquet").exists():
        rng = np.random.default_rng(0)
        centers = rng.normal(size=(len(names), 128))
        own = centers[np.minimum(true, len(names) - 1)]
        points = (own + 0.7 * rng.normal(size=own.shape)).astype(np.float32)
        columns = {
            "sample_id": read.index,
            "label": read["label"].to_numpy(),
            "position": np.arange(len(read)),
            "label_position": 0,
            "outlier_score": 1.0,
            "label_outlier_score": 1.0,
            "duplicate_group": -1,
        }
        about = {"used": "made-up points", "samples": samples_fingerprint(read.index)}
        write_embeddings(points, work / "sort/embeddings.npy")
        write_order(pd.DataFrame(columns), work / "sort/order.parquet", about)


def opened(page: Path) -> str:
    """Returns how long the page takes in Chromium until pictures are painted, as text; the median of five."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return " (not opened: playwright is missing)"
    if browser is None:
        return " (not opened: chromium is missing)"
    times = []
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(5):
            tab = chromium.new_page(viewport={"width": 1280, "height": 900})
            started = time.monotonic()
            tab.goto(page.as_uri(), wait_until="load")
            tab.wait_for_function("[...document.querySelectorAll('.pic')].some((n) => n.style.backgroundImage)")
            times.append(time.monotonic() - started)
            tab.close()
        chromium.close()
    return f", pictures shown {np.median(times):.2f} s after the request (median of 5; {os.cpu_count()} cores)"


if __name__ == "__main__":
    main()
