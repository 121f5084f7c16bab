"""Everything that determines what a crop shows and how it is stored."""

from dataclasses import dataclass

from mlfix_train.data.pixels.spec import ASPECTS
from mlfix_train.errors import ConfigError, check_choice, check_ranges

FORMATS = ("jpg", "png")
IDS = ("keys", "positions")
EXIF = ("auto", "apply", "ignore")


@dataclass(frozen=True)
class CropSpec:
    """How boxes become crops.

    Args:
        size: Side of the crops in pixels, 8 to 1024; null: the resolution and shape of each box.
        aspect: squash (stretch to a square, as in the published experiment) | pad (keep the aspect ratio, with gray
            margins).
        margin: Added on each side, as a fraction of the box's width and height.
        min_side: Boxes whose width or height inside the photo is below this, in pixels, are not cropped.
        format: jpg | png (lossless).
        quality: JPEG quality, 1 to 100; colors are kept at full resolution.
        ids: What <n> stands for in <label>/<photo>-<n>.jpg: keys (the box's key in the source or, without one, a hash
            of its corners: names stay the same if annotations are reordered) | positions (the box's position in the
            photo, from 0, as in the published MTSD crops).
        exif: Whether boxes refer to the photo after its EXIF rotation: apply (yes) | ignore (no) | auto (as the tools
            of the format do, unless only the other way fits the stated size; where a size can't tell, as for half
            turns, what the sizes of the other photos prove).
        rescale: Scale the boxes if a photo is a resized copy, not of the size stated in the annotations.
        max_megapixels: Larger photos are not decoded.
    """

    size: int | None = 40
    aspect: str = "squash"
    margin: float = 0.0
    min_side: float = 1.0
    format: str = "jpg"
    quality: int = 95
    ids: str = "keys"
    exif: str = "auto"
    rescale: bool = False
    max_megapixels: float = 400.0

    def __post_init__(self) -> None:
        for key, options in (("aspect", ASPECTS), ("format", FORMATS), ("ids", IDS), ("exif", EXIF)):
            check_choice(key, getattr(self, key), options)
        check_ranges(self, margin=(0, 10), min_side=(0, 10_000), quality=(1, 100), max_megapixels=(0.001, 100_000))
        if self.size is not None and (not isinstance(self.size, int) or not 8 <= self.size <= 1024):
            raise ConfigError(f"size={self.size} is out of range", "set the side in pixels, 8 to 1024, or null")
