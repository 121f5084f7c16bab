"""Checks studies with looks and studies with several slices on simulated ones whose true effect is known.

    python scripts/simulate_study.py looks [--studies 2000] [--first 0] [--spending pocock] [--designs 0 1] [--rows 2]
    python scripts/simulate_study.py slices [--studies 2000] [--first 0] [--slices 2 5]

Each study has its own seed, so that pieces (``--studies 500 --first 500``) add up.

``looks``: up to 20 runs of each arm, looked at after every two, and stopped as ``stop=auto`` stops. Prints how often
an effect is found where there is none (should be 4 to 6%), how often the adjusted interval contains the true effect (92
to 98%), and the runs that are trained, as a share of the planned ones. "Twice" is an effect twice as large as the one
that 20 runs of each arm would just show (should take at most 60% of the runs). ``futility`` also stops where the
remaining looks could not show an effect of half that size.

``slices``: the family-wise error of 2, 5 and 20 slices, of which each is as good as before (should be at most 6%).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from mlfix_train.audit.comparison import intervals
from mlfix_train.audit.comparison.effects import EffectComponent
from mlfix_train.audit.comparison.families import SliceEffect, judge_together
from mlfix_train.audit.comparison.sequential import LookPlan

RUNS, RESAMPLES = 20, 1000


@dataclass(frozen=True)
class Design:
    """Standard deviations in points: of a run, of a group of samples, of a single prediction; number of groups."""

    name: str
    run: float
    group: float
    rest: float
    groups: int = 300
    paired: bool = True
    tails: int | None = None  # degrees of freedom of the runs' deviations; None: normal

    def standard_error(self, runs: int) -> float:
        """Returns the standard error of the effect."""
        arms = 1 if self.paired else 2
        return float(np.sqrt(arms * (self.run**2 + self.rest**2 / self.groups) / runs + self.group**2 / self.groups))


DESIGNS = (
    Design("pairs, runs differ", 1.0, 0.0, 10.0),
    Design("pairs, runs of heavy tails", 1.0, 0.0, 10.0, tails=3),
    Design("pairs, samples matter as much", 1.0, 4.5, 10.0),
    Design("no pairs", 1.0, 0.0, 10.0, paired=False),
)


def draw_effect(design: Design, effect: float, rng: np.random.Generator) -> SliceEffect:
    """Draws a whole study."""
    group = design.group * rng.normal(size=design.groups)
    parts = []
    for arm in range(1 if design.paired else 2):
        shape = (RUNS, 1)
        run = rng.normal(size=shape) if design.tails is None else rng.standard_t(design.tails, shape) / np.sqrt(3)
        z = design.run * run + design.rest * rng.normal(size=(RUNS, design.groups))
        if arm == 0:
            z = z + effect + group
        parts.append(EffectComponent(z.mean(1), z - z.mean()))
    return SliceEffect(parts if design.paired else [parts[0], -parts[1]], np.arange(design.groups))


def first_runs(effect: SliceEffect, runs: int) -> SliceEffect:
    """Returns the study as it is at a look."""
    return replace(effect, components=[EffectComponent(p.runs[:runs], p.cells[:runs]) for p in effect.components])


def run_study(effect: SliceEffect, plan: LookPlan, futility: bool, seed: int) -> tuple[dict, int]:
    """Looks at a study until it stops; returns the last result and the runs of each arm."""
    for runs in filter(lambda runs: plan.can_show([runs] * len(effect.components)), plan.remaining):
        found, looks = judge_together({"all": first_runs(effect, runs)}, "all", plan.at(runs), seed, RESAMPLES)
        plan = plan.at(runs)
        result = found["all"]
        if is_shown(result) or (futility and looks["futile"]):
            break
    return result, runs


def is_shown(result: dict) -> bool:
    """Whether an effect is shown: p < 0.05, and an interval without 0."""
    low, high = result["training_ci95"]
    return result["p_value"] < 0.05 and not low <= 0 <= high


def simulate_looks(studies: int, first: int, spending: str, designs: tuple[Design, ...], rows: Sequence[int]) -> None:
    """Prints a row for each design, with and without an effect, with and without futility."""
    print("| studies | effect | futility | number | p < 0.05 | shown | interval contains it | runs trained |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for design in designs:
        just_shown = stats.t.ppf(0.975, RUNS - 1) * design.standard_error(RUNS)
        kinds = (("none", 0.0, False), ("none", 0.0, True), ("twice", 2 * just_shown, True))
        for name, effect, futility in (kinds[row] for row in rows):
            start = time.monotonic()
            plan = LookPlan(RUNS, effect=just_shown / 2, spending=spending)
            p = shown = covered = trained = 0
            for number in range(first, first + studies):
                rng = np.random.default_rng([int(1000 * effect), futility, design.groups, number])
                result, runs = run_study(draw_effect(design, effect, rng), plan, futility, number)
                p += result["p_value"] < 0.05
                shown += is_shown(result)
                covered += result["training_ci95"][0] <= effect <= result["training_ci95"][1]
                trained += runs
            cells = [design.name, f"{name} ({effect:.2f})", "yes" if futility else "no", f"{studies:,}"]
            cells += [f"{100 * x / studies:.1f}%" for x in (p, shown, covered)]
            print(f"| {' | '.join(cells)} | {100 * trained / studies / RUNS:.1f}% |", flush=True)
            print(f"    (from study {first}, {time.monotonic() - start:.0f} s)", flush=True)


def simulate_slices(studies: int, first: int, kinds: Sequence[int]) -> None:
    """Prints the family-wise error by the number of slices, which share a part of what their runs vary by."""
    print("| slices | runs | number | one p < 0.05 | one shown | one p < 0.05, one by one |")
    print("| --- | --- | --- | --- | --- | --- |")
    for slices in kinds:
        for runs in (8, 20):
            start, errors = time.monotonic(), np.zeros(3)
            for number in range(first, first + studies):
                rng = np.random.default_rng([slices, runs, number])
                common, effects = rng.normal(size=(runs, 1)), {}
                for one in range(slices):
                    z = 0.5 * common + 0.87 * rng.normal(size=(runs, 1)) + 5 * rng.normal(size=(runs, 60))
                    groups = np.arange(60) + 60 * one
                    effects[f"s{one}"] = SliceEffect([EffectComponent(z.mean(1), z - z.mean())], groups)
                found, _ = judge_together(effects, None, None, number, RESAMPLES)
                alone = stats.ttest_1samp(np.stack([one.components[0].runs for one in effects.values()]), 0.0, axis=1)
                errors += (
                    any(result["p_value"] < 0.05 for result in found.values()),
                    any(is_shown(result) for result in found.values()),
                    (alone.pvalue < 0.05).any(),
                )
            cells = [str(slices), f"{runs} pairs", f"{studies:,}", *(f"{100 * x / studies:.1f}%" for x in errors)]
            print(f"| {' | '.join(cells)} |", flush=True)
            print(f"    (from study {first}, {time.monotonic() - start:.0f} s)", flush=True)


def main() -> None:
    """Simulates what is asked for."""
    parser = argparse.ArgumentParser(description="Studies with looks, and with several slices.")
    parser.add_argument("what", choices=("looks", "slices"))
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--spending", default="pocock")
    parser.add_argument("--designs", type=int, nargs="*", default=range(len(DESIGNS)), help="numbers from 0")
    parser.add_argument("--rows", type=int, nargs="*", default=range(3), help="of a design, numbers from 0")
    parser.add_argument("--slices", type=int, nargs="*", default=(2, 5, 20))
    parser.add_argument("--first", type=int, default=0, help="number of the first study, to go on with others")
    options = parser.parse_args()
    intervals.MAX_DISTINCT = 20  # resampled means of groups from their limit, which is quicker
    if options.what == "looks":
        designs = tuple(DESIGNS[n] for n in options.designs)
        simulate_looks(options.studies, options.first, options.spending, designs, options.rows)
    else:
        simulate_slices(options.studies, options.first, options.slices)


if __name__ == "__main__":
    main()
