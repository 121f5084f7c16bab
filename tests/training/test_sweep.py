"""How many runs of a sweep are trained at a time, and the states of its runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mlfix_train.data.runs import RunDirectory
from mlfix_train.errors import ConfigError
from mlfix_train.training.sweep import all_finished, count_workers, held_out_error, mark_interrupted, sweep_states


def test_jobs_count_processes_or_gpus() -> None:
    assert count_workers(1, 1, gpus=4) == (1, 0)
    assert count_workers(2, 1, gpus=0) == (2, 0)
    assert count_workers(2, 3, gpus=2) == (6, 2)
    assert count_workers("gpus", 1, gpus=4) == (4, 4)
    with pytest.raises(ConfigError, match="no GPU is visible"):
        count_workers("gpus", 1, gpus=0)


@pytest.mark.parametrize("jobs", [0, -1, "many", 1.5, True])
def test_other_values_are_refused(jobs: object) -> None:
    with pytest.raises(ConfigError, match=f"jobs={jobs} "):
        count_workers(jobs, 1, gpus=1)  # type: ignore[arg-type]


def test_an_unreadable_run_counts_as_failed(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "a").path.mkdir()
    RunDirectory(tmp_path / "a").update(status="finished")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/run.json").write_text("{")
    states = sweep_states([tmp_path / name for name in "abc"])
    assert [state.get("status") for state in states.values()] == ["finished", "failed", None]
    assert "run.json" in states[tmp_path / "b"]["error"]
    assert not all_finished(states.values()) and all_finished([states[tmp_path / "a"]])


def test_a_sweep_minimizes_the_held_out_error_of_finished_runs() -> None:
    assert held_out_error({"status": "finished", "held_out_error": 12.5}) == 12.5
    assert held_out_error({"status": "finished", "agreement": 87.0}) == 13.0, "of a sorting network"
    assert held_out_error({"status": "finished", "agreement": None}) is None
    assert held_out_error({"status": "failed", "held_out_error": 12.5}) is None


def test_runs_of_processes_that_are_gone_are_interrupted(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host, other = socket.gethostname(), os.getppid()
    states = {
        "own": ("running", host, os.getpid()),
        "gone": ("running", host, gone.pid),
        "alive": ("running", host, other),
        "elsewhere": ("running", "another machine", gone.pid),
        "done": ("finished", host, gone.pid),
    }
    for name, (status, where, pid) in states.items():
        (tmp_path / name).mkdir()
        RunDirectory(tmp_path / name).update(status=status, host=where, pid=pid)
    mark_interrupted(tmp_path / name for name in (*states, "missing"))
    found = {name: RunDirectory(tmp_path / name).status for name in states}
    assert found == {
        "own": "interrupted",
        "gone": "interrupted",
        "alive": "running",
        "elsewhere": "running",
        "done": "finished",
    }
