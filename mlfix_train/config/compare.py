"""Keys of ``mlfix compare``."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from mlfix_train.config.sections import FixesConfig
from mlfix_train.errors import ConfigError, check_choice, check_range


@dataclass
class AppliedFixes(FixesConfig):
    """The fixes that the fixed arm was trained with.

    Args:
        path: Fixes file: our CSV, or that of MLfix, FiftyOne, Label Studio or cleanlab.
    """

    path: str = MISSING


@dataclass
class CompareConfig:
    """Compares models trained on the original labels with models trained on the fixed ones.

    Args:
        original: Runs trained on the given labels: a run directory, a directory of them, a glob, a list of these, or
            prediction files (Parquet, our CSV, MLfix's CSV).
        fixed: Runs trained with the fixes.
        control: Runs of the control arm; null: none.
        fixes: The fixes that the fixed arm was trained with.
        ignore: Differences between runs to allow instead of stopping: settings, fixes, labels, copies.
        slices: slices.<name>=<regex on the given label>, [labels], or {column: <name>, values: [...]}.
        primary: A slice named beforehand, or all: tested alone, the others only where it is shown; null: all slices are
            tested together.
        samples: CSV or Parquet file with columns for slices and groups; null: the data that the runs used.
        group: Regex on the sample_id that matches the name of its photo or track; null: the groups of the data.
        paired: auto: pair runs of the same seed if both arms are run directories; true: pair by name; false: never.
        resamples: Resamples of the interval and of the permutation test, 100 to 10,000,000.
        seed: Seed of the resamples and of the permutation test.
        name: Name of the study in titles and in W&B; null: the name of the runs.
        out: Output folder: summary.json, compare.md, compare.html and charts.
        logger: Where the comparison is logged: logger=wandb or logger=none.
    """

    original: Any = MISSING
    fixed: Any = MISSING
    control: Any = None
    fixes: AppliedFixes = field(default_factory=AppliedFixes)
    ignore: list[str] = field(default_factory=list)
    slices: dict[str, Any] = field(default_factory=dict)
    primary: str | None = None
    samples: str | None = None
    group: str | None = None
    paired: Any = "auto"
    resamples: int = 10_000
    seed: int = 0
    name: str | None = None
    out: str = "compare"
    logger: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from mlfix_train.audit.comparison.inputs import IGNORABLE

        check_range("resamples", self.resamples, 100, 10**7)
        check_range("seed", self.seed, 0, 2**31)
        check_choice("paired", self.paired, ("auto", True, False))
        for name in self.ignore:
            check_choice("ignore", name, IGNORABLE)
        if not self.out.strip(" ."):
            raise ConfigError(f"out={self.out} is not a folder", "set out=<folder>")
