"""Sections that several commands share."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mlfix_train.errors import ConfigError, did_you_mean
from mlfix_train.models.embedding.settings import PretrainedSpec


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


def pretrained_spec(embedder: Mapping[str, Any] | None) -> PretrainedSpec:
    """Returns the settings of a pretrained network in section ``embedder``, which has no ``_target_``.

    Raises:
        ConfigError: A key that it does not have, with the nearest one, or a value out of range.
    """
    section, keys = embedder or {}, [one.name for one in fields(PretrainedSpec)]
    for key in section:
        if key not in keys:
            guess = did_you_mean(f"embedder.{key}", [f"embedder.{one}" for one in keys])
            hint = f"{guess} An embedder of your own needs embedder._target_"
            raise ConfigError(f"unknown key embedder.{key}", hint)
    try:
        return PretrainedSpec(**section)
    except ConfigError as error:
        raise ConfigError(f"embedder.{error.problem}", error.hint) from error
