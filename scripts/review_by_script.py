"""Simulates a reviewer on the real page, in headless Chromium: scrolls, and marks by mouse and keyboard.

    python scripts/review_by_script.py <audit> <planted.csv> <out> [--truth true_label] [--screens 40]

Starts `mlfix review audit=<audit> out=<out>`, goes through the groups, most suspicious first, and on each screen marks
what is wrong by the column of true labels: Enter where the page suggests the true label, a click (invalid) elsewhere. A
group is marked as reviewed (F) after a screen without a wrong label; the review ends when the page says so, or after
`--screens` screens. Prints what was found, how long it took, and how the page's estimates compare with the truth.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

REPO = Path(__file__).resolve().parents[1]
REVIEW = "document.querySelector('[data-mlfix-review]').review"


def wait(page: Any, what: str) -> None:
    """Waits until an expression is true on the page."""
    end = time.monotonic() + 60
    while not page.evaluate(what):
        if time.monotonic() > end:
            raise SystemExit(f"timed out: {what}")
        time.sleep(0.01)


def screen(page: Any, truth: dict[str, str]) -> tuple[int, int]:
    """Marks the wrong labels on the screen; returns how many were marked, and how many tiles there are."""
    marked = 0
    visible = page.evaluate(f"{REVIEW}.visible()")
    for index in visible:
        sample = page.evaluate(f"{REVIEW}.sample({index})")
        if sample["mark"] or sample["given"] == truth[sample["id"]]:
            continue
        at = page.evaluate(f"{REVIEW}.rect({index})")
        if sample["suggested"] == truth[sample["id"]]:
            page.mouse.move(at["x"], at["y"])
            page.keyboard.press("Enter")
        else:
            page.mouse.click(at["x"], at["y"])
        marked += 1
    return marked, len(visible)


def review(page: Any, truth: dict[str, str], most: float) -> int:
    """Goes through the groups; returns the number of screens seen, at most ``most``."""
    screens = 0
    groups = page.evaluate(f"{REVIEW}.view().names.length")
    for group in range(groups):
        wait(page, f"{REVIEW}.ready()")
        while True:
            marked, _ = screen(page, truth)
            screens += 1
            top = page.evaluate(f"{REVIEW}.scroller.scrollTop")
            if not marked or screens >= most:
                break
            page.keyboard.press("PageDown")
            wait(page, f"{REVIEW}.ready()")
            now = page.evaluate(f"{REVIEW}.scroller.scrollTop")
            if now == top or now + 60 >= page.evaluate(f"{REVIEW}.layout().tops[{group + 1}]"):
                break
        page.keyboard.press("Escape")
        page.mouse.move(2, 2)
        page.evaluate(f"(() => {{ const r = {REVIEW}; r.scroller.scrollTop = r.layout().tops[{group}]; }})()")
        wait(page, f"{REVIEW}.ready()")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("f")
        if page.locator("dialog.ask").count():
            page.click("text=Count only what was on the screen")
        wait(page, f"{REVIEW}.saved()")
        time.sleep(0.9)
        if screens >= most or page.locator(".message.stop").count():
            break
    return screens


def main() -> None:
    """Runs the simulated review."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audit")
    parser.add_argument("planted", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("keys", nargs="*", help="further keys of mlfix review, such as order=none")
    parser.add_argument("--truth", default="true_label")
    parser.add_argument("--screens", type=float, default=float("inf"), help="most screens to look at")
    parser.add_argument("--shot", type=Path, help="file for a screenshot of the page")
    args = parser.parse_args()
    table = pd.read_csv(args.planted, keep_default_na=False, dtype=str).set_index("sample_id")
    truth = table[args.truth].to_dict()
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "mlfix_train.cli.main",
            "review",
            f"audit={args.audit}",
            f"out={args.out}",
            *args.keys,
            "port=0",
            "open=false",
            "reviewer=script",
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )
    assert server.stdout
    link = next(found[0] for line in server.stdout if (found := re.search(r"http\S+", line)))
    began = time.monotonic()
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(link)
        wait(page, f"{REVIEW}?.ready()")
        screens = review(page, truth, args.screens)
        wait(page, f"{REVIEW}.saved()")
        time.sleep(1)
        message = page.inner_text(".message")
        if args.shot:
            page.screenshot(path=str(args.shot))
        browser.close()
    server.send_signal(2)
    server.communicate()
    fixes = pd.read_csv(args.out / "fixes.csv", keep_default_na=False, dtype=str).set_index("sample_id")
    planted = table.index[table["label"] != table[args.truth]]
    right = sum(label == truth[name] for name, label in fixes["new_label"].items())
    found = len(planted.intersection(fixes.index))
    print(
        f"found      {found:,} of {len(planted):,} wrong labels on {screens:,} screens "
        f"({time.monotonic() - began:.0f} s); {right:,} of them given the true label, the others marked invalid"
    )
    print(f"page       {message}")
    print(f"left       {len(planted.difference(fixes.index)):,} wrong labels not found")
    print(f"fixes      {args.out / 'fixes.csv'}")


if __name__ == "__main__":
    main()
