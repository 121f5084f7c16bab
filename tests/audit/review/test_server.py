"""The server from outside: who has access, what is refused, and that no request reaches a file."""

from __future__ import annotations

import gzip
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from review_server import Server
from shapes import draw_shapes

from mlfix_train.audit.review.bundle import ASSETS
from mlfix_train.audit.review.requests import MAX_BODY

SAMPLE = "disc/000.png"
MARK = json.dumps({"marks": [{"sample_id": SAMPLE, "new_label": "invalid"}]})
JSON = "application/json"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("review")
    draw_shapes(place / "shapes", per_label=8)
    running = Server("data.root=shapes", "order=none", "port=0", cwd=place)
    running.place = place  # type: ignore[attr-defined]
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def nothing_marked(server: Server) -> Iterator[None]:
    before = (server.place / "review/fixes.csv").read_text()  # type: ignore[attr-defined]
    yield
    if (server.place / "review/fixes.csv").read_text() != before:  # type: ignore[attr-defined]
        server.ask("undo", {})


def test_the_link_gives_access_and_the_cookie_keeps_it(server: Server) -> None:
    assert server.request("GET", "/")[0] == 403
    status, headers, page = server.request("GET", f"/?token={server.token}")
    assert status == 200 and b"data-mlfix-review" in page and server.token.encode() not in page
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and server.token not in cookie
    kept = cookie.split(";")[0]
    modules = [f"/{path.name}" for path in ASSETS.glob("*.js")]
    assert len(modules) > 10 and all(f'"{name}"'.encode() in page for name in modules)
    for path in ("/", "/review.css", "/icon.svg", *modules):
        assert server.request("GET", path)[0] == 403 and server.request("GET", path, cookie=kept)[0] == 200
    status, headers, content = server.request("GET", "/tiles.js", cookie=kept, accept_encoding="gzip")
    assert headers["content-type"].startswith("text/javascript") and headers["cache-control"] == "no-cache"
    assert gzip.decompress(content) == (ASSETS / "tiles.js").read_bytes()
    status, headers, page = server.request("GET", "/", cookie=kept)
    assert server.request("POST", "/api/describe", "{}", cookie=kept, content_type=JSON)[0] == 200
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"


def test_a_token_in_the_address_of_a_post_is_refused(server: Server) -> None:
    for bearer in ("", f"Bearer {server.token}"):
        path = f"/api/marks?token={server.token}"
        status, headers, body = server.request("POST", path, MARK, content_type=JSON, authorization=bearer)
        assert status == 403 and b"Authorization: Bearer" in body and "set-cookie" not in headers


@pytest.mark.parametrize("token", ["", "x", "a" * 43, "%00", "é", "../../etc/passwd"])
def test_other_tokens_are_refused(server: Server, token: str) -> None:
    from urllib.parse import quote

    assert server.request("GET", f"/?token={quote(token)}")[0] == 403
    for headers in ({"authorization": f"Bearer {token}"}, {"cookie": f"mlfix-review-{server.port}={token}"}):
        plain = {name: value.encode("utf-8").decode("latin-1") for name, value in headers.items()}
        status, _, response = server.request("POST", "/api/marks", MARK, content_type=JSON, **plain)
        assert status == 403 and b"Open the link" in response


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:{port}",
        "evil.example",
        "bytes.example:{port}",
        "Content-Type.example:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "localhost.evil:{port}",
        "10.0.0.1:{port}",
        "",
        "[::ffff:7f00:1]:{port}",
    ],
)
def test_other_hosts_are_refused(server: Server, host: str) -> None:
    """A name that an attacker points at this machine (DNS rebinding) sends the page's cookie, but its own name."""
    name = host.format(port=server.port)
    status, _, _ = server.request("GET", f"/?token={server.token}", host=name)
    assert status == (400 if not name else 403)
    assert server.request(
        "POST", "/api/marks", MARK, host=name, authorization=f"Bearer {server.token}", content_type=JSON
    )[0] in (400, 403)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "https://127.0.0.1:{port}"},
        {"origin": "http://127.0.0.1:1"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors", "sec_fetch_dest": "image"},
    ],
)
def test_other_sites_cannot_write_or_read(server: Server, headers: dict[str, str]) -> None:
    given = {name: value.format(port=server.port) for name, value in headers.items()}
    assert server.ask("marks", json.loads(MARK), **given)[0] == 403
    assert server.request("GET", "/images/0.jpg", authorization=f"Bearer {server.token}", **given)[0] == 403


def test_own_names_and_origin_are_accepted(server: Server) -> None:
    for name in ("127.0.0.1", "localhost", "[::1]", "LOCALHOST"):
        host = f"{name}:{server.port}"
        assert server.ask("describe", {}, host=host, origin=f"http://{host}", sec_fetch_site="same-origin")[0] == 200
    status, _, _ = server.request(
        "GET",
        f"/?token={server.token}",
        sec_fetch_site="cross-site",
        sec_fetch_mode="navigate",
        sec_fetch_dest="document",
    )
    assert status == 200, "the link works from a chat"


