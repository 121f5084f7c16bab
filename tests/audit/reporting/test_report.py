"""The page of an audit: self-contained, harmless whatever labels hold, whole with 400 classes; seen by a browser."""

from __future__ import annotations

import html
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
from pages import CHROMIUM, NO_BROWSER

from mlfix_train.audit.predictions.held_out import merge_runs
from mlfix_train.audit.predictions.table import predictions_table
from mlfix_train.audit.reporting import report
from mlfix_train.audit.reporting.text import next_step
from mlfix_train.audit.scores.estimates import estimate_wrong_labels
from mlfix_train.audit.scores.faults import Fault, fault_slices
from mlfix_train.audit.scores.ranking import rank
from mlfix_train.audit.scores.registry import Evidence
from mlfix_train.audit.scores.slices import rank_slices

EVIL = "<img src=x onerror=document.title='broken'>"


def noise(ids: list[str]) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (len(ids), 32, 32, 3), dtype=np.uint8)


def audit(names: list[str], n: int, **evidence: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(len(names)), rng.integers(len(names), size=n - len(names))])
    logits = rng.normal(size=(n, len(names))) + 4 * np.eye(len(names))[labels]
    held = merge_runs([predictions_table([f"p/{i}.jpg" for i in range(n)], labels, logits, names)], names)
    found = rank(Evidence(held, **evidence))
    estimates = {} if found.estimate is None else found.estimate.to_dict()
    issues = int(found.table["is_label_issue"].sum())
    about = {"ranked": n, "samples": n, "runs": 1, "labels": len(names), "issues": issues, "estimates": estimates}
    return found.table, about


def write(tmp_path: Path, names: list[str], n: int = 300, images: Any = noise, **evidence: Any) -> Path:
    table, about = audit(names, n, **evidence)
    return report.write_report(
        tmp_path / "report.html", "a <b>title</b>", about, table, rank_slices(table), images, ["n < 3"]
    )


def data_of(path: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.S)
    assert found
    return json.loads(found.group(1))


