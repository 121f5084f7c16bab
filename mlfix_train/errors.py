"""What a user did wrong, said with the remedy.

Every error that a person can cause is an :class:`MlfixError`: it names the file, the row or key and the value, and says
what to do. The command line prints it without a traceback and exits with a code other than 0.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Sequence


class MlfixError(Exception):
    """A mistake that the user can mend.

    Args:
        problem: one sentence that names the file, the row or key, and the value.
        remedy: one sentence that says what to do.
        details: further lines (for example the rows concerned), shown indented, one a line.
    """

    def __init__(self, problem: str, remedy: str = "", details: Sequence[str] = ()) -> None:
        self.problem, self.remedy, self.details = problem, remedy, tuple(details)
        super().__init__(problem, remedy, self.details)

    def __str__(self) -> str:
        lines = [self.problem, *(f"    {line}" for line in self.details)]
        if self.remedy:
            lines.append(f"  -> {self.remedy}")
        return "\n".join(lines)


class DataError(MlfixError):
    """Images, sample tables, splits and pixel stores that can't be used as they are."""


class FixesError(MlfixError):
    """A fixes file that doesn't fit the samples."""


class ConfigError(MlfixError):
    """A configuration key or value that isn't one."""


class RunError(MlfixError):
    """A run directory, checkpoint or training that can't go on."""


def explain_os(error: OSError, key: str, folder: str = "") -> MlfixError:
    """Says what the system refused, and what to do about it; ``key`` is the setting that names ``folder``."""
    where = f"{error.filename or (f'{key}={folder}' if folder else '')}: ".removeprefix(": ")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = f"free some space, and give the same command again; or give another {key}=<folder>"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST):
        remedy = f"give a folder that you may write to: {key}=<folder>"
    else:
        remedy = "set MLFIX_TRACEBACK=1 to see where it happened"
    return MlfixError(f"{where}{error.strerror or error}", remedy)


def nearest(word: str, options: Iterable[str], n: int = 1) -> list[str]:
    """Returns up to ``n`` of ``options`` most like ``word`` (best first), or an empty list when none is alike."""
    return difflib.get_close_matches(word, list(options), n=n, cutoff=0.55)


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Returns ``"did you mean 'x'?"`` for the nearest option, or the options listed when none is near."""
    known = list(options)
    match = nearest(word, known)
    if match:
        return f"did you mean {match[0]!r}?"
    return f"choose one of {listing(known, 20)}"


def check_choice(key: str, value: object, options: Sequence[object]) -> str:
    """Returns ``value`` if it is one of ``options``.

    Raises:
        ConfigError: naming the key, the value and the nearest option.
    """
    if value in options:
        return str(value)
    raise ConfigError(
        f"{key}={value} is not a value of this key: it takes {', '.join(map(str, options))}",
        did_you_mean(str(value), map(str, options)),
    )


def check_range(key: str, value: float, low: float, high: float) -> float:
    """Returns ``value`` if ``low <= value <= high``.

    Raises:
        ConfigError: naming the key, the value and the range.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise ConfigError(f"{key}={value} is out of range", f"{key} takes a number from {_short(low)} to {_short(high)}")


def _short(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def listing(items: Iterable[object], limit: int = 5) -> str:
    """Returns ``"a, b, c and 7 more"``: at most ``limit`` of ``items`` by name, the rest as a count."""
    known = [str(item) for item in items]
    shown = ", ".join(known[:limit])
    return shown if len(known) <= limit else f"{shown} and {len(known) - limit:,} more"
