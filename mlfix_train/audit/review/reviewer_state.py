"""Where each reviewer is, and how they have set the page: ``places.json``, so that they go on there in any browser."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlfix_train.audit.review.requests import Refused
from mlfix_train.data.files.atomic import atomic_path

MOST = 4_000
"""Characters of a place, as JSON."""
PEOPLE = 200
"""Reviewers whose place is kept."""


class Places:
    """Places by reviewer; a file that can't be read is begun anew, for nothing depends on it.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            found = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: None)
        except (OSError, ValueError):
            found = {}
        pairs = found.items() if isinstance(found, dict) else ()
        self._places = {name: place for name, place in pairs if isinstance(place, dict)}

    def of(self, reviewer: str) -> dict[str, Any] | None:
        """Returns where a reviewer was, as their page told it; ``None`` if it never did."""
        return self._places.get(reviewer)

    def keep(self, reviewer: str, place: Any) -> None:
        """Keeps where a reviewer is.

        Raises:
            Refused: it is no JSON object, or too large.
        """
        try:
            good = isinstance(place, Mapping) and len(json.dumps(place, allow_nan=False)) <= MOST
        except ValueError:
            good = False
        if not good:
            raise Refused(f"place is no JSON object of at most {MOST:,} characters")
        self._places.pop(reviewer, None)
        self._places[reviewer] = dict(place)
        while len(self._places) > PEOPLE:
            del self._places[next(iter(self._places))]
        with atomic_path(self.path) as temporary:
            temporary.write_text(json.dumps(self._places), encoding="utf-8")