def dom(path: Path, section: str = "") -> str:
    if CHROMIUM is None:
        pytest.skip(NO_BROWSER)
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--virtual-time-budget=9000")
    profile = f"--user-data-dir={path.parent / 'profile'}"
    command = [CHROMIUM, *options, profile, "--dump-dom", f"{path.as_uri()}#{quote(section)}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout


def test_what_the_page_holds(tmp_path: Path) -> None:
    table, about = audit(["a", "b", "c"], 300)
    slices = rank_slices(table)
    data = data_of(report.write_report(tmp_path / "r.html", "t", about, table, slices, noise))
    assert data["pictures"] == len(data["tiles"]) == len({tile[0] for tile in data["tiles"]})
    assert [data["tiles"][t][0] for t in data["worst"]] == table["sample_id"].tolist()[: report.WORST]
    by_name = {one["name"]: one for one in data["slices"] if one["kind"] == "label"}
    for one in (piece for piece in slices if piece.kind == "label"):
        assert by_name[one.name]["samples"] == len(one.rows)
        shown = [data["tiles"][t][0] for t in by_name[one.name]["tiles"]]
        assert shown == table["sample_id"].iloc[one.rows[: report.PER_LABEL]].tolist()
    cells = {
        (data["labels"][data["matrix"]["labels"][i]], data["labels"][data["matrix"]["labels"][j]]): where
        for i, j, _, where in data["matrix"]["cells"]
    }
    for (given, other), where in cells.items():
        assert data["slices"][where]["name"] == f"Given {given}, suggested {other}", "a cell opens its own pictures"


def test_labels_are_text_whatever_they_hold(tmp_path: Path) -> None:
    names = [
        EVIL,
        "</script><script>document.title='broken'</script>",
        "停止" * 50,
        "\u202eright-to-left",
        "x" * 200,
        "& <b>",
    ]
    path = write(tmp_path, names)
    text = path.read_text()
    assert EVIL not in text
    assert text.count("<script") == text.count("</script>")
    assert sorted(data_of(path)["labels"]) == sorted(names)
    for section in ("", "Slices", "Confusion", "Labels"):
        seen = dom(path, section)
        assert "<title>Audit: a &lt;b&gt;title&lt;/b&gt;</title>" in seen
        assert "<img" not in seen
    assert html.escape(EVIL, quote=False) in seen.replace("</span><span>", "")


SECTIONS = {
    "": "Start here",
    "Worst": "The most suspicious samples",
    "Slices": "Given b, suggested a",
    "Confusion": "Given (rows)",
    "Labels": "predicted differently",
    "Near-duplicates": "Set order=",
    "Other faults": "They are not evidence against a label",
    "Method": "Held-out predictions",
}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_opens_in_a_browser(tmp_path: Path, section: str) -> None:
    path = write(tmp_path, ["a", "b", "c"])
    for _ in range(3):  # on a machine that is busy the browser's clock may run out before it paints
        seen = dom(path, section)
        body = seen[seen.index("<main") : seen.index("<dialog")]
        if section not in ("", "Worst", "Slices") or "blob:" in body:
            break
    assert SECTIONS[section] in body
    if section in ("", "Worst", "Slices"):
        assert "background-image: url(&quot;blob:" in body, "pictures are painted"


@pytest.mark.slow
def test_400_classes_stay_below_20_mb(tmp_path: Path) -> None:
    path = write(tmp_path, [f"label-{i:03d}" for i in range(400)], 4000)
    assert path.stat().st_size < 20e6
    data = data_of(path)
    assert len(data["table"]) == 400
    assert len(data["matrix"]["labels"]) == report.MATRIX_LABELS
    assert "label-" in dom(path, "Labels")


def test_pictures_stop_where_the_room_ends(tmp_path: Path) -> None:
    sheets, light, kind = report.draw_sheets([str(i) for i in range(950)], noise, max_bytes=400_000)
    assert 100 <= len(light) < 950
    assert len(light) % 100 == 0
    assert sum(map(len, sheets)) <= 400_000
    assert kind in ("image/webp", "image/jpeg")


def test_without_pictures_and_with_estimates(tmp_path: Path) -> None:
    table, about = audit(["a", "b"], 2000)
    suspicion = table["suspicion"].to_numpy()
    counts = (np.array([40.0, 60.0]), np.array([[20.0, 20.0], [30.0, 30.0]]))
    labels = pd.factorize(table["given_label"], sort=True)[0]
    about["estimates"] = estimate_wrong_labels(suspicion, labels, ["a", "b"], counts).to_dict()
    path = report.write_report(tmp_path / "report.html", "a", about, table, rank_slices(table), None, ["n < 3"])
    data = data_of(path)
    assert (data["pictures"], data["sheets"]) == (0, 0)
    assert data["estimates"]["interval"]
    assert data["notes"] == ["n < 3"]
    seen = dom(path)
    assert "wrong labels (estimate)" in seen
    assert "n &lt; 3" in seen


def test_the_policy_allows_this_script_alone(tmp_path: Path) -> None:
    text = write(tmp_path, ["a", "b"]).read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy
    assert "default-src 'none'" in policy.group(1)
    assert "script-src 'sha256-" in policy.group(1)
    assert set(re.findall(r"\w+://[^\"'<) ]*", text)) == {"http://www.w3.org/2000/svg"}, "nothing is fetched"


def test_a_sample_of_each_kind_of_ranking(ranking: Callable[..., pd.DataFrame], tmp_path: Path) -> None:
    table = ranking(n=1)
    about = {"ranked": 1, "samples": 1, "runs": 1, "labels": 3, "issues": 0, "estimates": {}}
    assert report.write_report(tmp_path / "one.html", "t", about, table, rank_slices(table), noise).exists()


def test_a_person_clicks_through_the_page(tmp_path: Path) -> None:
    if CHROMIUM is None:
        pytest.skip(NO_BROWSER)
    playwright = pytest.importorskip("playwright.sync_api")
    path = write(tmp_path, ["a", "b", "c"], 300)
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 900, "height": 700})
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(path.as_uri())
        page.click("nav button:has-text('Worst')")
        page.click("text=Show more")
        assert page.locator(".tile").count() == 240
        page.uncheck("#brighten")
        assert page.locator(".tile").count() == 240, "the page stays where it is"
        page.click(".tile >> nth=3")
        page.click("dialog dd >> nth=0")
        assert page.locator("dialog[open]").count() == 1, "what it says can be copied"
        page.keyboard.press("Escape")
        assert page.locator("dialog[open]").count() == 0
        page.click("nav button:has-text('Labels')")
        page.fill("input[type=search]", "nothing like it")
        assert page.locator("text=No label matches").is_visible()
        page.fill("input[type=search]", "b")
        page.click("tbody tr >> nth=0")
        assert page.get_by_text("Most typical", exact=True).is_visible()
        page.click("nav button:has-text('Confusion')")
        page.click("td.hit >> nth=0")
        assert page.locator(".strip .tile").count() > 0
        for odd in ("constructor", "%", "toString"):
            page.goto(f"{path.as_uri()}#{odd}")
            page.reload()
            assert page.locator("text=Start here").is_visible()
        assert not problems
        browser.close()


