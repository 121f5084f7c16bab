"""Fixtures of the tests of the review page: a browser, pictures with an audit, and the page served."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pages import Page, chromium, write_audit
from review_server import Client, Server, serve_in_thread
from shapes import draw_shapes

from mlfix_train.config.compose import load


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """210 shapes and an audit that suspects every seventh."""
    place = tmp_path_factory.mktemp("images")
    draw_shapes(place / "shapes", per_label=70)
    ids = sorted(path.relative_to(place / "shapes").as_posix() for path in (place / "shapes").rglob("*.png"))
    write_audit(place / "audit", ids)
    return place


Serve = Callable[..., Client]


@pytest.fixture
def keys(pictures: Path, tmp_path: Path) -> list[str]:
    place = [f"data.root={pictures}/shapes", f"audit={pictures}/audit", f"pixels.cache={pictures}/pixels"]
    return [*place, f"out={tmp_path}/out", "order=none", "reviewer=anna", "open=false"]


@pytest.fixture
def serve(keys: list[str]) -> Iterator[Serve]:
    """Serves the pictures in this process."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(serve_in_thread(load("review", [*keys, "port=0"])))


@pytest.fixture
def process(keys: list[str], tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Serves the pictures in a process of its own."""
    running: list[Server] = []

    def start(port: int = 0) -> Server:
        running.append(Server(*keys, f"port={port}", cwd=tmp_path))
        return running[-1]

    yield start
    for server in running:
        server.stop(signal.SIGKILL)


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    found = Page(context.new_page())
    yield found
    context.close()
    assert not found.errors
