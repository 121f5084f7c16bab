"""Sweeps in worker processes: side by side, faults, interruption, and clusters."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra.core.plugins import Plugins
from shapes import FAST, REPO, draw_shapes, start
from sweep_work import (
    be_interrupted_once,
    be_killed_once,
    do_instead,
    fail_by_name,
    interrupt_the_sweep,
    refuse,
    write_environment,
)

from mlfix_train.data.runs import RunDirectory
from mlfix_train.errors import RunError
from mlfix_train.training.launchers import local
from mlfix_train.training.launchers.local import run_in_processes, worker_environment
from mlfix_train.training.launchers.pool import WorkerDiedError
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


TIMEOUT = 150.0
"""Seconds to wait for a process on a machine that has much else to do."""

pytestmark = pytest.mark.usefixtures("alarm")


def wait_for(condition: Callable[[], bool], seconds: float = TIMEOUT) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def is_running(pid: int | str) -> bool:
    return Path(f"/proc/{pid}").exists()


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


def test_each_worker_sees_its_own_gpu_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    runs = [SweepRun(tmp_path / str(number)) for number in range(4)]
    attempts: list[Attempt] = []
    run_in_processes(runs, write_environment, processes=2, gpus=2, on_attempt=attempts.append)
    seen = [json.loads((run.path / "seen.json").read_text()) for run in runs]
    assert {one["gpu"] for one in seen} == {"5", "7"}
    assert len({one["pid"] for one in seen}) == 2, "a worker trains one run after the other"
    assert [attempt.error for attempt in attempts] == [None] * 4


def test_faults_are_tried_again_and_user_errors_are_not(tmp_path: Path) -> None:
    runs = [SweepRun(tmp_path / name) for name in ("refused", "broken", "dead", "fine")]
    attempts: list[Attempt] = []
    last = run_in_processes(runs, fail_by_name, processes=2, retries=1, on_attempt=attempts.append)
    errors = {attempt.run.path.name: attempt.error for attempt in last}
    assert isinstance(errors["refused"], RunError) and errors["refused"].hint == "so"
    assert errors["refused"].details == ("a: 1 -> 2",)
    assert errors["broken"] is None and errors["fine"] is None
    assert isinstance(errors["dead"], WorkerDiedError) and "killed by SIGKILL" in str(errors["dead"])
    counts = {name: sum(attempt.run.path.name == name for attempt in attempts) for name in errors}
    assert counts == {"refused": 1, "broken": 2, "dead": 2, "fine": 1}


SWEEP = """
import pathlib, signal
from mlfix_train.training.launchers.local import run_in_processes
from mlfix_train.training.sweep import SweepRun
from sweep_work import wait_for_a_signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runs = [SweepRun(pathlib.Path(str(number))) for number in range(3)]
run_in_processes(runs, wait_for_a_signal, processes=2, on_attempt=print)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_sweep_interrupts_its_workers_and_ends_them(tmp_path: Path, sent: signal.Signals) -> None:
    (tmp_path / "sweep.py").write_text(SWEEP)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "tests")])}
    process = subprocess.Popen([sys.executable, "sweep.py"], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: all((tmp_path / name / "pid").exists() for name in "01"))
        process.send_signal(sent)
        process.wait(TIMEOUT)
        wait_for(lambda: all((tmp_path / name / "interrupted").exists() for name in "01"))
        pids = [(tmp_path / name / "pid").read_text() for name in "01"]
        wait_for(lambda: not any(is_running(pid) for pid in pids))
    finally:
        process.kill()
    assert not (tmp_path / "2").exists(), "no further run is started"


# The command, whose workers do something smaller than training


@pytest.fixture
def sweep(tmp_path: Path, mlfix, monkeypatch: pytest.MonkeyPatch):
    """``mlfix train -m`` by two processes that call a function instead of training: its answer, and its runs."""
    Plugins.instance()  # imports it
    plugin = importlib.import_module("hydra_plugins.mlfix_launchers")

    def call(work: Callable[[SweepRun], None], *, seeds: int):
        monkeypatch.setattr(plugin, "train_planned", partial(do_instead, work))
        keys = ("data.root=shapes", f"outputs={tmp_path}", f"seed=range(0,{seeds})", "jobs=2", "logger=none")
        answer = mlfix("train", "-m", *keys)
        return answer, [RunDirectory(tmp_path / f"default/original/seed={seed}") for seed in range(seeds)]

    return call


@pytest.mark.parametrize("how", [be_killed_once, pytest.param(be_interrupted_once, marks=pytest.mark.slow)])
def test_a_process_that_ends_is_replaced_and_its_run_tried_again(sweep, how: Callable[[SweepRun], None]) -> None:
    """Killed, or stopped by a Ctrl-C to it alone: the others' runs and the rest of the sweep go on."""
    answer, runs = sweep(how, seeds=4)
    assert answer.code == 0, answer.err
    assert [run.status for run in runs] == ["finished"] * 4
    assert "4 finished" in answer.out and answer.err.count("trying it again") == 1
    before = runs[1].read()["before"]
    assert before["pid"] != runs[1].read()["pid"], "by another process"
    if how is be_killed_once:
        assert "killed by SIGKILL" in answer.err
        assert before["status"] == "failed" and "killed by SIGKILL" in before["error"], "it could not say so itself"
    else:
        assert "interrupted; trying it again" in answer.err


