"""``mlfix demo``: the whole loop on rendered signs with planted errors, and a simulated reviewer."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from mlfix_train.commands import audit, compare, sort
from mlfix_train.commands.progress import duration
from mlfix_train.config import build as config
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.fixes.table import INVALID, write_fixes
from mlfix_train.data.label_noise import TRUE_LABEL, confusions_among, plant_confusions
from mlfix_train.data.samples import write_table
from mlfix_train.errors import check_range
from mlfix_train.training import run as train

CLASSES = (
    "ahead-only", "children-crossing", "end-of-speed-limit-80", "general-caution", "keep-right", "no-entry",
    "no-overtaking", "no-vehicles", "priority-road", "road-work", "roundabout", "speed-limit-100", "speed-limit-120",
    "speed-limit-20", "speed-limit-30", "speed-limit-50", "speed-limit-60", "speed-limit-70", "speed-limit-80", "stop",
    "turn-right-ahead", "yield",
)  # fmt: skip
SPEED = "^speed"


def run(cfg: DictConfig) -> dict[str, Any]:
    """Runs the loop; started again it goes on where it was.

    Args:
        cfg: the composed configuration of ``mlfix demo``.

    Returns:
        ``demo.json``: what was planted, looked at, found, and what it changed.
    """
    limits = {
        "per_class": (1, 100_000),
        "budget": (1, 10**6),
        "seeds": (1, 1000),
        "folds": (2, 20),
        "epochs": (1, 10**4),
    }
    for key, (low, high) in limits.items():
        config.check_type(key, cfg[key], "int")
        check_range(key, cfg[key], low, high)
    check_range("planted", cfg.planted, 0.01, 0.5)
    check_range("difficulty", cfg.difficulty, 0, 2)
    config.check_type("control", cfg.control, "bool")
    config.check_place("out", cfg.out)
    started = time.monotonic()
    out = Path(str(cfg.out)).expanduser()
    arms = ["original", "fixed", *(["control"] if cfg.control else [])]
    step = _Steps(started)
    _announce(cfg.folds + len(arms) * cfg.seeds, out)
    step("planting wrong labels among the speed limits of rendered signs")
    table = plant_signs(cfg, out)
    planted = table.index[table["label"] != table[TRUE_LABEL]]
    print(f"           {len(planted)} of {len(table):,} labels are wrong now ({out / 'samples.csv'})")

    step("sort: alike beside alike, by the pixels")
    sort.run(_sort(out))

    step(f"audit: {cfg.folds} runs that hold out a part each: every sample is judged by a model that never saw it")
    for fold in range(cfg.folds):
        train.run(_train(cfg, out, "audit", "original", 0, f"split.folds={cfg.folds}", f"split.fold={fold}"))
    keys = [
        config.assign(*pair) for pair in (("runs", out / "runs/audit"), ("order", out / "sort"), ("out", out / "audit"))
    ]
    ranking = audit.run(config.compose("audit", [*keys, "logger=none", f"slices.speed={SPEED}"]))

    step(f"review: a simulated person looks at the first {cfg.budget} of the ranking and marks the wrong ones invalid")
    fixes, found = simulate_review(ranking, table, int(cfg.budget))
    path = write_fixes(fixes, out / "fixes.csv")
    print(f"           {len(found)} of the {len(planted)} wrong labels found: {path}")

    step(f"before and after: {cfg.seeds} runs of each arm ({', '.join(arms)}), {cfg.seeds * len(arms)} trainings")
    for seed in range(cfg.seeds):
        for arm in arms:
            train.run(_train(cfg, out, "signs", arm, seed, config.assign("fixes.path", path)))
    print()
    summary = compare.run(_compare(out, arms, path))
    result = {
        "samples": len(table), "seeds": int(cfg.seeds),
        "planted": len(planted), "looked_at": int(cfg.budget), "found": len(found),
        "true_error": true_errors(out, arms, table), "slices": summary["slices"],
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip
    with atomic_path(out / "demo.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
    _report(result, out, arms)
    return result


def _announce(count: int, out: Path) -> None:
    print(f"The loop on rendered signs: {count} short trainings, some minutes on two cores. Everything lies in {out};")
    print("started again, the demo goes on where it was.")


class _Steps:
    """Numbers and times the headings."""

    def __init__(self, started: float) -> None:
        self.number, self.started = 0, started

    def __call__(self, words: str) -> None:
        self.number += 1
        print(f"\n[{self.number}] {words} ({duration(time.monotonic() - self.started)} so far)", flush=True)


def plant_signs(cfg: DictConfig, out: Path) -> pd.DataFrame:
    """Renders the signs, plants errors among the speed limits, and writes ``samples.csv`` with the true labels."""
    from mlfix_train.data.synthetic.signs import read_signs

    def progress(done: int, total: int) -> None:
        if done % 500 == 0 or done == total:
            print(f"drawing signs: {done:,} of {total:,}", file=sys.stderr, flush=True)

    table = read_signs(out / "signs", int(cfg.per_class), int(cfg.seed), 32, CLASSES, float(cfg.difficulty), progress)
    limits = [name for name in CLASSES if name.startswith("speed-limit")]
    planted = plant_confusions(table, float(cfg.planted), confusions_among(limits, 2), int(cfg.seed))
    shown = planted.assign(path=[Path("signs", name).as_posix() for name in planted.index]).drop(
        columns=["group", "split"]
    )
    write_table(shown, out / "samples.csv")
    return planted


def _sort(out: Path) -> DictConfig:
    """Composes the settings of the demo's order."""
    keys = ["data=table", config.assign("data.file", out / "samples.csv"), config.assign("out", out / "sort")]
    return config.compose("sort", [*keys, "pixels.size=32", f"slices.speed={SPEED}"])


