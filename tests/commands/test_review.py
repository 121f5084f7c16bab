"""The review page in a real browser: marking by mouse, keyboard and touch; nothing lost; many samples; training."""

from __future__ import annotations

import io
import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pages import REVIEW, Page, chromium, fixes_of, write_audit
from review_server import Client, Server, serve_in_thread
from shapes import FAST, draw_shapes

from mlfix_train.audit.review import image_map
from mlfix_train.audit.review.bundle import ASSETS
from mlfix_train.audit.similarity.order_files import write_embeddings, write_order
from mlfix_train.commands.review import open_configured_session
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
CROSS = f"""([clientX, clientY]) => {{
  const to = (target, kind, more) =>
    target.dispatchEvent(new PointerEvent(kind, {{ bubbles: true, pointerType: "mouse", ...more }}));
  to(document.querySelector(".content"), "pointermove", {{ clientX, clientY }});
  const crossed = {REVIEW}.current();
  to({REVIEW}.scroller, "pointerleave", {{ relatedTarget: document.querySelector(".inspector .big") }});
  return [crossed, {REVIEW}.current()];
}}"""
"""Moves the mouse over a tile into the large view without a rest; returns the pointed tile there, and at the end."""


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition was not met in time"
        time.sleep(0.05)


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


def test_marking_by_mouse_and_keys(serve: Serve, page: Page, tmp_path: Path) -> None:
    page.open(serve().link)
    view = page.ask(".view()")
    assert sum(view["sizes"]) == 210 and len(view["names"]) == 3
    assert "token" not in page.place.url, "the token is removed from the address bar"
    ids = [page.sample(index)["id"] for index in range(70)]
    page.click(2)
    page.drag(5, 8)
    page.hover(9)
    page.press("Enter")  # the suggested label: the first ten of a group are suspicious
    page.click(20)
    page.place.keyboard.down("Shift")
    page.click(25)
    page.place.keyboard.up("Shift")
    page.saved()
    given = page.sample(9)["given"]
    wanted = dict.fromkeys([ids[2], *ids[5:9], *ids[20:26]], "invalid")
    suggested = fixes_of(tmp_path / "out/fixes.csv").pop(ids[9])
    assert fixes_of(tmp_path / "out/fixes.csv") == {**wanted, ids[9]: suggested} and suggested != given
    page.press("ArrowLeft", "ArrowLeft", "x", "ArrowRight", "1", "Backspace")
    page.saved()
    assert fixes_of(tmp_path / "out/fixes.csv").get(ids[23]) is None, "X on a marked tile removes the mark"
    assert ids[24] not in fixes_of(tmp_path / "out/fixes.csv"), "a digit, then removed"
    for _ in range(20):
        page.press("z")
    page.saved()
    assert fixes_of(tmp_path / "out/fixes.csv") == {}
    for _ in range(4):
        page.press("y")
    page.saved()
    assert fixes_of(tmp_path / "out/fixes.csv") == {
        **dict.fromkeys([ids[2], *ids[5:9], ids[20]], "invalid"),
        ids[9]: suggested,
    }


def test_keyboard_alone(serve: Serve, page: Page, tmp_path: Path) -> None:
    page.open(serve().link)
    page.press("ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight", "x")
    page.saved()
    first = [page.sample(index)["id"] for index in range(3)]
    assert fixes_of(tmp_path / "out/fixes.csv") == dict.fromkeys(first, "invalid")
    page.press("Escape", "l")
    page.place.keyboard.type("squ")
    page.press("Enter")
    page.saved()
    names = page.ask(".view().names")
    label = "square" if page.sample(2)["given"] != "square" else None
    assert fixes_of(tmp_path / "out/fixes.csv").get(first[2]) == label
    page.press("?")
    assert "mark the group as reviewed" in page.place.inner_text("dialog.help")
    page.press("Escape", "Home")
    page.place.wait_for_timeout(1000)
    page.press("End")
    assert page.ask(".current()") == 69
    page.press("f")
    page.until(f"{REVIEW}.current() === -1")
    page.saved()
    page.until(f"{REVIEW}.view().group_reviewed[0] === 70")
    page.press("ArrowRight")
    assert page.ask(".current()") == 70, f"after {names[0]} comes {names[1]}"
    page.press(" ")
    page.until("!document.querySelector('.inspector').hidden && !!document.querySelector('.inspector img')")
    assert page.sample(70)["id"] in page.place.inner_text(".inspector")


def test_the_pointed_image_stays_the_pointed_image(serve: Serve, page: Page, tmp_path: Path) -> None:
    page.open(serve().link)
    columns = page.ask(".layout().columns")
    page.hover(4)
    page.press("l")  # the box opens under the pointer
    assert page.place.inner_text(".labels button >> nth=0") == page.sample(4)["suggested"], "the likeliest first"
    page.place.keyboard.type("tri" if page.sample(4)["given"] != "triangle" else "squ")
    page.press("Enter")
    page.saved()
    labels = {page.sample(4)["id"]: "triangle" if page.sample(4)["given"] != "triangle" else "square"}
    assert fixes_of(tmp_path / "out/fixes.csv") == labels
    page.click(6)
    page.saved()
    assert page.sample(6)["mark"] == "invalid", "a click still marks as invalid"
    page.press("z")
    page.hover(columns - 1)
    page.press(" ")  # the large view opens beside the tile
    page.until("!!document.querySelector('.inspector img')")
    assert page.ask(".current()") == columns - 1
    page.place.mouse.move(*page.at(columns - 2))
    assert page.ask(".current()") == columns - 2
    page.press(" ")
    page.hover(1)
    page.press("ArrowRight", "ArrowRight")
    x, y = page.at(1)
    page.place.mouse.move(x + 1, y + 1)
    assert page.ask(".current()") == 3, "a twitch of the mouse leaves the arrow keys their tile"
    page.press("x")
    page.saved()
    assert fixes_of(tmp_path / "out/fixes.csv") == {**labels, page.sample(3)["id"]: "invalid"}
    page.place.mouse.move(x + 20, y)
    assert page.ask(".current()") == 1


