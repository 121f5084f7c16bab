"""What the review page shows, in a real browser: filters, map, similar images, matrix, large view, the sample."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pages import REVIEW, Page, fixes_of, wait_for
from review_server import Client, Server
from shapes import draw_shapes

from mlfix_train.audit.review import image_map
from mlfix_train.audit.similarity.order_files import write_embeddings

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
