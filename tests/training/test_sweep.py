"""Sweeps: what is planned and in which order, several processes, faults, interruption, and submitit."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from pathlib import Path

import pytest
from shapes import FAST, draw_shapes, start

from mlfix_train.data.runs import RunDirectory
from mlfix_train.errors import ConfigError, RunError
from mlfix_train.training import sweep
from mlfix_train.training.launchers import local as sweep_pool


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("sweep")
    draw_shapes(work / "shapes", per_label=20)
    (work / "fixes.csv").write_text("sample_id,new_label\ndisc/000.png,invalid\ndisc/001.png,invalid\n")
    return work


def keys(data: Path, out: Path, *more: str) -> list[str]:
    return [f"data.root={data}/shapes", f"outputs={out}", f"fixes.path={data}/fixes.csv", *FAST, *more]


def ends(jobs: list[sweep.Job]) -> list[str]:
    return ["/".join(job.path.parts[-2:]) for job in jobs]


def test_arms_take_turns_however_they_are_typed() -> None:
    found = sweep.plan(sweep.ordered(["data.root=x", "arm=original,fixed", "seed=range(0,3)"]))
    assert ends(found.jobs) == [f"{arm}/seed={seed}" for seed in range(3) for arm in ("original", "fixed")]


def test_before_and_after_is_twenty_seeds_of_three_arms_and_can_be_changed() -> None:
    whole = ends(sweep.plan(["data.root=x", "sweep=before_after"]).jobs)
    assert len(whole) == 60
    assert whole[:4] == ["original/seed=0", "fixed/seed=0", "control/seed=0", "original/seed=1"]
    few = ends(sweep.plan(["data.root=x", "sweep=before_after", "seed=range(0,2)", "arm=original,fixed"]).jobs)
    assert few == ["original/seed=0", "fixed/seed=0", "original/seed=1", "fixed/seed=1"]


def test_out_of_fold_has_as_many_runs_as_folds() -> None:
    assert len(sweep.plan(["data.root=x", "sweep=out_of_fold"]).jobs) == 5
    found = ends(sweep.plan(["data.root=x", "sweep=out_of_fold", "split.folds=3"]).jobs)
    assert found == [f"original/seed=0,fold={k}" for k in range(3)]


def test_a_plan_keeps_values_as_they_were_typed() -> None:
    found = sweep.plan(["data.root='/a b/c, d'", "name=x", "outputs=/o", "seed=3,5"])
    assert [str(job.path) for job in found.jobs] == ["/o/x/original/seed=3", "/o/x/original/seed=5"]
    assert "data.root='/a b/c, d'" in found.jobs[0].overrides


@pytest.mark.parametrize("jobs", ["0", "-1", "many", "1.5", "true"])
def test_jobs_is_a_number_or_gpus(jobs: str, data: Path, tmp_path: Path, mlfix) -> None:
    answer = mlfix("train", "-m", *keys(data, tmp_path, "seed=0,1", f"jobs={jobs}"))
    assert answer.code == 2
    assert f"jobs={jobs}".lower() in answer.err.lower() and "->" in answer.err


def test_no_gpu_for_one_process_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "_gpus", lambda: 0)
    settings = sweep.plan(["data.root=x", "jobs=gpus", "seed=0,1"]).settings
    with pytest.raises(ConfigError, match=r"jobs=gpus, and no GPU"):
        sweep.processes(settings)
    monkeypatch.setattr(sweep, "_gpus", lambda: 4)
    assert sweep.processes(settings) == (4, 4)


def test_processes_are_dealt_to_the_gpus_in_turn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[dict[str, str]] = []

    class Process:
        """Takes one run and says that it went well."""

        returncode = 0

        def __init__(self, command: list[str], env: dict[str, str], pass_fds: tuple[int], **_: object) -> None:
            seen.append(env)
            os.write(pass_fds[0], b"0\n")
            self.stdin = io.BytesIO()

        def poll(self) -> int:
            return 0

        def wait(self, timeout: float = 0) -> int:
            return 0

    monkeypatch.setattr(sweep_pool.subprocess, "Popen", Process)
    planned = sweep.plan(["data.root=x", f"outputs={tmp_path}", "seed=range(0,4)", "jobs=4"])
    sweep.run_processes(planned, 4, 2, verbose=False)
    assert [env["CUDA_VISIBLE_DEVICES"] for env in seen] == ["0", "1", "0", "1"]
    seen.clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    sweep.run_processes(planned, 4, 2, verbose=False)
    assert [env["CUDA_VISIBLE_DEVICES"] for env in seen] == ["5", "7", "5", "7"]


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
    assert [RunDirectory(tmp_path / f"o/default/{arm}/seed=0").read()["finished"]
            for arm in ("original", "fixed", "control")] == [state["finished"] for state in states]  # fmt: skip


def test_a_broken_run_does_not_stop_the_rest(data: Path, tmp_path: Path, mlfix) -> None:
    broken = RunDirectory(tmp_path / "default/original/seed=1")
    broken.path.mkdir(parents=True)
    (broken.path / "run.json").write_text("{")
    answer = mlfix("train", "-m", *keys(data, tmp_path, "seed=0,1,2", "recipe.epochs=1"))
    assert answer.code == 1
    assert "run.json can't be read" in answer.err
    for seed in (0, 2):
        assert RunDirectory(tmp_path / f"default/original/seed={seed}").status == "finished"
    assert "2 finished" in answer.out and "the same command goes on" in answer.out


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_refused_run_is_no_success(jobs: int, data: Path, tmp_path: Path) -> None:
    """The runs are there, finished, but of other settings than were asked for."""
    base = keys(data, tmp_path / "o", "seed=0,1", "recipe.epochs=1")
    assert start("train", "-m", *base, cwd=tmp_path).wait() == 0
    process = start("train", "-m", *base[:-1], "recipe.epochs=2", f"jobs={jobs}", cwd=tmp_path)
    out, err = process.communicate()
    assert process.returncode == 1
    assert "recipe.epochs: 1 -> 2" in err
    assert "2 could not be trained as asked" in out


def test_a_mistyped_range_is_told_before_anything_is_done(data: Path, tmp_path: Path, mlfix) -> None:
    answer = mlfix("train", "-m", *keys(data, tmp_path, "sed=range(0,2)"))
    assert answer.code == 2
    assert "sed is no key" in answer.err and "'seed'" in answer.err
    assert answer.out == ""
    assert not list(tmp_path.rglob("multirun.yaml"))


def test_a_fault_is_tried_again_and_a_mistake_is_not() -> None:
    calls: list[int] = []

    def fault() -> None:
        calls.append(1)
        if len(calls) < 3:
            raise RuntimeError("out of luck")

    assert sweep.attempt(fault, "train", 2, sweep=True) is None
    assert len(calls) == 3
    calls.clear()
    found = sweep.attempt(fault, "train", 1, sweep=True)
    assert found is not None and "out of luck" in str(found)

    def mistake() -> None:
        calls.append(1)
        raise RunError("no", "so")

    calls.clear()
    assert isinstance(sweep.attempt(mistake, "train", 5, sweep=True), RunError)
    assert len(calls) == 1
    with pytest.raises(RuntimeError):
        calls.clear()
        sweep.attempt(fault, "train", 5, sweep=False)


def wait_for(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def test_a_killed_process_is_started_again_and_gets_there(data: Path, tmp_path: Path) -> None:
    runs = [RunDirectory(tmp_path / f"o/default/original/seed={seed}") for seed in (0, 1)]
    more = ("seed=0,1", "jobs=2", "recipe.epochs=40", "trainer.check_val_every_n_epoch=40")
    process = start("train", "-m", *keys(data, tmp_path / "o", *more), cwd=tmp_path, OMP_NUM_THREADS="1")
    try:
        wait_for(lambda: runs[1].checkpoint.exists())
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
    hosts = {json.loads((tmp_path / f"o/default/{arm}/seed=0/run.json").read_text())["pid"]
             for arm in ("original", "fixed")}  # fmt: skip
    assert len(hosts) == 2, "each in a process of its own"


def test_ddp_is_a_preset_of_trainer_keys() -> None:
    from mlfix_train.config import build as config

    cfg = config.compose("train", ["data.root=x", "trainer=ddp", "trainer.num_nodes=2"])
    assert (cfg.trainer.strategy, cfg.trainer.num_nodes, cfg.trainer.devices) == ("ddp", 2, "auto")
    assert cfg.trainer.precision == "auto"
