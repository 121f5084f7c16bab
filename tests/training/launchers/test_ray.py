"""Sweeps on a Ray cluster: a node that dies, an interrupt, and what is missing."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from shapes import FAST, draw_shapes, start

from mlfix_train.data.runs import RunDirectory
from mlfix_train.errors import ConfigError, RunError
from mlfix_train.training.launchers.ray import run_on_ray

TIMEOUT = 240.0

pytestmark = pytest.mark.usefixtures("alarm")


def test_without_ray_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="needs Ray") as caught:
        run_on_ray([], print, init={}, on_attempt=print)
    assert caught.value.hint == "pip install 'mlfix-train[ray]'"


@pytest.mark.parametrize(
    ("given", "variable", "used"), [(None, None, "local"), (None, "there:1", None), ("auto", None, "auto")]
)
def test_without_an_address_ray_starts_here_whatever_runs_already(
    given: str | None, variable: str | None, used: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def init(**arguments: Any) -> None:
        seen.append(arguments["address"])
        raise RuntimeError("no")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=init))
    if variable is None:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
    else:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    with pytest.raises(RunError, match="can't be started: no"):
        run_on_ray([], print, init={"address": given}, on_attempt=print)
    assert seen == [used]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A cluster of two nodes on this machine, with room for a run each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    for attempts_left in (2, 1, 0):  # Ray waits 30 s for its own processes, which a busy machine exceeds
        try:
            cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
            cluster.second = cluster.add_node(**node)
            break
        except Exception as error:
            if "timed out during startup" not in str(error) or not attempts_left:
                raise
    yield cluster
    cluster.shutdown()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.1)


def sweep(cluster: Any, tmp_path: Path, *more: str) -> tuple[Any, list[RunDirectory]]:
    draw_shapes(tmp_path / "shapes", per_label=20)
    keys = ["data.root=shapes", *FAST, "seed=range(0,4)", "hydra/launcher=ray", *more]
    address = f"hydra.launcher.init.address={cluster.address}"
    process = start("train", "-m", *keys, address, cwd=tmp_path, OMP_NUM_THREADS="1")
    return process, [RunDirectory(tmp_path / f"outputs/default/original/seed={seed}") for seed in range(4)]


@pytest.mark.slow
def test_all_runs_finish_though_a_node_dies_in_mid_sweep(cluster: Any, tmp_path: Path) -> None:
    process, runs = sweep(cluster, tmp_path, "recipe.epochs=40", "trainer.check_val_every_n_epoch=40")
    try:
        wait_for(lambda: sum(run.checkpoint.exists() for run in runs) >= 2 or process.poll() is not None)
        cluster.remove_node(cluster.second, allow_graceful=False)
        out, err = process.communicate(timeout=2 * TIMEOUT)
    finally:
        process.kill()
    assert process.returncode == 0, out + err
    assert [run.status for run in runs] == ["finished"] * 4
    assert "4 finished" in out
    assert err.count("is lost; trying it again") == 1
    assert "resuming from" in out + err, "the run of that node goes on from its last epoch"
    assert len({run.read()["pid"] for run in runs}) <= 3, "actors stay"


@pytest.mark.slow
def test_a_signal_interrupts_the_runs_on_all_nodes(cluster: Any, tmp_path: Path) -> None:
    process, runs = sweep(cluster, tmp_path, "recipe.epochs=4000")
    try:
        wait_for(lambda: sum(run.checkpoint.exists() for run in runs) >= 2 or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143, out + err
    assert sorted(run.status for run in runs) == ["", "", "interrupted", "interrupted"]
    for run in runs[:2]:
        assert not os.path.exists(f"/proc/{run.read()['pid']}")
