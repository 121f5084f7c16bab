"""Requests to a review: errors with their HTTP status, and parsers that check every value before anything changes."""

import unicodedata
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from mlfix_train.audit.review.marks import KEEP_CODE, Change, MarkStore
from mlfix_train.audit.review.samples import Samples
from mlfix_train.data.samples import INVALID, UNSURE
from mlfix_train.errors import MlfixError, did_you_mean

MAX_BODY = 8 << 20  # largest request body, bytes
MAX_MARKS = 20_000  # most marks, or rows, in one request
MAX_NAME, MAX_LABEL = 80, 200  # longest reviewer name or request id, and longest new label, characters
EXAMPLE = 'send {"marks": [{"sample_id": "...", "new_label": "invalid"}]}'


class RequestError(MlfixError):
    """A request that cannot be answered, with the HTTP status and the JSON of the response; nothing was changed."""

    def __init__(self, problem: str, hint: str = "", status: HTTPStatus = HTTPStatus.UNPROCESSABLE_ENTITY) -> None:
        super().__init__(problem, hint)
        self.status, self.response = status, {"error": problem, "hint": hint}


def parse_int(payload: Mapping[str, Any], name: str, low: int, high: int) -> int:
    """Returns the integer ``payload[name]``, from ``low`` to below ``high``."""
    value = payload.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value < high:
        raise RequestError(f"{name} is not an integer from {low} to {high - 1}")
    return value


def parse_reviewer(payload: Mapping[str, Any], default: str) -> str:
    """Returns the reviewer's name, ``default`` where the payload has none."""
    name = payload.get("reviewer") or default
    if not isinstance(name, str) or not is_valid_name(name):
        raise RequestError("reviewer is not a valid name", f"use one line of at most {MAX_NAME} characters")
    return name.strip()


def is_valid_name(name: str) -> bool:
    """Whether a text can be a reviewer's name: one line, not too long, no control characters."""
    has_controls = any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in name)
    return bool(name.strip()) and len(name) <= MAX_NAME and not has_controls


def parse_request_id(payload: Mapping[str, Any]) -> str:
    """Returns the id of a request that the page may repeat, empty if it has none."""
    request_id = payload.get("request_id", "")
    if not isinstance(request_id, str) or len(request_id) > MAX_NAME:
        raise RequestError(f"request_id is not a string of at most {MAX_NAME} characters", "leave it out")
    return request_id


def parse_rows(payload: Mapping[str, Any], count: int) -> list[int]:
    """Returns the list of row numbers ``payload["rows"]``, each below ``count``."""
    rows = payload.get("rows")
    if isinstance(rows, list) and len(rows) <= MAX_MARKS and all(type(row) is int and 0 <= row < count for row in rows):
        return list(rows)
    raise RequestError("rows is not a list of row numbers", f"send at most {MAX_MARKS:,} of 0 to {count - 1}")


def parse_marks(payload: Mapping[str, Any], samples: Samples, store: MarkStore, allow_new: bool) -> list[Change]:
    """Returns the marks of a request, all of them checked before a new label is added.

    ``marks`` is a list of objects with ``sample_id``, ``new_label`` (a label, ``invalid``, ``unsure`` or ``null``) or
    ``keep`` (the given label was looked at, and is right) and, from the page, ``base_revision``. ``allow_new``: whether
    labels that no sample has are allowed.

    Raises:
        RequestError: An unknown id or label, or a value of another shape.
    """
    marks = payload.get("marks")
    if not isinstance(marks, list):
        raise RequestError("marks is not a list", EXAMPLE, HTTPStatus.BAD_REQUEST)
    if len(marks) > MAX_MARKS:
        hint = f"send at most {MAX_MARKS:,} at a time"
        raise RequestError(f"{len(marks):,} marks in one request", hint, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    for number, mark in enumerate(marks):
        if not isinstance(mark, Mapping) or not isinstance(mark.get("sample_id"), str):
            raise RequestError(f"marks[{number}] has no sample_id", EXAMPLE)
        is_kept = mark.get("keep") is True
        name, label, base = (
            mark["sample_id"][:200],
            mark.get("new_label", None if is_kept else 0),
            mark.get("base_revision"),
        )
        if label is not None and not isinstance(label, str):
            raise RequestError(
                f"marks[{number}] ({name}) has no new_label", f"use a label, {INVALID!r}, {UNSURE!r} or null"
            )
        if base is not None and (not isinstance(base, int) or isinstance(base, bool)):
            raise RequestError(f"marks[{number}] ({name}): base_revision is not an integer", "leave it out")
    rows = samples.rows([mark["sample_id"] for mark in marks]).tolist()
    codes = [KEEP_CODE if mark.get("keep") is True else store.mark_code(mark["new_label"]) for mark in marks]
    for row, code, mark in zip(rows, codes, marks, strict=True):
        if row < 0:
            name = mark["sample_id"][:200]
            raise RequestError(f"no sample has the id {name!r}", "use the ids of the data", HTTPStatus.NOT_FOUND)
        if code is None:
            _check_new_label(mark["new_label"], samples, allow_new)
        if code == KEEP_CODE and samples.given[row] < 0:
            raise RequestError(f"{mark['sample_id'][:200]!r} has no label to keep", "choose one, or mark it invalid")
    return [
        Change(row, samples.add_label(mark["new_label"]) if code is None else code, mark.get("base_revision"))
        for row, code, mark in zip(rows, codes, marks, strict=True)
    ]


def parse_new_label(name: Any, samples: Samples, allow_new: bool) -> int:
    """Returns the code of a label, which is added if no sample has it.

    Raises:
        RequestError: It is not a valid label, or new labels are not allowed.
    """
    if not isinstance(name, str) or name == INVALID or (name == UNSURE and name not in samples.code):
        raise RequestError("name is not a label")
    if name not in samples.code:
        _check_new_label(name, samples, allow_new)
    return samples.add_label(name)


def _check_new_label(label: str, samples: Samples, allow_new: bool) -> None:
    is_valid = label.strip() == label and label and label.isprintable() and len(label) <= MAX_LABEL
    if not allow_new or not is_valid:
        hint = did_you_mean(label[:80], [*samples.labels, INVALID])
        more = "" if allow_new else " To allow new labels, set fixes.ignore=[new_labels]"
        raise RequestError(f"no sample has the label {label[:80]!r}", hint + more)
