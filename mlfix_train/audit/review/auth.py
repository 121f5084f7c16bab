"""Who may speak to the review's server, and about how much: checked before a request reaches anything else.

- ``Host`` has to be an address that the server was started with, or a bare IP address where it listens on all: a name
  that someone points at this machine (DNS rebinding) is refused.
- ``Origin`` and ``Sec-Fetch-Site`` of a browser have to be the page's own: other sites can't write, or read.
- A random token, in the link once, afterwards in a cookie that other sites' requests don't carry (``SameSite=Strict``,
  ``HttpOnly``); a script may send it as ``Authorization: Bearer <token>``.
- Bodies are JSON, and bounded.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

MOST_BODY = 8 << 20
"""Bytes of a request's body, at most."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class TooLarge(Exception):  # noqa: N818 - an answer, not a fault
    """A body of more than :data:`MOST_BODY` bytes."""


class Guard:
    """Lets requests through to ``app`` that may speak to it.

    Args:
        app: an ASGI application.
        hosts: names and addresses that the server goes by.
        port: that it listens on.
        any_address: whether it listens on all addresses of this machine, so that any bare IP address may be its own.
        token: 32 random bytes by default, URL-safe text.
    """

    def __init__(self, app: Any, hosts: Iterable[str], port: int, any_address: bool = False, token: str = "") -> None:
        self.app, self.port, self.any_address = app, port, any_address
        self.hosts = {_bare(host) for host in hosts}
        self.token = token or secrets.token_urlsafe(32)
        self.cookie = f"mlfix-review-{port}"
        self.secret = hmac.new(self.token.encode(), b"cookie", hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Checks one request."""
        if scope["type"] != "http":
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        new, why = False, self.problem(headers)
        if not why:
            known = _same(_cookie(headers.get("cookie", ""), self.cookie), self.secret)
            bearer = headers.get("authorization", "").partition("Bearer ")[2]
            in_link = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
            new = _same(in_link, self.token)
            if not known and not new and not _same(bearer, self.token):
                why = "Open the link that `mlfix review` printed last: it holds the token that lets you in."
        if not why and scope["method"] not in ("GET", "HEAD"):
            why = _body_problem(headers)
        if why:
            await _refuse(send, why)
            return
        await self.app(scope, _bounded(receive), self._dressed(send, new))

    def problem(self, headers: MutableMapping[str, str]) -> str:
        """Returns what is wrong with where a request comes from, empty if nothing is."""
        host = headers.get("host", "")
        if not self._is_ours(host):
            return (
                f"This server is not called {host[:100]!r}. Open the link that `mlfix review` printed (through a "
                f"tunnel: with the same port, ssh -L {self.port}:127.0.0.1:{self.port})."
            )
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return "Another site may not speak to this server."
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            navigates = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
            if not navigates:  # following the link from a chat or a mail is no harm
                return "Another site may not speak to this server."
        return ""

    def _is_ours(self, host: str) -> bool:
        name, _, port = host.rpartition(":")
        if self.port == 80 and (not name or host.endswith("]")):  # browsers leave :80 out
            name, port = host, "80"
        if port != str(self.port):
            return False
        name = _bare(name)
        if name in self.hosts:
            return True
        if not self.any_address:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _dressed(self, send: Send, new: bool) -> Send:
        """Adds the headers that every answer has, and the cookie where the token was in the link."""
        cookie = f"{self.cookie}={self.secret}; Path=/; HttpOnly; SameSite=Strict"

        async def dressed(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                given = [*message.get("headers", []), *HEADERS]
                if not any(key.lower() == b"cache-control" for key, _ in given):
                    given.append((b"cache-control", b"no-store"))
                if new:
                    given.append((b"set-cookie", cookie.encode()))
                message = {**message, "headers": given}
            await send(message)

        return dressed


def _bare(host: str) -> str:
    return host.strip("[]").lower().rstrip(".")


def _same(given: str, wanted: str) -> bool:
    return bool(given) and secrets.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _cookie(header: str, name: str) -> str:
    for part in header.split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value
    return ""


def _body_problem(headers: MutableMapping[str, str]) -> str:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return "A request's body is JSON: Content-Type: application/json."
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MOST_BODY:
        return f"A request's body has at most {MOST_BODY} bytes."
    return ""


def _bounded(receive: Receive) -> Receive:
    """Stops reading a body that says nothing of its length, and goes on for too long."""
    total = 0

    async def bounded() -> MutableMapping[str, Any]:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > MOST_BODY:
            raise TooLarge
        return message

    return bounded


async def _refuse(send: Send, why: str) -> None:
    status = 413 if "bytes" in why else 415 if "Content-Type" in why else 403
    body = f"mlfix review: {why}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()),
               (b"cache-control", b"no-store"), (b"connection", b"close"), *HEADERS]  # fmt: skip
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
