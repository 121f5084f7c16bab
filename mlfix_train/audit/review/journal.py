"""The journal of a review: one JSON line per action, appended and flushed to disk, never rewritten.

The first line of ``journal.jsonl`` identifies the file. Each further line is an entry with ``revision`` (1, 2, ...),
``time`` (UTC), ``reviewer`` and ``action``:

- ``mark``: ``marks`` is a list of ``[sample_id, given label, new label]``; the new label is ``invalid``, or ``null``
  where a mark was removed;
- ``review``: the samples ``sample_ids`` were marked as reviewed (``random_ids``: as part of the sample to judge);
- ``undo``, ``redo``: as ``mark`` or ``review``; ``target`` is the revision that was undone or redone;
- ``import``: ``marks`` from a fixes file, each with reviewer, time and note; ``source`` names the file;
- ``draw``: ``sample_ids`` were added to the sample to judge.

``request_id`` is that of the request that caused an entry, if it had one.
"""

import contextlib
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mlfix_train.errors import DataError

log = logging.getLogger(__name__)

VERSION = 2
HEADER = {"mlfix": "review", "version": VERSION}
ACTIONS = ("mark", "review", "undo", "redo", "import", "draw")


def utc_now() -> str:
    """Returns the time as in the journal and the fixes file: UTC, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def append_line(file: IO[bytes], entry: dict[str, Any] | None = None, sync: bool = True) -> None:
    """Appends an entry as a JSON line, or an empty line, to an unbuffered file; ``sync`` waits until it is on disk.

    Raises:
        OSError: It could not be written; the file is as it was before.
    """
    text = "" if entry is None else json.dumps(entry, ensure_ascii=False, separators=(",", ":"))
    size = os.fstat(file.fileno()).st_size
    try:
        view = memoryview(text.encode() + b"\n")
        while view:
            view = view[file.write(view) or 0 :]
        if sync:
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(file.fileno(), size)
        raise


class Journal:
    """An append-only file of entries, created if missing, opened by one process at a time.

    A truncated last line, which was never acknowledged, is moved to a file of its own.

    Attributes:
        name: Random name of the review.
        entries: Entries that were in the file when it was opened; ``open_fixes`` drops them when all is merged.
        ends: Where they end in the file, bytes, the header first.
        revision: Number of the last entry.

    Raises:
        DataError: Another process has it open, or a line is not a valid entry.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.ends: list[int] = []
        self._file: IO[bytes] = open(path, "a+b", buffering=0)  # noqa: SIM115 - open as long as the review
        try:
            self._lock()
            self.entries = self._read()
        except BaseException:
            self._file.close()
            raise
        self.revision: int = self.entries[-1]["revision"] if self.entries else 0
        self._end = self.size  # of the last entry

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows
            return
        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            hint = "open its page (several people can use one), stop it first, or set another out=<folder>"
            raise DataError(f"{self.path.parent} is being reviewed by another process", hint) from error
        except OSError as error:
            log.warning("%s cannot be locked (%s): review it in one process at a time", self.path, error)

    def _read(self) -> list[dict[str, Any]]:
        self._file.seek(0)
        content = self._file.read()
        complete, _, rest = content.rpartition(b"\n")
        if rest:
            try:
                json.loads(rest)
            except ValueError:
                backup = self.path.with_name(f"journal-truncated-{int(time.time())}.txt")
                with contextlib.suppress(OSError):  # such as a full disk
                    backup.write_bytes(rest)
                text = "%s: the last line is truncated and was never acknowledged; moved to %s"
                log.warning(text, self.path, backup.name)
                os.ftruncate(self._file.fileno(), len(content) - len(rest))
            else:  # only the end of the line is missing
                complete = content
                append_line(self._file)
        if not complete:
            self.name = secrets.token_hex(8)
            append_line(self._file, {**HEADER, "name": self.name, "started": utc_now()})
            self.ends = [self.size]
            return []
        return list(self._parse(complete.split(b"\n")))

    def _parse(self, lines: list[bytes]) -> Iterator[dict[str, Any]]:
        hint = "correct or remove the line (keep a copy), or set another out=<folder>"
        last = end = 0
        for number, line in enumerate(lines, start=1):
            end += len(line) + 1
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise DataError(f"{self.path}: line {number} is not JSON: {line[:80]!r}", hint) from error
            if number == 1:
                self._check_header(entry, line)
                self.name = str(entry.get("name", ""))
                self.ends.append(end)
                continue
            if not _is_valid(entry) or entry["revision"] <= last:
                raise DataError(f"{self.path}: line {number} is not a valid entry: {line[:80]!r}", hint)
            last = entry["revision"]
            self.ends.append(end)
            yield entry

    def _check_header(self, header: Any, line: bytes) -> None:
        if not isinstance(header, dict) or header.get("mlfix") != "review":
            problem = f"{self.path} is not the journal of a review: it begins {line[:80]!r}"
            raise DataError(problem, "set another out=<folder>")
        if header.get("version") != VERSION:
            problem = f"{self.path} has version {header.get('version')}; this is version {VERSION}"
            raise DataError(problem, "use the version of mlfix-train that wrote it, or set another out=<folder>")

    def make_entry(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Returns the next entry, with its revision and time."""
        return {"revision": self.revision + 1, "time": utc_now(), **entry}

    @contextlib.contextmanager
    def appended(self, entry: dict[str, Any]) -> Iterator[None]:
        """Appends an entry before the block, and takes it back if the block fails.

        Raises:
            OSError: It could not be written; the journal is as it was before.
        """
        self._take_back()  # of a failure before, if that could not be
        try:
            append_line(self._file, entry)
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                self._take_back()
            raise
        self.revision, self._end = entry["revision"], self.size

    @property
    def size(self) -> int:
        """Bytes of the file: its position."""
        return os.fstat(self._file.fileno()).st_size

    def _take_back(self) -> None:
        """Removes what was written after the last entry."""
        if self.size > self._end:
            os.ftruncate(self._file.fileno(), self._end)
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file, so that another process may open it."""
        self._file.close()


def _is_valid(entry: Any) -> bool:
    """Whether an entry has the fields of its action, each of the right type."""
    if not isinstance(entry, dict) or not isinstance(entry.get("revision"), int) or entry.get("action") not in ACTIONS:
        return False
    if entry["action"] in ("mark", "import") and "marks" not in entry:
        return False
    marks, ids, random_ids = lists = [entry.get(name, []) for name in ("marks", "sample_ids", "random_ids")]
    if not all(isinstance(value, list) for value in lists):
        return False
    texts = [entry.get("reviewer"), entry.get("time"), *ids, *random_ids]
    return all(isinstance(text, str) for text in texts) and all(map(_is_valid_mark, marks))


def _is_valid_mark(mark: Any) -> bool:
    if not isinstance(mark, list) or len(mark) not in (3, 6) or None in mark[:2]:
        return False
    return all(cell is None or isinstance(cell, str) for cell in mark)
