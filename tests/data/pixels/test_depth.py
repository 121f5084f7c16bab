"""Which value of 16-bit images is white: one for a data set, by the largest value in it."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlfix_train.data.pixels.depth import describe_mixed, describe_white, white_level


def grey(path: Path, largest: int) -> str:
    values = np.zeros((8, 8), np.uint16)
    values[0, 0] = largest
    Image.fromarray(values).save(path)
    return str(path)


@pytest.mark.parametrize(
    ("largest", "white"),
    [(3, 255), (255, 255), (900, 1023), (1024, 2047), (4000, 4095), (16383, 16383), (16384, 65535), (65535, 65535)],
)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_the_largest_value_counts(tmp_path: Path, largest: int, white: int, suffix: str) -> None:
    paths = [grey(tmp_path / f"{i}.{suffix}", value) for i, value in enumerate((2, largest, 1))]
    assert white_level(paths) == white_level(paths[::-1]) == white


def test_images_that_do_not_count(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 255).save(tmp_path / "a.png")
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "b.tif")
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "c.jpg")
    (tmp_path / "d.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    paths = [str(path) for path in sorted(tmp_path.iterdir())] + [str(tmp_path / "gone.png")]
    assert white_level(paths) == 65535
    assert white_level([*paths, grey(tmp_path / "wide.png", 4000)]) == 4095
    assert white_level([]) == 65535


def test_color(tmp_path: Path) -> None:
    """Alpha does not count: it is full where nothing is transparent."""
    for kind, channels in ((2, 3), (6, 4)):
        values = np.full((4, 4, channels), 900, ">u2")
        values[..., 3:] = 65535
        body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in values))
        parts = [(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, kind, 0, 0, 0)), (b"IDAT", body), (b"IEND", b"")]
        chunks = (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in parts
        )
        (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
        assert white_level([str(tmp_path / "x.png")]) == 1023


def test_few_bits_beside_many_are_said(tmp_path: Path) -> None:
    dark = [grey(tmp_path / f"dark{i}.tif", 3000 + i) for i in range(3)]
    bright = [grey(tmp_path / "bright.png", 60000), grey(tmp_path / "middle.tif", 9000)]
    said = describe_mixed([*dark, *bright])
    assert said.startswith("3 of 5 16-bit images that were looked at hold 12 bits at most, beside others")
    assert said.endswith("dark0.tif, dark1.tif, dark2.tif")
    assert describe_mixed(dark) == describe_mixed(bright) == describe_mixed([]) == ""


def test_what_is_said() -> None:
    assert describe_white(65535) == ""
    assert describe_white(4095) == "the 16-bit images hold 12 bits at most: they are scaled so that 4,095 is white"
