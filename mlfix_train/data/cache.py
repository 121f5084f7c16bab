"""What the runs of a sweep that train in one process share: the sample table, the pixel store, the images on a device.

The first run reads them, and all runs of the sweep then speak of the same data, however the files change meanwhile.
Outside of sweeps nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

KEPT = 8
"""Things kept at most; the oldest goes first."""

_kept: dict[Hashable, Any] = {}
_on = False


def enable_cache(on: bool = True) -> None:
    """Begins or ends to keep what :func:`cached` makes; what was kept is forgotten."""
    global _on
    _on = on
    _kept.clear()


def cached(key: Hashable, make: Callable[[], Any]) -> Any:
    """Returns what was made under a key before, else makes it, and keeps it where that is on."""
    if not _on:
        return make()
    if key not in _kept:
        while len(_kept) >= KEPT:
            del _kept[next(iter(_kept))]
        _kept[key] = make()
    return _kept[key]
