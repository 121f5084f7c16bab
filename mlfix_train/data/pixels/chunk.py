"""A chunk of images decoded into its place in the file of a pixel store: the job of one worker process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlfix_train.data.pixels.decode import GREY, UnreadableImage, decode_image
from mlfix_train.data.pixels.spec import PixelSpec


@dataclass(frozen=True)
class Chunk:
    """Images to decode, and where their pixels go: the file, the byte of its row 0, and the row of the first image."""

    part: str
    offset: int
    start: int
    paths: Sequence[str]
    spec: PixelSpec

    def __str__(self) -> str:
        return f"{self.paths[0]} to {self.paths[-1]}"


def decode_chunk(chunk: Chunk) -> dict[int, str]:
    """Decodes a chunk and writes its pixels; unreadable images become grey, their rows and reasons are returned."""
    spec = chunk.spec
    pixels = np.full((len(chunk.paths), spec.size, spec.size, 3), GREY, dtype=np.uint8)
    failures = {}
    for row, path in enumerate(chunk.paths):
        try:
            pixels[row] = decode_image(path, spec.size, spec.aspect, spec.max_megapixels)
        except UnreadableImage as error:
            failures[chunk.start + row] = str(error)
    position = chunk.offset + chunk.start * pixels[0].nbytes
    with open(chunk.part, "r+b", buffering=0) as file:
        view = memoryview(pixels.data).cast("B")
        while view:
            written = os.pwrite(file.fileno(), view, position)
            view, position = view[written:], position + written
    return failures
