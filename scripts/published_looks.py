"""What the published study would have said had it been looked at after every four runs of each arm, as stop=auto looks.

    python scripts/published_looks.py <folder of the unpacked archive> [--spending pocock] [--effect 0.5]

The published files have no seeds, so the runs are not paired; run n of one arm is as old as run n of the other.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from mlfix_train.audit.comparison.arms import compare_arms
from mlfix_train.audit.comparison.inputs import load_arm
from mlfix_train.audit.comparison.sequential import LookPlan
from mlfix_train.audit.comparison.study import ArmRuns
from mlfix_train.audit.comparison.verdict import interval_text
from mlfix_train.audit.predictions.files import PUBLISHED_PHOTO
from mlfix_train.data.readers.files import group_names


def main() -> None:
    """Looks at the study, and prints a row for each look."""
    parser = argparse.ArgumentParser(description="The published study, look by look.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--spending", default="pocock")
    parser.add_argument("--effect", type=float, default=0.5)
    parser.add_argument("--resamples", type=int, default=10_000)
    options = parser.parse_args()
    arms = {
        name: load_arm(name, str(options.folder / f"predictions/{name}-predictions-*.csv")).runs.predictions
        for name in ("original", "fixed")
    }
    ids = [str(name) for name in next(iter(arms["original"].values()))["sample_id"]]
    groups = pd.Series(group_names(ids, PUBLISHED_PHOTO, "group"), index=ids, dtype=object)
    plan = LookPlan(20, 4, effect=options.effect, spending=options.spending)
    print(
        "| runs of each arm | training effect | as said at this look | p | decision |\n| --- | --- | --- | --- | --- |"
    )
    for runs in plan.remaining:
        first = [ArmRuns(name, dict(list(tables.items())[:runs]), False) for name, tables in arms.items()]
        fixes = options.folder / "invalid-speed-limits.csv"
        more = {"slices": {"speed": "speed"}, "primary": "speed", "groups": groups, "plan": plan, "details": False}
        summary = compare_arms(*first, fixes=fixes, resamples=options.resamples, **more).summary
        plan = plan.at(runs)
        effect, looks = summary["slices"]["speed"]["effect"], summary["looks"]
        cells = [str(runs), f"{effect['training']:.2f}", interval_text(effect), f"{effect['p_value']:.3f}"]
        print(f"| {' | '.join([*cells, looks['decision']])} |", flush=True)
        print(f"    {summary['headline']} (power left {looks['power_left']:.2f})", flush=True)


if __name__ == "__main__":
    main()
