"""Keys of ``mlfix export``."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from mlfix_train.config.sections import FixesConfig
from mlfix_train.errors import ConfigError, check_choice, check_range

TOOLS = ("fiftyone", "label_studio", "cleanlab")


@dataclass(frozen=True)
class ExportConfig:
    """Exports an audit to another tool, or writes fixes of crops back to the annotations that they came from.

    Args:
        to: source (the format that the crops came from: mtsd | coco | yolo | voc) | fiftyone | label_studio | cleanlab.
        out: Output folder.
        crops: Output folder of mlfix crop; for to=source, mtsd, coco, yolo, voc.
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
    invalid: str = "remove"
    audit: str | None = None
    top: int | None = None
    url: str = "/data/local-files/?d={path}"
    fixes: FixesConfig = field(default_factory=FixesConfig)

    def __post_init__(self) -> None:
        from mlfix_train.data.annotations.formats import FORMATS

        check_choice("to", self.to, (*TOOLS, "source", *FORMATS))
        if not self.out.strip(" ."):
            raise ConfigError(f"out={self.out} is not a folder", "set out=<folder>")
        if self.to in TOOLS and self.audit is None:
            raise ConfigError(
                f"to={self.to} needs audit", f"set it: mlfix export to={self.to} audit=<output folder of mlfix audit>"
            )
        for key, value in (("crops", self.crops), ("fixes.path", self.fixes.path)):
            if self.to not in TOOLS and value is None:
                command = f"mlfix export to={self.to} crops=<folder> fixes.path=<fixes.csv> out=<folder>"
                raise ConfigError(f"to={self.to} needs {key}", f"set the folder of the crops and the fixes: {command}")
        if self.top is not None:
            check_range("top", self.top, 1, 10**9)
        if "{path}" not in self.url and "{file}" not in self.url:
            hint = "put {path} or {file} where the path of the image belongs"
            raise ConfigError(f"url={self.url} does not contain the path of the image", hint)