def _compare(out: Path, arms: list[str], fixes: Path) -> DictConfig:
    """Composes the settings of the demo's comparison."""
    keys = [config.assign(arm, out / "runs/signs" / arm) for arm in arms]
    keys += [config.assign("fixes.path", fixes), config.assign("out", out / "compare")]
    return config.compose("compare", [*keys, f"slices.speed={SPEED}", "logger=none"])


def _train(cfg: DictConfig, out: Path, name: str, arm: str, seed: int, *more: str) -> DictConfig:
    """Composes the settings of one training of the demo."""
    return config.compose(
        "train",
        [
            "experiment=demo", config.assign("data.file", out / 'samples.csv'), config.assign("outputs", out / 'runs'),
            "report=line", f"name={name}", f"arm={arm}", f"seed={seed}", f"recipe.epochs={cfg.epochs}", *more,
        ],
    )  # fmt: skip


def simulate_review(ranking: pd.DataFrame, table: pd.DataFrame, budget: int) -> tuple[pd.DataFrame, list[str]]:
    """Plays a reviewer who looks at the head of the ranking only, and knows a wrong label on sight.

    Args:
        ranking: most suspicious first.
        table: with ``true_label``.
        budget: samples looked at.

    Returns:
        Fixes that mark the wrong ones among them invalid, and their ids.
    """
    seen = ranking["sample_id"].head(budget)
    wrong = [name for name in seen if str(table.at[name, "label"]) != str(table.at[name, TRUE_LABEL])]
    fixes = pd.DataFrame({"sample_id": wrong, "new_label": INVALID, "old_label": table.loc[wrong, "label"].to_numpy()})
    return fixes.assign(reviewer="simulated"), wrong


def true_errors(out: Path, arms: list[str], table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Returns each arm's held-out error in percent by the labels before planting, over all and over the limits."""
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


def _report(result: dict[str, Any], out: Path, arms: list[str]) -> None:
    true = result["true_error"]
    print(
        "\nBecause the errors were planted, the truth is known. Error on all held-out speed limits by their true labels"
    )
    print("(the comparison above leaves out what the reviewer marked invalid, and knows no more than that):")
    print("           " + ", ".join(f"{arm} {true[arm]['speed']:.2f}%" for arm in arms))
    share = result["found"] / max(result["planted"], 1)
    print(f"Found      {result['found']} of {result['planted']} planted errors ({share:.0%}) among the first "
          f"{result['looked_at']} of {result['samples']:,} samples")  # fmt: skip
    if result["slices"]["speed"]["verdict"] not in ("better", "worse"):
        print(f"Not shown? {result['seeds']} seeds are a taste: `mlfix demo seeds=8` trains the missing ones.")
    print(f"Look at    {out / 'sort/panels/all.png'}")
    print(f"           {out / 'audit/report.html'}\n           {out / 'compare/compare.html'}")  # fmt: skip
    print(f"Mark some  mlfix review audit={out / 'audit'} out={out / 'review'}")
    print(f"Took       {duration(result['seconds'])}", flush=True)