@pytest.mark.slow
def test_an_interrupted_sweep_stops_its_processes_and_says_where_it_is(sweep) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # CI may have us ignore it
    try:
        answer, runs = sweep(interrupt_the_sweep, seeds=3)
    finally:
        signal.signal(signal.SIGINT, before)
    assert answer.code == 130, answer.err
    assert [run.status for run in runs] == ["interrupted", "interrupted", ""]
    assert "2 interrupted" in answer.out and "1 not started" in answer.out
    wait_for(lambda: not any(is_running(run.read()["pid"]) for run in runs[:2]))


@pytest.mark.slow
def test_what_a_process_refuses_to_train_is_no_success(sweep) -> None:
    answer, _ = sweep(refuse, seeds=2)
    assert answer.code == 1
    assert "recipe.epochs: 1 -> 2" in answer.err and "trying it again" not in answer.err
    assert "2 could not be trained as requested" in answer.out


# Training


@pytest.mark.slow
def test_two_at_a_time_are_those_alone_and_are_trained_once(data: Path, tmp_path: Path, mlfix) -> None:
    """Three arms by two processes, one of which trains two; within rounding as this process trains one alone."""
    wanted = keys(data, tmp_path / "o", "recipe.epochs=1")
    answer = mlfix("train", "-m", *wanted, "sweep=before_after", "seed=0", "jobs=2")
    assert answer.code == 0, answer.err
    runs = [RunDirectory(tmp_path / f"o/default/{arm}/seed=0") for arm in ("original", "fixed", "control")]
    states = [run.read() for run in runs]
    assert [state["status"] for state in states] == ["finished"] * 3
    assert states[1]["started"] < states[0]["finished"], "two ran at once"
    assert len({os.getpid(), *(state["pid"] for state in states)}) == 3, "in two processes that stay"
    assert "3 runs: 3 finished" in answer.out
    for state in states:
        assert f"{state['held_out_error']:.2f}%" in answer.out
    again = mlfix("train", "-m", *wanted, "sweep=before_after", "seed=0")
    assert again.code == 0 and again.out.count("skipped") == 3
    assert [run.read()["finished"] for run in runs] == [state["finished"] for state in states]
    assert mlfix("train", *wanted, "arm=control", "seed=0", "name=alone").code == 0
    together, alone = predictions(runs[2].path), predictions(tmp_path / "o/alone/control/seed=0")
    assert (together["pred"] == alone["pred"]).all()
    np.testing.assert_allclose(together["loss"], alone["loss"], rtol=2e-3, atol=1e-5)


@pytest.mark.slow
def test_a_killed_training_is_started_again_and_gets_there(data: Path, tmp_path: Path) -> None:
    runs = [RunDirectory(tmp_path / f"o/default/original/seed={seed}") for seed in (0, 1)]
    more = ("seed=0,1", "jobs=2", "recipe.epochs=40", "trainer.check_val_every_n_epoch=40")
    process = start("train", "-m", *keys(data, tmp_path / "o", *more), cwd=tmp_path, OMP_NUM_THREADS="1")
    try:
        wait_for(runs[1].checkpoint.exists)
        os.kill(runs[1].read()["pid"], signal.SIGKILL)
        out, err = process.communicate(timeout=2 * TIMEOUT)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "killed by SIGKILL" in err and "trying it again" in err
    assert "resuming from" in err
    assert [run.status for run in runs] == ["finished", "finished"]
    assert "2 finished" in out


SUBMITIT = ("arm=original,fixed", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10", "recipe.epochs=1")


def test_submitit_trains_a_sweep_in_this_process(data: Path, tmp_path: Path, mlfix, monkeypatch) -> None:
    """SLURM's launcher with the executor that submitit has for tests, and the table of states at the end."""
    launcher = pytest.importorskip("hydra_plugins.hydra_submitit_launcher.submitit_launcher").LocalLauncher
    monkeypatch.setattr(launcher, "_EXECUTOR", "debug")
    answer = mlfix("train", "-m", *keys(data, tmp_path / "o", *SUBMITIT))
    assert answer.code == 0, answer.err
    assert "2 runs: 2 finished" in answer.out


@pytest.mark.slow
def test_submitit_trains_a_sweep(data: Path, tmp_path: Path) -> None:
    """SLURM's launcher with submitit's local executor: jobs of their own, and the table of states at the end."""
    process = start("train", "-m", *keys(data, tmp_path / "o", *SUBMITIT), cwd=tmp_path, OMP_NUM_THREADS="1")
    out, err = process.communicate(timeout=2 * TIMEOUT)
    assert process.returncode == 0, err
    assert "2 runs: 2 finished" in out
    logs = list((tmp_path / "o/default/.submitit").glob("*/*_log.out"))
    assert len(logs) == 2
    hosts = {
        json.loads((tmp_path / f"o/default/{arm}/seed=0/run.json").read_text())["pid"] for arm in ("original", "fixed")
    }
    assert len(hosts) == 2, "each in a process of its own"
