"""Keys of ``mlfix export``."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from mlfix_train.config.sections import FixesConfig, has_data
from mlfix_train.errors import ConfigError, check_choice, check_range

TOOLS = ("fiftyone", "label_studio", "cleanlab")
COPIES = ("folder", "table", "hf")
"""Kinds of data of which a fixed copy is written, by the names of their readers."""


@dataclass(frozen=True)
class ExportConfig:
    """Writes fixed copies of data or of the annotations that crops came from, or an audit for another tool.

    Args:
        to: source (a copy in the format of the source: mtsd | coco | yolo | voc | cvat for crops, folder | table | hf
            for data) | folder (class folders, from any data) | fiftyone | label_studio | cleanlab.
        out: Output folder.
        crops: Output folder of mlfix crop; for to=source, mtsd, coco, yolo, voc, cvat.
        data: The samples; for to=source, folder, table, hf.
        links: How images get into class folders: copy | hard | symbolic. Hard links need no space, but an edit of an
            image then changes the source's, too.
        invalid: What to do with boxes that fixes mark invalid: remove | keep (as they were) | a label to set, such as
            other-sign.
        audit: Output folder of mlfix audit; for the other tools.
        top: Export only this many samples, the most suspicious; null: all.
        url: URL of an image, for Label Studio; {path} stands for the sample_id, {file} for the full path.
        fixes: Fixes to apply.
    """

    to: str = MISSING
    out: str = "export"
    crops: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    links: str = "copy"
    invalid: str = "remove"
    audit: str | None = None
    top: int | None = None
    url: str = "/data/local-files/?d={path}"
    fixes: FixesConfig = field(default_factory=FixesConfig)

    def __post_init__(self) -> None:
        from mlfix_train.data.annotations.formats import FORMATS

        check_choice("to", self.to, (*TOOLS, "source", *COPIES, *FORMATS))
        check_choice("links", self.links, ("copy", "hard", "symbolic"))
        if not self.out.strip(" ."):
            raise ConfigError(f"out={self.out} is not a folder", "set out=<folder>")
        if self.to in TOOLS and self.audit is None:
            raise ConfigError(
                f"to={self.to} needs audit", f"set it: mlfix export to={self.to} audit=<output folder of mlfix audit>"
            )
        if self.to not in TOOLS:
            self._check_source()
        if self.top is not None:
            check_range("top", self.top, 1, 10**9)
        if "{path}" not in self.url and "{file}" not in self.url:
            hint = "put {path} or {file} where the path of the image belongs"
            raise ConfigError(f"url={self.url} does not contain the path of the image", hint)

    def _check_source(self) -> None:
        """Checks that there are fixes, and either crops or data."""
        crops = f"mlfix export to={self.to} crops=<folder> fixes.path=<fixes.csv> out=<folder>"
        preset = "" if self.to in ("source", "folder") else f"data={self.to} "
        place = "data.file=<file>" if self.to == "table" else "data.root=<folder>"
        copies = f"mlfix export to={self.to} {preset}{place} fixes.path=<fixes.csv> out=<folder>"
        example = copies if self.to in COPIES else crops
        if self.crops is not None and has_data(self.data):
            raise ConfigError("crops and data are both set", f"set one of them: {example}")
        if self.crops is not None and self.to in COPIES:
            raise ConfigError(f"to={self.to} needs data, not crops", f"set it: {copies}")
        if self.crops is None and self.to != "source" and self.to not in COPIES:
            raise ConfigError(f"to={self.to} needs crops", f"set the folder of the crops and the fixes: {crops}")
        if self.crops is None and not has_data(self.data):
            both = f"{crops}, or {copies}" if self.to == "source" else copies
            raise ConfigError(f"to={self.to} needs {'crops or ' if self.to == 'source' else ''}data", f"set it: {both}")
        if self.fixes.path is None:
            raise ConfigError(f"to={self.to} needs fixes.path", f"set the fixes: {example}")
