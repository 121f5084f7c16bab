"""Marking on the review page in a real browser, by mouse and keyboard, alone and with others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pages import REVIEW, Page, fixes_of
from review_server import Client

Serve = Callable[..., Client]


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
