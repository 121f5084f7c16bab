"""Drives the review page in a real Chromium, and writes a synthetic audit for it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NO_BROWSER = "needs Chromium: apt-get install chromium, or put it on the PATH"
REVIEW = "document.querySelector('[data-mlfix-review]').review"


@contextmanager
def chromium() -> Iterator[Any]:
    """Yields a browser; skips the test if there is none."""
    if CHROMIUM is None:
        pytest.skip(NO_BROWSER)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


class Page:
    """A browser tab with the review page.

    Args:
        place: Playwright's page or frame.
        review: JavaScript expression of the page's object for tests.
    """

    def __init__(self, place: Any, review: str = REVIEW) -> None:
        self.place, self.review, self.errors = place, review, list[str]()
        place.on("pageerror", lambda error: self.errors.append(str(error)))
        place.on(
            "console",
            lambda line: (
                self.errors.append(line.text)
                if line.type in ("error", "warning") and "Failed to load" not in line.text
                else None
            ),
        )

    def open(self, link: str) -> Page:
        self.place.goto(link)
        self.ready()
        return self

    def ask(self, what: str) -> Any:
        return self.place.evaluate(f"{self.review}{what}")

    def until(self, what: str, seconds: float = 20) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.place.evaluate(what)
            if found:
                return found
            time.sleep(0.02)
        raise AssertionError(f"never: {what}")

    def ready(self) -> None:
        self.until(f"!!{self.review}?.ready()")

    def saved(self) -> None:
        self.until(f"{self.review}.saved()")

    def at(self, index: int) -> tuple[float, float]:
        found = self.ask(f".rect({index})")
        return found["x"], found["y"]

    def sample(self, index: int) -> dict[str, Any]:
        return self.ask(f".sample({index})")

    def click(self, index: int, **options: Any) -> None:
        self.place.mouse.click(*self.at(index), **options)

    def hover(self, index: int) -> None:
        self.place.mouse.move(*self.at(index))

    def drag(self, first: int, last: int) -> None:
        self.place.mouse.move(*self.at(first))
        self.place.mouse.down()
        self.place.mouse.move(*self.at(last), steps=5)
        self.place.mouse.up()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.place.keyboard.press(key)

    def choose(self, name: str, value: str) -> None:
        before = self.ask(".view().view")
        self.place.select_option(f"select[aria-label='{name}']", value)
        self.until(f"{self.review}.view().view !== '{before}'")
        self.ready()


def fixes_of(path: Path) -> dict[str, str]:
    """Returns the new label of each sample in a fixes file."""
    frame = pd.read_csv(path, keep_default_na=False, dtype=str)
    return dict(zip(frame["sample_id"], frame["new_label"], strict=True))


def write_audit(folder: Path, ids: list[str], every: int = 7) -> Path:
    """Writes an audit of class folders without runs; every ``every``-th sample is suspicious."""
    labels = sorted({name.split("/")[0] for name in ids})
    given = [name.split("/")[0] for name in ids]
    wrong = np.arange(len(ids)) % every == 0
    predicted = [
        labels[(labels.index(name) + 1) % len(labels)] if bad else name for name, bad in zip(given, wrong, strict=True)
    ]
    suspicion = np.where(wrong, 0.97 - np.arange(len(ids)) / len(ids) / 10, 0.02)
    columns = {
        "predicted_label": predicted,
        "suggested_label": predicted,
        "suspicion": suspicion,
        "label_score": 1 - suspicion,
        "is_label_issue": wrong,
        "slice": given,
    }
    frame = pd.DataFrame({"sample_id": ids, "given_label": given, **columns})
    for name in (
        "loss",
        "self_confidence",
        "aum",
        "neighbour_disagreement",
        "twin_disagreement",
        "outlierness",
        "rank",
    ):
        frame[name] = np.arange(len(ids))
    folder.mkdir(parents=True, exist_ok=True)
    frame.sort_values("suspicion", ascending=False).to_csv(folder / "ranking.csv", index=False)
    about = {"ranked": len(ids), "run_paths": [], "label_names": labels, "estimates": {"wrong": float(suspicion.sum())}}
    (folder / "audit.json").write_text(json.dumps(about))
    return folder


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition was not met in time"
        time.sleep(0.05)
