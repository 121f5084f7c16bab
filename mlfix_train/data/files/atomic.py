"""Atomic writes, and a lock on a folder."""

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)

TEMPORARY = ".mlfix-*.tmp"
"""Names of the files that :func:`atomic_path` writes."""


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path next to ``path``, which replaces ``path`` if the block ends without an error.

    The file is locked meanwhile, so that :func:`remove_leftovers` can tell it from that of a killed process.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary, file = _open_locked(target)
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        file.close()
        temporary.unlink(missing_ok=True)


def _open_locked(target: Path) -> tuple[Path, IO[bytes]]:
    """Creates a temporary file beside ``target`` and locks it, once more if it was removed before it was locked."""
    while True:
        temporary = target.with_name(TEMPORARY.replace("*", secrets.token_hex(8)))
        file = open(temporary, "xb")  # noqa: SIM115 (the caller closes it)
        if not _lock(file):
            file.close()  # Windows does not replace open files
        if temporary.exists():
            return temporary, file
        file.close()


def remove_leftovers(folder: Path) -> int:
    """Removes the temporary files that killed processes left in a folder, and returns their number.

    A file that is locked, or can't be, may be in use and stays.
    """
    removed = 0
    for path in folder.glob(TEMPORARY):
        try:
            with open(path, "rb") as file:
                if _lock(file):
                    path.unlink(missing_ok=True)
                    removed += 1
        except OSError:
            continue
    return removed


def _lock(file: IO[bytes]) -> bool:
    """Locks a file unless another process has; returns whether it is locked. The lock ends with the process."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):  # Windows; a file system without locks
        return False
    return True


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Locks a folder, so that only one process writes to it; the system frees the lock when the process dies."""
    import fcntl

    with open(folder / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process is building %s; waiting for it", folder)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
