"""Starting and stopping ``mlfix review``: orders, kills, errors, and what its fixes do to a training."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pages import REVIEW, Page, fixes_of, wait_for
from review_server import Client, Server, serve_in_thread
from shapes import FAST, draw_shapes

from mlfix_train.audit.similarity.order_files import write_order
from mlfix_train.commands.review import open_configured_session
from mlfix_train.config.compose import load

Serve = Callable[..., Client]


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
