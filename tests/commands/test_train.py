"""`mlfix train`: outputs, skipping, resuming, arms, and errors."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from shapes import FAST, draw_shapes, start

from mlfix_train.data.runs import RunDirectory


def read(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "predictions.parquet")


def test_a_run_leaves_all_its_products(shapes: Path, tmp_path: Path, mlfix) -> None:
    answer = mlfix(
        "train", f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST, "recipe.epochs=12", "audit.probabilities=true"
    )
    assert answer.code == 0, answer.err
    run = tmp_path / "o/default/original/seed=0"
    state = json.loads((run / "run.json").read_text())
    assert state["status"] == "finished"
    assert state["labels"] == ["disc", "square", "triangle"]
    assert state["config"]["data"]["root"] == str(shapes)
    assert state["versions"]["torch"] == torch.__version__
    predictions = read(run)
    assert list(predictions.columns) == ["sample_id", "split", "label", "pred", "loss", "prob", "label_prob", "margin"]
    assert len(predictions) == 15  # a fifth of each 24, rounded: 5
    assert predictions["sample_id"].is_unique
    assert (predictions["label"] == predictions["sample_id"].str.split("/").str[0]).all()
    error = 100 * (predictions["pred"] != predictions["label"]).mean()
    assert error < 40, "the network did not learn at all"
    metrics = pd.read_csv(run / "metrics.csv")
    assert metrics["epoch"].tolist() == list(range(12))
    assert metrics["val_error"].iloc[-1] == pytest.approx(error)
    probabilities = np.load(run / "probabilities.npy")
    assert probabilities.shape == (15, 3)
    assert probabilities.dtype == np.float16
    ranking = pd.read_csv(run / "ranking.csv")
    assert ranking["suspicion"].is_monotonic_decreasing
    assert {"worst.png", "loss.png", "errors.png"} <= {path.name for path in (run / "panels").iterdir()}
    weights = torch.load(run / "checkpoints/model.ckpt", weights_only=True)
    assert weights["labels"] == state["labels"]
    assert not (run / "checkpoints/last.ckpt").exists()
    assert f"error {error:.2f}%" in answer.out


def test_a_finished_run_is_skipped_and_other_settings_are_refused(shapes: Path, tmp_path: Path, mlfix) -> None:
    keys = (f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST)
    assert mlfix("train", *keys).code == 0
    run = RunDirectory(tmp_path / "o/default/original/seed=0")
    before = run.read()["finished"], run.predictions.stat().st_mtime_ns
    again = mlfix("train", *keys)
    assert again.code == 0
    assert "skipped" in again.out
    assert (run.read()["finished"], run.predictions.stat().st_mtime_ns) == before
    other = mlfix("train", *keys, "recipe.lr=0.02")
    assert other.code == 1
    assert "recipe.lr: 0.01 -> 0.02" in other.err
    assert "overwrite=true" in other.err
    assert run.predictions.stat().st_mtime_ns == before[1]
    assert mlfix("train", *keys, "recipe.lr=0.02", "overwrite=true").code == 0
    assert run.read()["config"]["recipe"]["lr"] == 0.02


def test_arms_hold_out_the_same_samples_and_train_on_others(shapes: Path, tmp_path: Path, mlfix) -> None:
    # A third of the squares' files are marked: held-out ones stay in the predictions, training ones leave the training.
    marked = [f"square/{n:03d}.png" for n in range(0, 24, 3)]
    fixes = tmp_path / "fixes.csv"
    fixes.write_text(
        "sample_id,new_label\n" + "".join(f"{name},invalid\n" for name in marked) + "disc/000.png,triangle\n"
    )
    keys = (f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST, f"fixes.path={fixes}")
    assert mlfix("train", "-m", *keys, "arm=original,fixed,control").code == 0
    tables = {arm: read(tmp_path / f"o/default/{arm}/seed=0") for arm in ("original", "fixed", "control")}
    held_out = set(tables["original"]["sample_id"])
    assert held_out & set(marked), "no marked sample is held out: the test shows nothing"
    for table in tables.values():
        assert set(table["sample_id"]) == held_out
        assert (table["label"] == table["sample_id"].str.split("/").str[0]).all(), "held-out rows keep the given label"
    assert not np.allclose(tables["original"]["loss"], tables["fixed"]["loss"])
    assert not np.allclose(tables["original"]["loss"], tables["control"]["loss"])
    prints = {arm: RunDirectory(tmp_path / f"o/default/{arm}/seed=0").read()["identity"]["fixes"] for arm in tables}
    assert prints["original"] is None
    assert prints["fixed"] == prints["control"] is not None


def test_fixes_never_leak_into_the_original_arm(shapes: Path, tmp_path: Path, mlfix) -> None:
    fixes = tmp_path / "fixes.csv"
    fixes.write_text("sample_id,new_label\nsquare/001.png,disc\nsquare/002.png,invalid\n")
    base = (f"data.root={shapes}", *FAST)
    assert mlfix("train", *base, f"outputs={tmp_path}/a").code == 0
    assert mlfix("train", *base, f"outputs={tmp_path}/b", f"fixes.path={fixes}").code == 0
    pd.testing.assert_frame_equal(
        read(tmp_path / "a/default/original/seed=0"), read(tmp_path / "b/default/original/seed=0")
    )


def wait_for_epochs(run: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Waits until ``metrics.csv`` holds ``count`` epochs and the checkpoint lies beside it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        metrics = run / "metrics.csv"
        if (
            metrics.exists()
            and len(metrics.read_text().splitlines()) > count
            and (run / "checkpoints/last.ckpt").exists()
        ):
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError("the run made no progress")


@pytest.mark.slow
def test_a_broken_run_goes_on_and_ends_as_if_nothing_had_happened(tmp_path: Path, mlfix, ctrl_c) -> None:
    """A process of its own, killed; then resumed and interrupted; then resumed to the end."""
    shapes = draw_shapes(tmp_path / "shapes", per_label=60)
    keys = (f"data.root={shapes}", *FAST, "recipe.epochs=8")
    assert mlfix("train", *keys, f"outputs={tmp_path}/whole").code == 0
    process = start("train", *keys, f"outputs={tmp_path}/broken", cwd=tmp_path)
    run = tmp_path / "broken/default/original/seed=0"
    try:
        wait_for_epochs(run, 2, process)
        process.kill()
        _, err = process.communicate(timeout=150)
    finally:
        process.kill()
    state = RunDirectory(run)
    assert process.returncode == -signal.SIGKILL and state.status == "running", err
    assert not state.predictions.exists()
    ctrl_c(7)
    answer = mlfix("train", *keys, f"outputs={tmp_path}/broken")
    assert answer.code == 130 and "resuming from" in answer.err
    assert "the same command resumes after the last complete epoch" in answer.err
    assert state.status == "interrupted" and not state.predictions.exists()
    answer = mlfix("train", *keys, f"outputs={tmp_path}/broken")
    assert answer.code == 0, answer.err
    assert "resuming from" in answer.err
    assert state.status == "finished"
    assert pd.read_csv(run / "metrics.csv")["epoch"].tolist() == list(range(8)), "epochs were trained twice or lost"
    pd.testing.assert_frame_equal(read(run), read(tmp_path / "whole/default/original/seed=0"))


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_two_processes_give_the_same_predictions_table_as_one(
    shapes: Path, tmp_path: Path, mlfix, monkeypatch: pytest.MonkeyPatch, devices: int
) -> None:
    """The same weights, judged by one or two gloo processes: each sample once (15 samples don't divide by two).

    The run stands as if it had been killed between its last epoch and its predictions, so that only those are missing.
    """
    keys = (f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST, "loader.eval_batch_size=4")
    with monkeypatch.context() as patch:
        patch.setattr("mlfix_train.training.run.keep_weights", lambda *_: None)
        assert mlfix("train", *keys).code == 0
    run = RunDirectory(tmp_path / "o/default/original/seed=0")
    whole = read(run.path)
    run.update(status="running")
    run.predictions.unlink()
    batch = f"loader.batch_size={16 // devices}"  # the effective batch size is part of the identity
    more = (batch, f"trainer.devices={devices}", "trainer.strategy=auto")
    if devices == 1:
        assert mlfix("train", *keys, *more).code == 0
    else:
        process = start("train", *keys, *more, cwd=tmp_path)
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, out + err
    assert run.status == "finished"
    again = read(run.path)
    assert len(again) == 15
    pd.testing.assert_frame_equal(again, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_processes_train_one_run(shapes: Path, tmp_path: Path) -> None:
    keys = (f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST, "trainer.devices=2", "trainer.strategy=ddp")
    process = start("train", "-m", *keys, "seed=0,1", cwd=tmp_path)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out + err
    for seed in (0, 1):
        run = RunDirectory(tmp_path / f"o/default/original/seed={seed}")
        assert run.status == "finished"
        assert len(read(run.path)) == 15
        assert read(run.path)["sample_id"].is_unique
        dynamics = pd.read_parquet(run.path / "dynamics.parquet")
        assert dynamics["sample_id"].is_unique
        assert dynamics["times"].sum() == 2 * 16 * 2, "two epochs of one batch of 16 in each of two processes"
        assert not set(dynamics["sample_id"]) & set(read(run.path)["sample_id"])


@pytest.mark.slow
def test_two_processes_stop_after_the_same_batch(shapes: Path, tmp_path: Path) -> None:
    """SIGTERM to the first process alone ends both; the same command ends as if nothing had happened."""
    keys = (f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST, "trainer.devices=2", "trainer.strategy=ddp")
    keys = (*keys, "recipe.epochs=4", "loader.batch_size=4")
    whole = start("train", *keys, "name=whole", cwd=tmp_path)
    assert whole.wait(400) == 0
    cut = start("train", *keys, "name=cut", cwd=tmp_path)
    run = RunDirectory(tmp_path / "o/cut/original/seed=0")
    wait_for_epochs(run.path, 1, cut)
    cut.send_signal(signal.SIGTERM)
    out, err = cut.communicate(timeout=240)
    assert cut.returncode == 143 and "interrupted by SIGTERM; the same command resumes" in err, out + err
    assert run.status == "interrupted"
    assert start("train", *keys, "name=cut", cwd=tmp_path).wait(400) == 0
    pd.testing.assert_frame_equal(read(run.path), read(tmp_path / "o/whole/original/seed=0"))


def test_a_corrupted_checkpoint_is_named(shapes: Path, tmp_path: Path, mlfix) -> None:
    keys = (f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST)
    assert mlfix("train", *keys).code == 0
    run = RunDirectory(tmp_path / "o/default/original/seed=0")
    run.update(status="running")
    run.predictions.unlink()
    run.checkpoint.write_bytes((run.path / "checkpoints/model.ckpt").read_bytes()[:500])
    answer = mlfix("train", *keys)
    assert answer.code == 1
    assert "last.ckpt is damaged" in answer.err
    assert "rm " in answer.err
    run.checkpoint.unlink()
    assert mlfix("train", *keys).code == 0


def test_a_checkpoint_of_other_labels_is_refused(shapes: Path, tmp_path: Path, mlfix) -> None:
    keys = (f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST)
    assert mlfix("train", *keys).code == 0
    run = RunDirectory(tmp_path / "o/default/original/seed=0")
    content = torch.load(run.path / "checkpoints/model.ckpt", weights_only=True)
    torch.save({**content, "labels": ["disc", "oval", "triangle"]}, run.checkpoint)
    run.update(status="failed")
    answer = mlfix("train", *keys)
    assert answer.code == 1
    assert "oval" in answer.err
    assert "square" in answer.err


def test_nan_loss_stops_with_a_remedy(shapes: Path, tmp_path: Path, mlfix) -> None:
    answer = mlfix("train", f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST, "recipe.lr=90", "recipe.epochs=30")
    if answer.code == 0:
        pytest.fail("a rate of 90 did not blow up: choose another way to make NaN")
    assert "NaN or infinite" in answer.err
    assert "recipe.lr" in answer.err
    assert RunDirectory(tmp_path / "o/default/original/seed=0").status == "failed"


BAD_PICTURES = {"empty.png": b"", "text.png": b"hello", "cut.png": None}


def test_unreadable_pictures_are_listed_and_left_out(shapes: Path, tmp_path: Path, mlfix) -> None:
    whole = (shapes / "disc/000.png").read_bytes()
    for name, content in BAD_PICTURES.items():
        (shapes / "disc" / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    Image.new("CMYK", (20, 20)).save(shapes / "disc/cmyk.jpg")
    answer = mlfix("train", f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST)
    assert answer.code == 0, answer.err
    for name in BAD_PICTURES:
        assert f"disc/{name}" in answer.err
    assert "cmyk" not in answer.err
    strict = mlfix("train", f"data.root={shapes}", f"outputs={tmp_path}/p", *FAST, "pixels.max_unreadable=0.01")
    assert strict.code == 1
    assert "pixels.max_unreadable" in strict.err


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (("data.root=nowhere",), "does not exist"),
        (("data.root={shapes}/disc",), "no label"),
        (("data.root={one}",), "one label"),
        (("data.root={empty}",), "no images"),
        (("data.root={shapes}", "recipe.epcohs=3"), "did you mean recipe.epochs?"),
        (("data.root={shapes}", "recipe.epochs=three"), "recipe.epochs=three is not an integer"),
        (("data.root={shapes}", "arm=fixd"), "did you mean 'fixed'?"),
        (("data.root={shapes}", "arm=fixed"), "needs fixes"),
        (("data.root={shapes}", "model.backbone=resnet81"), "is not a timm model"),
        (("data.root={shapes}", "model=resnet81"), "model=resnet81 does not exist"),
        (("data.root={shapes}", "logger=[mlflow]"), "any other by its class: logger.<name>._target_=..."),
        (("data.root={shapes}", "callbacks._target_=mine.Timer"), "give it a name: callbacks.<name>._target_"),
        (("data.root={shapes}", "loader.sampling=even"), "loader.sampling=even"),
        (("data.root={shapes}", "split.folds=3"), "split.fold"),
        (("data.root={shapes}", "split.train_only=[oval]"), "oval"),
        (("data.root={shapes}", "split.fraction=7"), "split.fraction=7 is out of range"),
        (("data.root={shapes}", "fixes.path=nofile.csv"), "nofile.csv"),
        (("data.root={shapes}", "trainer.accelerator=tpu9"), "trainer"),
        (("data.root={shapes}", "trainer.accelerator=cuda"), "trainer"),
        (("data.root={shapes}", "+trainer.presicion=16"), "precision"),
        (("data.root={shapes}", "model.weights=nofile.pt"), "nofile.pt"),
        (("data.root={shapes}", "outputs={file}"), "outputs"),
    ],
)
def test_mistakes_are_one_clear_message(keys: tuple[str, ...], told: str, shapes: Path, tmp_path: Path, mlfix) -> None:
    one = draw_shapes(tmp_path / "one", labels=("disc",))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("a file where a folder should be")
    places = {"shapes": shapes, "one": one, "empty": tmp_path / "empty", "file": tmp_path / "file"}
    given = [key.format(**places) for key in keys]
    answer = mlfix("train", *FAST, f"outputs={tmp_path}/o", *given)
    assert answer.code in (1, 2), answer.out
    assert told in answer.err
    assert "->" in answer.err, "there is no hint"
    assert "Traceback" not in answer.err


def test_a_label_with_one_sample_trains(shapes: Path, tmp_path: Path, mlfix) -> None:
    (shapes / "lonely").mkdir()
    (shapes / "disc/000.png").rename(shapes / "lonely/000.png")
    answer = mlfix("train", f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST)
    assert answer.code == 0, answer.err
    assert "lonely" not in set(read(tmp_path / "o/default/original/seed=0")["label"])


def test_folds_cover_every_sample_once(shapes: Path, tmp_path: Path, mlfix) -> None:
    keys = (f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST)
    assert (
        mlfix(
            "train", "-m", *keys, "sweep=out_of_fold", "split.folds=3", "split.fold=range(0,3)", "recipe.epochs=1"
        ).code
        == 0
    )
    runs = sorted((tmp_path / "o/default/original").iterdir())
    assert [run.name for run in runs] == [f"seed=0,fold={fold}" for fold in range(3)]
    ids = pd.concat([read(run) for run in runs])["sample_id"]
    assert len(ids) == 72
    assert ids.is_unique


@pytest.mark.slow
def test_a_failed_run_of_a_sweep_does_not_stop_the_others(shapes: Path, tmp_path: Path, mlfix) -> None:
    answer = mlfix("train", "-m", f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST, "arm=fixed,original")
    assert answer.code == 1
    assert "needs fixes" in answer.err
    assert RunDirectory(tmp_path / "o/default/original/seed=0").status == "finished"


def test_a_run_in_use_is_left_alone(shapes: Path, tmp_path: Path, mlfix) -> None:
    with RunDirectory(tmp_path / "o/default/original/seed=0").locked():
        answer = mlfix("train", f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST)
    assert answer.code == 1
    assert "in use" in answer.err


def test_a_full_disk_is_told_and_nothing_is_lost(shapes: Path, tmp_path: Path, mlfix, monkeypatch) -> None:
    import errno

    from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    keys = (f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST)
    with monkeypatch.context() as patch:
        patch.setattr(_CheckpointConnector, "dump_checkpoint", full)
        answer = mlfix("train", *keys)
    assert answer.code == 1
    assert "No space left" in answer.err
    assert "free some space" in answer.err
    assert mlfix("train", *keys).code == 0


def test_the_functions_take_the_same_keys(shapes: Path, tmp_path: Path) -> None:
    from mlfix_train import run_command

    run = run_command("train", f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST)
    assert run.status == "finished"
    ranking = run_command("audit", f"runs={run.path}", f"out={tmp_path}/audit")
    assert len(ranking) == 15
    assert (tmp_path / "audit/panels/worst.png").exists()


def test_a_failed_start_does_not_block_the_corrected_command(shapes: Path, tmp_path: Path, mlfix) -> None:
    keys = (f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST)
    assert mlfix("train", *keys, "recipe.epochs=0").code == 2
    assert mlfix("train", *keys, "model.backbone=resnet51").code == 2
    assert mlfix("train", *keys, "trainer.devices=two").code == 2
    assert mlfix("train", *keys).code == 0


def test_a_checkpoint_is_whole_or_the_one_before(shapes: Path, tmp_path: Path, mlfix, monkeypatch) -> None:
    """The disk fills up while the second epoch's checkpoint is written: the first epoch's is still there, whole."""
    import errno
    import os

    real, calls = os.fsync, []

    def full(handle: int) -> None:
        if "checkpoints" in os.readlink(f"/proc/self/fd/{handle}"):
            calls.append(handle)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    keys = (f"data.root={shapes}", f"outputs={tmp_path}/o", *FAST, "recipe.epochs=4")
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        answer = mlfix("train", *keys)
    assert answer.code == 1
    assert "No space left" in answer.err
    assert "free some space" in answer.err
    run = RunDirectory(tmp_path / "o/default/original/seed=0")
    assert torch.load(run.checkpoint, weights_only=True)["epoch"] == 0
    again = mlfix("train", *keys)
    assert again.code == 0, again.err
    assert "resuming from" in again.err


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (("seed=1.5",), "seed=1.5 is not an integer"),
        (("loader=5",), "loader is a section"),
        (("data=null",), "data"),
        (("overwrite=maybe",), "overwrite=maybe is not true or false"),
        (("checkpoint.keep=foo",), "checkpoint.keep=foo"),
        (("name=../x",), "points outside"),
        (("name=",), "name= is empty"),
        (("outputs=",), "outputs= is empty"),
        (("data.root=",), "data.root is empty"),
        (("fixes.ignore=all",), "fixes.ignore=all"),
        (("split.train_only=arc",), "arc"),
        (("pixels.max_unreadable=5",), "out of range"),
        (("seed=0,1",), "add -m"),
        (("--foo",), "unknown flag --foo"),
    ],
)
def test_values_are_checked_before_anything_is_written(
    keys: tuple[str, ...], told: str, shapes: Path, tmp_path: Path, mlfix, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    answer = mlfix("train", f"data.root={shapes}", *FAST, *keys)
    assert answer.code in (1, 2)
    assert told in answer.err
    assert "Traceback" not in answer.err
    assert sorted(tmp_path.iterdir()) == before


def test_m_may_stand_anywhere(shapes: Path, tmp_path: Path, mlfix, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert mlfix("train", f"data.root={shapes}", *FAST, "recipe.epochs=1", "-m", "seed=0,1").code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"outputs", "shapes"}
    assert RunDirectory(tmp_path / "outputs/default/original/seed=1").status == "finished"


def test_runs_are_audited_from_another_folder(shapes: Path, tmp_path: Path, mlfix, monkeypatch) -> None:
    monkeypatch.chdir(shapes.parent)
    assert mlfix("train", f"data.root={shapes.name}", *FAST, "recipe.epochs=1").code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert mlfix("audit", f"runs={shapes.parent}/outputs", "out=audit").code == 0
    assert (tmp_path / "elsewhere/audit/panels/worst.png").exists()
