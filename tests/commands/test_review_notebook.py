"""The page as a widget: in a real JupyterLab, browser and kernel; and its answers to messages."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pages import Page, chromium, fixes_of, write_audit
from review_helpers import lines, open_session
from shapes import REPO, draw_shapes

from mlfix_train.audit.review.bundle import ASSETS, bundle_script
from mlfix_train.audit.review.widget import answer_message

CODE = """from mlfix_train import run_command
page = run_command("review", "data.root=shapes", "audit=audit", "order=none", "reviewer=nora", function="widget")
page"""


def test_messages_are_answered_as_requests_are(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    response, buffers = answer_message(
        session,
        {"id": "a-1", "kind": "marks", "payload": {"marks": [{"sample_id": "stop/002.jpg", "new_label": "invalid"}]}},
    )
    assert response["id"] == "a-1" and response["status"] == 200 and response["response"]["saved"] == 1 and not buffers
    assert lines(session) == {"stop/002.jpg": "invalid"}
    view = session.handle("view", {})["view"]
    block = answer_message(session, {"id": 2, "kind": "block", "payload": {"view": view, "number": 0}})[0]["response"]
    response, buffers = answer_message(session, {"id": 3, "kind": "sprites", "payload": {"name": block["small"]}})
    assert response["status"] == 200 and buffers[0][:2] == b"\xff\xd8"
    assert answer_message(session, {"id": 3, "kind": "images", "payload": {"name": 1}})[1][0][:2] == b"\xff\xd8"
    unknown = {"marks": [{"sample_id": "x", "new_label": None}]}
    for wrong, status in (
        (7, 400),
        ({"id": 1}, 400),
        ({"id": 1, "kind": "nothing"}, 404),
        ({"id": 1, "kind": "sprites", "payload": {"name": "../x"}}, 404),
        ({"id": 1, "kind": "images", "payload": {"name": "0"}}, 404),
        ({"id": 1, "kind": "sprites", "payload": []}, 400),
        ({"id": 1, "kind": "marks", "payload": unknown}, 404),
    ):
        response, buffers = answer_message(session, wrong)
        assert response["status"] == status and response["response"]["error"] and not buffers


PAGE = """
async (script) => {
  const module = await import(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
  const model = {
    on(_, listener) { this.listener = listener; },
    off() {},
    get: () => 600,
    async send(message) {
      const [reply, images] = await answer(message);
      this.listener(reply, images.map((text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0))));
    },
  };
  window.keys = [];
  const isSuppressed = (e) => e.target.hasAttribute("data-lm-suppress-shortcuts"); // as JupyterLab's shortcuts check
  addEventListener("keydown", (e) => isSuppressed(e) || keys.push(`captured ${e.key}`), true);
  for (const kind of ["keydown", "keyup", "keypress"]) addEventListener(kind, (e) => keys.push(`${kind} ${e.key}`));
  window.close = module.default.render({ model, el: document.querySelector("#widget") });
}
"""
"""Renders the widget with a model whose messages are answered by ``answer``; lists the keys that reach the notebook."""


def test_the_widget_in_a_page(tmp_path: Path) -> None:
    session = open_session(tmp_path)

    def answer(message: Any) -> list[Any]:
        response, buffers = answer_message(session, message)
        return [response, [base64.b64encode(content).decode() for content in buffers]]

    with chromium() as browser:
        place = browser.new_page(viewport={"width": 1000, "height": 700})
        place.set_content("<div id=widget></div>")
        place.add_style_tag(content=(ASSETS / "review.css").read_text())
        place.expose_function("answer", answer)
        place.evaluate(PAGE, bundle_script())
        page = Page(place, "document.querySelector('#widget').review")
        page.ready()
        assert page.ask(".view().count") == 90
        page.click(2)
        page.press("ArrowRight", "x")
        page.saved()
        assert lines(session) == {page.sample(index)["id"]: "invalid" for index in (2, 3)}
        page.press(*"cvmadd", "Tab", "c", "Tab", "c", "Enter", "l", "c", "Escape")
        assert place.evaluate("document.querySelector('#widget').contains(document.activeElement)")
        assert place.evaluate("keys") == []
        place.evaluate("close()")
        assert place.inner_html("#widget") == "" and not page.errors


def start_lab(place: Path) -> tuple[subprocess.Popen[str], str]:
    """Starts JupyterLab; returns it and its address."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPO),
        "JUPYTER_CONFIG_DIR": str(place / "config"),
        "JUPYTER_DATA_DIR": str(place / "data"),
        "JUPYTER_RUNTIME_DIR": str(place / "runtime"),
        "IPYTHONDIR": str(place / "ipython"),
        "JUPYTER_PLATFORM_DIRS": "0",
    }
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--port=0",
        "--ip=127.0.0.1",
        "--allow-root",
        "--IdentityProvider.token=secret",
        f"--ServerApp.root_dir={place}",
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    process = subprocess.Popen(command, cwd=place, env=environment, text=True, stderr=subprocess.PIPE)
    assert process.stderr is not None
    end = time.monotonic() + 60
    for line in process.stderr:
        found = re.search(r"(http://127\.0\.0\.1:\d+)/lab", line)
        if found:
            return process, found[1]
        if time.monotonic() > end:
            break
    process.kill()
    raise AssertionError("JupyterLab did not start")


