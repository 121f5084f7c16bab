"""The review's server: a page, one module, one style sheet, JSON by POST, sheets and pictures by GET. Nothing else.

No path of a request touches the file system: sheets go by names that the server made, pictures by row numbers.
"""

from __future__ import annotations

import gzip
import html
import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlfix_train.audit.review.auth import MOST_BODY, Guard, TooLarge
from mlfix_train.audit.review.requests import Refused
from mlfix_train.audit.review.sprites import BLOCK
from mlfix_train.errors import ConfigError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from mlfix_train.audit.review.session import Desk

log = logging.getLogger(__name__)

ASSETS = Path(__file__).parent / "assets"
PORT, TRIES = 8377, 50
"""First port that is tried, and how many after it."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::", "")
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#00629e"/>'
    '<path d="M4 8.5l3 3 5-7" fill="none" stroke="#fff" stroke-width="2"/></svg>'
)


def make_app(desk: Desk) -> Starlette:
    """Returns the application that serves a desk, still without its guard."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    async def page(request: Request) -> Response:
        return Response(page_html(desk.title), media_type="text/html; charset=utf-8")

    def asset(name: str, kind: str) -> Callable[[Request], Any]:
        content = (ASSETS / name).read_bytes()
        packed = gzip.compress(content)

        async def serve(request: Request) -> Response:
            headers = {"cache-control": "no-cache", "vary": "accept-encoding"}
            if "gzip" not in request.headers.get("accept-encoding", ""):
                return Response(content, media_type=kind, headers=headers)
            return Response(packed, media_type=kind, headers={**headers, "content-encoding": "gzip"})

        return serve

    async def api(request: Request) -> Response:
        try:
            asked = json.loads(await request.body() or b"{}")
        except TooLarge:
            return _problem(413, f"a request's body has at most {MOST_BODY:,} bytes")
        except (ValueError, RecursionError):
            return _problem(400, "the request's body is no JSON")
        try:
            told = await run_in_threadpool(desk.answer, request.path_params["kind"], asked)
        except Refused as refused:
            return _problem(refused.status, refused.problem, refused.hint)
        except OSError as error:
            log.error("not saved: %s", error)
            return _problem(507, f"not saved: {error.strerror or error}", "free some space, or mend the permissions; "
                            "the page keeps what is not saved and tries again")  # fmt: skip
        return JSONResponse(told, 409 if told.get("conflicts") and request.path_params["kind"] == "marks" else 200)

    async def sprite(request: Request) -> Response:
        found = await run_in_threadpool(desk.sprites.sheet, request.path_params["name"])
        if found is None:
            return _problem(404, "no such sheet")
        headers = {"cache-control": "private, max-age=31536000, immutable"}
        return Response(found, media_type="image/jpeg", headers=headers)

    async def picture(request: Request) -> Response:
        try:
            found = await run_in_threadpool(desk.picture, int(request.path_params["row"]))
        except Refused as refused:
            return _problem(refused.status, refused.problem)
        return Response(found, media_type="image/jpeg", headers={"cache-control": "private, max-age=600"})

    async def icon(request: Request) -> Response:
        return Response(ICON, media_type="image/svg+xml")

    return Starlette(routes=[
        Route("/", page), Route("/review.js", asset("review.js", "text/javascript; charset=utf-8")),
        Route("/review.css", asset("review.css", "text/css; charset=utf-8")), Route("/icon.svg", icon),
        Route("/api/{kind:str}", api, methods=["POST"]), Route("/sprites/{name:str}.jpg", sprite),
        Route("/pictures/{row:int}.jpg", picture),
    ])  # fmt: skip


def page_html(title: str) -> str:
    """Returns the page; the module does the rest."""
    words = html.escape(f"Review: {title}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{words}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<link rel="icon" href="/icon.svg"><link rel="stylesheet" href="/review.css">'
        '<script type="module" src="/review.js"></script></head>'
        '<body class="mlfix-page"><div data-mlfix-review></div></body></html>\n'
    )


