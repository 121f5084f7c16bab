"""`mlfix review` as a process or a thread, and requests to it as a browser or an attacker would send them."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import uvicorn
from shapes import start

from mlfix_train.audit.review import server
from mlfix_train.audit.review.session import ReviewSession
from mlfix_train.commands import review
from mlfix_train.config.review import ReviewConfig


class Client:
    """Requests to a running review.

    Args:
        link: Its address with its token.
    """

    def __init__(self, link: str) -> None:
        self.link = link
        parts = urlsplit(link)
        self.host, self.port, self.token = parts.hostname or "", parts.port or 0, parts.query.removeprefix("token=")

    def request(
        self, method: str, path: str, body: bytes | str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Sends one request as it is; ``Host`` is right unless given; underscores in header names become dashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        named = {name.replace("_", "-").lower(): value for name, value in headers.items()}
        for name, value in {"host": f"127.0.0.1:{self.port}", **named}.items():
            if value:
                connection.putheader(name, value)
        content = body.encode() if isinstance(body, str) else body
        if content is not None and "content-length" not in named and "transfer-encoding" not in named:
            connection.putheader("content-length", str(len(content)))
        connection.endheaders()
        try:
            if content is not None:
                connection.send(content)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all of it was read
        reply = connection.getresponse()
        found = {name.lower(): value for name, value in reply.getheaders()}
        try:
            data = reply.read()
        except http.client.IncompleteRead as cut:  # closed while we were still sending what it had refused
            data = cut.partial
        connection.close()
        return reply.status, found, data

    def ask(self, kind: str, payload: Any, **headers: str) -> tuple[int, Any]:
        """Sends a request to the API, with the token."""
        given = {"authorization": f"Bearer {self.token}", "content_type": "application/json", **headers}
        status, _, data = self.request("POST", f"/api/{kind}", json.dumps(payload), **given)
        return status, json.loads(data) if data[:1] in b"{[" else data.decode()


class Server(Client):
    """A review in a process of its own; ``link`` contains its token."""

    def __init__(self, *keys: object, cwd: Path) -> None:
        self.process = start("review", *keys, "open=false", cwd=cwd)
        assert self.process.stdout is not None
        link, self.output = "", ""
        for line in self.process.stdout:
            self.output += line
            found = re.search(r"http://\S+", line)
            if found:
                link = found[0]
            if line.startswith("fixes"):
                break
        if not link:
            raise AssertionError(self.process.communicate(timeout=60)[1])
        super().__init__(link)

    def stop(self, how: int = signal.SIGINT) -> str:
        """Stops it, and returns the rest of its output."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.communicate(timeout=60)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@contextmanager
def serve_in_thread(cfg: ReviewConfig) -> Iterator[Client]:
    """Serves a review in a thread of this process, which spares the seconds that a process takes to start."""
    links: Queue[str] = Queue()
    servers: list[uvicorn.Server] = []

    class Server(uvicorn.Server):
        def __init__(self, config: uvicorn.Config) -> None:
            super().__init__(config)
            servers.append(self)

    def serve(session: ReviewSession, host: str, port: int | None, on_start: Callable[[str], None], *more: Any) -> None:
        def tell(link: str) -> None:
            on_start(link)
            links.put(link)

        with mock.patch.object(uvicorn, "Server", Server):
            server.serve(session, host, port, tell, *more)

    def run() -> None:
        with mock.patch.object(review, "serve", serve):
            review.run(cfg)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield Client(links.get(timeout=100))
    finally:
        for one in servers:
            one.should_exit = True
        thread.join(timeout=100)