def test_digits_stay_put_and_the_brush_ends_with_its_group(serve: Serve, page: Page) -> None:
    page.open(serve().link)
    names = page.ask(".view().names")
    other = sorted(names)[0] if page.sample(0)["given"] != sorted(names)[0] else sorted(names)[1]
    digit = str(sorted(names).index(other) + 1)
    page.hover(20)
    page.press(digit)
    page.saved()
    assert page.sample(20)["mark"] == other, "digits are in the order of the labels, in each group"
    page.place.click(f".chip:has-text('{other}')")
    armed = "!document.querySelector('.armed').hidden"
    page.click(30)
    page.saved()
    assert page.sample(30)["mark"] == other and page.place.evaluate(armed)
    assert other in page.place.inner_text(".armed")
    page.press("n")
    page.ready()
    page.click(page.ask(".visible()")[0])
    page.saved()
    index = page.ask(".visible()")[0]
    assert page.sample(index)["mark"] in ("", "invalid") and not page.place.evaluate(armed)
    page.place.wait_for_timeout(600)
    page.click(index + 1)
    page.saved()
    assert page.sample(index + 1)["mark"] == "invalid"


@pytest.mark.slow
def test_filters_search_groups_and_size(serve: Serve, page: Page) -> None:
    page.open(serve().link)
    page.click(0)
    page.saved()
    marked = page.sample(0)["id"]
    page.place.click("role=radio[name='Marked']")
    page.until(f"{REVIEW}.view().count === 1")
    page.ready()
    assert page.sample(0)["id"] == marked
    page.place.click("role=radio[name='Suspicious']")
    page.until(f"{REVIEW}.view().count === 30")
    page.place.click("role=radio[name='All']")
    page.until(f"{REVIEW}.view().count === 210")
    page.place.fill("input[aria-label='Search ids and labels']", "disc 00")
    page.press("Enter")
    page.until(f"{REVIEW}.view().count > 0 && {REVIEW}.view().count < 210")
    page.ready()
    assert all("00" in page.sample(i)["id"] for i in range(page.ask(".view().count")))
    page.place.fill("input[aria-label='Search ids and labels']", "nothing")
    page.press("Enter")
    page.place.wait_for_selector(".empty:not([hidden])")
    page.place.click("text=Show all")
    page.until(f"{REVIEW}.view().count === 210")
    page.choose("Group by", "pair")
    assert any("→" in name for name in page.ask(".view().names"))
    page.choose("Order groups", "name")
    assert page.ask(".view().names") == sorted(page.ask(".view().names"))
    columns = page.ask(".layout().columns")
    page.place.evaluate("document.activeElement.blur()")
    page.press("+", "+", "+")
    page.ready()
    assert page.ask(".layout().columns") < columns


def test_filters_are_in_the_link(serve: Serve, page: Page, browser: Any) -> None:
    page.open(serve().link)
    page.press("c")
    page.place.select_option("select[aria-label='Add a filter']", "predicted label")
    page.place.check(".values label:has-text('disc') input")
    page.until(f"{REVIEW}.view().count === 70")
    page.place.fill("input[aria-label='least suspicion shown, percent']", "50")
    page.until(f"{REVIEW}.view().count === 10")
    page.ready()
    assert all(page.sample(i)["suggested"] == "disc" and page.sample(i)["suspicion"] > 0.5 for i in range(10))
    page.choose("Group by", "pair")
    page.until("location.hash.includes('group_by=pair')")
    assert "Filter (2)" in page.place.inner_text(".bar")
    other = Page(page.place.context.new_page())
    other.open(page.place.url)
    assert other.ask(".view().count") == 10 and other.ask(".settings().group_by") == "pair"
    other.place.goto(page.place.url.split("#")[0] + "#group_by=label&filter=suspicious&group=triangle")
    other.until(f"{REVIEW}.view().count === 30")
    other.until("document.querySelector('.row.now .name').textContent === 'triangle'")
    other.place.goto(page.place.url.split("#")[0] + "#group_by=label&columns={%22nope%22:{}}")
    other.until("document.querySelector('.toasts').textContent.includes('no column')")
    other.until(f"{REVIEW}.view().count === 210")
    page.place.click("text=Clear filters")
    page.until(f"{REVIEW}.view().count === 210")
    assert not other.errors


def test_a_lasso_on_the_map_is_a_group(serve: Serve, page: Page, pictures: Path, monkeypatch: Any) -> None:
    ids = sorted(path.relative_to(pictures / "shapes").as_posix() for path in (pictures / "shapes").rglob("*.png"))
    codes = np.array([["disc", "square", "triangle"].index(name.split("/")[0]) for name in ids])
    places = np.stack([codes, np.arange(210) / 105], 1).astype(np.float32)  # a column of points for each label
    write_embeddings(places, pictures / "audit/embeddings.npy", ids, "labels")
    code = "import json, sys, numpy as np; s = json.load(sys.stdin); p = np.load(s['embeddings']); "
    monkeypatch.setattr(image_map, "COMMAND", code + "np.savez(open(s['out'], 'wb'), key=s['key'], places=p)")
    page.open(serve().link)
    page.press("m")
    page.until(f"{REVIEW}.map().drawn === 210")
    box = page.place.locator(".plane canvas").bounding_box()
    side = min(box["width"], box["height"]) - 28
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.place.mouse.move(x, y)
    page.until("!!document.querySelector('.tip img')")
    assert page.place.inner_text(".tip span") == "square"
    page.place.mouse.move(x - side * 0.7, y - side / 2 - 8)
    page.place.mouse.down()
    for dx, dy in ((-0.3, -1), (-0.3, 1), (-0.7, 1)):
        page.place.mouse.move(x + side * dx, y + dy * (side / 2 + 8), steps=4)
    page.place.mouse.up()
    page.until(f"{REVIEW}.view().count === 70")
    page.ready()
    assert {page.sample(i)["given"] for i in range(70)} == {"disc"} and page.ask(".view().names") == ["All samples"]
    page.click(0)
    page.saved()
    assert page.sample(0)["mark"] == "invalid", "the group is an ordinary one"
    page.until("location.hash.includes('area=')")
    page.place.reload()
    page.ready()
    assert page.ask(".view().count") == 70, "the link holds the lasso"
    page.place.click("button[aria-label='Show images from anywhere on the map']")
    page.until(f"{REVIEW}.view().count === 210")
    (pictures / "audit/embeddings.npy").unlink()  # others do without


