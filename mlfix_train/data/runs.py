"""Run directories: one training's settings, state and products, and how verbs find them.

``outputs/<name>/<arm>/seed=<n>[,fold=<k>]/`` holds ``run.json`` (settings, versions, fingerprints, labels, status,
timings), ``predictions.parquet``, ``metrics.csv``, ``checkpoints/`` and ``panels/``.
"""

from __future__ import annotations

import glob
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.errors import RunError, format_list

FINISHED, RUNNING, FAILED, INTERRUPTED = "finished", "running", "failed", "interrupted"


class RunDirectory:
    """One run on disk.

    Args:
        path: its directory; need not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r})"

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def predictions(self) -> Path:
        """File of the held-out predictions."""
        return self.path / "predictions.parquet"

    @property
    def checkpoint(self) -> Path:
        """Checkpoint that a broken run goes on from."""
        return self.path / "checkpoints" / "last.ckpt"

    def read(self) -> dict[str, Any]:
        """Returns ``run.json``, or an empty dict where there is none.

        Raises:
            RunError: it is no JSON.
        """
        path = self.path / "run.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError("it holds no settings")
            return content
        except FileNotFoundError:
            return {}
        except (ValueError, OSError) as error:
            hint = f"move {self.path} away (its other files may be whole), and train the run again"
            raise RunError(f"{path} can't be read: {error}", hint) from error

    def require(self) -> dict[str, Any]:
        """Returns ``run.json`` of a run that was described whole.

        Raises:
            RunError: it lacks what ``mlfix train`` writes there.
        """
        content = self.read()
        missing = [key for key in ("config", "identity", "data", "labels") if key not in content]
        if missing:
            raise RunError(
                f"{self.path / 'run.json'} lacks {format_list(missing)}",
                "delete this run directory, and train it again",
            )
        return content

    def update(self, **values: Any) -> None:
        """Changes keys of ``run.json``, atomically."""
        content = {**self.read(), **values}
        with atomic_path(self.path / "run.json") as temporary:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False, default=str), encoding="utf-8")

    def forget(self, before: Mapping[str, Any]) -> None:
        """Puts ``run.json`` back as it was; a directory that held nothing before goes."""
        if before:
            with atomic_path(self.path / "run.json") as temporary:
                temporary.write_text(json.dumps(before, indent=1, ensure_ascii=False, default=str), encoding="utf-8")
            return
        (self.path / "run.json").unlink(missing_ok=True)
        if all(entry.name == ".lock" for entry in self.path.iterdir()):
            (self.path / ".lock").unlink(missing_ok=True)
            self.path.rmdir()

    @property
    def status(self) -> str:
        """``finished``, ``running``, ``failed``, ``interrupted``, or empty where nothing ran yet."""
        return str(self.read().get("status", ""))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes off this directory; the system frees the lock when the process dies.

        Raises:
            RunError: another process is at work on this run.
        """
        import fcntl

        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / ".lock", "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise RunError(
                    f"{self.path} is in use by another process ({file.read().strip()})",
                    "wait for it, or give another name= or seed=",
                ) from None
            file.truncate(0)
            file.write(f"{socket.gethostname()}, pid {os.getpid()}")
            file.flush()
            yield


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Returns where two nested settings differ, as lines ``key: old -> new``."""
    lines = []
    for key in sorted({*old, *new}):
        name, a, b = f"{prefix}{key}", old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, f"{name}.")
        elif a != b:
            lines.append(f"{name}: {_short(a)} -> {_short(b)}")
    return lines


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:40]}...{text[-12:]}"


def _runs_below(place: Path) -> Iterator[Path]:
    """Yields the folders below ``place`` that hold a ``run.json``, through links but not in circles."""
    seen = set()
    for folder, names, files in os.walk(place, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        if "run.json" in files:
            names.clear()
            yield Path(folder)


def find_runs(where: str | Path | list[str], key: str = "runs") -> list[RunDirectory]:
    """Returns the runs that a run directory, a directory of them, or a glob names, sorted by path.

    Args:
        where: path or glob, or several.
        key: what the configuration calls it, for errors.

    Raises:
        RunError: nothing is there.
    """
    patterns = [where] if isinstance(where, (str, os.PathLike)) else list(where)
    found: dict[str, RunDirectory] = {}
    for pattern in map(str, patterns):
        pattern = os.path.expanduser(pattern)
        literal = [pattern] if os.path.exists(pattern) else []
        places = literal or sorted(glob.glob(pattern, recursive=True))
        if not places:
            raise RunError(f"{key}={pattern} matches nothing", "give a run directory, a directory of runs, or a glob")
        for place in map(Path, places):
            below = sorted(_runs_below(place)) if place.is_dir() else []
            found.update({os.path.realpath(path): RunDirectory(path) for path in below})
    if not found:
        raise RunError(
            f"{key}={format_list(patterns)} holds no run (no run.json below it)",
            "give a run directory such as outputs/<name>/original/seed=0, or a directory of them",
        )
    return sorted(found.values(), key=lambda run: str(run.path))
