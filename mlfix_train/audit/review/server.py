"""The review server: a page, its scripts and style sheet, JSON by POST, sprite sheets and images by GET.

No path of a request reaches the file system: sheets are addressed by names that the server made, images by row numbers.
"""

from __future__ import annotations

import gzip
import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from mlfix_train.audit.review.auth import AuthMiddleware
from mlfix_train.audit.review.bundle import ASSETS
from mlfix_train.audit.review.requests import RequestError
from mlfix_train.errors import ConfigError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from mlfix_train.audit.review.session import ReviewSession

PORT, N_PORTS = 8377, 50  # first port that is tried, and how many
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PAUSE = 0.1  # seconds without a request before sheets are cut in the background
ALL_ADDRESSES = ("0.0.0.0", "::", "")  # noqa: S104 - only if the user asks for it


def make_app(session: ReviewSession) -> Starlette:
    """Returns the ASGI application of a session, without access control."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    async def page(request: Request) -> Response:
        return Response(render_page(session.title), media_type="text/html; charset=utf-8")

    def asset(name: str, media_type: str) -> Callable[[Request], Any]:
        content = (ASSETS / name).read_bytes()
        compressed = gzip.compress(content)

        async def serve_asset(request: Request) -> Response:
            headers = {"cache-control": "no-cache", "vary": "accept-encoding"}
            if "gzip" not in request.headers.get("accept-encoding", ""):
                return Response(content, media_type=media_type, headers=headers)
            return Response(compressed, media_type=media_type, headers={**headers, "content-encoding": "gzip"})

        return serve_asset

    async def api(request: Request) -> Response:
        try:
            payload = json.loads(await request.body() or b"{}")
        except (ValueError, RecursionError) as error:
            raise RequestError("the body of the request is not JSON", status=HTTPStatus.BAD_REQUEST) from error
        status, response = await run_in_threadpool(session.respond, request.path_params["kind"], payload)
        return JSONResponse(response, status)

    async def sprites(request: Request) -> Response:
        return await jpeg(lambda: session.sprite_sheet(request.path_params["name"]), "max-age=31536000, immutable")

    async def image(request: Request) -> Response:
        is_zoomed = request.url.path.startswith("/sharp/")
        return await jpeg(lambda: session.full_image(int(request.path_params["row"]), is_zoomed), "max-age=600")

    async def jpeg(load: Callable[[], bytes], cache: str) -> Response:
        content = await run_in_threadpool(load)
        return Response(content, media_type="image/jpeg", headers={"cache-control": f"private, {cache}"})

    async def refuse(request: Request, error: Any) -> Response:
        return JSONResponse(error.response, error.status)

    routes = [
        Route("/", page),
        *(Route(f"/{name}", asset(name, "text/javascript; charset=utf-8")) for name in _script_names()),
        Route("/review.css", asset("review.css", "text/css; charset=utf-8")),
        Route("/icon.svg", asset("icon.svg", "image/svg+xml")),
        Route("/api/{kind:str}", api, methods=["POST"]),
        Route("/sprites/{name:str}.jpg", sprites),
        Route("/images/{row:int}.jpg", image),
        Route("/sharp/{row:int}.jpg", image),
    ]
    app = Starlette(routes=routes, exception_handlers={RequestError: refuse})
    app.router.redirect_slashes = False
    return app


def render_page(title: str) -> str:
    """Returns the HTML of the page; its scripts do the rest."""
    from jinja2 import Environment, FileSystemLoader

    template = Environment(loader=FileSystemLoader(ASSETS), autoescape=True).get_template("page.html")
    return template.render(title=title, scripts=_script_names())


def _script_names() -> list[str]:
    return sorted(path.name for path in ASSETS.glob("*.js"))


def open_socket(host: str, port: int | None) -> socket.socket:
    """Binds a port: the given one, or the first free one from :data:`PORT` on.

    Raises:
        ConfigError: The port is taken, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = {"localhost": "127.0.0.1", "": ALL_ADDRESSES[0]}.get(host, host)
    for number in range(PORT, PORT + N_PORTS) if port is None else (port,):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, number))
            return listener
        except OSError as error:
            listener.close()
            if isinstance(error, PermissionError):
                hint = "use 1024 or above, or leave it out"
                raise ConfigError(f"port={number} needs administrator rights", hint) from error
            if isinstance(error, socket.gaierror) or "assign" in str(error):
                hint = "leave it out (this machine only), or set host=0.0.0.0 (all its addresses)"
                raise ConfigError(f"host={host} is not an address of this machine", hint) from error
    taken = f"port={port} is" if port is not None else f"ports {PORT} to {PORT + N_PORTS - 1} are"
    raise ConfigError(f"{taken} used by another program", "set another port=<number>, or port=0 for any free one")


def serve(session: ReviewSession, listener: socket.socket, host: str, on_start: Callable[[str], None]) -> None:
    """Serves a session until it is interrupted (SIGINT or SIGTERM).

    Args:
        session: What to serve.
        listener: From :func:`open_socket`.
        host: Address it listens on; any but loopback can be reached from other machines.
        on_start: Called with the link, which contains the access token, once the server listens.
    """
    import uvicorn

    number = int(listener.getsockname()[1])
    any_address = host in ALL_ADDRESSES
    name = socket.gethostname() if any_address else host
    hosts = {host, name, *(LOOPBACK if host in LOOPBACK or any_address else ())}
    auth = AuthMiddleware(make_app(session), hosts, number, any_address)
    link = f"http://{f'[{name}]' if ':' in name else name}:{number}/?token={auth.token}"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if not self.should_exit:
                on_start(link)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # requests that are cut off are no errors
            await super().shutdown(sockets)

    off: dict[str, Any] = {"log_level": "error", "access_log": False, "lifespan": "off", "ws": "none"}
    config = uvicorn.Config(auth, server_header=False, timeout_graceful_shutdown=3, loop="asyncio", **off)
    with listener:
        Server(config).run(sockets=[listener])


class SpritePrefetcher(threading.Thread):
    """A daemon thread that cuts the sheets of the view that was requested last, while no requests come in.

    It ends when ``stopped`` is set. ``progress`` is called with the samples done and in all, for the first view.
    """

    def __init__(self, session: ReviewSession, progress: Callable[[int, int], None] | None = None) -> None:
        super().__init__(daemon=True, name="sprites")
        self.session, self.progress, self.stopped = session, progress, threading.Event()

    def run(self) -> None:
        """Follows the current view."""
        done: str | None = None
        while not self.stopped.wait(0.05):
            view = self.session.current_view
            if view is not None and view != done and self.cut_view(view):
                done = view

    def cut_view(self, view: str) -> bool:
        """Cuts the sheets of a view; returns False if it was stopped, or another view was requested."""
        session, progress, self.progress = self.session, self.progress, None
        for name, ready in session.plan_sheets(view):
            while time.monotonic() - session.last_request < PAUSE:
                if self.stopped.wait(0.05):
                    return False
            if self.stopped.is_set() or session.current_view != view:
                return False
            session.sprites.prepare(name)
            session.sprites_ready = ready
            if progress:
                progress(*ready)
        return True
