"""Keys of ``mlfix crop``."""

import re
from dataclasses import dataclass, field, fields
from typing import Any

from mlfix_train.data.crops.spec import CropSpec
from mlfix_train.errors import ConfigError, check_range


@dataclass(frozen=True)
class CropConfig(CropSpec):
    """Turns photos with boxes into crops and a table of samples.

    Args:
        data: The photos and boxes; data=boxes detects the format.
        out: Output folder: crops as <label>/<photo>-<n>.jpg, samples.parquet, dropped.csv and crop.json.
        labels: Regular expression; only boxes with matching labels are cropped. null: all.
        splits: Crop only photos of these splits, such as [train,val]. []: all.
        max_unreadable: Fraction of the photos that may be missing or unreadable, 0 to 1; one photo is always
            allowed unless this is 0.
        workers: Number of processes; null: one per core.
        overwrite: Replace crops made with other settings.
    """

    data: dict[str, Any] = field(default_factory=dict)
    out: str = "crops"
    labels: str | None = None
    splits: list[str] = field(default_factory=list)
    max_unreadable: float = 0.01
    workers: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.out.strip(" ."):
            raise ConfigError(f"out={self.out} is not a folder", "set out=<folder>")
        check_range("max_unreadable", self.max_unreadable, 0, 1)
        if self.workers is not None:
            check_range("workers", self.workers, 1, 1000)
        try:
            re.compile(self.labels or "")
        except re.error as error:
            problem = f"labels={self.labels} is not a regular expression: {error}"
            raise ConfigError(problem, "see the syntax of Python's `re`") from error

    @property
    def spec(self) -> CropSpec:
        """The settings that determine what a crop shows."""
        return CropSpec(**{item.name: getattr(self, item.name) for item in fields(CropSpec)})
