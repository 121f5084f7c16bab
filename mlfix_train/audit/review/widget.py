"""The page as a widget in Jupyter, VS Code and Colab: its scripts in one, which talk to the kernel, not a server."""

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.audit.review.bundle import ASSETS, bundle_script
from mlfix_train.audit.review.requests import RequestError
from mlfix_train.audit.review.session import ReviewSession, open_session
from mlfix_train.data.pixels.store import PixelStore

HEIGHT = 760  # height of the widget, CSS pixels
_OPEN: dict[Path, ReviewSession] = {}


def review(
    table: pd.DataFrame,
    images: PixelStore | np.ndarray,
    out: str | Path = "review",
    *,
    height: int = HEIGHT,
    **options: Any,
) -> Any:
    """Shows the review page in a notebook. A cell that runs again shows the review that is already open.

    Args:
        table: Sample table with N rows.
        images: A pixel store, or a uint8 array ``(N, H, W, 3)``.
        out: Folder of the review: ``fixes.csv`` and the files it resumes from.
        height: Height of the page, CSS pixels.
        options: As in :func:`mlfix_train.audit.review.session.open_session`, such as ``ranking`` and ``order``.

    Returns:
        The widget; ``widget.fixes`` is the path of the fixes file, up to date after every mark.

    Raises:
        DataError, FixesError: As in :func:`~mlfix_train.audit.review.session.open_session`.
    """
    return make_widget(get_open_session(out) or open_session(table, images, out, **options), height)


def get_open_session(out: str | Path) -> ReviewSession | None:
    """Returns the review that this process has open in a folder, ``None`` if there is none."""
    return _OPEN.get(Path(out).expanduser().resolve())


def close_review(out: str | Path) -> None:
    """Closes the review that this process has open in ``out``, so that another process can open it."""
    session = _OPEN.pop(Path(out).expanduser().resolve(), None)
    if session is not None:
        session.close()


def answer_message(session: ReviewSession, message: Any) -> tuple[dict[str, Any], list[bytes]]:
    """Answers a message ``{id, kind, payload}`` of the widget.

    Returns:
        ``{id, status, response}`` with the server's status and JSON, and the bytes of a sprite sheet or image.
    """
    message_id = message.get("id") if isinstance(message, Mapping) else None
    content: list[bytes] = []
    try:
        if not isinstance(message, Mapping) or not isinstance(message.get("kind"), str):
            raise RequestError("the message has no kind", status=HTTPStatus.BAD_REQUEST)
        kind, payload = message["kind"], message.get("payload", {})
        if kind not in ("sprites", "images", "sharp"):
            status, response = session.respond(kind, payload)
        elif not isinstance(payload, Mapping):
            raise RequestError("the request is not a JSON object", status=HTTPStatus.BAD_REQUEST)
        else:
            status, response, name = 200, {}, payload.get("name")
            content = [
                session.sprite_sheet(str(name)) if kind == "sprites" else session.full_image(name, kind == "sharp")
            ]
    except RequestError as error:
        status, response = error.status, error.response
    return {"id": message_id, "status": status, "response": response}, content


def make_widget(session: ReviewSession, height: int = HEIGHT) -> Any:
    """Returns an ``anywidget`` that shows a session, which stays open as long as the kernel."""
    import anywidget
    import traitlets

    class ReviewWidget(anywidget.AnyWidget):
        _esm = bundle_script()
        _css = (ASSETS / "review.css").read_text(encoding="utf-8")
        height = traitlets.Int(HEIGHT).tag(sync=True)
        title = traitlets.Unicode("").tag(sync=True)

        def __init__(self) -> None:
            super().__init__(height=height, title=session.title)
            self.session, self.fixes = session, session.fixes_path
            self.on_msg(self._answer)

        def _answer(self, widget: Any, message: Any, buffers: Any) -> None:
            self.send(*answer_message(session, message))

    _OPEN[session.fixes_path.parent.resolve()] = session
    session.view({"group_by": "label"})
    return ReviewWidget()