def test_a_reload_resumes_where_it_was(serve: Serve, page: Page, tmp_path: Path) -> None:
    server = serve()
    page.open(server.link)
    page.choose("Sort by", "visual")
    page.press("n", "n", "-", "-")
    page.ready()
    group = page.ask(".view().names[2]")
    state = tmp_path / "out/reviewer_state.json"
    wait_for(lambda: state.exists() and json.loads(state.read_text())["anna"]["position"]["name"] == group)
    page.place.reload()
    page.ready()
    assert page.ask(".settings().sort_by") == "visual" and page.ask(".settings().size") == 48
    assert page.place.evaluate("document.querySelector('.row.now .name').textContent") == group


def test_more_like_this_and_back(serve: Serve, page: Page, tmp_path: Path) -> None:
    page.open(serve().link)
    page.place.click("role=radio[name='Unmarked']")
    page.ready()
    page.press("n", *["ArrowDown"] * 5)
    page.ready()
    before = [page.ask(what) for what in (".view()", ".current()", ".scroller.scrollTop")]
    pointed = page.sample(before[1])
    page.press("a")
    page.until(f"{REVIEW}.view().names[0] === 'Most like {pointed['id']}'")
    page.ready()
    assert page.ask(".current()") == 0 and page.sample(0)["id"] == pointed["id"]
    assert page.ask(".view().count") == 210, "whatever their label or filter"
    assert "nearest first, by their pixels at 8 px" in page.place.inner_text("section header small")
    page.press("x")
    page.click(3)
    page.saved()
    other = page.sample(3)["id"]
    page.press("ArrowRight", "a")
    page.until(f"{REVIEW}.view().names[0] !== 'Most like {pointed['id']}'")
    page.press("Escape")
    page.until(f"{REVIEW}.view().names[0] === 'Most like {pointed['id']}'")
    page.place.click("text=← Back")
    page.until(f"{REVIEW}.view().names.length === 3")
    page.ready()
    assert [page.ask(what) for what in (".view().view", ".current()", ".scroller.scrollTop")] == [
        before[0]["view"],
        *before[1:],
    ]
    assert page.sample(before[1])["mark"] == "invalid" and page.place.is_hidden("text=← Back")
    assert page.ask(".settings().filter") == "unmarked"
    assert fixes_of(tmp_path / "out/fixes.csv") == dict.fromkeys([pointed["id"], other], "invalid")
    page.press("Escape", "a")  # nothing is lost if the page is reloaded there
    page.until(f"{REVIEW}.view().names.length === 1")
    state = tmp_path / "out/reviewer_state.json"
    name = before[0]["names"][1]
    wait_for(lambda: state.exists() and json.loads(state.read_text())["anna"]["position"]["name"] == name)
    page.place.reload()
    page.ready()
    assert page.ask(".settings().group_by") == "label" and page.place.text_content(".row.now .name") == name


def test_the_matrix_opens_groups(serve: Serve, page: Page) -> None:
    page.open(serve().link)
    page.press("t")
    page.until("document.querySelector('dialog.matrix')?.open")
    cell = page.place.evaluate("document.activeElement.ariaLabel")
    pair, _, facts = cell.partition(": ")
    given, suggested = pair.split(" → ")
    assert re.search(r"^wrong expected \d\S*, \d+ images, 0 looked at, 0 marked$", facts)
    assert page.place.inner_text(".readout") == cell
    rows = page.place.evaluate("[...document.querySelectorAll('.label-list tbody tr')].map((row) => row.innerText)")
    assert len(rows) == 3 and all("70" in row and "0 (0%)" in row for row in rows)
    page.press("ArrowDown", "ArrowUp", "Enter")
    page.until(f"{REVIEW}.settings().group_by === 'suggested'")
    page.ready()
    shown = page.place.text_content(".row.now .name")
    assert shown.startswith(f"{given} → ") and suggested in shown
    top = page.ask(".visible()")[0]
    assert (page.sample(top)["given"], page.sample(top)["suggested"]) == (given, suggested)
    page.press("Escape")
    page.until(f"{REVIEW}.settings().group_by === 'label'")
    page.press("t")
    page.place.click(".label-list tbody button >> nth=2")
    page.until("!document.querySelector('dialog.matrix').open")
    page.until(f"{REVIEW}.settings().group_by === 'label'")


