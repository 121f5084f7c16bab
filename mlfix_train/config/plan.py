"""Keys of ``mlfix plan``."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from mlfix_train.config.compare import AppliedFixes
from mlfix_train.errors import ConfigError, check_range


@dataclass
class PlanConfig:
    """Plans a study from a pilot of two or three seeds of each arm.

    Args:
        original: Runs of the pilot trained on the given labels, as for mlfix compare.
        fixed: Runs of the pilot trained with the fixes.
        fixes: The fixes that the fixed arm was trained with.
        ignore: Differences between runs to allow instead of stopping: settings, fixes, labels, copies.
        effect: Effect to be shown, in percentage points of error.
        power: Probability to show it, 0.5 to 0.99.
        arms: Arms to train: 3 with the control arm, else 2.
        slices: slices.<name>=<regex on the given label>, [labels], or {column: <name>, values: [...]}.
        samples: CSV or Parquet file with columns for slices and groups; null: the data that the runs used.
        group: Regex on the sample_id that matches the name of its photo or track; null: the groups of the data.
        out: Output folder: plan.json, and a curve for each slice (PNG and SVG).
    """

    original: Any = MISSING
    fixed: Any = MISSING
    fixes: AppliedFixes = field(default_factory=AppliedFixes)
    ignore: list[str] = field(default_factory=list)
    effect: float = 0.5
    power: float = 0.8
    arms: int = 3
    slices: dict[str, Any] = field(default_factory=dict)
    samples: str | None = None
    group: str | None = None
    out: str = "plan"

    def __post_init__(self) -> None:
        check_range("effect", self.effect, 1e-4, 100.0)
        check_range("power", self.power, 0.5, 0.99)
        check_range("arms", self.arms, 2, 3)
        if not self.out.strip(" ."):
            raise ConfigError(f"out={self.out} is not a folder", "set out=<folder>")
