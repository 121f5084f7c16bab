"""Chunks of images decoded into a pixel store, in processes of their own (``python -m`` this module)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mlfix_train.data.files.worker_pool import Answer, Job, run_jobs, serve
from mlfix_train.data.pixels.decode import GREY, UnreadableImage, decode_image

Result = tuple[int, dict[int, str]]
"""Number of the chunk's first row, and the reasons of its unreadable rows."""


@dataclass(frozen=True)
class Chunk:
    """Images to decode, and where their pixels go: ``part`` is the file, ``offset`` where row 0 begins in it."""

    part: str
    offset: int
    start: int
    paths: Sequence[str]
    size: int
    aspect: str
    max_megapixels: float


def decode_chunk(chunk: Chunk) -> Result:
    """Decodes a chunk and writes its pixels to their place; unreadable images become grey.

    Raises:
        OSError: the file can't be written.
    """
    pixels = np.full((len(chunk.paths), chunk.size, chunk.size, 3), GREY, dtype=np.uint8)
    unreadable = {}
    for row, path in enumerate(chunk.paths):
        try:
            pixels[row] = decode_image(path, chunk.size, chunk.aspect, chunk.max_megapixels)
        except UnreadableImage as error:
            unreadable[chunk.start + row] = str(error)
    where = chunk.offset + chunk.start * pixels[0].nbytes
    with open(chunk.part, "r+b", buffering=0) as file:
        view = memoryview(pixels.data).cast("B")
        while view:
            written = os.pwrite(file.fileno(), view, where)
            view, where = view[written:], where + written
    return chunk.start, unreadable


def decode_chunks(chunks: Iterable[Chunk], workers: int) -> Iterator[Result]:
    """Decodes chunks in ``workers`` processes (in this one if it is 1), yielding results as they come.

    Raises:
        OSError: the file can't be written.
        DataError: a process died; it names the images that it was at.
    """
    jobs = (asdict(chunk) for chunk in chunks)
    for _, answer in run_jobs(__name__, _work, jobs, workers, _names):
        yield answer["start"], {int(row): reason for row, reason in answer["unreadable"].items()}


def _names(job: Job) -> str:
    return f"between {job['paths'][0]} and {job['paths'][-1]}"


def _work(job: Job) -> Answer:
    start, unreadable = decode_chunk(Chunk(**job))
    return {"start": start, "unreadable": unreadable}


if __name__ == "__main__":
    serve(_work)
