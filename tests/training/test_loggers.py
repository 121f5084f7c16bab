"""Loggers of a run: W&B read back offline (table, panels, artifacts, group), several at once, one's own."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from shapes import FAST, start

from mlfix_train.audit.reporting import trackers
from mlfix_train.data.runs import RunDirectory
from mlfix_train.training.loggers import open_loggers, wandb_logger


def records(run: Path) -> list[dict]:
    """Reads a W&B run back by W&B's own tool."""
    tool = Path(sys.executable).with_name("wandb")
    if not tool.exists() and not shutil.which("wandb"):
        pytest.fail("the wandb command is missing beside this Python: install the package with its dependencies")
    done = subprocess.run(
        [str(tool), "leet", "inspect", "--json", str(run)], capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.strip()]


def test_an_offline_run_holds_table_panels_artifacts_and_group(shapes: Path, tmp_path: Path, mlfix) -> None:
    fixes = tmp_path / "fixes.csv"
    fixes.write_text("sample_id,new_label\nsquare/001.png,invalid\n")
    keys = (f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST, "logger=wandb", "name=study", "arm=fixed")
    answer = mlfix("train", *keys, f"fixes.path={fixes}", "audit.n_panels=2")
    assert answer.code == 0, answer.err
    run = tmp_path / "o/study/fixed/seed=0"
    (offline,) = (run / "wandb").glob("offline-run-*")
    text = "\n".join(json.dumps(record) for record in records(offline))
    pictures = (
        "audit/ranking",
        "audit/most suspicious",
        "suspicious pairs/Given",
        "audit/loss of every sample",
        "audit/error by label",
    )
    for part in (*pictures, "study-fixed-seed0", "train-fixed", "val/error", "predictions-study-fixed-seed0", "fixes-"):
        assert part in text, f"{part} is not in the W&B run"
    assert '"study"' in text, "the group is missing"
    media = {path.name.split("_")[0] for path in (offline / "files/media").rglob("*.png")}
    assert media
    tables = list((offline / "files/media/table").rglob("*.table.json"))
    content = json.loads(tables[0].read_text())
    assert content["columns"][:4] == ["image", "rank", "given_label", "predicted_label"]
    assert len(content["data"]) == 15


@pytest.mark.slow
def test_nothing_prompts_without_a_login(shapes: Path, tmp_path: Path) -> None:
    """No terminal, no key, no network: the run ends by itself, offline."""
    home = tmp_path / "home"
    home.mkdir()
    keys = (f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST, "logger=wandb")
    process = start("train", *keys, cwd=tmp_path, HOME=str(home), WANDB_MODE=None, WANDB_API_KEY=None)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert list((tmp_path / "o/default/original/seed=0/wandb").glob("offline-run-*"))


