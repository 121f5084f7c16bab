"""Errors the user can fix, and helpers to word them.

Every error a user can cause is an :class:`MlfixError`. It names the file, the row or key, and the value, and hints at a
fix. The command line prints it without a traceback and exits with a non-zero code.
"""

from __future__ import annotations

import difflib
import errno
import functools
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
_keys_are_named = ContextVar("_keys_are_named", default=False)


class MlfixError(Exception):
    """An error the user can fix.

    Args:
        problem: One sentence that names the file, the row or key, and the value.
        hint: One sentence on what to do.
        details: Further lines, such as the rows concerned, shown indented.

    Example:
        >>> print(MlfixError("fixes.csv, line 3: no sample is called cat/9.jpg", "correct the line"))
        fixes.csv, line 3: no sample is called cat/9.jpg
          -> correct the line
    """

    def __init__(self, problem: str, hint: str = "", details: Sequence[str] = ()) -> None:
        self.problem, self.hint, self.details = problem, hint, tuple(details)
        super().__init__(problem, hint, self.details)

    def __str__(self) -> str:
        lines = [self.problem, *(f"    {line}" for line in self.details)]
        if self.hint:
            lines.append(f"  -> {self.hint}")
        return "\n".join(lines)


class DataError(MlfixError):
    """Images, sample tables, splits or pixel stores that cannot be used as they are."""


class FixesError(MlfixError):
    """A fixes file that does not match the samples."""


class ConfigError(MlfixError):
    """An unknown configuration key or an invalid value."""


class RunError(MlfixError):
    """A run directory, checkpoint or training run that cannot continue."""


@contextmanager
def name_keys() -> Iterator[None]:
    """Within it, errors name the keys of a command (``data.root=photos``); otherwise arguments of Python (``root``)."""
    token = _keys_are_named.set(True)
    try:
        yield
    finally:
        _keys_are_named.reset(token)


def names_arguments(section: str, names: Collection[str] = ()) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function whose errors name keys of a configuration section, for callers from Python.

    Args:
        section: The section, such as ``data``.
        names: Its keys that are arguments in Python; by default the parameters of the function.

    Example:
        >>> @names_arguments("data")
        ... def read(root: str, test: bool = True) -> None:
        ...     raise DataError(f"data.root={root} is empty", "set data.root, or data.test=false")
        >>> try:
        ...     read("my photos")
        ... except DataError as error:
        ...     print(error)
        root='my photos' is empty
          -> set root, or test=False
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except MlfixError as error:
                if not _keys_are_named.get():
                    given = {} if names else signature.bind_partial(*args, **kwargs).arguments
                    texts = (error.problem, error.hint, *error.details)
                    texts = tuple(_as_arguments(text, section, names or signature.parameters, given) for text in texts)
                    error.problem, error.hint, error.details = texts[0], texts[1], texts[2:]
                raise

        return call

    return decorate


def _as_arguments(text: str, section: str, names: Collection[str], given: Mapping[str, object]) -> str:
    """Returns a text with ``section.name=value`` as ``name='value'``, but for commands in backticks."""
    for name, value in given.items():
        whole = re.compile(re.escape(f"{section}.{name}={value}") + r"(?![\w/\\.-])")
        text = f"{name}={str(value)!r}".join(whole.split(text))
    known = "|".join(sorted(map(re.escape, names)))
    key = re.compile(rf"\b{section}\.({known})\b(?:\.(\w+))?(?:=(<[^>]*>|\[[^\]]*\]|\S*[^\s;,.:?)]))?")
    reader = re.compile(rf"\b{section}=(\w+)")

    def argument(found: re.Match[str]) -> str:
        name, member, value = found.groups()
        if value is not None:
            value = {"true": "True", "false": "False", "null": "None"}.get(value, value)
            if not re.fullmatch(r"<.*>|\[.*\]|True|False|None|[\d.]+", value):
                value = repr(value)
        if member:
            return f"{name}={{'{member}': {value}}}" if value is not None else f"{name}['{member}']"
        return f"{name}={value}" if value is not None else name

    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else key.sub(argument, reader.sub(r"read_\1", part)) for part in parts)


def describe_os_error(error: OSError, key: str, folder: str = "") -> MlfixError:
    """Turns an ``OSError`` into an error with a hint; ``key`` is the setting that names ``folder``."""
    where = f"{error.filename or (f'{key}={folder}' if folder else '')}: ".removeprefix(": ")
    missing = error.errno == errno.ENOENT and error.filename and not str(error.filename).startswith(folder or "\0")
    if missing:
        hint = "check the path: relative ones start at the folder in which the command runs"
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = f"free some space and run the same command again, or set {key}=<another folder>"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST):
        hint = f"choose a folder you can write to: {key}=<folder>"
    else:
        hint = "set MLFIX_TRACEBACK=1 to see where it happened"
    return MlfixError(f"{where}{error.strerror or error}", hint)


def own_code(error: BaseException) -> str:
    """Returns the line of the user's own code that an error comes from; empty if it comes from this package."""
    package = os.path.dirname(os.path.abspath(__file__))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        place = os.path.abspath(frame.filename)
        if place.startswith(package + os.sep):
            return ""
        library = place.startswith((sys.base_prefix + os.sep, sys.prefix + os.sep)) or "site-packages" in place
        if not library and os.path.isfile(place):
            return f"{place}, line {frame.lineno}"
    return ""


def nearest(word: str, options: Iterable[str], n: int = 1) -> list[str]:
    """Returns up to ``n`` of ``options`` closest to ``word``, best first; empty if none is close, in any case."""
    known = list(options)
    found = difflib.get_close_matches(word, known, n=n, cutoff=0.55)
    if found:
        return found
    by_fold = {option.casefold(): option for option in known}
    return [by_fold[fold] for fold in difflib.get_close_matches(word.casefold(), by_fold, n=n, cutoff=0.55)]


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Returns ``"did you mean 'x'?"`` for the closest option, or a list of the options if none is close."""
    known = list(options)
    match = nearest(word, known)
    if match:
        return f"did you mean {match[0]!r}?"
    return f"choose one of {format_list(known, 20)}"


def check_choice(key: str, value: object, options: Sequence[object]) -> str:
    """Checks that ``value`` is one of ``options`` and returns it.

    Raises:
        ConfigError: Names the key, the value and the closest option.
    """
    if value in options:
        return str(value)
    raise ConfigError(
        f"{key}={value} is not one of {', '.join(map(str, options))}",
        did_you_mean(str(value), map(str, options)),
    )


def check_range(key: str, value: float, low: float, high: float) -> float:
    """Checks that ``low <= value <= high`` and returns ``value``.

    Raises:
        ConfigError: Names the key, the value and the range.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high:
        return value
    shown = f"{value:g}" if isinstance(value, float) else value
    raise ConfigError(f"{key}={shown} is out of range", f"use a number from {_short(low)} to {_short(high)}")


def check_ranges(settings: object, **ranges: tuple[float, float]) -> None:
    """Checks with :func:`check_range` that attributes of ``settings`` are within the given bounds."""
    for key, (low, high) in ranges.items():
        check_range(key, getattr(settings, key), low, high)


def _short(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def format_list(items: Iterable[object], limit: int = 5) -> str:
    """Formats ``items`` as ``"a, b, c and 7 more"``: at most ``limit`` by name, the rest as a count."""
    known = [str(item) for item in items]
    shown = ", ".join(known[:limit])
    return shown if len(known) <= limit else f"{shown} and {len(known) - limit:,} more"
