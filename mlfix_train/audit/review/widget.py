"""The page as a widget of Jupyter, VS Code and Colab: the same module, its requests and pictures through the kernel."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlfix_train.audit.review.requests import Refused
from mlfix_train.audit.review.server import ASSETS
from mlfix_train.audit.review.session import Desk

log = logging.getLogger(__name__)

HEIGHT = 760
"""Of the widget, CSS pixels."""
_OPEN: dict[Path, Desk] = {}


def open_already(out: Path) -> Desk | None:
    """Returns the review that this process has open in a folder, so that a cell may run twice."""
    return _OPEN.get(out.resolve())


def answer_message(desk: Desk, asked: Any) -> tuple[dict[str, Any], list[bytes]]:
    """Answers a message of the widget: ``{id, kind, asked}``.

    Returns:
        ``{id, status, told}``, ``told`` as the server's JSON, and the bytes of a sheet or picture.
    """
    number = asked.get("id") if isinstance(asked, Mapping) else None
    try:
        if not isinstance(asked, Mapping) or not isinstance(asked.get("kind"), str):
            raise Refused("a message names its kind", status=400)
        kind, body = asked["kind"], asked.get("asked", {})
        if kind in ("sprites", "pictures"):
            if not isinstance(body, Mapping):
                raise Refused("a request is a JSON object", status=400)
            found = desk.sprites.sheet(str(body.get("name"))) if kind == "sprites" else desk.picture(_row(body))
            if found is None:
                raise Refused("no such sheet", status=404)
            return {"id": number, "status": 200, "told": {}}, [found]
        told = desk.answer(kind, body)
        return {"id": number, "status": 409 if told.get("conflicts") and kind == "marks" else 200, "told": told}, []
    except Refused as refused:
        return {"id": number, "status": refused.status,
                "told": {"error": refused.problem, "hint": refused.hint}}, []  # fmt: skip
    except OSError as error:
        told = {"error": f"not saved: {error.strerror or error}", "hint": "free some space, or mend the permissions"}
        return {"id": number, "status": 507, "told": told}, []


def _row(body: Mapping[str, Any]) -> int:
    row = body.get("name")
    return row if isinstance(row, int) else -1


def make_widget(desk: Desk, height: int = HEIGHT) -> Any:
    """Returns an ``anywidget`` that shows a desk.

    Args:
        desk: what is shown; it stays open as long as the kernel.
        height: CSS pixels.
    """
    import anywidget
    import traitlets

    class Review(anywidget.AnyWidget):
        _esm = (ASSETS / "review.js").read_text(encoding="utf-8")
        _css = (ASSETS / "review.css").read_text(encoding="utf-8")
        height = traitlets.Int(HEIGHT).tag(sync=True)
        title = traitlets.Unicode("").tag(sync=True)

        def __init__(self) -> None:
            super().__init__(height=height, title=desk.title)
            self.desk, self.fixes = desk, desk.file.path
            self.on_msg(self._answer)

        def _answer(self, widget: Any, content: Any, buffers: Any) -> None:
            told, found = answer_message(desk, content)
            self.send(told, found)

    _OPEN[desk.file.path.parent.resolve()] = desk
    desk.view({"by": "label"})
    return Review()


def close_review(out: str | Path) -> None:
    """Closes the review that this process has open in ``out``, so that ``mlfix review`` may open it."""
    desk = _OPEN.pop(Path(out).expanduser().resolve(), None)
    if desk is not None:
        desk.close()
