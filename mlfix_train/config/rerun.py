"""Keys of ``mlfix rerun``."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from mlfix_train.errors import ConfigError


@dataclass
class RerunConfig:
    """Repeats a study from its card: trains the same seeds of the same arms, compares them, and shows both results.

    Args:
        card: Study card, the study.json that mlfix compare writes.
        data: Where your copy of the data is: data.root, or other keys that differ from the card's.
        outputs: Folder of the run directories; another one than that of the study, whose runs would count as done.
        samples: Your copy of the table of slices and groups, where the study used one; null: the card's path.
        ignore: data: accept data and a table of slices with another fingerprint.
        out: Output folder of the comparison.
    """

    card: str = MISSING
    data: dict[str, Any] = field(default_factory=dict)
    outputs: str = "rerun-outputs"
    samples: str | None = None
    ignore: list[str] = field(default_factory=list)
    out: str = "rerun"

    def __post_init__(self) -> None:
        from mlfix_train.errors import check_choice

        for name in self.ignore:
            check_choice("ignore", name, ("data",))
        if not self.out.strip(" ."):
            raise ConfigError(f"out={self.out} is not a folder", "set out=<folder>")
