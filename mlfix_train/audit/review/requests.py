"""What a page may ask, read with care: every value is checked before anything is done."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from mlfix_train.audit.review.marks import Change, Ledger
from mlfix_train.audit.review.samples import Samples, rows_of
from mlfix_train.data.samples import INVALID
from mlfix_train.errors import MlfixError, did_you_mean

MOST_MARKS = 20_000
"""Marks, or rows, in one request."""
MOST_NAME, MOST_LABEL = 80, 200
"""Characters of a reviewer's name, and of a new label."""
EXAMPLE = 'send {"marks": [{"sample_id": "...", "new_label": "invalid"}]}'


class Refused(MlfixError):  # noqa: N818 - an answer, not a fault
    """A request that can't be answered as it is; ``status`` says why in HTTP's terms."""

    def __init__(self, problem: str, hint: str = "", status: int = 422) -> None:
        super().__init__(problem, hint)
        self.status = status


def read_number(asked: Mapping[str, Any], name: str, low: int, high: int) -> int:
    """Returns a whole number from ``low`` to below ``high``."""
    value = asked.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value < high:
        raise Refused(f"{name} is no number from {low} to {high - 1}")
    return value


def read_reviewer(asked: Mapping[str, Any], default: str) -> str:
    """Returns the reviewer's name."""
    name = asked.get("reviewer") or default
    if not isinstance(name, str) or not is_name(name):
        raise Refused("reviewer is no name", f"text of one line, at most {MOST_NAME} characters")
    return name.strip()


def is_name(name: str) -> bool:
    """Whether a text will do as a reviewer's name: one line, not too long, no control characters."""
    controls = any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in name)
    return bool(name.strip()) and len(name) <= MOST_NAME and not controls


def read_key(asked: Mapping[str, Any]) -> str:
    """Returns the key of a request that may be repeated, empty if it has none."""
    key = asked.get("key", "")
    if not isinstance(key, str) or len(key) > MOST_NAME:
        raise Refused("key is no short text", "leave it out")
    return key


def read_rows(asked: Mapping[str, Any], count: int) -> list[int]:
    """Returns a list of row numbers below ``count``."""
    rows = asked.get("rows")
    if (
        isinstance(rows, list)
        and len(rows) <= MOST_MARKS
        and all(type(row) is int and 0 <= row < count for row in rows)
    ):
        return list(rows)
    raise Refused("rows is no list of row numbers", f"0 to {count - 1}, at most {MOST_MARKS:,}")


def read_changes(asked: Mapping[str, Any], samples: Samples, ledger: Ledger, new_labels: bool) -> list[Change]:
    """Returns what to mark, all of it checked.

    Args:
        asked: ``marks`` is a list of objects with ``sample_id``, ``new_label`` (a label, ``invalid`` or ``null``) and,
            from a page, ``base``.
        samples: N samples.
        ledger: knows the labels.
        new_labels: whether labels that no sample bears may be given.

    Raises:
        Refused: an id that isn't there, a label that no sample bears, or something of another shape.
    """
    wanted = asked.get("marks")
    if not isinstance(wanted, list):
        raise Refused("marks is no list", EXAMPLE, 400)
    if len(wanted) > MOST_MARKS:
        raise Refused(f"{len(wanted):,} marks in one request", f"send at most {MOST_MARKS:,} at a time", 413)
    for number, one in enumerate(wanted):
        if not isinstance(one, Mapping) or not isinstance(one.get("sample_id"), str):
            raise Refused(f"marks[{number}] names no sample_id", EXAMPLE)
        name, label, base = one["sample_id"][:200], one.get("new_label", 0), one.get("base")
        if label is not None and not isinstance(label, str):
            raise Refused(f"marks[{number}] ({name}) has no new_label", f"give a label, {INVALID!r}, or null")
        if base is not None and (not isinstance(base, int) or isinstance(base, bool)):
            raise Refused(f"marks[{number}] ({name}): base is no number", "leave it out")
    rows = rows_of(samples, [one["sample_id"] for one in wanted])
    for row, one in zip(rows, wanted, strict=True):
        if row < 0:
            raise Refused(f"no sample is called {one['sample_id'][:200]!r}", "sample_id is as in the data", 404)
        if ledger.mark_code(one["new_label"]) is None:
            _check_new(one["new_label"], samples, new_labels)
    changes = []
    for row, one in zip(map(int, rows), wanted, strict=True):
        code = ledger.mark_code(one["new_label"])
        mark = samples.add_label(one["new_label"]) if code is None else code
        changes.append(Change(row, mark, one.get("base")))
    return changes


def read_new_label(name: Any, samples: Samples, allowed: bool) -> int:
    """Returns the code of a label, which is taken up if no sample bears it.

    Raises:
        Refused: it is no label, or new ones aren't allowed.
    """
    if not isinstance(name, str) or name == INVALID:
        raise Refused("name is no label")
    if name not in samples.code:
        _check_new(name, samples, allowed)
    return samples.add_label(name)


def _check_new(label: str, samples: Samples, allowed: bool) -> None:
    good = label.strip() == label and label and label.isprintable() and len(label) <= MOST_LABEL
    if not allowed or not good:
        hint = did_you_mean(label[:80], [*samples.labels, INVALID])
        more = "" if allowed else " Or fixes.allow=[new_labels] if it is meant to be new"
        raise Refused(f"no sample bears the label {label[:80]!r}", hint + more)
