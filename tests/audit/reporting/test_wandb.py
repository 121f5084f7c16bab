"""Weights & Biases: without a login, without a prompt, without a network; read back by W&B's own reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlfix_train.audit.reporting import log_results
from mlfix_train.audit.reporting.pictures import draw_audit
from mlfix_train.audit.reporting.wandb import WandbTracker, open_run, wandb_mode, wandb_run
from mlfix_train.audit.scores.ranking import write_ranking

wandb = pytest.importorskip("wandb")


# --- which mode ---


@pytest.mark.parametrize("wanted", ["offline", "disabled"])
def test_a_wanted_mode_stands(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "login", lambda **_: pytest.fail("no need to ask"))
    assert wandb_mode(wanted) == wanted


@pytest.mark.parametrize(
    ("given", "mode"),
    [("offline", "offline"), ("disabled", "disabled"), ("dryrun", "offline"), ("run", "online"), ("online", "online")],
)
def test_auto_takes_the_environments_mode(monkeypatch: pytest.MonkeyPatch, given: str, mode: str) -> None:
    monkeypatch.setenv("WANDB_MODE", given)
    monkeypatch.setattr(wandb, "login", lambda **_: True)
    assert wandb_mode("auto") == mode
    assert os.environ["WANDB_MODE"] == given


def test_an_unknown_mode_in_the_environment_is_told(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setenv("WANDB_MODE", "onlin")
    assert wandb_mode("auto") == "disabled"
    assert "WANDB_MODE=onlin is not a mode of W&B: nothing is logged to it" in caplog.text


@pytest.mark.parametrize("setting", ["auto", "online"])
@pytest.mark.parametrize(("login", "mode"), [(True, "online"), (False, "offline")])
def test_online_is_for_who_is_logged_in(
    monkeypatch: pytest.MonkeyPatch, caplog, login: bool, mode: str, setting: str
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb, "login", lambda **_: login)
    assert wandb_mode(setting) == mode
    assert ("not logged in to W&B: this run is kept offline" in caplog.text) == (setting == "online" and not login)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """``server(status)`` makes a server refuse everything with a status, or, at 200, everything but the login."""
    viewer = {"id": "1", "entity": "e", "username": "u", "flags": "{}", "teams": {"edges": []}}
    running: list[ThreadingHTTPServer] = []

    def serve(status: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = self.rfile.read(int(self.headers["Content-Length"]))
                fine = status == 200 and b"query Viewer" in asked
                answer = {"data": {"viewer": viewer}} if fine else {"errors": [{"message": "not allowed"}]}
                self.send_response(200 if fine else 403 if status == 200 else status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_: object) -> None:
                pass

        running.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{running[-1].server_port}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.delenv("WANDB_MODE", raising=False)
        wandb.teardown()  # forgets the settings that it had

    yield serve
    wandb.teardown()
    for one in running:
        one.shutdown()


@pytest.mark.parametrize(("key", "reason"), [("0" * 40, "not allowed"), ("short", "must have 40+ characters")])
def test_a_refused_login_makes_a_run_offline(server, monkeypatch, caplog, key: str, reason: str) -> None:
    server(401)
    monkeypatch.setenv("WANDB_API_KEY", key)
    assert wandb_mode("auto") == "offline"
    (said,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert said.startswith("W&B can't be used online: this run is kept offline, for `wandb sync` (") and reason in said


def test_a_refused_run_is_kept_offline_under_its_id(server, tmp_path: Path, caplog) -> None:
    """The login is fine, the project is not: what W&B's service holds of the refused run must not be in the way."""
    server(200)
    run = open_run({**SETTINGS, "mode": "auto"}, tmp_path, "train", "n", {}, "abcd1234")
    assert run is not None and run.offline and run.id == "abcd1234"
    run.finish()
    assert list((tmp_path / "wandb").glob("offline-run-*-abcd1234"))
    (said,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert "this run is kept offline" in said


def test_nobody_is_asked(tmp_path: Path) -> None:
    """A home without a login, no standard input: an answer, and no word about it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    code = "from mlfix_train.audit.reporting.wandb import wandb_mode; print(wandb_mode('auto'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env={**kept, "HOME": str(tmp_path), "PYTHONPATH": str(Path.cwd())},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["offline"]
    assert "wandb.login" not in done.stderr
    assert "api key" not in done.stderr.lower()


# --- an offline run, read back ---


class Recorder:
    """In place of a run: keeps what is logged."""

    def __init__(self, offline: bool = True) -> None:
        self.logged: list[dict[str, Any]] = []
        self.made: list[Any] = []
        self.taken: list[Any] = []
        self.offline = offline

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def log_artifact(self, artifact: Any) -> None:
        self.made.append(artifact)

    def use_artifact(self, artifact: Any) -> None:
        self.taken.append(artifact)


@pytest.mark.parametrize(("n", "top", "rows"), [(150, 500, 108), (150, 108, 108), (150, 20, 20), (5, 100, 5)])
def test_the_table_holds_108_rows_at_most(
    ranking: Callable[..., pd.DataFrame], flat: Callable[[list[str]], np.ndarray], n: int, top: int, rows: int
) -> None:
    asked: list[list[str]] = []
    run, table = Recorder(), ranking(n=n)
    log_results.log_ranking(WandbTracker(run), table, lambda ids: asked.append(ids) or flat(ids), top)
    (logged,) = run.logged
    data = logged["audit/ranking"].data
    assert len(data) == rows
    assert asked == [table["sample_id"].tolist()[:rows]]
    names = logged["audit/ranking"].columns
    assert [row[names.index("sample_id")] for row in data] == table["sample_id"].tolist()[:rows]
    assert [row[names.index("rank")] for row in data] == list(range(1, rows + 1))
    for row in data[:3]:
        image = np.asarray(row[names.index("image")].image)
        assert image.shape[:2] == (24, 24), "small crops are doubled"
        assert (image == int(row[names.index("sample_id")][1:])).all(), "each row shows its own sample"


def test_a_used_artifact_is_an_input_where_the_run_is_online(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("x")
    for offline, used, taken in ((False, True, 1), (True, True, 0), (False, False, 0)):
        run = Recorder(offline)
        WandbTracker(run).log_artifact("fixes-1", "fixes", [tmp_path / "f.csv"], {"fixes": 3}, used)
        assert (len(run.taken), len(run.made)) == (taken, 1 - taken)
        (artifact,) = run.taken + run.made
        assert (artifact.name, artifact.type, artifact.metadata) == ("fixes-1", "fixes", {"fixes": 3})
        assert list(artifact.manifest.entries) == ["f.csv"]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for key in [key for key in os.environ if key.startswith("WANDB")]:
        monkeypatch.delenv(key)
    settings = {"MODE": "offline", "SILENT": "true", "CONSOLE": "off"}
    settings |= {f"{name}_DIR": str(tmp_path / "home") for name in ("DATA", "CACHE", "CONFIG", "ARTIFACT")}
    for key, value in settings.items():
        monkeypatch.setenv(f"WANDB_{key}", value)
    return tmp_path


def inspect(folder: Path) -> list[dict[str, Any]]:
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_an_offline_run_holds_ranking_panels_and_artifacts(
    offline: Path,
    ranking: Callable[..., pd.DataFrame],
    flat: Callable[[list[str]], np.ndarray],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = ranking(n=150)
    pictures = draw_audit(table, flat, offline / "panels", "t", n_panels=4)
    file = write_ranking(table, offline / "ranking.csv")
    run = wandb.init(project="p", dir=str(offline))
    tracker = WandbTracker(run)
    tracker.log_pictures(pictures)
    log_results.log_ranking(tracker, table, flat, 100)
    tracker.log_artifact("predictions-x", "predictions", [file], {"samples": 150})
    tracker.log_artifact("fixes-x", "fixes", [file], {"fixes": 2}, used=True)
    run.finish()
    (folder,) = (offline / "wandb").glob("offline-run-*")
    records = inspect(folder)
    history: dict[str, Any] = {}
    for record in records:
        if record["type"] == "history":
            history |= record["history"]["item"]
    assert len([picture for picture in pictures if picture.key.startswith("suspicious ")]) == 7
    assert {"audit/most suspicious", "audit/loss of every sample", "audit/error by label"} < {
        picture.key for picture in pictures
    }
    for picture in pictures:
        logged = folder / "files" / history[f"{picture.key}.path"]
        assert logged.read_bytes() == picture.path.read_bytes(), picture.key
        assert history[f"{picture.key}.caption"] == picture.caption
    assert (history["audit/ranking.nrows"], history["audit/ranking.ncols"]) == (100, 10)
    content = json.loads((folder / "files" / history["audit/ranking.path"]).read_text())
    assert [row[content["columns"].index("sample_id")] for row in content["data"]] == table["sample_id"].tolist()[:100]
    artifacts = {r["artifact"]["name"]: r["artifact"] for r in records if r["type"] == "artifact"}
    assert artifacts["predictions-x"]["type"] == "predictions"
    assert json.loads(artifacts["predictions-x"]["metadata"]) == {"samples": 150}
    assert [entry["path"] for entry in artifacts["predictions-x"]["manifest"]["contents"]] == ["ranking.csv"]
    assert artifacts["fixes-x"]["type"] == "fixes"
    captured = capfd.readouterr()
    said = captured.out + captured.err + caplog.text
    assert "will cause" not in said, f"W&B warns the user: {said}"


# --- a run of our own ---

SETTINGS = {"project": "p", "entity": None, "mode": "offline", "group": "g", "tags": ["t"]}


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_is_finished_even_if_logging_fails(fails: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    codes: list[int] = []

    def finish(exit_code: int) -> None:
        codes.append(exit_code)

    run = SimpleNamespace(name="n", finish=finish)
    given: dict[str, Any] = {}
    monkeypatch.setattr(wandb, "init", lambda **options: (given.update(options), run)[1])

    def use() -> None:
        with wandb_run(SETTINGS, tmp_path / "out", "compare", "n", {"a": 1}) as tracker:
            assert tracker is not None
            assert tracker.run is run
            if fails:
                raise ValueError("a full disk")

    if fails:
        with pytest.raises(ValueError, match="a full disk"):
            use()
    else:
        use()
    assert codes == [int(fails)]
    assert (given["mode"], given["job_type"], given["tags"], given["group"]) == (
        "offline",
        "compare",
        ["compare", "t"],
        "g",
    )


def test_wandb_that_cannot_write_costs_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def init(**options: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb, "login", lambda **_: True)
    with wandb_run({**SETTINGS, "mode": "online"}, tmp_path, "compare", "n", {}) as tracker:
        assert tracker is None
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "W&B can't be used online: this run is kept offline, for `wandb sync` (no space left)",
        "W&B can't be used offline: nothing is logged to it (no space left)",
    ]