def _problem(status: int, problem: str, hint: str = "") -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse({"error": problem, "hint": hint}, status)


def open_socket(host: str, port: int | None) -> socket.socket:
    """Binds a port: the one given, or the first that is free from :data:`PORT` on.

    Raises:
        ConfigError: the port is taken, or the address isn't this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = {"localhost": "127.0.0.1", "": "0.0.0.0"}.get(host, host)
    for number in range(PORT, PORT + TRIES) if port is None else (port,):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, number))
            return listener
        except PermissionError as error:
            listener.close()
            raise ConfigError(f"port={number} may not be used", "give one of 1024 or more, or none") from error
        except OSError as error:
            listener.close()
            if isinstance(error, socket.gaierror) or "assign" in str(error):
                hint = "leave it out (this machine alone), or host=0.0.0.0 (all its addresses)"
                raise ConfigError(f"host={host} is no address of this machine", hint) from error
    tried = f"port={port} is" if port is not None else f"ports {PORT} to {PORT + TRIES - 1} are"
    raise ConfigError(f"{tried} taken by another program", "give another: port=<number>, or port=0 for any")


def serve(
    desk: Desk,
    host: str = "127.0.0.1",
    port: int | None = None,
    announce: Callable[[str], None] = print,
    listener: socket.socket | None = None,
) -> None:
    """Serves a desk until it is interrupted.

    Args:
        desk: what is served.
        host: address to listen on; others than loopback can be reached from other machines.
        port: ``None`` for the first that is free, 0 for any.
        announce: called with the link, token and all, once the server listens.
        listener: of :func:`open_socket`, where the port was bound before.
    """
    import uvicorn

    listener = listener or open_socket(host, port)
    number = int(listener.getsockname()[1])
    names = {host, *(LOOPBACK if host in (*LOOPBACK, *EVERYWHERE) else ())}
    if host in EVERYWHERE:
        names.add(socket.gethostname())
    guard = Guard(make_app(desk), names, number, host in EVERYWHERE)
    shown = socket.gethostname() if host in EVERYWHERE else host
    link = f"http://{f'[{shown}]' if ':' in shown else shown}:{number}/?token={guard.token}"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if not self.should_exit:
                announce(link)

    settings = uvicorn.Config(guard, log_level="error", access_log=False, lifespan="off", ws="none",
                              server_header=False, timeout_graceful_shutdown=3, loop="asyncio")  # fmt: skip
    try:
        Server(settings).run(sockets=[listener])
    finally:
        listener.close()


class CutAhead(threading.Thread):
    """Cuts the sheets of the view that is looked at before they are asked for, while nothing else is asked.

    Args:
        desk: whose sheets.
        progress: makes what is called with (samples cut, samples of the view), from the number of samples.
    """

    def __init__(self, desk: Desk, progress: Callable[[int], Callable[[int, int], None]] | None = None) -> None:
        super().__init__(daemon=True, name="sprites")
        self.desk, self.progress, self.stopped = desk, progress, threading.Event()

    def run(self) -> None:
        """Follows the view that was asked for last."""
        done: str | None = None
        while not self.stopped.wait(0.05):
            wanted = self.desk.looked_at
            if wanted is None or wanted == done:
                continue
            if self._cut(wanted):
                done = wanted

    def _cut(self, key: str) -> bool:
        total = self.desk.size_of(key)
        tell, self.progress = (self.progress(total) if self.progress else None), None  # once will do
        for start in range(0, total, BLOCK):
            while time.monotonic() - self.desk.asked_at < 0.1:  # people first
                if self.stopped.wait(0.05):
                    return False
            if self.stopped.is_set() or self.desk.looked_at != key:
                return False
            self.desk.sprites.ahead(self.desk.plan_block(key, start // BLOCK))
            self.desk.cut_ahead = (min(start + BLOCK, total), total)
            if tell:
                tell(*self.desk.cut_ahead)
        return True

    def stop(self) -> None:
        """Ends it."""
        self.stopped.set()