@pytest.mark.slow
def test_in_a_real_notebook(tmp_path: Path) -> None:
    pytest.importorskip("jupyterlab", reason="jupyterlab is not here: pip install 'mlfix-train[dev]'")
    draw_shapes(tmp_path / "shapes", per_label=70)
    ids = sorted(path.relative_to(tmp_path / "shapes").as_posix() for path in (tmp_path / "shapes").rglob("*.png"))
    write_audit(tmp_path / "audit", ids)
    cell: dict[str, Any] = {
        "cell_type": "code",
        "id": "a",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
        "source": CODE,
    }
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = {"cells": [cell], "nbformat": 4, "nbformat_minor": 5, "metadata": kernel}
    (tmp_path / "n.ipynb").write_text(json.dumps(notebook))
    from playwright.sync_api import TimeoutError as PlaywrightTimeout

    with chromium() as browser:
        lab, address = start_lab(tmp_path)
        try:
            context = browser.new_context(viewport={"width": 1400, "height": 1000})
            place = context.new_page()
            place.goto(f"{address}/doc/tree/n.ipynb?token=secret")
            place.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=120_000)
            prompt = "document.querySelector('.jp-Cell .jp-InputPrompt').textContent"
            for _ in range(3):  # a key pressed before the kernel is ready is ignored
                place.click(".jp-Cell .cm-content", timeout=60_000)
                place.keyboard.press("Shift+Enter")
                with contextlib.suppress(PlaywrightTimeout):
                    place.wait_for_function(f"/[0-9*]/.test({prompt})", timeout=10_000)
                    break
            place.wait_for_selector(".mlfix .strip", timeout=120_000)
            page = Page(place, "document.querySelector('.mlfix').parentElement.review")
            page.ready()
            assert page.ask(".view().count") == 210
            page.click(2)
            page.press("ArrowRight", "Enter")
            page.press("x")  # Jupyter's own shortcut would cut the cell
            page.saved()
            marked = fixes_of(tmp_path / "review/fixes.csv")
            assert marked[page.sample(2)["id"]] == "invalid" and marked[page.sample(3)["id"]] == "invalid"
            cells = place.locator(".jp-Notebook .jp-Cell").count()
            page.press(*"cvmabdd")  # would copy, paste, turn to Markdown, add and delete cells
            place.wait_for_timeout(500)
            assert place.locator(".jp-Notebook .jp-Cell").count() == cells
            assert "run_command" in place.inner_text(".jp-Cell >> nth=0")
            if os.environ.get("MLFIX_SHOTS"):
                place.screenshot(path=os.environ["MLFIX_SHOTS"])
        finally:
            lab.terminate()
            lab.wait(timeout=30)
