"""Checks the interval and the p-value of `mlfix compare` on simulated studies whose true effect is known.

    python scripts/simulate_coverage.py [--studies 500]

A study has R runs of each arm, and held-out samples in groups (tracks, photos). Samples and groups differ in
difficulty, runs in quality; everything else that a run gets wrong is chance. Fixing labels helps on some samples and
harms on others (or, in the studies without an effect, on none). Runs, groups and samples are drawn anew for every
study; the true effect is the mean over all of them. Prints for each design how often the 95% interval covers the true
effect (should be 92 to 98%), and how often p < 0.05 without an effect (should be 3 to 7%).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit

from mlfix_train.audit.comparison.arms import compare_arms
from mlfix_train.audit.comparison.study import ArmRuns


@dataclass(frozen=True)
class Design:
    """A study design; ``changed`` is the fraction of samples on which fixing has an effect, ``paired``: seeds pair."""

    name: str
    runs: int
    groups: int
    per_group: int
    paired: bool = True
    changed: float = 0.15


DESIGNS = (
    Design("20 pairs, 1,500 samples", 20, 1500, 1),
    Design("8 pairs, 150 tracks of 10", 8, 150, 10),
    Design("20 + 20 unpaired, 500 photos of 3", 20, 500, 3, paired=False),
    Design("3 pairs, 1,500 samples", 3, 1500, 1),
)


def error_logits(design: Design, groups: int, rng: np.random.Generator, effect: bool) -> tuple[np.ndarray, np.ndarray]:
    """Draws the logit of the error probability, before and after fixing, of ``groups * per_group`` samples."""
    difficulty = np.repeat(rng.normal(0, 1.0, groups), design.per_group) + rng.normal(0, 1.5, groups * design.per_group)
    before = -3.5 + difficulty
    shift = (rng.random(len(before)) < design.changed) * rng.normal(-0.8, 1.0, len(before)) * effect
    return before, before + shift


def simulate(design: Design, rng: np.random.Generator, effect: bool) -> tuple[ArmRuns, ArmRuns, pd.Series]:
    """Draws one study."""
    before, after = error_logits(design, design.groups, rng, effect)
    names = [f"s{i}" for i in range(len(before))]
    shared = rng.normal(0, 0.10, design.runs)
    arms = []
    for arm, logit in (("original", before), ("fixed", after)):
        runs = {}
        for seed in range(design.runs):
            level = (shared[seed] if design.paired else rng.normal(0, 0.10)) + rng.normal(0, 0.05)
            wrong = rng.random(len(names)) < expit(logit + level)
            runs[f"seed={seed}" if design.paired else f"{arm}-{seed}"] = pd.DataFrame(
                {"sample_id": names, "label": "a", "pred": np.where(wrong, "b", "a")}
            )
        arms.append(ArmRuns(arm, runs, seeded=design.paired))
    group = pd.Series([f"g{i // design.per_group}" for i in range(len(names))], index=names)
    return arms[0], arms[1], group


def true_effect(design: Design) -> float:
    """Returns the true training effect in points, over two million samples and the runs' levels."""
    rng = np.random.default_rng(12345)
    before, after = error_logits(design, 2_000_000 // design.per_group, rng, True)
    level = rng.normal(0, np.hypot(0.10, 0.05), len(before))
    return float(100 * (expit(before + level) - expit(after + level)).mean())


def main() -> None:
    """Simulates all designs, with and without an effect."""
    parser = argparse.ArgumentParser(description="Coverage of the interval, level of the test.")
    parser.add_argument("--studies", type=int, default=500)
    options = parser.parse_args()
    print("| studies | effect | true effect | interval covers it | p < 0.05 | half width |")
    print("| --- | --- | --- | --- | --- | --- |")
    for design in DESIGNS:
        for effect in (True, False):
            start, rng = time.monotonic(), np.random.default_rng([design.runs, effect])
            truth = true_effect(design) if effect else 0.0
            covered = significant = 0
            widths = []
            for number in range(options.studies):
                original, fixed, group = simulate(design, rng, effect)
                comparison = compare_arms(original, fixed, fixes={}, groups=group, seed=number, per_label=False)
                row = comparison.table.loc["all"]
                low, high = row["training_low"], row["training_high"]
                covered += low <= truth <= high
                significant += row["p_value"] < 0.05
                widths.append((high - low) / 2)
            n = options.studies
            cells = [design.name, "yes" if effect else "none", f"{truth:.2f}", f"{100 * covered / n:.1f}%"]
            cells += [f"{100 * significant / n:.1f}%", f"{np.mean(widths):.2f}"]
            print(f"| {' | '.join(cells)} |", flush=True)
            print(f"    ({n} studies, {time.monotonic() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
