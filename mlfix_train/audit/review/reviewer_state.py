"""``reviewer_state.json``: where each reviewer is and how they set up the page, so that any browser resumes there."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlfix_train.audit.review.requests import RequestError
from mlfix_train.data.files.atomic import atomic_path

MAX_LENGTH = 4_000
"""Longest state of a reviewer, characters of JSON."""
MAX_REVIEWERS = 200
"""Reviewers whose state is kept."""


class ReviewerStates:
    """State of the page by reviewer; a file that cannot be read is replaced, for nothing depends on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            found = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: None)
        except (OSError, ValueError):
            found = {}
        items = found.items() if isinstance(found, dict) else ()
        self._states = {name: state for name, state in items if isinstance(state, dict)}

    def get(self, reviewer: str) -> dict[str, Any] | None:
        """Returns the state that a reviewer's page sent last, ``None`` if it never did."""
        return self._states.get(reviewer)

    def set(self, reviewer: str, state: Any) -> None:
        """Stores the state of a reviewer's page.

        Raises:
            RequestError: It is not a JSON object, or too long.
        """
        try:
            is_valid = isinstance(state, Mapping) and len(json.dumps(state, allow_nan=False)) <= MAX_LENGTH
        except ValueError:
            is_valid = False
        if not is_valid:
            raise RequestError(f"state is not a JSON object of at most {MAX_LENGTH:,} characters")
        states = {name: value for name, value in self._states.items() if name != reviewer}
        states = {**dict(list(states.items())[-MAX_REVIEWERS + 1 :]), reviewer: dict(state)}
        with atomic_path(self.path) as temporary:
            temporary.write_text(json.dumps(states), encoding="utf-8")
        self._states = states
