"""How many runs of a sweep are trained at a time, and the states of its runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlfix_train.data.runs import RunDirectory
from mlfix_train.errors import ConfigError
from mlfix_train.training.sweep import all_finished, count_workers, sweep_states


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
