"""``stop=auto``: a sweep over seeds and arms is looked at after each block of seeds, and stopped when it is decided."""

from collections.abc import Mapping
from pathlib import Path

from mlfix_train.audit.comparison.looks import LookRecord
from mlfix_train.audit.comparison.sequential import LookPlan
from mlfix_train.commands.compare import look
from mlfix_train.config.compose import load
from mlfix_train.config.overrides import assign
from mlfix_train.config.train import StopConfig, TrainConfig
from mlfix_train.data.runs import FINISHED, RunDirectory
from mlfix_train.errors import ConfigError, format_list


class StudyWatch:
    """Looks at a study while its runs are trained.

    Args:
        runs: The planned runs: their directories, and the configuration of each.
        stop: When to look, and what is worth having.

    Attributes:
        blocks: Run directories to train between two looks.

    Raises:
        ConfigError: The runs are not those of one study with the arms original and fixed.
        RunError: The study was begun with another plan.
    """

    def __init__(self, runs: Mapping[Path, TrainConfig], stop: StopConfig) -> None:
        folders = {path.parents[1] for path in runs}
        self.arms = {settings.arm: path.parent for path, settings in runs.items()}
        missing = {"original", "fixed"} - set(self.arms)
        if missing or len(folders) > 1:
            problem = f"the arm {format_list(sorted(missing))} is missing" if missing else "the runs have several names"
            hint = "sweep seeds and arms of one name: sweep=before_after fixes.path=<file>; or leave stop out"
            raise ConfigError(f"stop=auto looks at one study of the arms original and fixed, but {problem}", hint)
        self.folder, self.stop = folders.pop(), stop
        self.fixes = next(settings.fixes for settings in runs.values())
        by_seed: dict[int, set[Path]] = {}
        for path, settings in runs.items():
            by_seed.setdefault(settings.seed, set()).add(path)
        seeds = sorted(by_seed)  # the order in which the runs are read at each look
        self.blocks = [
            set.union(*(by_seed[seed] for seed in seeds[start : start + stop.every]))
            for start in range(0, len(seeds), stop.every)
        ]
        self.seeds = len(seeds)
        self.plan = LookPlan(self.seeds, stop.every, effect=stop.effect, spending=stop.spending)
        LookRecord(self.folder).begin(self.plan, stop.slices, stop.primary)

    def is_decided(self) -> bool:
        """Looks at the finished runs, prints what they show, and returns whether the sweep is to stop."""
        runs = min(len(self._finished(arm)) for arm in ("original", "fixed"))
        if runs < 2 or (runs < self.seeds and not self.plan.can_show([runs])):
            print(f"\n{runs} seeds of each arm are too few to show anything; the study goes on", flush=True)
            return False
        arms = [assign(arm, folder) for arm, folder in self.arms.items() if self._finished(arm)]
        keys = [*arms, assign("fixes.path", self.fixes.path), f"fixes.ignore=[{','.join(self.fixes.ignore)}]"]
        summary = look(load("compare", [*keys, "logger=none"]))
        if summary["looks"]["decision"] == "continue":
            return False
        print(f"\nthe page   mlfix compare {' '.join(keys)}", flush=True)
        return bool(summary["looks"]["decision"] != "complete")

    def _finished(self, arm: str) -> list[RunDirectory]:
        runs = [RunDirectory(path.parent) for path in sorted(self.arms[arm].glob("*/run.json"))]
        return [run for run in runs if run.status == FINISHED]
