"""A Lightning logger of the project's own, and the tracker that lets audits log to it, too."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from mlfix_train.audit.reporting.trackers import register_tracker


class JsonLinesLogger(Logger):
    """Appends a line of JSON to ``<save_dir>/log.jsonl`` for whatever is logged."""

    def __init__(self, save_dir: str | Path = ".") -> None:
        super().__init__()
        self.file = Path(save_dir, "log.jsonl")

    @property
    def name(self) -> str:
        """The logger's name."""
        return "jsonl"

    @property
    def version(self) -> str:
        """There is one version."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs metrics."""
        self.write({"step": step, **metrics})

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Logs settings."""
        self.write({"settings": {name: str(value) for name, value in dict(vars(params)).items()}})

    def write(self, line: Mapping[str, Any]) -> None:
        """Appends a line."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps(dict(line), default=str) + "\n")


class JsonLinesTracker:
    """Notes what an audit shows; a method with an empty body leaves its part out."""

    def __init__(self, logger: JsonLinesLogger) -> None:
        self.logger, self.name = logger, logger.name

    def log_pictures(self, pictures: Sequence[Any]) -> None:
        """Notes the pictures."""
        self.logger.write({"pictures": [picture.key for picture in pictures]})

    def log_table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Notes the length of a table."""
        self.logger.write({"table": key, "rows": len(rows)})

    def log_page(self, key: str, path: Path) -> None:
        """Leaves pages out."""

    def log_summary(self, values: Mapping[str, Any]) -> None:
        """Notes single numbers."""
        self.logger.write({"summary": dict(values)})

    def log_artifact(
        self, name: str, kind: str, files: Sequence[Path], metadata: Mapping[str, Any], used: bool = False
    ) -> None:
        """Notes the names of files."""
        self.logger.write({"artifact": name, "files": [file.name for file in files]})


register_tracker("JsonLinesLogger", JsonLinesTracker)
