"""Settings of decoding and of the pixel store."""

from dataclasses import dataclass
from typing import Any

from mlfix_train.errors import ConfigError, check_choice, check_range

ASPECTS = ("squash", "pad")


@dataclass(frozen=True)
class PixelSpec:
    """How an image file becomes pixels. Stores of different settings stand side by side.

    Args:
        size: Side of the stored square, in pixels, 8 to 1024.
        aspect: ``squash`` (stretch to the square, as in the published experiment) or ``pad`` (keep the aspect ratio,
            with gray margins).
        max_megapixels: Larger images count as unreadable, a guard against decompression bombs.
    """

    size: int = 40
    aspect: str = "squash"
    max_megapixels: float = 200.0

    def __post_init__(self) -> None:
        check_choice("aspect", self.aspect, ASPECTS)
        if not isinstance(self.size, int) or not 8 <= self.size <= 1024:
            raise ConfigError(f"size={self.size} is out of range", "set the side in pixels, 8 to 1024, or auto")
        check_range("max_megapixels", self.max_megapixels, 0, 1e6)


@dataclass(frozen=True)
class PixelsConfig:
    """Section ``pixels`` of the configuration: how images are decoded, where they are kept, and how many may fail.

    Args:
        size: Side of the stored square, in pixels, 8 to 1024; auto or null: that of the runs or networks in use, else
            the command's default. mlfix train takes that of earlier runs of the same name, else the images' own (the
            median of their larger sides) or the backbone's, whichever is smaller, at most 224.
        aspect: squash (stretch to the square) | pad (keep the aspect ratio, with gray margins).
        max_megapixels: Larger images count as unreadable.
        max_unreadable: Share of the images that may be unreadable, 0 to 1; one is always allowed unless this is 0.
        cache: Folder for the decoded images.
    """

    size: Any = PixelSpec.size
    aspect: str = PixelSpec.aspect
    max_megapixels: float = PixelSpec.max_megapixels
    max_unreadable: float = 0.01
    cache: str = ".pixels"

    def __post_init__(self) -> None:
        check_range("max_unreadable", self.max_unreadable, 0, 1)
        if self.size == "auto":
            object.__setattr__(self, "size", None)
        self.spec()

    def spec(self, default_size: int = PixelSpec.size) -> PixelSpec:
        """Returns the settings of decoding, with ``default_size`` where ``size`` is null."""
        return PixelSpec(default_size if self.size is None else self.size, self.aspect, self.max_megapixels)
