"""Keys of ``mlfix review``."""

from dataclasses import dataclass, field
from typing import Any

from mlfix_train.config.sections import FixesConfig, has_data
from mlfix_train.data.pixels.spec import PixelsConfig
from mlfix_train.errors import ConfigError, check_range


@dataclass
class ReviewConfig:
    """Opens the review page, where people mark wrong labels.

    Needs audit=<output folder of mlfix audit>, or data.root=<folder of class folders>.

    Args:
        audit: Output folder of mlfix audit: the most suspicious samples come first, with suggested labels.
        out: Output folder: fixes.csv, and the state of the review; use the same folder to continue a review.
        order: Output folder of mlfix sort | none | auto: that of the audit, else images are sorted by pixels, once,
            while the page is open.
        reviewer: Your name, as saved in the fixes; null: your account name.
        port: Port of the page; null: 8377, or the next free one; 0: any.
        host: Address to listen on. 127.0.0.1: this machine only; with others, such as 0.0.0.0 (all addresses),
            anyone with the link can connect, unencrypted.
        open: Open the page in the browser.
        data: Required without an audit; with one, the default is the data of its runs.
        fixes: Fixes to start with. fixes.ignore=[new_labels] lets reviewers add labels that no sample has yet.
        pixels: How the images on the page are decoded. size: as in the runs, else 64.
    """

    audit: str | None = None
    out: str = "review"
    order: str = "auto"
    reviewer: str | None = None
    port: int | None = None
    host: str = "127.0.0.1"
    open: bool = True
    data: dict[str, Any] = field(default_factory=dict)
    fixes: FixesConfig = field(default_factory=FixesConfig)
    pixels: PixelsConfig = field(default_factory=PixelsConfig)

    def __post_init__(self) -> None:
        from mlfix_train.audit.review.requests import MAX_NAME, is_valid_name

        if self.port is not None:
            check_range("port", self.port, 0, 65535)
        if self.reviewer is not None and not is_valid_name(self.reviewer):
            hint = f"use one line of at most {MAX_NAME} characters"
            raise ConfigError(f"reviewer={self.reviewer[:90]!r} is not a valid name", hint)
        if self.audit is None and not self.has_data:
            hint = "set audit=<output folder of mlfix audit>, or data.root=<folder of class folders>"
            raise ConfigError("mlfix review needs something to show", hint)

    @property
    def has_data(self) -> bool:
        """Whether the data are given, and not only an audit."""
        return has_data(self.data)
