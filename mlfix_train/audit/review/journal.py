"""The journal of a review: a line of JSON for everything a person did, appended and flushed to disk, never rewritten.

``journal.jsonl`` begins with a line that says what it is; each further line is an entry with ``n`` (1, 2, ...), ``t``
(UTC), ``by`` (the reviewer) and ``do``:

- ``mark``: ``marks`` are ``[sample_id, given label, new label]``, the new label ``invalid``, or
  ``null`` where a mark was taken back;
- ``fine``: ``ids`` were looked at and found right;
- ``undo``, ``redo``: as ``mark`` and ``fine``; ``of`` is the entry that was undone or done again;
- ``import``: ``marks`` from a fixes file, with reviewer, time and note; ``source`` names it;
- ``draw``: ``ids`` of the random sample.
"""

from __future__ import annotations

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

VERSION = 1
HEAD = {"mlfix": "review", "version": VERSION}
KINDS = ("mark", "fine", "undo", "redo", "import", "draw")


def now() -> str:
    """Returns the time as the journal and the fixes file have it: UTC, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Journal:
    """An append-only file of entries, held by one process at a time.

    Attributes:
        name: of the review, random.
        entries: what stood in the file.
        count: number of the last entry.

    Args:
        path: ``journal.jsonl``; made if it isn't there.

    Raises:
        DataError: another process holds it, or it can't be read; a last line that was cut short is set aside.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = open(path, "a+b", buffering=0)  # noqa: SIM115 - held as long as the review
        try:
            self._hold()
            self.entries = self._read()
        except BaseException:
            self._file.close()
            raise
        self.count = self.entries[-1]["n"] if self.entries else 0

    def _hold(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows
            return
        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(
                f"{self.path.parent} is being reviewed by another process",
                "open its page (several people can use one), stop it first, or give another out=<folder>",
            ) from error
        except OSError as error:
            log.warning("%s can't be locked (%s): review it in one process at a time", self.path, error)

    def _read(self) -> list[dict[str, Any]]:
        self._file.seek(0)
        content = self._file.read()
        whole, _, rest = content.rpartition(b"\n")
        if rest:
            with contextlib.suppress(ValueError):
                json.loads(rest)
                whole, rest = content, b""
                self._write(b"\n")
        if rest:
            aside = self.path.with_name(f"journal-cut-{int(time.time())}.txt")
            aside.write_bytes(rest)
            log.warning("%s: its last line was cut short before it was acknowledged, and is set aside in %s",
                        self.path, aside.name)  # fmt: skip
            os.ftruncate(self._file.fileno(), len(content) - len(rest))
        lines = whole.split(b"\n") if whole else []
        if not lines:
            head = {**HEAD, "name": secrets.token_hex(8), "started": now()}
            self._write(json.dumps(head).encode() + b"\n")
            self.name = head["name"]
            return []
        return list(self._parse(lines))

    def _parse(self, lines: list[bytes]) -> Iterator[dict[str, Any]]:
        hint = "mend or remove the line (keep a copy), or give another out=<folder>"
        last = 0
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise DataError(f"{self.path}: line {number} is no JSON: {line[:80]!r}", hint) from error
            if number == 1:
                if not isinstance(entry, dict) or entry.get("mlfix") != "review":
                    raise DataError(f"{self.path} is no journal of a review: it begins {line[:80]!r}",
                                    "give another out=<folder>")  # fmt: skip
                if entry.get("version") != VERSION:
                    raise DataError(f"{self.path} is of version {entry.get('version')}, this is {VERSION}",
                                    "review with the version of mlfix-train that wrote it")  # fmt: skip
                self.name = str(entry.get("name", ""))
                continue
            good = isinstance(entry, dict) and isinstance(entry.get("n"), int) and entry.get("do") in KINDS
            if not good or entry["n"] <= last or not _sound(entry):
                raise DataError(f"{self.path}: line {number} is no entry of a review: {line[:80]!r}", hint)
            last = entry["n"]
            yield entry

    def append(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Appends an entry and returns it, numbered and dated, once it is on disk.

        Raises:
            OSError: it could not be written; nothing of it is left behind.
        """
        full = {"n": self.count + 1, "t": now(), **entry}
        self._write(json.dumps(full, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        self.count += 1
        return full

    def _write(self, line: bytes) -> None:
        size = os.fstat(self._file.fileno()).st_size
        try:
            view = memoryview(line)
            while view:
                view = view[self._file.write(view) or 0 :]
            os.fsync(self._file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fileno(), size)
            raise

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()


def _sound(entry: dict[str, Any]) -> bool:
    """Whether an entry holds what it should."""
    marks, lists = entry.get("marks", []), [entry.get("ids", []), entry.get("drawn", [])]
    if not all(isinstance(one, list) for one in (marks, *lists)) or not all(
        isinstance(entry.get(name), str) for name in ("by", "t")
    ):
        return False
    if entry["do"] in ("mark", "import") and "marks" not in entry:
        return False
    texts = all(isinstance(one, list) and len(one) in (3, 6) and all(c is None or isinstance(c, str) for c in one)
                and isinstance(one[0], str) and isinstance(one[1], str) for one in marks)  # fmt: skip
    return texts and all(isinstance(one, str) for names in lists for one in names)