def test_without_wandb_installed_training_goes_on(shapes: Path, tmp_path: Path, mlfix, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    answer = mlfix("train", f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST, "logger=wandb")
    assert answer.code == 0, answer.err
    assert "wandb is not installed" in answer.err


def test_several_loggers_at_once_and_ones_own(shapes: Path, tmp_path: Path, mlfix, monkeypatch) -> None:
    (tmp_path / "own_logger.py").write_text(
        "from lightning.pytorch.loggers import CSVLogger\n"
        "class Mine(CSVLogger):\n"
        "    def __init__(self, save_dir, greeting):\n"
        "        super().__init__(save_dir, name=greeting, version='')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    keys = (f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST, "logger=[csv,wandb]")
    answer = mlfix("train", *keys, "logger.mine._target_=own_logger.Mine", "logger.mine.greeting=hello")
    assert answer.code == 0, answer.err
    run = tmp_path / "o/default/original/seed=0"
    assert (run / "csv/metrics.csv").exists() and (run / "hello/metrics.csv").exists()
    assert list((run / "wandb").glob("offline-run-*"))
    answer = mlfix("train", *keys, "logger.mine._target_=own_logger.Mine", "name=x")
    assert answer.code == 2 and "logger.mine.greeting" in answer.err


def test_a_wandb_run_is_closed_when_the_training_fails(shapes: Path, tmp_path: Path, mlfix) -> None:
    """The next run of a sweep in this process would otherwise log into it."""
    import wandb

    keys = (f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST, "logger=wandb")
    for wrong in ("recipe.lr=90", "trainer.accelerator=tpu"):
        more = ("recipe.epochs=30",) if wrong.startswith("recipe") else ()
        assert mlfix("train", *keys, wrong, *more, f"name={wrong[:7]}").code in (1, 2)
        assert wandb.run is None


def test_loggers_are_closed_with_the_outcome(tmp_path: Path, monkeypatch) -> None:
    import wandb

    codes: list[int] = []
    for fails in (True, False):
        with contextlib.suppress(RuntimeError), open_loggers(lambda: [wandb_logger(tmp_path)]) as (logger,):
            monkeypatch.setattr(logger.experiment, "finish", lambda *, exit_code: codes.append(exit_code))
            if fails:
                raise RuntimeError("no")
        monkeypatch.undo()
        wandb.finish()
    assert codes == [1, 0]


class Broken(CSVLogger):
    """Raises where it is told to."""

    where = ""

    def __init__(self, save_dir: Path) -> None:
        super().__init__(save_dir, self.where, "")

    def raise_at(self, where: str) -> None:
        if where == self.where:
            raise ConnectionError(f"the server is gone: {where}")

    @property
    def experiment(self):
        self.raise_at("experiment")
        return super().experiment

    def log_metrics(self, metrics, step=None) -> None:
        self.raise_at("log_metrics")
        super().log_metrics(metrics, step)

    def save(self) -> None:
        self.raise_at("save")

    def finalize(self, status: str) -> None:
        self.raise_at("finalize")


class BrokenTracker:
    name = "broken"

    def __init__(self, logger: Broken) -> None:
        self.logger = logger

    def __getattr__(self, what: str):
        return lambda *_, **__: self.logger.raise_at(what)


PLACES = ("experiment", "log_metrics", "save", "finalize", "log_pictures", "log_table", "log_artifact")


def test_a_logger_that_raises_does_not_take_the_run_with_it(shapes: Path, tmp_path: Path, mlfix, monkeypatch) -> None:
    """Wherever it raises: it is named once, nothing more is logged to it, and the other loggers go on."""
    monkeypatch.setattr(trackers, "_trackers", {**trackers._trackers, "Broken": BrokenTracker})
    module = types.ModuleType("broken_loggers")
    for where in PLACES:
        setattr(module, f"At_{where}", type(f"At_{where}", (Broken,), {"where": where}))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    keys = (f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST, "recipe.epochs=1", "logger=csv")
    answer = mlfix("train", *keys, *(f"logger.{where}._target_=broken_loggers.At_{where}" for where in PLACES))
    assert answer.code == 0, answer.err
    for where in PLACES:
        reason = f"ConnectionError: the server is gone: {where}"
        assert answer.err.count(f"At_{where} is switched off, and the work goes on without it: {reason}") == 1
    run = RunDirectory(tmp_path / "o/default/original/seed=0")
    state = run.read()
    assert state["failed_loggers"] == {f"At_{at}": f"ConnectionError: the server is gone: {at}" for at in PLACES}
    assert state["status"] == "finished" and "val/error" in (run.path / "csv/metrics.csv").read_text()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the writer's thread
def test_tensorboard_on_a_full_disk_is_switched_off(tmp_path: Path, caplog, monkeypatch) -> None:
    """It writes in a thread of its own, whose error comes with a later call."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with open_loggers(lambda: [TensorBoardLogger(tmp_path)]) as (logger,):
        monkeypatch.setattr(RecordWriter, "write", full)
        for step in range(50):
            logger.log_metrics({"loss": 1.0}, step)
            logger.save()
        logger.finalize("success")
    (said,) = (record.getMessage() for record in caplog.records if "switched off" in record.getMessage())
    assert "TensorBoardLogger is switched off" in said and "No space left" in said


@pytest.mark.parametrize("version", ["", None])
def test_a_csv_logger_keeps_the_rows_of_trained_epochs(tmp_path: Path, version: str | None) -> None:
    """Of two epochs and a part of the third, two are trained; the prefix and rows without an epoch are no obstacle."""

    def log(epochs_done: int, *rows: tuple[int | None, int]) -> list[dict[str, str]]:
        with open_loggers(lambda: [CSVLogger(tmp_path, "log", version, prefix="my")], epochs_done) as (logger,):
            for epoch, step in rows:
                logger.log_metrics({"loss": step / 10, **({} if epoch is None else {"epoch": epoch})}, step)
            logger.save()
        path = max((tmp_path / "log").rglob("metrics.csv"), key=lambda file: file.stat().st_mtime)
        return list(csv.DictReader(path.open()))

    log(0, (0, 4), (None, 9), (1, 9), (2, 12), (None, 13))
    rows = log(2, (2, 12), (3, 16))
    assert [(row["my-epoch"], row["step"]) for row in rows] == [
        ("0", "4"),
        ("", "9"),
        ("1", "9"),
        ("2", "12"),
        ("3", "16"),
    ]
    assert [row["my-loss"] for row in rows] == ["0.4", "0.9", "0.9", "1.2", "1.6"]
    assert len(log(0, (0, 4))) == 1, "a training that starts anew starts the file anew"
    log(1, (1, 9))
    path = max((tmp_path / "log").rglob("metrics.csv"), key=lambda file: file.stat().st_mtime)
    path.replace(path.with_name("metrics.csv.before"))  # killed before the rows were written again
    if version == "":
        assert [row["step"] for row in log(2, (2, 12))] == ["4", "9", "12"]


@pytest.mark.slow
def test_a_comparison_is_one_run_in_the_group_of_the_sweep(shapes: Path, tmp_path: Path, mlfix) -> None:
    fixes = tmp_path / "fixes.csv"
    fixes.write_text("sample_id,new_label\nsquare/001.png,invalid\n")
    keys = (
        f"data.root={shapes}",
        f"outputs={tmp_path}/o",
        *FAST,
        "recipe.epochs=1",
        "name=study",
        f"fixes.path={fixes}",
    )
    assert mlfix("train", "-m", *keys, "seed=0,1", "arm=original,fixed").code == 0
    arms = [f"{arm}={tmp_path}/o/study/{arm}" for arm in ("original", "fixed")]
    answer = mlfix("compare", *arms, f"fixes.path={fixes}", "slices.round=disc", f"out={tmp_path}/c", "logger=wandb")
    assert answer.code == 0, answer.err
    (offline,) = (tmp_path / "c/wandb").glob("offline-run-*")
    text = "\n".join(json.dumps(record) for record in records(offline))
    for part in (
        '"study"',
        '"compare"',
        "study-compare",
        "compare/slices",
        "compare/labels",
        "compare/all",
        "compare/round-effect",
        "compare/page",
        "headline",
        "compare-study",
        "round/training",
    ):
        assert part in text, f"{part} is not in the W&B run"
    tables = [json.loads(path.read_text()) for path in (offline / "files/media/table").rglob("*.table.json")]
    slices = next(table for table in tables if "verdict" in table["columns"])
    assert [row[0] for row in slices["data"]] == ["all", "round", "not round"]


@pytest.mark.slow
def test_an_audit_is_a_run_with_panels_tables_page_and_the_whole_ranking(shapes: Path, tmp_path: Path, mlfix) -> None:
    keys = (f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST, "name=study", "split.folds=2")
    assert mlfix("train", "-m", *keys, "split.fold=0,1").code == 0
    answer = mlfix("audit", f"runs={tmp_path}/o/study", f"out={tmp_path}/a", "logger=wandb", "n_panels=2")
    assert answer.code == 0, answer.err
    (offline,) = (tmp_path / "a/wandb").glob("offline-run-*")
    found = records(offline)
    text = "\n".join(json.dumps(record) for record in found)
    for part in (
        '"study"',
        '"audit"',
        "audit-study, 2 runs",
        "audit/ranking",
        "audit/slices",
        "audit/most suspicious",
        "suspicious labels/Given",
        "audit/page",
        "audit/ranked",
    ):
        assert part in text, f"{part} is not in the W&B run"
    artifacts = [record["artifact"] for record in found if record["type"] == "artifact"]
    (artifact,) = (one for one in artifacts if one["type"] == "audit")
    files = {entry["path"] for entry in artifact["manifest"]["contents"]}
    assert files == {"ranking.csv", "slices.csv", "audit.json", "report.html"}
    tables = [json.loads(path.read_text()) for path in (offline / "files/media/table").rglob("*.table.json")]
    assert sorted(len(table["data"]) for table in tables)[-1] == 72, "the head of the ranking, with thumbnails"


@pytest.mark.slow
def test_panels_are_logged_while_training_goes_on(shapes: Path, tmp_path: Path, mlfix) -> None:
    keys = (
        f"data.root={shapes}",
        f"outputs={tmp_path}/o",
        *FAST,
        "recipe.epochs=5",
        "logger=wandb",
        "audit.every_n_epochs=2",
    )
    assert mlfix("train", *keys).code == 0
    (offline,) = (tmp_path / "o/default/original/seed=0/wandb").glob("offline-run-*")
    text = "\n".join(json.dumps(record) for record in records(offline))
    assert text.count('"audit/most suspicious.path"') + text.count("audit/most suspicious.path") >= 3, (
        "after two epochs, four, and the last"
    )
    assert mlfix("train", *keys, "audit.every_n_epochs=0", "name=x").code == 2


@pytest.mark.slow
def test_a_comparison_goes_on_without_wandb(shapes: Path, tmp_path: Path, mlfix, monkeypatch) -> None:
    fixes = tmp_path / "fixes.csv"
    fixes.write_text("sample_id,new_label\nsquare/001.png,invalid\n")
    keys = (f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST, "recipe.epochs=1", f"fixes.path={fixes}")
    assert mlfix("train", "-m", *keys, "arm=original,fixed").code == 0
    arms = [f"{arm}={tmp_path}/o/default/{arm}" for arm in ("original", "fixed")]
    monkeypatch.setitem(sys.modules, "wandb", None)
    answer = mlfix("compare", *arms, f"fixes.path={fixes}", f"out={tmp_path}/c", "logger=wandb")
    assert answer.code == 0, answer.err
    assert "wandb is not installed" in answer.err
    assert (tmp_path / "c/compare.html").exists()