def test_the_large_view_follows_and_is_remembered(serve: Serve, page: Page, tmp_path: Path) -> None:
    page.open(serve().link)
    columns = page.ask(".layout().columns")
    page.hover(2)
    page.press(" ")
    page.until(f"{REVIEW}.layout().columns < {columns}")  # it stands beside the tiles
    box = ".inspector"
    page.until(f"document.querySelector('{box} .words').childElementCount > 1")
    page.until(f"document.querySelectorAll('{box} .nearest figure').length === 8")
    text = page.place.inner_text(box)
    sample = page.sample(2)
    assert f"{sample['given']} → {sample['suggested']}" in text and "likely to be wrong, rank " in text
    assert "of the 8 most similar are labelled" in text and "by their pixels at 8 px" in text
    assert f"Typical {sample['given']}" in text and f"Typical {sample['suggested']}" in text
    for index in (3, 4):
        page.press("ArrowRight")
        page.until(f"document.querySelector('{box} .id').textContent === {json.dumps(page.sample(index)['id'])}")
        page.until(f"!document.querySelector('{box} img').hidden")
    page.press("x")
    page.saved()
    page.until(f"document.querySelector('{box} .given').textContent.includes('marked invalid by anna')")
    assert page.place.evaluate(CROSS, page.at(1)) == [1, 4], "tiles that are crossed do not take the view's image"
    page.place.hover(f"{box} .big")
    page.place.mouse.wheel(0, -400)
    page.until(f"document.querySelector('{box} img').style.transform.includes('scale')")
    page.until("performance.getEntriesByType('resource').some((one) => one.name.includes('/sharp/'))")
    page.place.focus(f"{box} .big")
    page.press("ArrowLeft", "0")
    assert page.ask(".current()") == 4 and not page.place.evaluate(
        f"document.querySelector('{box} img').style.transform"
    )
    state = tmp_path / "out/reviewer_state.json"
    wait_for(lambda: state.exists() and json.loads(state.read_text())["anna"]["settings"].get("docked") is True)
    page.place.reload()
    page.ready()
    assert page.place.is_visible(box), "it is remembered"
    page.place.set_viewport_size({"width": 800, "height": 700})
    page.until(f"getComputedStyle(document.querySelector('{box}')).position === 'absolute'")
    page.place.click("button[aria-label='close']:visible")
    assert page.place.is_hidden(box)


def test_kill_and_restart_lose_nothing(process: Callable[..., Server], page: Page, tmp_path: Path) -> None:
    server = process()
    page.open(server.link)
    ids = [page.sample(index)["id"] for index in range(20)]
    page.drag(0, 4)
    page.saved()
    server.process.kill()
    server.process.wait()
    assert fixes_of(tmp_path / "out/fixes.csv") == dict.fromkeys(ids[:5], "invalid")
    page.click(7)  # no server receives it
    page.until("document.querySelector('.saved').textContent.includes('not saved')")
    again = process(server.port)
    assert fixes_of(tmp_path / "out/fixes.csv") == dict.fromkeys(ids[:5], "invalid")
    page.until("document.querySelector('.saved').textContent.includes('open the new link')")
    page.place.on("dialog", lambda dialog: dialog.accept())
    page.open(again.link)  # as the page says
    page.saved()
    assert fixes_of(tmp_path / "out/fixes.csv") == dict.fromkeys([*ids[:5], ids[7]], "invalid")
    wait_for(lambda: page.sample(7)["mark"] == "invalid")
    page.press("z", "z")
    page.saved()
    assert fixes_of(tmp_path / "out/fixes.csv") == {}, "undo works across the kill"


@pytest.mark.slow
def test_two_people_in_two_windows(serve: Serve, page: Page, browser: Any, tmp_path: Path) -> None:
    server = serve()
    page.open(server.link)
    context = browser.new_context(viewport={"width": 1000, "height": 700})
    other = Page(context.new_page()).open(server.link)
    other.place.fill(".who", "bert")
    other.place.evaluate("document.activeElement.blur()")
    page.click(3)
    page.saved()
    other.until(f"{REVIEW}.sample(3).mark === 'invalid'", 10)
    other.place.route("**/api/changes", lambda route: route.abort())  # bert's window does not hear of it
    page.click(4)
    page.saved()
    other.hover(4)
    assert other.sample(4)["mark"] == ""
    other.press("Enter")
    other.saved()
    name = page.sample(4)["id"]
    assert fixes_of(tmp_path / "out/fixes.csv")[name] == "invalid", "never silently overwritten"
    tray = other.place.inner_text(".tray")
    assert name in tray and "anna: invalid" in tray and "you: " in tray
    other.place.click("text=Use mine")
    other.saved()
    frame = pd.read_csv(tmp_path / "out/fixes.csv").set_index("sample_id")
    assert frame.loc[name, "reviewer"] == "bert" and frame.loc[name, "new_label"] != "invalid"
    page.until(f"{REVIEW}.sample(4).mark === '{frame.loc[name, 'new_label']}'", 10)
    other.place.unroute("**/api/changes")
    other.place.route("**/api/marks", lambda route: route.abort())  # bert's next mark waits
    other.click(6)
    page.hover(6)
    page.press("Enter")
    page.saved()
    other.until(f"{REVIEW}.revision() >= {page.ask('.revision()')}")  # it hears of anna's mark while bert's waits
    other.place.unroute("**/api/marks")
    other.until("!document.querySelector('.tray').hidden", 10)
    assert page.sample(6)["id"] in other.place.inner_text(".tray")
    assert fixes_of(tmp_path / "out/fixes.csv")[page.sample(6)["id"]] not in ("", "invalid")
    assert not other.errors
    context.close()


