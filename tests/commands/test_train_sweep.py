"""`mlfix train -m`: what is printed, and when a sweep counts as a success."""

from __future__ import annotations

from pathlib import Path

import pytest
from shapes import FAST, draw_shapes

from mlfix_train.data.runs import RunDirectory


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("sweep")
    draw_shapes(work / "shapes", per_label=20)
    return work


def keys(data: Path, out: Path, *more: str) -> list[str]:
    return [f"data.root={data}/shapes", f"outputs={out}", *FAST, *more]


@pytest.mark.parametrize("jobs", ["0", "-1", "many", "1.5", "true"])
def test_jobs_is_a_number_or_gpus(jobs: str, data: Path, tmp_path: Path, mlfix) -> None:
    answer = mlfix("train", "-m", *keys(data, tmp_path, "seed=0,1", f"jobs={jobs}"))
    assert answer.code == 2
    assert f"jobs={jobs}".lower() in answer.err.lower() and "->" in answer.err


def test_a_broken_run_does_not_stop_the_rest(data: Path, tmp_path: Path, mlfix) -> None:
    broken = RunDirectory(tmp_path / "default/original/seed=1")
    broken.path.mkdir(parents=True)
    (broken.path / "run.json").write_text("{")
    answer = mlfix("train", "-m", *keys(data, tmp_path, "seed=0,1,2", "recipe.epochs=1"))
    assert answer.code == 1
    assert "run.json can't be read" in answer.err
    for seed in (0, 2):
        assert RunDirectory(tmp_path / f"default/original/seed={seed}").status == "finished"
    assert "2 finished" in answer.out and "the same command continues" in answer.out


@pytest.mark.slow
def test_a_refused_run_is_no_success(data: Path, tmp_path: Path, mlfix) -> None:
    """The runs are there, finished, but of other settings than were asked for."""
    base = keys(data, tmp_path / "o", "seed=0,1", "recipe.epochs=1")
    assert mlfix("train", "-m", *base).code == 0
    answer = mlfix("train", "-m", *base[:-1], "recipe.epochs=2")
    assert answer.code == 1
    assert "recipe.epochs: 1 -> 2" in answer.err
    assert "2 could not be trained as requested" in answer.out


def test_a_mistyped_range_is_an_error_before_anything_is_done(data: Path, tmp_path: Path, mlfix) -> None:
    answer = mlfix("train", "-m", *keys(data, tmp_path, "sed=range(0,2)"))
    assert answer.code == 2
    assert "unknown key sed" in answer.err and "did you mean seed?" in answer.err
    assert answer.out == ""
    assert not list(tmp_path.rglob("seed=*"))


@pytest.mark.slow
def test_the_runs_of_a_sweep_read_the_data_once(shapes: Path, tmp_path: Path, mlfix, monkeypatch) -> None:
    from mlfix_train.data.loading import datamodule
    from mlfix_train.data.readers import folder as readers

    calls: list[str] = []
    for module, name in ((readers, "read_folder"), (datamodule, "open_store")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, _real=real, _name=name, **k: calls.append(_name) or _real(*a, **k))
        getattr(module, name).__signature__ = __import__("inspect").signature(real)
    answer = mlfix("train", "-m", f"data.root={shapes}", f"outputs={tmp_path}", *FAST, "seed=0,1,2", "recipe.epochs=1")
    assert answer.code == 0, answer.err
    assert calls == ["read_folder", "open_store"]
    mlfix("train", f"data.root={shapes}", f"outputs={tmp_path}", *FAST, "name=alone", "recipe.epochs=1")
    assert len(calls) == 4  # outside of a sweep nothing is kept
