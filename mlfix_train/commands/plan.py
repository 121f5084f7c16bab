"""``mlfix plan``: how many seeds, samples and hours it takes to show an effect, from a pilot."""

from pathlib import Path
from typing import Any

import numpy as np

from mlfix_train.audit.comparison.planning import plan_slice
from mlfix_train.audit.comparison.verdict import format_points
from mlfix_train.audit.reporting.comparison_report import chart_stems
from mlfix_train.audit.reporting.plan_chart import power_curve
from mlfix_train.commands.compare import compare_loaded, load_arms
from mlfix_train.commands.progress import align_columns, format_duration
from mlfix_train.config.compare import CompareConfig
from mlfix_train.config.plan import PlanConfig
from mlfix_train.data.files.json_files import write_json
from mlfix_train.errors import RunError

RESAMPLES = 1000  # of intervals that a plan doesn't show


def run(cfg: PlanConfig) -> dict[str, Any]:
    """Plans a study and writes ``plan.json`` and a curve for each slice.

    Returns:
        What ``plan.json`` holds.

    Raises:
        MlfixError: a pilot with a single seed, or arms that can't be compared.
    """
    shared = {key: getattr(cfg, key) for key in ("original", "fixed", "fixes", "ignore", "slices", "samples", "group")}
    pilot = CompareConfig(**shared, resamples=RESAMPLES)
    arms, notes = load_arms(pilot)
    summary = compare_loaded(pilot, arms, notes, details=False).summary
    times = [state.get("timings", {}).get("total_seconds") for arm in arms.values() for state in arm.states.values()]
    seconds = float(np.mean([time for time in times if time])) if any(times) else None
    slices = {
        name: plan_slice(result, cfg.effect, cfg.power, seconds, cfg.arms)
        for name, result in summary["slices"].items()
        if not name.startswith("not ")
    }
    plans = {name: plan for name, plan in slices.items() if plan is not None}
    if not plans:
        raise RunError(
            "the pilot can't tell how much runs differ: it needs two seeds of each arm, and two groups of samples",
            "train a pilot of three: mlfix train -m sweep=before_after seed=0,1,2",
        )
    pilot_runs = {name: len(arm["runs"]) for name, arm in summary["arms"].items()}
    settings = {"effect": cfg.effect, "power": cfg.power, "arms": cfg.arms, "seconds_per_training": seconds}
    result = {**settings, "pilot": pilot_runs, "slices": plans}
    out = Path(cfg.out).expanduser()
    write_json(out / "plan.json", result)
    size = format_points(cfg.effect, 2 if cfg.effect < 10 else 0)
    for (name, plan), stem in zip(plans.items(), chart_stems(list(plans)), strict=True):
        title = f"How many seeds show an effect of {size}, {name}"
        power_curve(plan, out / f"{stem}.png", title, cfg.power, out / f"{stem}.svg")
    _print_plan(result, size, out)
    return result


def _print_plan(result: dict[str, Any], size: str, out: Path) -> None:
    runs = ", ".join(f"{count} {arm}" for arm, count in result["pilot"].items())
    print(f"To show an effect of {size} with {result['power']:.0%} power (pilot: {runs}):\n")
    table = [
        [
            "slice",
            "held-out samples",
            "seeds of each arm",
            "at most",
            "trainings",
            "time",
            "on the mean, if it may stop early",
        ]
    ]
    for name, plan in result["slices"].items():
        for row in plan["by_samples"]:
            first = row is plan["by_samples"][0]
            trainings = None if row["runs"] is None else result["arms"] * row["runs"]
            seconds = result["seconds_per_training"]
            table.append(
                [
                    name if first else "",
                    f"{row['samples']:,}",
                    "more samples needed" if row["runs"] is None else f"{row['runs']:,}",
                    "–" if row["runs_at_most"] is None else f"{row['runs_at_most']:,}",
                    "–" if trainings is None else f"{trainings:,}",
                    "–" if trainings is None or seconds is None else format_duration(trainings * seconds),
                    f"{plan['runs_with_stop']:.0f} seeds" if first and plan["runs_with_stop"] is not None else "",
                ]
            )
    for line in align_columns(table):
        print(line)
    print("\n`at most` allows for what so small a pilot leaves open. More held-out samples: split.fraction")
    print(f"plan       {out / 'plan.json'}, a curve for each slice in the same folder", flush=True)