def test_touch(serve: Serve, browser: Any, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": 820, "height": 1100}, has_touch=True)
    page = Page(context.new_page()).open(serve().link)
    page.place.touchscreen.tap(*page.at(5))
    page.saved()
    assert fixes_of(tmp_path / "out/fixes.csv") == {page.sample(5)["id"]: "invalid"}
    page.place.touchscreen.tap(*page.at(5))
    page.saved()
    assert fixes_of(tmp_path / "out/fixes.csv") == {}
    assert page.place.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out at 820 px"
    context.close()


def test_a_phone_reaches_groups_progress_and_the_sample(serve: Serve, browser: Any) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 780}, has_touch=True)
    page = Page(context.new_page()).open(serve().link)
    assert page.place.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    for name in ("Group by", "Order groups", "Sort by"):
        assert page.place.is_visible(f".pick span:has-text('{name}')"), "captions stay"
    second = page.ask(".view().names[1]")
    page.place.tap("text=Groups")
    assert page.place.is_visible("text=of 210 reviewed")
    page.place.tap(f".row:has-text('{second}')")
    page.until("!document.querySelector('.side').checkVisibility()")
    page.until(f"{REVIEW}.scroller.scrollTop === {REVIEW}.layout().tops[1]")
    page.place.tap("text=Groups")
    page.place.tap("text=Judge a sample")
    page.until(f"{REVIEW}.view().names[0] === 'Sample to judge'")
    page.until("!document.querySelector('.side').checkVisibility()")
    page.place.set_viewport_size({"width": 360, "height": 200})  # 1440 x 800 at 400%
    page.until(
        "document.querySelector('.mlfix').scrollHeight > 400 && document.querySelector('.scroller').offsetHeight > 150"
    )
    page.place.locator("text=Finish").scroll_into_view_if_needed()
    assert page.place.is_visible("text=Finish") and not page.errors
    context.close()


def test_the_keyboard_reaches_everything(serve: Serve, page: Page) -> None:
    page.open(serve().link)
    reached = set()
    for _ in range(60):
        page.press("Tab")
        reached.add(page.place.evaluate("document.activeElement.ariaLabel || document.activeElement.textContent"))
    wanted = {"Group by", "Groups; use the arrow keys", "Xinvalid", "Finish", "Judge a sample", "Marked"}
    assert {name.lower() for name in wanted} <= {str(name).lower() for name in reached}
    page.place.focus(".list")
    page.press("ArrowDown")
    page.until("document.querySelector('.row.now .name').textContent === " + f"{REVIEW}.view().names[1]")
    assert page.place.evaluate("document.activeElement.className") == "list"
    page.until("document.querySelector('.live').textContent.startsWith('square: 70 samples')")
    assert page.place.get_attribute(".row.now", "id") == page.place.get_attribute(".list", "aria-activedescendant")
    page.press("Enter")
    page.press("ArrowRight", "x")
    page.saved()
    page.until("document.querySelector('.live').textContent.includes('marked invalid')")
    page.place.focus("button[aria-label=undo]")
    page.press("Enter")
    page.saved()
    page.until("document.querySelector('.toasts').textContent.includes('Undone: 1 mark')")
    assert page.place.evaluate("document.activeElement !== document.body"), "the focus stays on the page"


def test_every_width_and_forced_colors(serve: Serve, page: Page) -> None:
    rows = "Math.round(document.querySelector('.bar').getBoundingClientRect().height / 50)"  # 58 pixels, 96 of two
    captions = "[...document.querySelectorAll('.pick span')].every((e) => e.getBoundingClientRect().height > 8)"
    page.place.emulate_media(forced_colors="active")
    page.open(serve().link)
    sizes = ((1440, 900, 1), (1280, 800, 1), (1024, 768, 2), (800, 900, 2), (360, 256, 3))  # the last: 1440 px at 400%
    for width, height, count in sizes:
        page.place.set_viewport_size({"width": width, "height": height})
        page.until(f"{rows} <= {count} && {captions}")
        assert page.place.evaluate("document.querySelector('.mlfix').scrollWidth") == width, "nothing at the side"
    page.press("Enter")
    color = "getComputedStyle(document.querySelector('.toast'))"
    page.until("!!document.querySelector('.toast')")
    assert page.place.evaluate(f"{color}.color !== {color}.backgroundColor")


def test_a_first_visit_is_told_what_to_do(serve: Serve, page: Page, tmp_path: Path) -> None:
    page.open(serve().link)
    hint = page.place.inner_text(".hint")
    assert "Click what is wrong" in hint and "leaves it out of training" in hint
    page.place.click("text=Got it")
    page.until("document.querySelector('.hint').hidden")
    page.press("?")
    assert "no label fits" in page.place.inner_text("dialog.help")
    page.press("Escape")
    page.click(0)
    page.saved()
    page.until("document.querySelector('.facts').textContent.startsWith('1')")
    page.place.click("text=Finish")
    told = page.place.inner_text("dialog.ask")
    fixes = str(tmp_path / "out/fixes.csv")
    assert "1 marked" in told and f"fixes.path={fixes}" in told and "All changes are saved" in told
    page.press("Enter")
    state = tmp_path / "out/reviewer_state.json"
    wait_for(lambda: state.exists() and json.loads(state.read_text())["anna"]["settings"].get("hinted"))
    page.place.reload()
    page.ready()
    assert page.place.is_hidden(".hint")


def test_a_sample_tells_how_many_are_wrong(serve: Serve, page: Page) -> None:
    page.open(serve().link)
    page.place.click("role=button[name='Judge a sample']")
    page.until(f"{REVIEW}.view().names[0] === 'Sample to judge'")
    page.ready()
    assert page.ask(".view().count") == 100 and page.sample(0)["suspicion"] is None
    page.place.click("text=Show as a grid")
    page.click(1)
    page.press("f")
    unseen = page.place.inner_text("dialog.ask p")
    assert "of 100 in this group were not on the screen: they cannot count as judged" in unseen
    page.press("Enter")  # shows the rest
    page.place.wait_for_timeout(900)
    page.press("End", "f")
    page.saved()
    page.until("document.querySelector('.count')?.textContent.includes('from 100 judged, 1 of them wrong')")
    assert "wrong label" in page.place.inner_text(".count b") and "1 in 20" in page.place.inner_text(".count")
    page.place.click("role=button[name='Back to the groups']")
    page.until(f"{REVIEW}.view().names.length === 3")
    page.ready()
    assert 0 < page.sample(0)["suspicion"] < 0.9, "calibrated; the audit said 0.97"
    assert "expected wrong (" in page.place.inner_text("header small >> nth=0")