def test_a_body_that_is_not_json_is_refused(server: Server) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        assert server.ask("marks", json.loads(MARK), content_type=kind)[0] == 415
    assert server.request("GET", "/api/marks", authorization=f"Bearer {server.token}")[0] == 405


def test_the_size_of_bodies_is_limited(server: Server) -> None:
    bearer = f"Bearer {server.token}"
    huge = b" " * (MAX_BODY + 1)
    assert server.request("POST", "/api/marks", huge, authorization=bearer, content_type=JSON)[0] == 413
    chunked = b"".join(b"%x\r\n%s\r\n" % (1 << 20, b" " * (1 << 20)) for _ in range(9)) + b"0\r\n\r\n"
    status, _, _ = server.request(
        "POST", "/api/marks", chunked, authorization=bearer, content_type=JSON, transfer_encoding="chunked"
    )
    assert status == 413
    for length in ("-1", "abc"):
        assert server.request(
            "POST", "/api/describe", b"", authorization=bearer, content_type=JSON, content_length=length
        )[0] in (400, 413)
    assert server.ask("describe", {})[0] == 200, "the server is still up"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b"7",
        b'"x"',
        b"null",
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"marks":NaN}',
        b'{"marks":{}}',
        b'{"marks":[7]}',
        b'{"marks":[{}]}',
        b'{"marks":[{"sample_id":1}]}',
        b'{"marks":[{"sample_id":"disc/000.png"}]}',
        b'{"marks":[{"sample_id":"disc/000.png","new_label":7}]}',
        b'{"marks":[{"sample_id":"disc/000.png","new_label":"dics"}]}',
        b'{"marks":[{"sample_id":"disc/000.png","new_label":"square","base_revision":"x"}]}',
        b'{"marks":[],"reviewer":7}',
        b'{"marks":[],"reviewer":"a\\nb"}',
    ],
)
def test_malformed_marks_are_refused_with_a_message(server: Server, body: bytes) -> None:
    status, _, response = server.request(
        "POST", "/api/marks", body, authorization=f"Bearer {server.token}", content_type=JSON
    )
    assert status in (400, 422), response
    assert json.loads(response)["error"]
    assert (server.place / "review/fixes.csv").read_text().count("\n") == 1  # type: ignore[attr-defined]


def test_one_bad_mark_of_many_changes_nothing(server: Server) -> None:
    marks = [{"sample_id": SAMPLE, "new_label": "invalid"}, {"sample_id": "disc/001.png", "new_label": "dics"}]
    status, response = server.ask("marks", {"marks": marks})
    assert status == 422 and "'dics'" in response["error"] and "disc" in response["hint"]
    assert SAMPLE not in (server.place / "review/fixes.csv").read_text()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "name",
    [
        "../shapes/disc/000.png",
        "/etc/passwd",
        "disc/../disc/000.png",
        "disc\\000.png",
        "DISC/000.PNG",
        "",
        "\x00",
        "disc/000.png\n",
        "🙂" * 1000,
    ],
)
def test_paths_are_not_ids(server: Server, name: str) -> None:
    status, response = server.ask("marks", {"marks": [{"sample_id": name, "new_label": "invalid"}]})
    assert status == 404 and "no sample has the id" in response["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/../README.md",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/sprites/../../journal.jsonl",
        "/sprites/x.jpg",
        "/sprites/..%2f..%2fjournal.jsonl",
        "/images/-1.jpg",
        "/images/99999.jpg",
        "/images/9999999999999999999999999.jpg",
        "/images/../x.jpg",
        "/review.css/..",
        "/fixes.csv",
        "/journal.jsonl",
        "/sprites/" + "a" * 32 + ".jpg",
        "//etc/passwd",
    ],
)
def test_paths_reach_no_file(server: Server, path: str) -> None:
    assert server.request("GET", path, authorization=f"Bearer {server.token}")[0] == 404


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("nothing", {}),
        ("view", {"group_by": "x"}),
        ("view", {"group_by": "column:__class__"}),
        ("view", {"sort_by": "x"}),
        ("block", {"view": "x", "number": 0}),
        ("group", {"view": 7}),
        ("seen", {"rows": [1e9]}),
        ("seen", {"rows": [-1]}),
        ("seen", {"rows": "all"}),
        ("sample", {"row": 10**6}),
        ("sample", {"row": True}),
        ("changes", {"since": "x"}),
        ("draw", {"count": 10**9}),
        ("review_group", {}),
        ("save_state", {"state": 7}),
        ("save_state", {"state": {"x": "y" * 10_000}}),
        ("__init__", {}),
        ("close", {}),
        ("handle", {}),
    ],
)
def test_invalid_requests_are_refused(server: Server, kind: str, payload: object) -> None:
    status, response = server.ask(kind, payload)
    assert status in (404, 410, 422) and response["error"]


