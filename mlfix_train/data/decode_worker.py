"""A process that decodes chunks of images into a pixel store: jobs as JSON lines in, results as JSON lines out.

It is a program of its own (``python -m mlfix_train.data.decode_worker``) rather than a ``multiprocessing`` worker,
because those import the user's main script again, which breaks in scripts without a main guard and when Python reads
from a pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mlfix_train.data.decode import GREY, UnreadableImage, decode_image
from mlfix_train.errors import DataError

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
    if workers == 1:
        yield from map(decode_chunk, chunks)
        return
    local = threading.local()
    processes: list[_Process] = []

    def run(chunk: Chunk) -> Result:
        if not hasattr(local, "process"):
            local.process = _Process()
            processes.append(local.process)
        result: Result = local.process.decode(chunk)
        return result

    pool = ThreadPoolExecutor(workers)
    pending: set[Future[Result]] = set()
    try:
        for chunk in chunks:
            pending.add(pool.submit(run, chunk))
            if len(pending) >= 3 * workers:
                ready, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in ready)
        while pending:
            ready, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in ready)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for process in processes:
            process.close()


class _Process:
    """One decoding process, held by one thread."""

    def __init__(self) -> None:
        home = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then closes its workers
        )

    def decode(self, chunk: Chunk) -> Result:
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(asdict(chunk)) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise DataError(
                f"a decoding process died (exit code {self.process.wait()}) between {chunk.paths[0]} "
                f"and {chunk.paths[-1]}",
                "look for a broken file among these images, or for too little memory; what was decoded before is kept",
            )
        answer = json.loads(line)
        if "errno" in answer:
            raise OSError(answer["errno"], answer["error"])
        return answer["start"], {int(row): reason for row, reason in answer["unreadable"].items()}

    def close(self) -> None:
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


def main() -> None:
    """Serves chunks until standard input closes."""
    for line in sys.stdin:
        try:
            start, unreadable = decode_chunk(Chunk(**json.loads(line)))
            answer: dict = {"start": start, "unreadable": unreadable}
        except OSError as error:
            answer = {"errno": error.errno, "error": error.strerror}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
