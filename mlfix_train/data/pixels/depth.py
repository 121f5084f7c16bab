"""How many bits the 16-bit images of a data set hold: cameras write 10 to 14 bits into 16, which look nearly black."""

import os
from collections.abc import Sequence
from functools import partial

from mlfix_train.data.files.process_pool import map_unordered
from mlfix_train.data.files.system import cpu_count
from mlfix_train.data.pixels.containers import image_suffix, open_bytes
from mlfix_train.data.pixels.decode import FULL_RANGE, PNG_SIGNATURE, is_wide, open_image, read_wide
from mlfix_train.data.pixels.formats import JPEG2000_SUFFIXES
from mlfix_train.data.pixels.spec import PixelSpec
from mlfix_train.errors import format_list

SUFFIXES = frozenset({".png", ".apng", ".tif", ".tiff"}) | JPEG2000_SUFFIXES
"""Files that may hold 16 bits, and don't state how many of them are used."""
MAX_BITS = 14
"""Images that hold more bits use their range well enough."""
DARK_BITS = 12
"""Images that hold so many bits of 16, or fewer, are nearly black."""
MAX_LOOKED_AT = 100
CHUNK_SIZE, SERIAL_LIMIT = 512, 3_000


def white_level(
    paths: Sequence[str], max_megapixels: float = PixelSpec.max_megapixels, workers: int | None = None
) -> int:
    """Returns which value of 16-bit images is white, one for a whole data set.

    It is 65535, or ``2**bits - 1`` if no 16-bit image holds a larger value and ``bits`` is 8 to 14. It follows from the
    images alone, whatever their order. All 16-bit images are decoded, up to the first that uses its range.

    Args:
        paths: The images of the data set; those that can't be read don't count.
        max_megapixels: Larger images don't count.
        workers: Number of processes; by default one per core.
    """
    suffixes = {*SUFFIXES, None}
    wide = [path for path in paths if image_suffix(path) in suffixes]
    chunks = [wide[start : start + CHUNK_SIZE] for start in range(0, len(wide), CHUNK_SIZE)]
    workers = 1 if len(wide) <= SERIAL_LIMIT else workers or cpu_count()
    largest = 0
    find = partial(_largest_sample, max_megapixels=max_megapixels)
    for _, found in map_unordered(find, chunks, workers, lambda chunk: f"{chunk[0]} to {chunk[-1]}"):
        largest = max(largest, found)
        if largest >= 2**MAX_BITS:
            break
    return 2 ** max(largest.bit_length(), 8) - 1 if 0 < largest < 2**MAX_BITS else FULL_RANGE


def describe_mixed(paths: Sequence[str], max_megapixels: float = PixelSpec.max_megapixels) -> str:
    """Returns a sentence if some 16-bit images hold 12 bits or less, beside others that need more; else an empty one.

    Of many, :data:`MAX_LOOKED_AT` are looked at, evenly spread. Arguments as of :func:`white_level`, which is the full
    range for such data.
    """
    wide = [path for path in paths if image_suffix(path) in {*SUFFIXES, None}]
    some = wide[:: -(-len(wide) // MAX_LOOKED_AT)] if wide else []
    largest = {path: value for path in some if (value := _largest_sample([path], max_megapixels))}
    dark = [path for path, value in largest.items() if value < 2**DARK_BITS]
    if not dark or len(dark) == len(largest):
        return ""
    counts = f"{len(dark):,} of {len(largest):,} 16-bit images that were looked at hold {DARK_BITS} bits at most"
    return f"{counts}, beside others of more, and so are nearly black; save them with their full range: " + format_list(
        map(os.path.basename, dark), 3
    )


def describe_white(white: int) -> str:
    """Returns a sentence on a :func:`white_level`; empty if it is that of all 16 bits."""
    if white == FULL_RANGE:
        return ""
    bits = white.bit_length()
    return f"the 16-bit images hold {bits} bits at most: they are scaled so that {white:,} is white"


def _largest_sample(paths: Sequence[str], max_megapixels: float) -> int:
    """Returns the largest value in the 16-bit images among some, or that of the first that uses its range."""
    largest = 0
    for path in paths:
        try:
            if not _may_be_wide(path):
                continue
            with open_image(path, max_megapixels) as image:
                samples = read_wide(image) if is_wide(image) else None
                if samples is not None and samples.size:
                    largest = max(largest, int(samples[..., :3].max() if samples.ndim == 3 else samples.max()))
        except Exception:  # noqa: S112 - Pillow raises many types for a damaged file
            continue
        if largest >= 2**MAX_BITS:
            break
    return largest


def _may_be_wide(path: str) -> bool:
    """Returns whether a file has 16 bits per sample, as far as its first bytes tell."""
    with open_bytes(path) as file:
        head = file.read(25)
    return not head.startswith(PNG_SIGNATURE) or head[24:25] == b"\x10"