def test_the_contract_of_a_mark(server: Server) -> None:
    status, response = server.ask("marks", json.loads(MARK))
    assert status == 200 and response["saved"] == 1
    text = (server.place / "review/fixes.csv").read_text()  # type: ignore[attr-defined]
    assert f"{SAMPLE},invalid,disc," in text
    other = {"marks": [{"sample_id": SAMPLE, "new_label": "square"}], "reviewer": "someone else"}
    status, response = server.ask("marks", other)
    assert status == 409 and response["conflicts"][0]["new_label"] == "invalid"
    status, response = server.ask("marks", {"marks": [{"sample_id": SAMPLE, "new_label": None}]})
    assert status == 200 and SAMPLE not in (server.place / "review/fixes.csv").read_text()  # type: ignore[attr-defined]


def hostile_requests(port: int, token: str) -> Iterator[bytes]:
    """Requests as attackers send them, byte by byte; none may be answered with a 2xx."""
    host, bearer, kind = f"Host: 127.0.0.1:{port}", f"Authorization: Bearer {token}", "Content-Type: application/json"
    length = f"Content-Length: {len(MARK)}"

    def raw(line: str, *headers: str, body: str | bytes = b"", version: str = " HTTP/1.1") -> bytes:
        content = body if isinstance(body, bytes) else body.encode()
        return "\r\n".join([line + version, *headers, "", ""]).encode("utf-8", "surrogateescape") + content

    own = (host, bearer)
    names = ("etc/passwd", "journal.jsonl", "review/fixes.csv", "shapes/disc/000.png")
    for up in ("../", "%2e%2e/", "..%2f", "..\\", "%2e%2e%5c", "....//", "..;/", "%c0%ae%c0%ae/", "%252e%252e%252f"):
        for name in names:
            yield raw(f"GET /{up * 3}{name}", *own)
        yield raw(f"GET /sprites/{up}{names[1]}.jpg", *own)
        yield raw(f"GET /images/{up}0.jpg", *own)
    for path in ("//etc/passwd", "/.git/config", "/page.html", "/assets/review.js", "/api/", "/api/marks/", "/docs"):
        yield raw(f"GET {path}", *own)
    for path in ("images/0.jpg%00.png", "sprites/%00.jpg", "%00", "images/٣.jpg", "images/0x1.jpg", "images/1e0.jpg"):
        yield raw(f"GET /{path}", *own)
    for path in ("file:///etc/passwd", "http://evil.example/", "*", "?", "evil.example:80", "/" + "a" * 70_000):
        yield raw(f"GET {path}", *own)
    for path in ("/", "/review.js", "/images/0.jpg", f"/?token={token[:-1]}", f"/?token={token}x", f"/?Token={token}"):
        yield raw(f"GET {path}", host)
        yield raw(f"HEAD {path}", host)
    for wrong in ("", token[:-1], token.swapcase(), token + "\u00e9", "null", "\x01", "' or 1=1"):
        yield raw("POST /api/marks", host, f"Authorization: Bearer {wrong}", kind, length, body=MARK)
        yield raw("POST /api/marks", host, f"Cookie: mlfix-review-{port}={wrong}", kind, length, body=MARK)
    for header in (f"Cookie: token={token}", f"Cookie: mlfix-review-{port}={token}", f"Authorization: Basic {token}"):
        yield raw("POST /api/marks", host, header, kind, length, body=MARK)
    for query in (f"token={token}", f"token={token}&token=x", f"a=b&token={token}", f"%74oken={token}"):
        yield raw(f"POST /api/marks?{query}", *own, kind, length, body=MARK)
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "GET\x00", "DEBUG"):
        for path in ("/", "/api/marks", "/images/0.jpg"):
            yield raw(f"{method} {path}", *own, kind, length, body=MARK)
    yield raw("GET /api/marks", *own)
    for other in (
        *("evil.example", f"evil.example:{port}", "127.0.0.1", "127.0.0.1:1", f"127.0.0.1.evil.example:{port}"),
        *(f"user@127.0.0.1:{port}", f"127.0.0.1:{port}, evil.example", f"127.0.0.1:{port}\x00", f"0.0.0.0:{port}"),
        *(f"[::ffff:127.0.0.1]:{port}", f"127.1:{port}", f"2130706433:{port}", f"127.0.0.1:{port}/"),
    ):
        yield raw("GET /images/0.jpg", f"Host: {other}", bearer)
        yield raw("POST /api/marks", f"Host: {other}", bearer, kind, length, body=MARK)
    yield raw("GET /images/0.jpg", bearer)
    yield raw("GET /images/0.jpg", "Host: evil.example", f"X-Forwarded-Host: 127.0.0.1:{port}", bearer)
    yield raw("GET /images/0.jpg", host, "Host: evil.example", bearer)
    for origin in (
        "http://evil.example",
        "null",
        f"https://127.0.0.1:{port}",
        f"http://127.0.0.1:{port}.evil",
        "file://",
    ):
        yield raw("POST /api/marks", *own, f"Origin: {origin}", kind, length, body=MARK)
        yield raw("GET /images/0.jpg", *own, f"Origin: {origin}")
    for site in ("cross-site", "same-site", "x"):
        yield raw("GET /images/0.jpg", *own, f"Sec-Fetch-Site: {site}", "Sec-Fetch-Mode: no-cors")
    for text in ("text/plain", "application/jsonx", "multipart/form-data", "application/x-www-form-urlencoded"):
        yield raw("POST /api/marks", *own, f"Content-Type: {text}", length, body=MARK)
    for size in ("-1", "1e3", "0x10", "9999999999999", "9" * 400, "1, 2", " ", "٣"):
        yield raw("POST /api/marks", *own, kind, f"Content-Length: {size}", body=MARK)
    yield raw("POST /api/marks", *own, kind, "Content-Length: 1", "Content-Length: 2", body=MARK)
    chunked = "Transfer-Encoding: chunked"
    second = raw("POST /api/marks", host, kind, length, body=MARK)  # smuggled behind the first, without a token
    for coding in ("chunked, chunked", "gzip", "\x0bchunked", "xchunked", "identity"):
        yield raw("POST /api/nothing", *own, kind, f"Transfer-Encoding: {coding}", body=b"0\r\n\r\n" + second)
    yield raw("POST /api/nothing", *own, kind, chunked, "Content-Length: 5", body=b"0\r\n\r\n" + second)
    yield raw("POST /api/nothing", *own, kind, "Content-Length: 2", body=b"{}" + second)
    for chunk in (b"zz\r\n{}\r\n", b"-1\r\n", b"fffffffffffffffff\r\n", b"2;a=b\n{}", b"2\r\n{}xx\r\n"):
        yield raw("POST /api/marks", *own, kind, chunked, body=chunk + b"0\r\n\r\n")
    for header in ("no colon", ": empty", "a b: c", "X: \x00", "X: a\r\n folded", "X: " + "a" * 200_000):
        yield raw("GET /nothing", *own, header)
    yield raw("GET /nothing", *own, *(f"X-{n}: 1" for n in range(3000)))
    yield raw("GET /", host, "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: eA==")
    yield from (raw("GET /", host, version=version) for version in ("", " HTTP/0.9", " HTTP/9.9", " HTTP/1.1 x", " X"))
    yield from (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
    yield from (b"\x00" * 512, b"\r\n" * 64)


def test_no_hostile_request_is_served(server: Server) -> None:
    requests = list(hostile_requests(server.port, server.token))
    assert len(requests) > 220
    journal = server.place / "review/journal.jsonl"  # type: ignore[attr-defined]
    before = journal.read_bytes()
    for request in requests:
        answer = b""
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            try:
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
                while part := connection.recv(1 << 16):
                    answer += part
            except (ConnectionError, TimeoutError):
                pass  # refused while it was still being sent
        statuses = re.findall(rb"^HTTP/1\.1 (\d+)", answer, re.MULTILINE)
        assert all(status[:1] == b"4" for status in statuses), (request[:300], answer[:300])
        for secret in (server.token.encode(), b"\xff\xd8\xff", b"root:", b'"mlfix"', b"Traceback"):
            assert secret not in answer, (request[:300], answer[:300])
    assert journal.read_bytes() == before and server.ask("describe", {})[0] == 200


def test_beyond_loopback_the_risk_is_stated(tmp_path: Path) -> None:
    draw_shapes(tmp_path / "shapes", per_label=3)
    server = Server("data.root=shapes", "order=none", "port=0", "host=0.0.0.0", cwd=tmp_path)
    try:
        assert "can see the images and change the fixes" in server.output
        assert server.request("GET", "/")[0] == 403, "the token is needed there too"
        for host, wanted in (("192.0.2.7", 200), ("evil.example", 403)):
            assert server.request("GET", f"/?token={server.token}", host=f"{host}:{server.port}")[0] == wanted
    finally:
        server.stop()


def test_the_server_does_not_load_torch() -> None:
    """A review starts quickly and stays small."""
    code = (
        "import sys; from mlfix_train.commands import review; from mlfix_train.audit.review import widget; "
        "import starlette.routing, uvicorn; print(*sys.modules)"
    )
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "lightning", "torchvision", "timm", "wandb", "matplotlib"} & set(modules)
