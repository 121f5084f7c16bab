"""Access to the review server, checked before a request reaches the application.

- ``Host`` must be an address the server was started with, or a bare IP address if it listens on all addresses: a name
  that someone points at this machine (DNS rebinding) is refused.
- ``Origin`` and ``Sec-Fetch-Site`` must be the page's own: other sites can neither write nor read.
- A random token is needed: in the link once, then in a cookie that requests of other sites do not carry
  (``SameSite=Strict``, ``HttpOnly``), or from a script as ``Authorization: Bearer <token>``.
- Bodies must be JSON, of at most :data:`requests.MAX_BODY` bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from mlfix_train.audit.review.requests import (
    MAX_BODY,
    ForbiddenError,
    MediaTypeError,
    PayloadTooLargeError,
    RequestError,
)

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = (
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class AuthMiddleware:
    """ASGI middleware that only lets authorized requests through to ``app``.

    Args:
        app: An ASGI application.
        hosts: Names and addresses of the server.
        port: Port it listens on.
        any_address: Whether it listens on all addresses, so that any bare IP address may be its own.
        token: URL-safe text; by default 32 random bytes.
    """

    def __init__(self, app: Any, hosts: Iterable[str], port: int, any_address: bool = False, token: str = "") -> None:
        self.app, self.port, self.any_address = app, port, any_address
        self.hosts = {_normalize_host(host) for host in hosts}
        self.token = token or secrets.token_urlsafe(32)
        self.cookie_name = f"mlfix-review-{port}"
        self.cookie_value = hmac.new(self.token.encode(), b"cookie", hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI connection."""
        if scope["type"] != "http":
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        try:
            self.check_source(headers)
            token_in_link = self.check_token(headers, scope["query_string"].decode("latin-1"))
            if scope["method"] not in ("GET", "HEAD"):
                _check_body(headers)
        except RequestError as error:
            await _send_error(send, error)
            return
        await self.app(scope, _limit_body(receive), self._add_headers(send, set_cookie=token_in_link))

    def check_source(self, headers: Mapping[str, str]) -> None:
        """Checks where a request comes from.

        Raises:
            ForbiddenError: It is addressed to another host, or comes from another site.
        """
        host = headers.get("host", "")
        if not self._is_own_host(host):
            raise ForbiddenError(
                f"This server is not called {host[:100]!r}.",
                "Open the link that `mlfix review` printed (through a tunnel: with the same port, "
                f"ssh -L {self.port}:127.0.0.1:{self.port}).",
            )
        origin = headers.get("origin")
        is_other_origin = origin is not None and origin != f"http://{host}"
        is_other_site = headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
        # Following the link from a chat or an email is fine.
        is_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        if is_other_origin or (is_other_site and not is_link):
            raise ForbiddenError("Requests from other sites are not allowed.")

    def check_token(self, headers: Mapping[str, str], query: str) -> bool:
        """Checks that a request has the token, and returns whether it is in the link.

        Raises:
            ForbiddenError: It is neither in the link, nor in the cookie, nor in the header.
        """
        if _is_equal(parse_qs(query).get("token", [""])[0], self.token):
            return True
        cookie = _read_cookie(headers.get("cookie", ""), self.cookie_name)
        bearer = headers.get("authorization", "").partition("Bearer ")[2]
        if not _is_equal(cookie, self.cookie_value) and not _is_equal(bearer, self.token):
            raise ForbiddenError("Open the link that `mlfix review` printed last: it contains the access token.")
        return False

    def _is_own_host(self, host: str) -> bool:
        name, _, port = host.rpartition(":")
        if self.port == 80 and (not name or host.endswith("]")):  # browsers leave :80 out
            name, port = host, "80"
        if port != str(self.port):
            return False
        name = _normalize_host(name)
        return name in self.hosts or (self.any_address and _is_ip_address(name))

    def _add_headers(self, send: Send, set_cookie: bool) -> Send:
        """Adds the security headers to a response, and the cookie if the token was in the link."""
        cookie = f"{self.cookie_name}={self.cookie_value}; Path=/; HttpOnly; SameSite=Strict"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", []), *SECURITY_HEADERS]
                if not any(key.lower() == b"cache-control" for key, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                if set_cookie:
                    headers.append((b"set-cookie", cookie.encode()))
                message = {**message, "headers": headers}
            await send(message)

        return send_with_headers


def _normalize_host(host: str) -> str:
    return host.strip("[]").lower().rstrip(".")


def _is_ip_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_equal(value: str, secret: str) -> bool:
    return bool(value) and secrets.compare_digest(value.encode("utf-8", "replace"), secret.encode())


def _read_cookie(header: str, name: str) -> str:
    cookies = (part.strip().partition("=") for part in header.split(";"))
    return next((value for key, _, value in cookies if key == name), "")


def _check_body(headers: Mapping[str, str]) -> None:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise MediaTypeError("The body of a request must be JSON.", "Send Content-Type: application/json.")
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MAX_BODY:
        raise PayloadTooLargeError(f"The body of a request may have at most {MAX_BODY:,} bytes.")


def _limit_body(receive: Receive) -> Receive:
    """Stops reading a body of unknown length that is too long."""
    total = 0

    async def receive_limited() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > MAX_BODY:
            raise PayloadTooLargeError(f"the body of a request may have at most {MAX_BODY:,} bytes")
        return message

    return receive_limited


async def _send_error(send: Send, error: RequestError) -> None:
    body = f"mlfix review: {error.problem} {error.hint}".strip().encode() + b"\n"
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"connection", b"close"),
        *SECURITY_HEADERS,
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
