"""``mlfix review``: the page where a person marks wrong labels; writes the fixes file as they go."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mlfix_train.audit.review.server import LOOPBACK, CutAhead, open_socket, serve
from mlfix_train.audit.review.session import Desk
from mlfix_train.commands import review_inputs
from mlfix_train.commands.progress import Countdown

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> Path:
    """Serves the page until it is interrupted.

    Args:
        cfg: the composed configuration of ``mlfix review``.

    Returns:
        The fixes file.

    Raises:
        MlfixError: nothing to show, a port that is taken, or files that can't be used.
    """
    review_inputs.check(cfg)
    listener = open_socket(str(cfg.host), cfg.port)  # before the long work
    try:
        desk = review_inputs.open_desk(cfg)
    except BaseException:
        listener.close()
        raise
    for note in desk.notes:
        print(f"note       {note}", file=sys.stderr)
    cutter = CutAhead(desk, lambda total: Countdown("cutting sprites", total))
    desk.view({"by": "label"})
    host = str(cfg.host)

    def announce(link: str) -> None:
        print(f"review     {link}")
        if host not in LOOPBACK:
            print("           Whoever has this link and reaches this machine can see the images and change the fixes;\n"
                  "           what is sent is not encrypted. An SSH tunnel to host=127.0.0.1 is safer.")  # fmt: skip
        print(f"fixes      {desk.file.path}, up to date at every mark; Ctrl-C ends, the same command goes on",
              flush=True)  # fmt: skip
        cutter.start()
        if cfg.open:
            _open(link)

    with _ended_by_sigterm(), contextlib.suppress(KeyboardInterrupt):
        try:
            serve(desk, host, cfg.port, announce, listener)
        finally:
            cutter.stop()
            desk.close()
    _report(desk)
    return desk.file.path


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Lets a SIGTERM end the review as Ctrl-C does (the server hands both on when it is done)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _open(link: str) -> None:
    screen = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not screen:
        return  # a browser of the terminal would take the terminal over
    try:
        webbrowser.open(link)
    except webbrowser.Error as error:
        log.warning("no browser could be opened (%s): open the link by hand", error)


def _report(desk: Desk) -> None:
    told = desk.progress({})
    print(f"reviewed   {told['seen']:,} of {told['samples']:,} samples: {told['marked']:,} marked, {told['invalid']:,} "
          "of them invalid")  # fmt: skip
    if told["random"] and told["random"]["interval"]:
        rate = told["random"]
        low, high = rate["interval"]
        print(f"errors     {rate['rate']}% of all labels (95% interval {low}% to {high}%), by {rate['judged']:,} "
              "samples drawn at random")  # fmt: skip
    print(f"fixes      {desk.file.path}", flush=True)


def show(cfg: DictConfig) -> Any:
    """Returns the page as a widget of a notebook; arguments and errors as of :func:`run`."""
    from mlfix_train.audit.review.widget import make_widget, open_already

    out = review_inputs.check(cfg)
    desk = open_already(out) or review_inputs.open_desk(cfg)
    return make_widget(desk)
