"""Sweeps in worker processes: side by side, faults, interruption, and clusters."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from shapes import FAST, REPO, draw_shapes, start

from mlfix_train.data.runs import RunDirectory
from mlfix_train.errors import RunError
from mlfix_train.training.launchers import local
from mlfix_train.training.launchers.local import run_in_processes, worker_environment
from mlfix_train.training.sweep import Attempt, SweepRun


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("sweep")
    draw_shapes(work / "shapes", per_label=20)
    (work / "fixes.csv").write_text("sample_id,new_label\ndisc/000.png,invalid\ndisc/001.png,invalid\n")
    return work


def keys(data: Path, out: Path, *more: str) -> list[str]:
    return [f"data.root={data}/shapes", f"outputs={out}", f"fixes.path={data}/fixes.csv", *FAST, *more]


def predictions(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "predictions.parquet").set_index("sample_id").sort_index()


def wait_for(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def test_workers_share_the_cores_and_take_turns_on_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(local, "cpu_count", lambda: 8)
    environments = [worker_environment(slot, 4, 2) for slot in range(4)]
    assert [env["CUDA_VISIBLE_DEVICES"] for env in environments] == ["0", "1", "0", "1"]
    assert {env["OMP_NUM_THREADS"] for env in environments} == {"2"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [worker_environment(slot, 4, 2)["CUDA_VISIBLE_DEVICES"] for slot in range(4)] == ["5", "7", "5", "7"]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert worker_environment(0, 4, 0) == {}


def write_environment(run: SweepRun) -> None:
    run.path.mkdir(parents=True)
    seen = {"pid": os.getpid(), "gpu": os.environ["CUDA_VISIBLE_DEVICES"]}
    (run.path / "seen.json").write_text(json.dumps(seen))
    while len(list(run.path.parent.glob("*/seen.json"))) < 2:  # both workers are at work
        time.sleep(0.01)


def test_each_worker_sees_its_own_gpu_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    runs = [SweepRun(tmp_path / str(number)) for number in range(4)]
    attempts: list[Attempt] = []
    run_in_processes(runs, write_environment, processes=2, gpus=2, on_attempt=attempts.append)
    seen = [json.loads((run.path / "seen.json").read_text()) for run in runs]
    assert {one["gpu"] for one in seen} == {"5", "7"}
    assert len({one["pid"] for one in seen}) == 2, "a worker trains one run after the other"
    assert [attempt.error for attempt in attempts] == [None] * 4


def fail_by_name(run: SweepRun) -> None:
    if run.path.name == "refused":
        raise RunError("no", "so")
    if run.path.name == "broken" and not (run.path / "tried").exists():
        run.path.mkdir()
        (run.path / "tried").touch()
        raise RuntimeError("out of luck")
    if run.path.name == "dead":
        os.kill(os.getpid(), signal.SIGKILL)


def test_faults_are_tried_again_and_user_errors_are_not(tmp_path: Path) -> None:
    runs = [SweepRun(tmp_path / name) for name in ("refused", "broken", "dead", "fine")]
    attempts: list[Attempt] = []
    last = run_in_processes(runs, fail_by_name, processes=2, retries=1, on_attempt=attempts.append)
    errors = {attempt.run.path.name: attempt.error for attempt in last}
    assert isinstance(errors["refused"], RunError) and errors["refused"].hint == "so"
    assert errors["broken"] is None and errors["fine"] is None
    assert isinstance(errors["dead"], local.WorkerDiedError) and "killed by SIGKILL" in str(errors["dead"])
    counts = {name: sum(attempt.run.path.name == name for attempt in attempts) for name in errors}
    assert counts == {"refused": 1, "broken": 2, "dead": 2, "fine": 1}


WORK = """
import os, pathlib, sys, time
def wait(run):
    run.path.mkdir(parents=True)
    (run.path / "pid").write_text(str(os.getpid()))
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        (run.path / "interrupted").touch()
        raise
"""
SWEEP = """
import pathlib, signal
from mlfix_train.training.launchers.local import run_in_processes
from mlfix_train.training.sweep import SweepRun
import work
signal.signal(signal.SIGINT, signal.default_int_handler)
runs = [SweepRun(pathlib.Path(str(number))) for number in range(3)]
run_in_processes(runs, work.wait, processes=2, on_attempt=print)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_sweep_interrupts_its_workers_and_ends_them(tmp_path: Path, sent: signal.Signals) -> None:
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "sweep.py").write_text(SWEEP)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPO), str(tmp_path)])}
    process = subprocess.Popen([sys.executable, "sweep.py"], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: all((tmp_path / name / "pid").exists() for name in "01"))
        process.send_signal(sent)
        process.wait(60)
        wait_for(lambda: all((tmp_path / name / "interrupted").exists() for name in "01"))
        pids = [(tmp_path / name / "pid").read_text() for name in "01"]
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    finally:
        process.kill()
    assert not (tmp_path / "2").exists(), "no further run is started"


def test_two_at_a_time_and_again(data: Path, tmp_path: Path) -> None:
    command = ["train", "-m", *keys(data, tmp_path / "o", "sweep=before_after", "seed=0", "jobs=2")]
    first = start(*command, cwd=tmp_path)
    out, err = first.communicate()
    assert first.returncode == 0, err
    states = [RunDirectory(tmp_path / f"o/default/{arm}/seed=0").read() for arm in ("original", "fixed", "control")]
    assert [state["status"] for state in states] == ["finished"] * 3
    assert states[1]["started"] < states[0]["finished"], "two ran at once"
    assert states[1]["pid"] != states[0]["pid"], "in processes of their own"
    assert "3 runs: 3 finished" in out
    for state in states:
        assert f"{state['held_out_error']:.2f}%" in out
    again = start(*command, cwd=tmp_path)
    out, err = again.communicate()
    assert again.returncode == 0, err
    assert out.count("skipped") == 3
    assert [
        RunDirectory(tmp_path / f"o/default/{arm}/seed=0").read()["finished"]
        for arm in ("original", "fixed", "control")
    ] == [state["finished"] for state in states]


