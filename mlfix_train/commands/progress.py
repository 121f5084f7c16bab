"""What a person sees while something takes long: how much is done, how fast, and the time that remains."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable


def duration(seconds: float) -> str:
    """Returns seconds in words: ``12 s``, ``3 min 20 s``, ``2 h 5 min``."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min {s % 60} s" if s % 60 else f"{s // 60} min"
    return f"{s // 3600} h {s % 3600 // 60} min"


def count_images(done: int, total: int) -> None:
    """Says on standard error how many images are decoded."""
    end = "\n" if done >= total or not sys.stderr.isatty() else "\r"
    print(f"decoding images: {done:,} of {total:,}", end=end, file=sys.stderr, flush=True)


class Countdown:
    """Says on standard error how far a long work is, at most every second, with its speed and the time that remains.

    Args:
        words: what is done, such as ``embedding images``.
        total: how many there are.
    """

    def __init__(self, words: str, total: int) -> None:
        self.words, self.total = words, total
        self.started = self.said = time.monotonic()

    def after(self, start: int) -> Callable[[int, int], None]:
        """Returns a callback for a part of the work that begins at ``start``."""
        return lambda done, _: self(start + done, self.total)

    def __call__(self, done: int, total: int) -> None:
        """Takes note that ``done`` are done."""
        now = time.monotonic()
        if now - self.said < 1 and done < total:
            return
        if now - self.started < 1 and done >= total:
            return  # it was over in a moment
        self.said = now
        rate = max(done, 1) / max(now - self.started, 1e-9)
        end = "\n" if done >= total or not sys.stderr.isatty() else "\r"
        left = f", {duration((total - done) / rate)} left" if done < total else ""
        print(f"{self.words}: {done:,} of {total:,}, {rate:,.0f}/s{left}   ", end=end, file=sys.stderr, flush=True)
