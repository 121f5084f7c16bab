"""The looks at a study: recorded in its folder, so that none is free, and what they decided.

``outputs/<name>/looks.json`` holds the plan of ``stop=auto``, if there is one, and every number of runs at which the
study was compared, by the sweep or by ``mlfix compare``.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from mlfix_train.audit.comparison.sequential import LookPlan, crossing_probabilities
from mlfix_train.audit.comparison.significance import ALPHA
from mlfix_train.audit.comparison.study import ArmRuns
from mlfix_train.data.files.documents import read_json
from mlfix_train.data.files.json_files import write_json
from mlfix_train.data.runs import differences
from mlfix_train.errors import RunError

FILE = "looks.json"


class LookRecord:
    """The looks at the study in a folder.

    Raises:
        RunError: the file can't be read.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        content: Any = {}
        if self.path.exists():
            content, problem = read_json(self.path)
            if problem or not isinstance(content, dict) or not isinstance(content.get("looks"), list):
                hint = "move it away; the looks so far are then forgotten, which the p-value can't know"
                raise RunError(f"{self.path} can't be read: {problem or 'it is no record of looks'}", hint)
        self.content: dict[str, Any] = {"plan": None, "looks": [], **content}

    @property
    def taken(self) -> tuple[int, ...]:
        """Runs of each arm at the looks so far."""
        return tuple(sorted({int(look["runs"]) for look in self.content["looks"]}))

    @property
    def plan(self) -> LookPlan | None:
        """The plan with the looks so far; ``None`` if the study was begun without one."""
        planned = self.content["plan"]
        if planned is None:
            return None
        keys = ("max_runs", "every", "effect", "spending")
        return LookPlan(taken=self.taken, **{key: planned[key] for key in keys})

    def begin(self, plan: LookPlan, slices: Mapping[str, Any], primary: str | None) -> None:
        """Records the plan of a study.

        Raises:
            RunError: it was looked at by another one, or without one.
        """
        planned = {**asdict(plan), "slices": dict(slices), "primary": primary}
        del planned["taken"]
        before = self.content["plan"]
        if before is None and self.content["looks"]:
            problem = f"{self.path.parent} was looked at without a plan (after {_numbers(self.taken)} runs of each arm)"
            raise RunError(problem, "train the rest without stop=auto, or begin another study: name=<name>")
        if before is not None and before != planned and self.content["looks"]:
            changed = differences(before, planned)
            hint = "continue as it was planned, or begin another study: name=<name>"
            raise RunError(f"{self.path.parent} was begun with another plan", hint, changed)
        self.content["plan"] = planned
        write_json(self.path, self.content)

    def add(self, names: Mapping[str, Sequence[str]], headline: str) -> None:
        """Records a look at these runs, by arm, unless one with as many is recorded."""
        runs = min(len(names[arm]) for arm in ("original", "fixed"))
        if runs not in self.taken:
            now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            arms = {arm: list(seen) for arm, seen in names.items()}
            self.content["looks"].append({"runs": runs, "time": now, "headline": headline, "arms": arms})
            write_json(self.path, self.content)

    def in_order(self, arm: ArmRuns) -> ArmRuns:
        """Returns an arm with its runs in the order in which looks saw them: a seed may have been trained late."""
        seen = [name for look in self.content["looks"] for name in look.get("arms", {}).get(arm.name, ())]
        order = [name for name in dict.fromkeys([*seen, *arm.predictions]) if name in arm.predictions]
        return replace(arm, predictions={name: arm.predictions[name] for name in order})


def describe_looks(
    plan: LookPlan | None, tested: Mapping[str, Any] | None, runs: Sequence[int], n_arms: int, shown: bool
) -> dict[str, Any] | None:
    """Returns the entry ``looks`` of ``summary.json``; ``None`` for a study that was looked at once, at its end.

    Args:
        plan: at the present look; ``None`` without one.
        tested: what the looks have spent, from :func:`mlfix_train.audit.comparison.families.judge_together`.
        runs: runs of each arm at the looks so far, the present one last.
        n_arms: number of arms, control included.
        shown: whether an effect on the primary slice is shown.
    """
    if plan is None:
        taken = sorted(set(runs))
        if len(taken) < 2:
            return None
        bounds = np.full(len(taken), stats.norm.isf(ALPHA / 2))
        error = float(sum(map(np.sum, crossing_probabilities(taken, bounds))))
        return {"planned": False, "taken": taken, "error_of_the_first_kind": error}
    decision = "shown" if shown else "complete" if plan.complete else "continue"
    if tested is not None and decision == "continue" and tested["futile"]:
        decision = "futile"
    stopped = decision in ("shown", "futile")
    return {
        "planned": True,
        **asdict(plan),
        "taken": list(plan.taken),
        "next": None if decision != "continue" else plan.remaining[0],
        "decision": decision,
        "runs_saved": n_arms * max(0, plan.max_runs - plan.taken[-1]) if stopped else 0,
        **(tested or {}),
    }


def looks_sentence(looks: Mapping[str, Any] | None) -> str:
    """Returns in plain words how often a study was looked at, and what that means; empty for a single look."""
    if looks is None:
        return ""
    times = f"{len(looks['taken'])} time{'s' if len(looks['taken']) > 1 else ''}"
    taken = f"looked at {times}, after {_numbers(looks['taken'])} runs of each arm"
    if not looks["planned"]:
        error = 100 * looks["error_of_the_first_kind"]
        return (
            f"This study was {taken}, without a plan. If these results decided whether to go on, p < 0.05 is found in "
            f"up to {error:.0f}% of studies of nothing, not in 5%: plan the looks (mlfix train -m stop=auto)."
        )
    ends = {
        "shown": f"It stopped because an effect is shown; {looks['runs_saved']} planned runs were saved."
        if looks["runs_saved"]
        else "All planned runs are there.",
        "futile": f"It stopped because the remaining runs could hardly show an effect of {looks['effect']:g} points; "
        f"{looks['runs_saved']} planned runs were saved.",
        "complete": "All planned runs are there.",
        "continue": f"Nothing is decided yet; the next look is at {looks['next']} runs.",
    }
    spending = {"pocock": "Pocock's", "obrien_fleming": "O'Brien and Fleming's"}[looks["spending"]]
    ordering = "by stagewise ordering" if looks.get("ordering") == "stagewise" else "repeated"
    return (
        f"This study was {taken} of {looks['max_runs']}, as planned. {ends[looks['decision']]} Interval ({ordering}) "
        f"and p-value allow for the looks ({spending} spending, Lan and DeMets)."
    )


def _numbers(taken: Sequence[int]) -> str:
    return ", ".join(map(str, taken[:-1])) + (" and " if len(taken) > 1 else "") + str(taken[-1])
