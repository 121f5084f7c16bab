"""Checks the intervals and the p-value of `mlfix compare` on simulated studies whose true effect is known.

    python scripts/simulate_coverage.py [--studies 500] [--first 0] [--designs 0 4]

A study has R runs of each arm, and held-out samples in groups (tracks, photos). Samples and groups differ in
difficulty, runs in quality; everything else that a run gets wrong is chance. Fixing labels helps on some samples and
harms on others (or, in the studies without an effect, on none); with several labels, it helps on some labels more than
on others. Runs, labels, groups and samples are drawn anew for every study; the true effect is the mean over all of
them. Prints for each design how often the 95% interval covers the true effect (should be 92 to 98%), how often p < 0.05
without an effect (should be 3 to 7%), and how often the intervals of the macro average and of single labels cover
theirs; labels with fewer than 20 samples apart.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from mlfix_train.audit.comparison.arms import compare_arms
from mlfix_train.audit.comparison.study import ArmRuns

FEW = 20  # samples of a label that count as few


@dataclass(frozen=True)
class Design:
    """A study design.

    Args:
        name: in the table.
        runs: of the original arm.
        groups: of samples.
        per_group: samples of a group, on the mean if they are uneven.
        paired: whether seeds pair.
        changed: fraction of the samples on which fixing has an effect.
        runs_fixed: runs of the fixed arm, where it has another number.
        uneven: groups of geometric sizes, from 1 sample on.
        labels: number of labels, whose frequencies fall like 1 / rank.
    """

    name: str
    runs: int
    groups: int
    per_group: int
    paired: bool = True
    changed: float = 0.15
    runs_fixed: int | None = None
    uneven: bool = False
    labels: int = 1


DESIGNS = (
    Design("20 pairs, 1,500 samples", 20, 1500, 1),
    Design("8 pairs, 150 tracks of 10", 8, 150, 10),
    Design("20 + 20 unpaired, 500 photos of 3", 20, 500, 3, paired=False),
    Design("3 pairs, 1,500 samples", 3, 1500, 1),
    Design("8 pairs, 300 uneven tracks of 5", 8, 300, 5, uneven=True),
    Design("20 + 8 unpaired, 1,500 samples", 20, 1500, 1, paired=False, runs_fixed=8),
    Design("10 pairs, 3,000 samples of 40 labels", 10, 3000, 1, labels=40, changed=0.5),
    Design("8 pairs, 400 uneven tracks of 5, 20 labels", 8, 400, 5, uneven=True, labels=20, changed=0.5),
)


def draw_logits(
    design: Design, group_of: np.ndarray, helps: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the logit of each sample's error probability before and after fixing; ``helps`` is its mean change."""
    difficulty = rng.normal(0, 1.0, group_of.max() + 1)[group_of] + rng.normal(0, 1.5, len(group_of))
    before = -3.5 + difficulty
    shift = (rng.random(len(before)) < design.changed) * rng.normal(helps, 1.0 * (helps != 0))
    return before, before + shift


@dataclass(frozen=True)
class Study:
    """A simulated study: its arms, the group of each sample, and how much fixing helps on each label."""

    original: ArmRuns
    fixed: ArmRuns
    groups: pd.Series
    helps: np.ndarray


def simulate(design: Design, rng: np.random.Generator, effect: bool) -> Study:
    """Draws one study."""
    sizes = rng.geometric(1 / design.per_group, design.groups) if design.uneven else [design.per_group] * design.groups
    group_of = np.repeat(np.arange(design.groups), sizes)
    frequency = 1 / np.arange(1, design.labels + 1)
    label_of = rng.choice(design.labels, design.groups, p=frequency / frequency.sum())[group_of]
    helps = rng.normal(-0.8, 0.8 * (design.labels > 1), design.labels) * effect
    before, after = draw_logits(design, group_of, helps[label_of], rng)
    names, labels = [f"s{i}" for i in range(len(before))], np.array([f"l{label}" for label in label_of])
    shared = rng.normal(0, 0.10, design.runs)
    arms = []
    for arm, logit in (("original", before), ("fixed", after)):
        runs = {}
        for seed in range(design.runs if arm == "original" else design.runs_fixed or design.runs):
            level = (shared[seed] if design.paired else rng.normal(0, 0.10)) + rng.normal(0, 0.05)
            wrong = rng.random(len(names)) < expit(logit + level)
            runs[f"seed={seed}" if design.paired else f"{arm}-{seed}"] = pd.DataFrame(
                {"sample_id": names, "label": labels, "pred": np.where(wrong, "wrong", labels)}
            )
        arms.append(ArmRuns(arm, runs, seeded=design.paired))
    return Study(arms[0], arms[1], pd.Series([f"g{group}" for group in group_of], index=names), helps)


