"""``mlfix review``: serves the page where people mark wrong labels, and writes the fixes file as they go."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import webbrowser
from pathlib import Path
from typing import Any

from mlfix_train.audit.review.server import LOOPBACK, SpritePrefetcher, open_socket, serve
from mlfix_train.audit.review.session import ReviewSession
from mlfix_train.audit.review.widget import get_open_session, make_widget
from mlfix_train.commands.progress import ProgressBar
from mlfix_train.commands.review_inputs import check_paths, open_configured_session
from mlfix_train.config.review import ReviewConfig
from mlfix_train.training.launchers.local import interrupt_on_sigterm

log = logging.getLogger(__name__)


def run(cfg: ReviewConfig) -> Path:
    """Serves the page until it is interrupted, and returns the fixes file.

    Raises:
        MlfixError: There is nothing to show, the port is taken, or a file cannot be used.
    """
    check_paths(cfg)
    listener = open_socket(cfg.host, cfg.port)  # before the long work
    try:
        session = open_configured_session(cfg)
    except BaseException:
        listener.close()
        raise
    for note in session.fixes.notes:
        print(f"note       {note}", file=sys.stderr)
    fixes = session.fixes_path
    session.view({"group_by": "label"})
    prefetcher = SpritePrefetcher(session, ProgressBar("cutting sprite sheets"))

    def on_start(link: str) -> None:
        print(f"review     {link}")
        if cfg.host not in LOOPBACK:
            print("           Anyone with this link who can reach this machine")
            print("           can see the images and change the fixes; the connection is not encrypted.")
            print("           An SSH tunnel to host=127.0.0.1 is safer.")
        print(f"fixes      {fixes}, up to date after every mark; Ctrl-C stops, the same command resumes", flush=True)
        prefetcher.start()
        if cfg.open:
            _open_browser(link)

    with interrupt_on_sigterm(), contextlib.suppress(KeyboardInterrupt):  # the server raises both when it has shut down
        try:
            serve(session, listener, cfg.host, on_start)
        finally:
            prefetcher.stopped.set()
            session.close()
    _print_summary(session)
    return fixes


def widget(cfg: ReviewConfig) -> Any:
    """Returns the page as a notebook widget; raises what :func:`run` raises."""
    return make_widget(get_open_session(check_paths(cfg)) or open_configured_session(cfg))


def _open_browser(link: str) -> None:
    has_screen = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not has_screen:
        return  # a text browser would take over the terminal
    try:
        webbrowser.open(link)
    except webbrowser.Error as error:
        log.warning("the browser could not be opened (%s): open the link yourself", error)


def _print_summary(session: ReviewSession) -> None:
    progress = session.progress({})
    print(
        f"reviewed   {progress['reviewed']:,} of {progress['samples']:,} samples: {progress['marked']:,} marked, "
        f"{progress['invalid']:,} of them invalid"
    )
    rate = progress["random_sample"]
    if rate and rate["interval"]:
        interval = "95% interval {}% to {}%".format(*rate["interval"])
        print(f"errors     {rate['rate']}% of all labels ({interval}), from {rate['reviewed']:,} random samples")
    print(f"fixes      {session.fixes_path}", flush=True)
