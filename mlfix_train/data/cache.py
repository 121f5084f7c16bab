"""What the runs of a sweep that train in one process share: the sample table, the pixel store, images on a device.

The first run reads them, and all runs of the sweep then use the same data, even if the files change meanwhile. Outside
of sweeps the cache is off and nothing is kept.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

MAX_ITEMS = 10
"""Items kept at most; the oldest is dropped first."""

_items: dict[Hashable, Any] = {}
_enabled = False


def enable_cache(enabled: bool = True) -> None:
    """Turns the cache on or off; what it holds is dropped either way."""
    global _enabled  # noqa: PLW0603 one cache per process
    _enabled = enabled
    _items.clear()


@contextmanager
def caching() -> Iterator[None]:
    """Keeps what is made in a block; a block within one shares it."""
    if _enabled:
        yield
        return
    enable_cache(True)
    try:
        yield
    finally:
        enable_cache(False)


def cached(key: Hashable, make: Callable[[], Any]) -> Any:
    """Returns the item of a key; makes it if it is missing, and keeps it if the cache is on."""
    if not _enabled:
        return make()
    if key not in _items:
        while len(_items) >= MAX_ITEMS:
            del _items[next(iter(_items))]
        _items[key] = make()
    return _items[key]


def forget(key: Hashable, unless: Callable[[Any], bool] = lambda item: False) -> None:
    """Drops the item of a key, if there is one and it is not what ``unless`` keeps."""
    if key in _items and not unless(_items[key]):
        del _items[key]
