"""The review page for everyone: touch, phones, keyboard alone, narrow and high-contrast screens, first visits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from pages import REVIEW, Page, fixes_of, wait_for
from review_server import Client, Server
from shapes import draw_shapes

from mlfix_train.audit.review.bundle import ASSETS

Serve = Callable[..., Client]


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