def test_a_killed_process_is_started_again_and_gets_there(data: Path, tmp_path: Path) -> None:
    runs = [RunDirectory(tmp_path / f"o/default/original/seed={seed}") for seed in (0, 1)]
    more = ("seed=0,1", "jobs=2", "recipe.epochs=40", "trainer.check_val_every_n_epoch=40")
    process = start("train", "-m", *keys(data, tmp_path / "o", *more), cwd=tmp_path, OMP_NUM_THREADS="1")
    try:
        wait_for(runs[1].checkpoint.exists)
        os.kill(runs[1].read()["pid"], signal.SIGKILL)
        out, err = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "killed by SIGKILL" in err and "trying it again" in err
    assert [run.status for run in runs] == ["finished", "finished"]
    assert "2 finished" in out


def test_an_interrupted_sweep_stops_its_processes_and_says_where_it_is(data: Path, tmp_path: Path) -> None:
    runs = [RunDirectory(tmp_path / f"o/default/original/seed={seed}") for seed in (0, 1, 2)]
    more = ("seed=0,1,2", "jobs=2", "recipe.epochs=3000", "trainer.check_val_every_n_epoch=3000")
    process = start("train", "-m", *keys(data, tmp_path / "o", *more), cwd=tmp_path, OMP_NUM_THREADS="1")
    try:
        wait_for(lambda: all(run.checkpoint.exists() for run in runs[:2]))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert [run.status for run in runs] == ["interrupted", "interrupted", ""]
    assert "2 interrupted" in out and "1 not started" in out
    for run in runs[:2]:
        pid = run.read()["pid"]
        wait_for(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 30)


def test_processes_do_not_outlive_a_killed_sweep(data: Path, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "o/default/original/seed=0")
    more = ("seed=0,1", "jobs=2", "recipe.epochs=3000", "trainer.check_val_every_n_epoch=3000")
    process = start("train", "-m", *keys(data, tmp_path / "o", *more), cwd=tmp_path, OMP_NUM_THREADS="1")
    try:
        wait_for(run.checkpoint.exists)
        process.kill()
        process.communicate()
        wait_for(lambda: run.status == "interrupted", 60)
    finally:
        process.kill()


def test_submitit_trains_a_sweep(data: Path, tmp_path: Path) -> None:
    """SLURM's launcher with submitit's local executor: jobs of their own, and the table of states at the end."""
    more = ("arm=original,fixed", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10", "recipe.epochs=1")
    process = start("train", "-m", *keys(data, tmp_path / "o", *more), cwd=tmp_path, OMP_NUM_THREADS="1")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "2 runs: 2 finished" in out
    logs = list((tmp_path / "o/default/.submitit").glob("*/*_log.out"))
    assert len(logs) == 2
    hosts = {
        json.loads((tmp_path / f"o/default/{arm}/seed=0/run.json").read_text())["pid"] for arm in ("original", "fixed")
    }
    assert len(hosts) == 2, "each in a process of its own"


def test_runs_side_by_side_are_those_alone_and_share_a_process(tmp_path: Path) -> None:
    """Four seeds by two processes: each trains two; the results are those of a seed alone, within rounding."""
    draw_shapes(tmp_path / "shapes", per_label=20)
    keys = [f"data.root={tmp_path}/shapes", *FAST]
    process = start("train", "-m", *keys, "seed=range(0,4)", "runs_per_device=2", "name=together", cwd=tmp_path)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    runs = [RunDirectory(tmp_path / f"outputs/together/original/seed={seed}") for seed in range(4)]
    assert len({run.read()["pid"] for run in runs}) == 2
    process = start("train", *keys, "seed=3", "name=alone", cwd=tmp_path)
    assert process.wait(120) == 0, process.communicate()
    together, alone = predictions(runs[3].path), predictions(tmp_path / "outputs/alone/original/seed=3")
    assert (together["pred"] == alone["pred"]).all()
    np.testing.assert_allclose(together["loss"], alone["loss"], rtol=2e-3, atol=1e-5)
    again = start("train", "-m", *keys, "seed=range(0,4)", "runs_per_device=2", "name=together", cwd=tmp_path)
    out, err = again.communicate(timeout=120)
    assert out.count("skipped") == 4


def test_a_worker_that_is_stopped_is_replaced(tmp_path: Path) -> None:
    """Ctrl-C to one process alone ends that process; the others' runs and the rest of the sweep go on."""
    draw_shapes(tmp_path / "shapes", per_label=20)
    keys = [f"data.root={tmp_path}/shapes", *FAST, "recipe.epochs=30", "trainer.check_val_every_n_epoch=30"]
    process = start("train", "-m", *keys, "seed=range(0,5)", "runs_per_device=2", cwd=tmp_path, OMP_NUM_THREADS="1")
    runs = [RunDirectory(tmp_path / f"outputs/default/original/seed={seed}") for seed in range(5)]
    try:
        until = time.monotonic() + 90
        while not runs[1].checkpoint.exists() and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(runs[1].read()["pid"], signal.SIGINT)
        out, err = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert [run.status for run in runs] == ["finished"] * 5
    assert "trying it again" in err and "5 finished" in out
