"""Progress of long work: a bar on a terminal, lines elsewhere."""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_INTERVAL = 5.0
"""Seconds between lines where there is no terminal."""


def format_duration(seconds: float) -> str:
    """Formats seconds as ``12 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min {s % 60} s" if s % 60 else f"{s // 60} min"
    return f"{s // 3600} h {s % 3600 // 60} min"


def align_columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yields the lines of a table of text whose columns are padded to the same width."""
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    for row in rows:
        yield "".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


class ProgressBar:
    """Shows progress, speed and time left of long work on standard error.

    Instances are the ``progress(done, total)`` callbacks that library functions take. Work that ends within a second
    shows nothing where there is no terminal. ``description`` is the work, such as ``"embedding images"``.
    """

    def __init__(self, description: str) -> None:
        self.description = description
        self.started = self.last_line = time.monotonic()
        self._bar: Progress | None = None

    def __call__(self, done: int, total: int) -> None:
        """Updates the display; closes it when ``done`` reaches ``total``."""
        now = time.monotonic()
        rate = done / max(now - self.started, 1e-9)
        if sys.stderr.isatty():
            if self._bar is None:
                texts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
                columns = (*texts, TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
                self._bar = Progress(*columns, console=Console(stderr=True))
                self._bar.add_task(self.description, total=total, rate="")
                self._bar.start()
            self._bar.update(self._bar.task_ids[0], completed=done, total=total, rate=f"{rate:,.0f}/s")
            if done >= total:
                self.close()
        elif now - self.started >= 1 and (now - self.last_line >= LINE_INTERVAL or done >= total):
            self.last_line = now
            left = f", {format_duration((total - done) / rate)} left" if done < total and rate else ""
            print(f"{self.description}: {done:,} of {total:,}, {rate:,.0f}/s{left}", file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Removes the bar from the terminal."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