def test_the_page_tells_no_paths_of_this_machine(tmp_path: Path) -> None:
    table, about = audit(["a", "b"], 50)
    about |= {
        "run_paths": ["/somewhere/of/mine/runs"],
        "label_names": ["a", "b"],
        "images": "/somewhere/of/mine/data is gone",
    }
    path = report.write_report(tmp_path / "r.html", "t", about, table, rank_slices(table), noise)
    assert "/somewhere/of/mine" not in path.read_text()


def test_other_faults_are_shown_with_score_and_threshold(tmp_path: Path) -> None:
    table, about = audit(["a", "b", "c"], 60)
    fault = Fault("dark", "dark", "darkness", 0.9, np.array([7, 3]), np.array([0.97, 0.93]), 60, "Hardly any light.")
    nothing = Fault("bright", "bright", "brightness", 0.9, np.empty(0, int), np.empty(0), 60, "Much light.")
    about["faults"] = [fault.to_dict(), nothing.to_dict()]
    slices = rank_slices(table) + fault_slices([fault, nothing], table)
    path = report.write_report(tmp_path / "r.html", "t", about, table, slices, noise)
    data = data_of(path)
    shown = next(one for one in data["slices"] if one["kind"] == "fault")
    assert [data["tiles"][t][0] for t in shown["tiles"]] == table["sample_id"].iloc[[7, 3]].tolist()
    assert shown["values"] == [0.97, 0.93]
    seen = dom(path, "Other faults")
    for text in ("2 of 60 samples, darkness from 0.900", "Hardly any light.", "darkness 0.970", "darkness 0.930"):
        assert text in seen
    assert "Looked for and not found: bright (brightness from 0.900)." in seen
    assert "Other faults: dark (2)." in dom(path)


def test_the_page_begins_with_what_to_do_next(tmp_path: Path) -> None:
    table, about = audit(["a", "b", "c"], 300)
    path = report.write_report(tmp_path / "r.html", "t", about, table, rank_slices(table), noise)
    assert data_of(path)["next"] == next_step(about)
    body = dom(path)
    assert body[body.index("<main") :].startswith(f'<main id="view"><p class="next">{next_step(about)}</p>')


def test_names_are_cut_in_the_middle(tmp_path: Path) -> None:
    if CHROMIUM is None:
        pytest.skip(NO_BROWSER)
    playwright = pytest.importorskip("playwright.sync_api")
    names = [f"regulatory--maximum-speed-limit-{speed}--g1" for speed in (60, 80)]
    path = write(tmp_path, names, 100)
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 390, "height": 700})
        for section in ("Worst", "Labels"):
            page.goto("about:blank")
            page.goto(f"{path.as_uri()}#{section}")
            inside = """node => { const tail = node.lastElementChild.getBoundingClientRect();
                return tail.right <= node.getBoundingClientRect().right + 1 && tail.width > 30
                    && /(60|80)--g1$/.test(node.textContent); }"""
            assert page.locator(".cut").first.evaluate(inside), section
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, "nothing is wider than the screen"
        browser.close()
