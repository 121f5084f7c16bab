"""``mlfix demo``: the whole loop on rendered signs with planted label errors, and a simulated reviewer."""

import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.commands import run_command
from mlfix_train.commands.progress import ProgressBar, format_duration
from mlfix_train.config.demo import DemoConfig
from mlfix_train.config.overrides import assign
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.fixes.table import write_fixes
from mlfix_train.data.label_noise import TRUE_LABEL, confusions_among, plant_confusions
from mlfix_train.data.samples import INVALID, write_table

LIMITS = [f"speed-limit-{limit}" for limit in (100, 120, 20, 30, 50, 60, 70, 80)]
CLASSES = (
    *LIMITS,
    *("end-of-speed-limit-80", "no-entry", "no-overtaking", "no-vehicles", "priority-road", "stop", "yield"),
    *("ahead-only", "keep-right", "roundabout", "turn-right-ahead"),
    *("children-crossing", "general-caution", "road-work"),
)
SPEED = "^speed"


def run(cfg: DemoConfig) -> dict[str, Any]:
    """Runs the whole loop; run again, it continues where it stopped.

    Returns:
        The content of ``demo.json``: what was planted, reviewed and found, and what fixing it changed.
    """
    started = time.monotonic()
    out = Path(cfg.out).expanduser()
    arms = ["original", "fixed", *(["control"] if cfg.control else [])]
    numbers, n_runs = itertools.count(1), cfg.folds + len(arms) * cfg.seeds

    def heading(text: str) -> None:
        passed = format_duration(time.monotonic() - started)
        print(f"\n[{next(numbers)}] {text} ({passed} so far)", flush=True)

    print(f"The whole loop on rendered signs: {n_runs} short training runs, a few minutes on")
    print(f"two cores. Everything is written to {out}; run it again to continue where it stopped.")

    heading("Plant wrong labels among the speed limits")
    table = plant_signs(cfg, out)
    planted = table.index[table["label"] != table[TRUE_LABEL]]
    print(f"           {len(planted)} of {len(table):,} labels are wrong now ({out / 'samples.csv'})")

    heading("Sort the images by visual similarity")
    samples = ["data=table", assign("data.file", out / "samples.csv")]
    run_command("sort", *samples, assign("out", out / "sort"), "pixels.size=32", f"slices.speed={SPEED}")

    heading(f"Audit: {cfg.folds} runs hold out one fold each, so every label is judged by a model that never saw it")
    for fold in range(cfg.folds):
        _train(cfg, out, "audit", "original", 0, f"split.folds={cfg.folds}", f"split.fold={fold}")
    folders = [assign("runs", out / "runs/audit"), assign("order", out / "sort"), assign("out", out / "audit")]
    ranking = run_command("audit", *folders, "by=order", "logger=none", f"slices.speed={SPEED}")

    heading(f"Review: a simulated person checks the {cfg.budget} most suspicious and marks the wrong ones as invalid")
    fixes, found = simulate_review(ranking, table, cfg.budget)
    path = write_fixes(fixes, out / "fixes.csv")
    print(f"           {len(found)} of the {len(planted)} wrong labels found: {path}")

    heading(f"Before and after: {cfg.seeds} runs of each arm ({', '.join(arms)})")
    for seed in range(cfg.seeds):
        for arm in arms:
            _train(cfg, out, "signs", arm, seed, assign("fixes.path", path))
    print()
    runs = [assign(arm, out / "runs/signs" / arm) for arm in arms]
    keys = [*runs, assign("fixes.path", path), assign("out", out / "compare"), f"slices.speed={SPEED}", "logger=none"]
    keys.append("primary=speed")  # what the errors were planted among, and the review was for
    summary = run_command("compare", *keys)
    result = {
        "samples": len(table),
        "seeds": cfg.seeds,
        "planted": len(planted),
        "reviewed": cfg.budget,
        "found": len(found),
        "true_error": true_errors(out, arms, table),
        "headline": summary["headline"],
        "slices": summary["slices"],
        "seconds": round(time.monotonic() - started, 1),
    }
    with atomic_path(out / "demo.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
    _report(result, out)
    return result


def _train(cfg: DemoConfig, out: Path, name: str, arm: str, seed: int, *more: str) -> None:
    where = [assign("data.file", out / "samples.csv"), assign("outputs", out / "runs")]
    keys = [f"name={name}", f"arm={arm}", f"seed={seed}", f"recipe.epochs={cfg.epochs}"]
    run_command("train", "experiment=demo", "report=line", *where, *keys, *more)


def plant_signs(cfg: DemoConfig, out: Path) -> pd.DataFrame:
    """Renders the signs, plants errors among the speed limits, and writes ``samples.csv`` with the true labels."""
    from mlfix_train.data.synthetic.signs import read_signs

    progress = ProgressBar("rendering signs")
    table = read_signs(out / "signs", cfg.per_class, cfg.seed, 32, CLASSES, cfg.difficulty, progress)
    planted = plant_confusions(table, cfg.planted, confusions_among(LIMITS, 2), cfg.seed)
    paths = [Path("signs", name).as_posix() for name in planted.index]
    write_table(planted.assign(path=paths).drop(columns=["group", "split"]), out / "samples.csv")
    return planted


def simulate_review(ranking: pd.DataFrame, table: pd.DataFrame, budget: int) -> tuple[pd.DataFrame, list[str]]:
    """Simulates a reviewer who checks the first ``budget`` samples of a ranking and recognizes every wrong label.

    Returns:
        Fixes that mark those as invalid whose label in the table is not their ``true_label``, and their sample ids.
    """
    seen = ranking["sample_id"].head(budget)
    wrong = [name for name in seen if str(table.at[name, "label"]) != str(table.at[name, TRUE_LABEL])]
    fixes = pd.DataFrame({"sample_id": wrong, "new_label": INVALID, "old_label": table.loc[wrong, "label"].to_numpy()})
    return fixes.assign(reviewer="simulated"), wrong


def true_errors(out: Path, arms: list[str], table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Returns each arm's held-out error in percent by true labels, over all samples and over the speed limits."""
    from mlfix_train.audit.predictions.table import read_predictions
    from mlfix_train.data.runs import find_runs

    result = {}
    for arm in arms:
        rows = [read_predictions(run.predictions) for run in find_runs(out / "runs/signs" / arm)]
        wrong = [(p["pred"].to_numpy() != table.loc[p["sample_id"], TRUE_LABEL].to_numpy()) for p in rows]
        limits = [table.loc[p["sample_id"], TRUE_LABEL].str.contains(SPEED).to_numpy() for p in rows]
        result[arm] = {
            "all": float(100 * np.mean([w.mean() for w in wrong])),
            "speed": float(100 * np.mean([w[m].mean() for w, m in zip(wrong, limits, strict=True)])),
        }
    return result


def _report(result: dict[str, Any], out: Path) -> None:
    share = result["found"] / max(result["planted"], 1)
    before, after = (result["true_error"][arm]["speed"] for arm in ("original", "fixed"))
    print(f"""
In short
  1. {result["planted"]} of {result["samples"]:,} labels were made wrong, all of them speed limits.
  2. The audit put {result["found"]} of them ({share:.0%}) among the {result["reviewed"]} it found most suspicious.
  3. {result["headline"]}
     By the true labels, which only a demo knows, the error on speed limits went from {before:.1f}% to {after:.1f}%.""")
    if result["slices"]["speed"]["verdict"] not in ("better", "worse"):
        print(f"     {result['seeds']} seeds are too few here: `mlfix demo seeds={result['seeds'] + 4}` trains more.")
    print(
        f"""
Look at
  the ranked labels    {out / "audit/report.html"}
  before and after     {out / "compare/compare.html"}
  the sorted images    {out / "sort/panels/all.png"}
Mark labels yourself
  mlfix review audit={out / "audit"} out={out / "review"}

Took {format_duration(result["seconds"])}""",
        flush=True,
    )