def true_effect(design: Design, helps: np.ndarray) -> float:
    """Returns the true training effect in points where fixing helps by ``helps``, over many samples and levels."""
    rng = np.random.default_rng(12345)
    n = 1_000_000 // len(helps)
    before, after = draw_logits(design, np.arange(n * len(helps)), np.repeat(helps, n), rng)
    level = rng.normal(0, np.hypot(0.10, 0.05), len(before))
    return float(100 * (expit(before + level) - expit(after + level)).mean())


def count_labels(labels: pd.DataFrame, helps: np.ndarray, curve: tuple[np.ndarray, np.ndarray]) -> Counter[str]:
    """Counts the intervals of labels, and those that cover the label's true effect; of few samples apart."""
    counts: Counter[str] = Counter()
    for row in labels[labels["ci95"].notna()].itertuples():
        truth = float(np.interp(helps[int(row.label[1:])], *curve))
        kind = "few" if row.rows < FEW else "many"
        counts[kind] += 1
        counts[f"{kind} covered"] += row.ci95[0] <= truth <= row.ci95[1]
    return counts


def simulate_design(design: Design, effect: bool, studies: int, first: int, resamples: int) -> list[str]:
    """Returns the cells of a row."""
    grid = np.linspace(-4.0, 2.4, 33)
    curve = grid, np.array([true_effect(design, np.array([help_])) for help_ in grid]) if design.labels > 1 else grid
    if not effect:
        curve, truth = (grid, np.zeros(len(grid))), 0.0
    elif design.labels > 1:
        truth = float(np.interp(np.random.default_rng(0).normal(-0.8, 0.8, 20_000), *curve).mean())
    else:
        truth = true_effect(design, np.array([-0.8]))
    covered = significant = macro = 0
    labels: Counter[str] = Counter()
    widths = []
    for number in range(first, first + studies):
        study = simulate(design, np.random.default_rng([design.runs, design.labels, effect, number]), effect)
        options: dict[str, Any] = {"groups": study.groups, "resamples": resamples, "details": design.labels > 1}
        comparison = compare_arms(study.original, study.fixed, fixes={}, seed=number, **options)
        row = comparison.table.loc["all"]
        low, high = row["training_low"], row["training_high"]
        # What holds for these labels: the mean weighted by their frequencies is not that of all labels.
        target = truth if design.labels == 1 else _weighted_truth(study, curve)
        covered += low <= target <= high
        significant += row["p_value"] < 0.05
        widths.append((high - low) / 2)
        if design.labels > 1:
            ends = comparison.summary["slices"]["all"]["macro"]["effect"]["training_ci95"]
            macro += ends[0] <= truth <= ends[1]
            labels += count_labels(comparison.label_changes, study.helps, curve)
    cells = [design.name, "yes" if effect else "none", f"{truth:.2f}"]
    cells += [f"{100 * covered / studies:.1f}%", f"{100 * significant / studies:.1f}%"]
    cells.append(f"{100 * macro / studies:.1f}%" if design.labels > 1 else "–")
    for kind in ("many", "few"):
        cells.append(f"{100 * labels[f'{kind} covered'] / labels[kind]:.1f}%" if labels[kind] else "–")
    return [*cells, f"{np.mean(widths):.2f}"]


def _weighted_truth(study: Study, curve: tuple[np.ndarray, np.ndarray]) -> float:
    labels = next(iter(study.original.predictions.values()))["label"].value_counts(normalize=True)
    return float(sum(share * np.interp(study.helps[int(label[1:])], *curve) for label, share in labels.items()))


def main() -> None:
    """Simulates the designs, with and without an effect."""
    parser = argparse.ArgumentParser(description="Coverage of the intervals, level of the test.")
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="number of the first study, to go on with others")
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--designs", type=int, nargs="*", default=range(len(DESIGNS)), help="numbers from 0")
    options = parser.parse_args()
    heads = [
        "studies",
        "effect",
        "true effect",
        "interval covers it",
        "p < 0.05",
        "macro",
        "labels",
        "few",
        "half width",
    ]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for design in (DESIGNS[number] for number in options.designs):
        for effect in (True, False):
            start = time.monotonic()
            print(
                f"| {' | '.join(simulate_design(design, effect, options.studies, options.first, options.resamples))} |",
                flush=True,
            )
            print(f"    ({options.studies} studies, {time.monotonic() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