def test_a_sample_is_judged_blind_one_image_at_a_time(serve: Serve, page: Page, tmp_path: Path) -> None:
    page.open(serve().link)
    page.place.click("role=button[name='Judge a sample']")
    page.place.wait_for_selector(".judge .big img")
    ids = [page.sample(index)["id"] for index in range(12)]
    text = page.place.inner_text(".judge")
    assert "0 of 100 judged" in text and "suspicion" not in text and f"“{page.sample(0)['given']}”" in text
    page.press("k")
    page.until("document.querySelector('.told').textContent.includes('the audit: suspicion')")
    assert "you said as given" in page.place.inner_text(".told")
    page.press("x", "q")
    page.place.click("text=Yes, keep")
    page.press("z")  # takes it back
    page.saved()
    page.until("document.querySelector('.judge').textContent.includes('3 of 100 judged, 1 unsure')")
    given = page.sample(0)["given"]
    assert fixes_of(tmp_path / "out/fixes.csv") == {ids[0]: given, ids[1]: "invalid", ids[2]: "unsure"}
    page.press("l")
    page.place.keyboard.type("squ" if page.sample(3)["given"] != "square" else "tri")
    page.press("Enter", *("k" * 8))
    page.until("/About \\d+ wrong labels? in all/.test(document.querySelector('.estimate').textContent)")
    assert page.sample(3)["mark"] in ("square", "triangle")
    page.saved()
    page.press("Escape")
    page.until(f"{REVIEW}.view().names.length === 3")
    page.ready()
    page.place.reload()
    page.ready()
    page.place.click("role=button[name='Continue the sample']")
    page.until("document.querySelector('.judge').textContent.includes('12 of 100 judged')")


@pytest.mark.slow
def test_what_was_not_on_the_screen_is_not_reviewed(serve: Serve, page: Page) -> None:
    page.place.set_viewport_size({"width": 900, "height": 420})
    page.open(serve().link)
    page.choose("Sort by", "visual")  # file order: the suspicious ones are everywhere
    shown = len(page.ask(".visible()"))
    page.press("f")
    question = page.place.inner_text("dialog.ask p")
    assert "of 70 in this group were not on the screen, with about " in question and "wrong labels among" in question
    page.place.click("text=Count only what was on the screen")
    page.saved()
    page.until(f"{REVIEW}.view().group_reviewed[0] > 0")
    assert shown <= page.ask(".view().group_reviewed[0]") < 70
    page.press("z")
    page.saved()
    page.until(f"{REVIEW}.view().group_reviewed[0] === 0")
    page.press("p", "f")
    page.place.click("text=Count the whole group as reviewed")
    page.saved()
    page.until(f"{REVIEW}.view().group_reviewed.includes(70)")
    page.place.click("role=button[name='Judge a sample']")
    page.until(f"{REVIEW}.view().names[0] === 'Sample to judge'")
    page.place.click("text=Show as a grid")
    page.place.set_viewport_size({"width": 1200, "height": 800})
    page.ready()
    for _ in range(2):  # two seconds a screen were enough before, however many images it has
        page.place.wait_for_timeout(2300)
        page.press("PageDown")
    page.until("document.querySelector('.toasts').textContent.includes('too quickly to count as judged')")
    page.place.wait_for_timeout(1600)
    assert "0 of 100 judged" in page.place.inner_text(".count")


def test_labels_are_text_whatever_they_hold(browser: Any, tmp_path: Path) -> None:
    evil = ("<img src=x onerror=alert(1)>", "<b>bold", "'\"&amp;", "停\u202e止")
    draw_shapes(tmp_path / "some", per_label=10, labels=("square", "disc", "triangle", "other"))
    pairs = zip(("square", "disc", "triangle", "other"), evil, strict=True)
    rows = [
        (f"some/{shape}/{n:03d}.png", f"{n}-{label}", label, ("y", "<u>x")[n % 2])
        for shape, label in pairs
        for n in range(10)
    ]
    table = pd.DataFrame(rows, columns=["path", "sample_id", "label", "w<i>"])
    table.to_csv(tmp_path / "table.csv", index=False)
    server = Server("data=table", "data.file=table.csv", "order=none", "port=0", "reviewer=<s>eve", cwd=tmp_path)
    try:
        context = browser.new_context(viewport={"width": 1200, "height": 800})
        page = Page(context.new_page()).open(server.link)
        assert sorted(page.ask(".view().names")) == sorted(evil) and page.ask(".view().count") == 40
        assert "停⟨U+202E⟩" in page.place.inner_text(".list"), "what turns text around is seen"
        page.choose("Group by", "column:w<i>")
        page.click(0)
        page.press("l")
        page.press("Escape", " ")
        page.saved()
        made = page.place.evaluate(
            "document.querySelectorAll('.mlfix b, .mlfix i, .mlfix u, .mlfix s, img[src=x]').length"
        )
        assert made == page.place.evaluate("document.querySelectorAll('.card b, .meter i, .hint b, .given b').length")
        assert not page.errors
        context.close()
    finally:
        server.stop()


