"""Small data sets whose images are inside other files, for tests."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

COLORS = ((200, 30, 30), (30, 200, 30), (30, 30, 200))


def encoded(
    color: tuple[int, int, int] = COLORS[0], kind: str = "PNG", size: tuple[int, int] = (8, 8), **options
) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, kind, **options)
    return file.getvalue()


def write_shard(path: Path, members: Mapping[str, bytes] | Sequence[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items() if isinstance(members, Mapping) else members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_mnist(root: Path, train: Sequence[int] = (0, 1, 2, 1), test: Sequence[int] = (2, 0)) -> Path:
    """Writes the raw files of MNIST: images as bright as ten times their label."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, labels in (("train", train), ("t10k", test)):
        images = np.stack([np.full((28, 28), 10 * label + 10, np.uint8) for label in labels])
        head = struct.pack(">4i", 2051, len(labels), 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, len(labels)) + bytes(labels))
    return root
