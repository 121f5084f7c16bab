"""Outcomes of finished photos on disk, so that an interrupted cropping resumes."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlfix_train.data.crops.photo import PHOTO_PROBLEMS, BoxOutcome, PhotoJob
from mlfix_train.data.crops.spec import CropSpec
from mlfix_train.data.files.atomic import atomic_path

CROPS_VERSION = 1
"""Increased when the same photo and box would give other pixels."""


class Journal:
    """Outcomes of finished photos on disk, one JSON line each; ``crops`` are all that earlier calls made.

    An entry's key covers all that its crops depend on: the photo's size and time, its boxes and the settings.
    """

    def __init__(self, path: Path, spec: CropSpec) -> None:
        self.path, self.entries = path, dict[str, dict[str, Any]]()
        settings = {key: value for key, value in asdict(spec).items() if key not in ("ids", "max_megapixels")}
        self._settings = json.dumps([CROPS_VERSION, settings])
        path.parent.mkdir(parents=True, exist_ok=True)
        for line in path.read_bytes().splitlines() if path.exists() else []:
            with contextlib.suppress(ValueError, TypeError, KeyError):  # a line truncated by a crash
                entry = json.loads(line)
                outcomes = [BoxOutcome(*values) for values in entry["outcomes"]]
                self.entries[entry["name"]] = {**entry, "crops": list(entry["crops"]), "outcomes": outcomes}
        self.crops = {crop for entry in self.entries.values() for crop in entry["crops"]}

    def outcomes(self, job: PhotoJob, out: Path) -> list[BoxOutcome] | None:
        """Returns the outcomes of a photo, if its crops exist as they would be made now."""
        entry = self.entries.get(job.name)
        if entry is None or entry.get("key") != self._key(job) or len(entry["outcomes"]) != len(job.crops):
            return None
        for crop, outcome in zip(job.crops, entry["outcomes"], strict=True):
            if outcome.problem in PHOTO_PROBLEMS:
                return None  # it may be readable now
            if not outcome.problem and not any(_file_stamp(out / crop)[:1]):
                return None  # missing or empty
        return list(entry["outcomes"])

    def append(self, results: Iterable[tuple[PhotoJob, list[BoxOutcome]]], path: Path | None = None) -> None:
        """Adds photos at the end."""
        with open(path or self.path, "a", encoding="utf-8") as file:
            for job, outcomes in results:
                entry = {"name": job.name, "key": self._key(job), "crops": job.crops, "outcomes": outcomes}
                file.write(json.dumps(entry) + "\n")

    def rewrite(self, results: Iterable[tuple[PhotoJob, list[BoxOutcome]]]) -> None:
        """Replaces all entries."""
        with atomic_path(self.path) as temporary:
            self.append(results, temporary)

    def _key(self, job: PhotoJob) -> str:
        values = {key: value for key, value in vars(job).items() if key != "path"}
        text = json.dumps([self._settings, _file_stamp(job.path), values])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _file_stamp(path: str | Path) -> list[int]:
    """Returns size and time of change of a file; empty if it doesn't exist."""
    try:
        stat = os.stat(path)
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]