@pytest.mark.parametrize("n", [pytest.param(n, marks=pytest.mark.slow) for n in (8_000, 200_000)])
def test_so_many_samples(browser: Any, tmp_path: Path, n: int) -> None:
    """The browser only holds what is on the screen, however many samples there are."""
    draw_shapes(tmp_path / "some", per_label=20)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "some").rglob("*.png"))
    table = pd.DataFrame(
        {
            "path": [files[i % 60] for i in range(n)],
            "sample_id": [f"s{i:06d}" for i in range(n)],
            "label": [f"label {i % 400}" for i in range(n)],
        }
    )
    table.to_csv(tmp_path / "table.csv", index=False)
    server = Server("data=table", "data.file=table.csv", "order=none", "port=0", "pixels.size=8", cwd=tmp_path)
    try:
        context = browser.new_context(viewport={"width": 1200, "height": 800})
        page = Page(context.new_page()).open(server.link)
        assert page.ask(".view().count") == n and len(page.ask(".view().names")) == 400
        for part in (0.3, 0.99, 0.5):
            page.place.evaluate(
                f"(() => {{ const r = {REVIEW}; r.scroller.scrollTop = r.layout().height * {part}; }})()"
            )
            page.ready()
            index = page.ask(".visible()")[3]
            page.click(index)
            page.saved()
            assert page.sample(index)["mark"] == "invalid"
        assert len(fixes_of(tmp_path / "review/fixes.csv")) == 3
        held = page.ask(".counts()")
        assert held["blocks"] <= 80 and held["strips"] <= 14
        assert page.place.evaluate("document.querySelectorAll('*').length") < 800
        page.press("Control+a", "x")
        page.saved()
        if n > 15_000:
            page.choose("Group by", "all")
            page.press("Control+a")
            told = page.place.inner_text(".toasts")
            assert "at most 15,000 can be marked at once. Show fewer:" in told and page.place.is_hidden(".selection")
        context.close()
    finally:
        server.stop()


def test_marks_change_the_training_data(serve: Serve, page: Page, tmp_path: Path, pictures: Path, mlfix: Any) -> None:
    page.open(serve().link)
    page.drag(0, 4)
    page.hover(6)
    page.press("Enter")
    page.saved()
    marked = fixes_of(tmp_path / "out/fixes.csv")
    paths = (f"outputs={tmp_path / 'runs'}", f"fixes.path={tmp_path / 'out/fixes.csv'}")
    result = mlfix("train", f"data.root={pictures / 'shapes'}", *FAST, "recipe.epochs=1", *paths, "arm=fixed")
    assert result.code == 0, result.err
    run = tmp_path / "runs/default/fixed/seed=0"
    trained = pd.read_parquet(run / "dynamics.parquet").set_index("sample_id")["label"]
    held_out = set(pd.read_parquet(run / "predictions.parquet")["sample_id"])
    for name, label in marked.items():
        if name in held_out:
            continue
        assert (name not in trained.index) if label == "invalid" else (trained[name] == label)
    assert set(marked) - held_out, "some of them are in the training data"


def test_without_an_order_the_page_opens_at_once_and_offers_it_later(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_sort = threading.Event()

    class SortHere:
        """The sorting process, as a part of this one."""

        def __init__(self, command: list[str], **_: Any) -> None:
            self.stdin, self.stderr = io.StringIO(), io.StringIO()

        def wait(self) -> int:
            may_sort.wait(timeout=60)
            ids = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))[::-1]
            order = pd.DataFrame({"sample_id": ids, "position": range(24), "label_position": [*range(8)] * 3})
            order[["outlier_score", "label_outlier_score", "duplicate_group"]] = 1.0, 1.0, -1
            write_order(order, Path(json.loads(self.stdin.getvalue())["out"]) / "order.parquet", {})
            return 0

        def terminate(self) -> None:
            may_sort.set()

    monkeypatch.setattr("mlfix_train.commands.review.subprocess.Popen", SortHere)
    root = draw_shapes(tmp_path / "shapes", per_label=8)
    keys = [f"data.root={root}", f"out={tmp_path}/out", f"pixels.cache={tmp_path}/pixels", "open=false", "port=0"]
    with serve_in_thread(load("review", keys)) as client:
        context = browser.new_context(viewport={"width": 1200, "height": 800})
        page = Page(context.new_page()).open(client.link)
        described = client.ask("describe", {})[1]
        assert not described["sorted"] and "being sorted" in described["notes"][-1]
        in_files = [page.sample(index)["id"] for index in range(8)]
        assert in_files == sorted(in_files)
        page.click(2)
        page.saved()
        may_sort.set()
        page.place.wait_for_selector("text=Sort by similarity", timeout=60_000)
        assert [page.sample(index)["id"] for index in range(8)] == in_files, "nothing moves by itself"
        page.place.click("text=Sort by similarity")
        page.until(f"{REVIEW}.sample(0)?.id === '{in_files[-1]}'")
        page.ready()
        assert [page.sample(index)["id"] for index in range(8)] == in_files[::-1]
        assert page.place.inner_text("select[aria-label='Sort by']").strip() == "similarity" and not page.errors
        context.close()
    session = open_configured_session(load("review", keys))
    assert session.handle("describe", {})["sorted"] and not session.handle("describe", {})["notes"], "once is enough"
    session.close()


@pytest.mark.slow
def test_a_process_sorts_the_images_and_ends_with_the_review(tmp_path: Path) -> None:
    root = draw_shapes(tmp_path / "shapes", per_label=8)
    keys = [f"data.root={root}", f"pixels.cache={tmp_path}/pixels"]
    session = open_configured_session(load("review", [*keys, f"out={tmp_path}/a"]))
    wait_for(lambda: session.handle("describe", {})["sorted"], 120)
    assert len(pd.read_parquet(tmp_path / "a/order/order.parquet")) == 24
    session.close()
    stopped = open_configured_session(load("review", [*keys, f"out={tmp_path}/b"]))
    stopped.close()
    wait_for(lambda: not stopped.handle("describe", {})["notes"])
    assert not (tmp_path / "b/order/order.parquet").exists()


def test_stopped_it_says_what_was_reviewed(process: Callable[..., Server]) -> None:
    assert "reviewed   0 of 210 samples" in process().stop()


