"""Access to the review server, checked before a request reaches the application.

- ``Host`` must be an address the server was started with, or a bare IP address if it listens on all addresses: a name
  that someone points at this machine (DNS rebinding) is refused.
- ``Origin`` and ``Sec-Fetch-Site`` must be the page's own: other sites can neither write nor read.
- A random token is needed: in the link once, then in a cookie that requests of other sites do not carry
  (``SameSite=Strict``, ``HttpOnly``), or from a script as ``Authorization: Bearer <token>``, but not in the
  address of a POST.
- Bodies must be JSON, of at most :data:`requests.MAX_BODY` bytes.
"""

import contextlib
import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any

from mlfix_train.audit.review.requests import MAX_BODY, RequestError

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}

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
    """

    def __init__(self, app: Any, hosts: Iterable[str], port: int, any_address: bool) -> None:
        self.app, self.port, self.any_address = app, port, any_address
        self.hosts = {_normalize_host(host) for host in hosts}
        self.token = secrets.token_urlsafe(32)
        self.cookie_name = f"mlfix-review-{port}"
        self.cookie_value = hmac.new(self.token.encode(), b"cookie", hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI connection."""
        from starlette.requests import Request
        from starlette.responses import PlainTextResponse

        if scope["type"] != "http":
            return
        request = Request(scope)
        try:
            self.check_source(request.headers)
            is_read = scope["method"] in ("GET", "HEAD")
            if "token" in request.query_params and not is_read:  # it would end up in logs of proxies
                hint = "Send it as Authorization: Bearer <token>."
                raise RequestError("The token is not accepted in the address of a POST.", hint, HTTPStatus.FORBIDDEN)
            token_in_link = _is_equal(request.query_params.get("token", ""), self.token)
            bearer = request.headers.get("authorization", "").partition("Bearer ")[2]
            cookie = request.cookies.get(self.cookie_name, "")
            if not (token_in_link or _is_equal(bearer, self.token) or _is_equal(cookie, self.cookie_value)):
                problem = "Open the link that `mlfix review` printed last: it contains the access token."
                raise RequestError(problem, status=HTTPStatus.FORBIDDEN)
            if not is_read:
                _check_body(request.headers)
        except RequestError as error:
            text = f"mlfix review: {error.problem} {error.hint}".strip() + "\n"
            headers = {**SECURITY_HEADERS, "cache-control": "no-store", "connection": "close"}
            await PlainTextResponse(text, error.status, headers)(scope, receive, send)
            return
        await self.app(scope, _limit_body(receive), self._add_headers(send, set_cookie=token_in_link))

    def check_source(self, headers: Mapping[str, str]) -> None:
        """Raises a :class:`RequestError` if a request is addressed to another host, or comes from another site."""
        host = headers.get("host", "")
        if not self._is_own_host(host):
            tunnel = f"through a tunnel: with the same port, ssh -L {self.port}:127.0.0.1:{self.port}"
            hint = f"Open the link that `mlfix review` printed ({tunnel})."
            raise RequestError(f"The host {host[:100]!r} is not allowed.", hint, HTTPStatus.FORBIDDEN)
        origin = headers.get("origin")
        is_other_origin = origin is not None and origin != f"http://{host}"
        is_other_site = headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
        # Following the link from a chat or an email is fine.
        is_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        if is_other_origin or (is_other_site and not is_link):
            raise RequestError("Requests from other sites are not allowed.", status=HTTPStatus.FORBIDDEN)

    def _is_own_host(self, host: str) -> bool:
        name, _, port = host.rpartition(":")
        if self.port == 80 and (not name or host.endswith("]")):  # browsers leave :80 out
            name, port = host, "80"
        if port != str(self.port):
            return False
        name = _normalize_host(name)
        if name in self.hosts or not self.any_address:
            return name in self.hosts
        with contextlib.suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return False

    def _add_headers(self, send: Send, set_cookie: bool) -> Send:
        """Adds the security headers to a response, and the cookie if the token was in the link."""
        from starlette.datastructures import MutableHeaders

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY_HEADERS)
                headers.setdefault("cache-control", "no-store")
                if set_cookie:
                    cookie = f"{self.cookie_name}={self.cookie_value}; Path=/; HttpOnly; SameSite=Strict"
                    headers.append("set-cookie", cookie)
            await send(message)

        return send_with_headers


def _normalize_host(host: str) -> str:
    return host.strip("[]").lower().rstrip(".")


def _is_equal(value: str, secret: str) -> bool:
    return bool(value) and secrets.compare_digest(value.encode("utf-8", "replace"), secret.encode())


def _check_body(headers: Mapping[str, str]) -> None:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        hint = "Send Content-Type: application/json."
        raise RequestError("The body of a request must be JSON.", hint, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MAX_BODY:
        raise _too_large()


def _too_large() -> RequestError:
    problem = f"The body of a request may have at most {MAX_BODY:,} bytes."
    return RequestError(problem, status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


def _limit_body(receive: Receive) -> Receive:
    """Stops reading a body of unknown length that is too long."""
    total = 0

    async def receive_limited() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > MAX_BODY:
            raise _too_large()
        return message

    return receive_limited
