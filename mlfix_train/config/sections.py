"""Sections that several commands share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class FixesConfig:
    """A fixes file.

    Args:
        path: Fixes file: our CSV, or that of MLfix, FiftyOne, Label Studio or cleanlab; null: none.
        ignore: Problems to allow instead of stopping: unknown_samples, new_labels, stale, conflicts, empty_labels.
    """

    path: str | None = None
    ignore: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        from mlfix_train.data.fixes.table import IGNORABLE
        from mlfix_train.errors import check_choice

        for name in self.ignore:
            check_choice("ignore", name, IGNORABLE)


def has_data(data: Mapping[str, Any]) -> bool:
    """Whether section ``data`` names data: a root, a file, or a reader that needs neither."""
    is_folder = str(data.get("_target_", "")).endswith("read_folder")
    return bool(data.get("root") or data.get("file")) or (bool(data) and not is_folder)