def test_contrast_meets_wcag_aa() -> None:
    """WCAG 2.2 AA: text 4.5 to 1, marks and controls 3 to 1."""

    def luminance(color: str) -> float:
        digits = color.lstrip("#")
        digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    text = (ASSETS / "review.css").read_text()
    assert not re.search(r"border:1px solid var\(--rule\);background:var\(--ground\)", text), "controls have edges"
    themes = re.findall(r"\{(--ink:[^}]*)", text)
    assert len(themes) == 3
    for theme in themes:
        color = dict(re.findall(r"--(\w+):(#\w+)", theme))
        for ink in ("ink", "grey", "blue", "red", "green"):
            for ground in ("ground", "card", "wash") if ink in ("ink", "grey") else ("ground", "card"):
                pair = sorted((luminance(color[ink]), luminance(color[ground])))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, f"{ink} on {ground} in {theme}"
        for ground in ("ground", "card"):
            pair = sorted((luminance(color["edge"]), luminance(color[ground])))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 3, f"edges of controls on {ground} in {theme}"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ((), "set audit="),
        (("audit=nowhere",), "contains no audit"),
        (("data.root=nowhere",), "does not exist"),
        (("data.root=shapes", "out=shapes/review"), "is inside data.root"),
        (("data.root=shapes", "port=99999"), "port"),
        (("data.root=shapes", "port=x"), "port=x"),
        (("data.root=shapes", "host=256.1.1.1"), "is not an address"),
        (("data.root=shapes", "reviewer=' '"), "reviewer"),
        (("audit=audit",), "data.root"),
        (("data.root=shapes", "fixes.path=nowhere.csv"), "nowhere.csv"),
        (("data.root=shapes", "order=nowhere"), "order=nowhere does not exist"),
        (("data.root=shapes", "fixes.ignore=[nonsense]"), "nonsense"),
        (("data.root=shapes", "fixes=x"), "fixes"),
    ],
)
def test_errors_name_the_problem_and_a_hint(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlfix: Any, keys: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(pictures)
    here = () if any(key.startswith("out=") for key in keys) else (f"out={tmp_path / 'out'}",)
    rest = () if any(key.startswith("order=") for key in keys) else ("order=none",)
    result = mlfix("review", *keys, *here, *rest, "open=false", f"pixels.cache={pictures / 'pixels'}")
    assert result.code in (1, 2) and words in result.err and "Traceback" not in result.err


@pytest.mark.slow
def test_tiles_off_the_screen_are_not_changed(serve: Serve, page: Page, tmp_path: Path) -> None:
    page.place.set_viewport_size({"width": 900, "height": 500})
    page.open(serve().link)
    page.press("ArrowRight", "ArrowRight")
    page.place.evaluate(f"{REVIEW}.scroller.scrollTop = 1500")
    page.ready()
    page.press("x")  # the tile is far above: it is scrolled into view first
    page.saved()
    assert fixes_of(tmp_path / "out/fixes.csv") == {} and page.ask(".scroller.scrollTop") < 300
    page.hover(3)
    before = page.ask(".scroller.scrollTop")
    page.place.mouse.wheel(0, 600)
    page.until(f"{REVIEW}.scroller.scrollTop >= {before} + 600")
    page.ready()
    assert page.ask(".current()") in (-1, *page.ask(".visible()")), "the tile under the mouse now, or none"
    top = page.place.evaluate("document.querySelector('.scroller').getBoundingClientRect().top")
    page.place.mouse.move(500, top + 20)  # the heading, which covers tiles
    assert page.ask(".current()") == -1
    first = page.ask(".visible()")
    page.place.mouse.move(*page.at(first[0]))
    page.place.mouse.down()
    page.place.mouse.move(600, 5, steps=4)
    page.place.mouse.up()
    page.saved()
    ids = {page.sample(index)["id"] for index in range(70) if page.sample(index)}
    assert set(fixes_of(tmp_path / "out/fixes.csv")) <= ids


def test_a_whole_group_at_once_and_back(serve: Serve, page: Page, tmp_path: Path) -> None:
    page.open(serve().link)
    page.choose("Group by", "all")
    page.press("Control+a", "x")
    page.until(f"{REVIEW}.saved() && {REVIEW}.sample(0).mark === 'invalid'")
    assert len(fixes_of(tmp_path / "out/fixes.csv")) == 210
    assert page.place.inner_text(".selection").startswith("210 selected")
    assert "210 images set to invalid." in page.place.inner_text(".toasts")
    page.place.click(".toast >> text=Undo")
    page.until(f"{REVIEW}.saved() && {REVIEW}.sample(0).mark === ''")
    assert fixes_of(tmp_path / "out/fixes.csv") == {}
    page.press("Enter")
    page.until(f"{REVIEW}.saved() && {REVIEW}.sample(0).mark !== ''")
    assert len(fixes_of(tmp_path / "out/fixes.csv")) == 30
    page.press("z")
    page.until(f"{REVIEW}.saved() && {REVIEW}.sample(0).mark === ''")
    assert fixes_of(tmp_path / "out/fixes.csv") == {}, "one step, however many it marked"


def test_earlier_changes_of_others_are_shown(serve: Serve, page: Page) -> None:
    server = serve()
    page.open(server.link)
    name = page.sample(1)["id"]
    assert server.ask("marks", {"marks": [{"sample_id": name, "new_label": "invalid"}], "reviewer": "bert"})[0] == 200
    page.click(5)
    page.saved()
    page.until(f"{REVIEW}.sample(1).mark === 'invalid'", 8)


def test_an_empty_name_is_not_used(serve: Serve, page: Page) -> None:
    page.open(serve().link)
    for name, kept in (("Eva 👩\u200d💻", "Eva 👩\u200d💻"), ("", "anna")):
        page.place.fill(".who", name)
        page.place.locator(".who").press("Enter")
        page.until(f"{REVIEW}.settings().reviewer === {name!r} || {REVIEW}.settings().reviewer === {kept!r}")
        page.until(f"Object.values(localStorage).some((text) => text.includes('\"name\":' + JSON.stringify({kept!r})))")
    page.place.reload()
    page.ready()
    assert page.ask(".settings().reviewer") == "anna"
