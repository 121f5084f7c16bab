"""Cuts the sprite sheets of the current view in the background, before the page requests them."""

import threading
import time
from collections.abc import Callable

from mlfix_train.audit.review.session import ReviewSession
from mlfix_train.audit.review.sprites import BLOCK

PAUSE = 0.1
"""Seconds without a request before it works."""


class SpritePrefetcher(threading.Thread):
    """A daemon thread that cuts the sheets of the view that was requested last, while no requests come in.

    ``progress`` is called with the samples done and the samples in all, for the first view.
    """

    def __init__(self, session: ReviewSession, progress: Callable[[int, int], None] | None = None) -> None:
        super().__init__(daemon=True, name="sprites")
        self.session, self.progress, self.stopped = session, progress, threading.Event()

    def run(self) -> None:
        """Follows the current view until :meth:`stop`."""
        done: str | None = None
        while not self.stopped.wait(0.05):
            view = self.session.current_view
            if view is not None and view != done and self.cut_view(view):
                done = view

    def cut_view(self, view: str) -> bool:
        """Cuts the sheets of a view; returns False if it was stopped, or another view was requested."""
        session, total = self.session, self.session.view_size(view)
        progress, self.progress = self.progress, None
        for start in range(0, total, BLOCK):
            while time.monotonic() - session.last_request < PAUSE:
                if self.stopped.wait(0.05):
                    return False
            if self.stopped.is_set() or session.current_view != view:
                return False
            session.sprites.prepare(session.plan_block(view, start // BLOCK))
            session.sprites_ready = (min(start + BLOCK, total), total)
            if progress:
                progress(*session.sprites_ready)
        return True

    def stop(self) -> None:
        """Ends the thread."""
        self.stopped.set()
