"""Run directories: the settings, state and results of one training, and how commands find them.

``outputs/<name>/<arm>/seed=<n>[,fold=<k>]/`` holds ``run.json`` (settings, versions, fingerprints, labels, status,
timings), ``predictions.parquet``, ``metrics.csv``, ``checkpoints/`` and ``panels/``.
"""

import glob
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlfix_train.data.files.documents import read_json
from mlfix_train.data.files.json_files import write_json
from mlfix_train.errors import RunError, format_list

FINISHED, RUNNING, FAILED, INTERRUPTED = "finished", "running", "failed", "interrupted"
"""Values of ``status`` in ``run.json``."""


class RunDirectory:
    """One run on disk; ``path`` is its directory, which may not exist yet."""

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
        """Checkpoint that an interrupted run resumes from."""
        return self.path / "checkpoints" / "last.ckpt"

    def read(self) -> dict[str, Any]:
        """Returns ``run.json``, or an empty dict where there is none; a RunError if it can't be read."""
        path = self.path / "run.json"
        if not path.exists():
            return {}
        content, problem = read_json(path, allow_nan=True)
        if problem or not isinstance(content, dict):
            hint = f"move {self.path} away (its other files may be intact), and train the run again"
            raise RunError(f"{path} can't be read: {problem or 'it is not a JSON object'}", hint)
        return content

    def require(self) -> dict[str, Any]:
        """Returns a complete ``run.json``; a RunError if it lacks keys that ``mlfix train`` writes."""
        content = self.read()
        missing = [key for key in ("config", "identity", "data", "labels") if key not in content]
        if missing:
            problem = f"{self.path / 'run.json'} lacks {format_list(missing)}"
            raise RunError(problem, "delete this run directory, and train it again")
        return content

    def update(self, **values: Any) -> None:
        """Changes keys of ``run.json``, atomically."""
        write_json(self.path / "run.json", {**self.read(), **values})

    def restore(self, before: Mapping[str, Any]) -> None:
        """Restores an earlier ``run.json``; if it was empty, removes the file, and an empty directory."""
        if before:
            write_json(self.path / "run.json", before)
            return
        (self.path / "run.json").unlink(missing_ok=True)
        if all(entry.name == ".lock" for entry in self.path.iterdir()):
            (self.path / ".lock").unlink(missing_ok=True)
            self.path.rmdir()

    @property
    def status(self) -> str:
        """``finished``, ``running``, ``failed``, ``interrupted``, or empty if nothing ran yet."""
        return str(self.read().get("status", ""))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks this directory until the block or process ends; a RunError if another process is using it."""
        import fcntl

        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / ".lock", "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                problem = f"{self.path} is in use by another process ({file.read().strip()})"
                raise RunError(problem, "wait for it, or set another name= or seed=") from None
            file.truncate(0)
            file.write(f"{socket.gethostname()}, pid {os.getpid()}")
            file.flush()
            yield


def run_path(outputs: str | Path, name: str, arm: str = "original", seed: int = 0, fold: int | None = None) -> Path:
    """Returns the directory of a run: ``<outputs>/<name>/<arm>/seed=<seed>[,fold=<fold>]``."""
    suffix = "" if fold is None else f",fold={fold}"
    return Path(outputs).expanduser() / name / arm / f"seed={seed}{suffix}"


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


def _runs_below(folder: str) -> Iterator[Path]:
    """Yields the folders below ``folder`` that have a ``run.json``; follows links, except in cycles."""
    seen = set()
    for parent, names, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real not in seen and "run.json" in files:
            yield Path(parent)
        if real in seen or "run.json" in files:
            names.clear()
        seen.add(real)


def find_runs(where: str | Path | list[str], key: str = "runs") -> list[RunDirectory]:
    """Finds runs: a run directory, all runs below a directory, or what a glob matches; sorted by path.

    ``where`` is a path or glob, or several; ``key`` is what errors call it.

    Raises:
        RunError: There are none.
    """
    patterns = [where] if isinstance(where, (str, os.PathLike)) else list(where)
    found: dict[str, RunDirectory] = {}
    for pattern in (os.path.expanduser(str(pattern)) for pattern in patterns):
        places = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
        if not places:
            raise RunError(f"{key}={pattern} matches nothing", "set a run directory, a directory of runs, or a glob")
        for place in places:
            found |= {os.path.realpath(path): RunDirectory(path) for path in sorted(_runs_below(place))}
    if not found:
        hint = "set a run directory such as outputs/<name>/original/seed=0, or a directory of them"
        raise RunError(f"{key}={format_list(patterns)} contains no run (no run.json below it)", hint)
    return sorted(found.values(), key=lambda run: str(run.path))
