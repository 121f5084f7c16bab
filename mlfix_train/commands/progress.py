"""Progress of long work: a bar on a terminal, lines elsewhere."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

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


class ProgressBar:
    """Shows on standard error how far long work is, how fast it goes and how long it still takes.

    Instances are the ``progress(done, total)`` callbacks that library functions take. Work that ends within a second
    shows nothing where there is no terminal.

    Args:
        description: What is done, such as ``"embedding images"``.
    """

    def __init__(self, description: str) -> None:
        self.description = description
        self.started = self.last_line = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __call__(self, done: int, total: int) -> None:
        """Updates the display; closes it when ``done`` reaches ``total``."""
        if sys.stderr.isatty():
            self._update_bar(done, total)
        else:
            self._print_line(done, total)

    def offset(self, start: int, total: int) -> Callable[[int, int], None]:
        """Returns a callback for a part of the work that begins at ``start`` of ``total``."""
        return lambda done, _: self(start + done, total)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Removes the bar from the terminal."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _update_bar(self, done: int, total: int) -> None:
        if self._bar is None:
            rate = TextColumn("{task.fields[rate]}")
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task(self.description, total=total, rate="")
            self._bar.start()
        assert self._task is not None
        self._bar.update(self._task, completed=done, total=total, rate=f"{self._rate(done):,.0f}/s")
        if done >= total:
            self.close()

    def _print_line(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.started < 1 or (now - self.last_line < LINE_INTERVAL and done < total):
            return
        self.last_line = now
        rate = self._rate(done)
        left = f", {format_duration((total - done) / rate)} left" if done < total and rate else ""
        print(f"{self.description}: {done:,} of {total:,}, {rate:,.0f}/s{left}", file=sys.stderr, flush=True)

    def _rate(self, done: int) -> float:
        return done / max(time.monotonic() - self.started, 1e-9)
