"""Compiling the network in a training: falls back to eager, and leaves no trace."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from shapes import FAST, SORTING

from mlfix_train.models import compile as compiling


def predictions(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "predictions.parquet").set_index("sample_id").sort_index()


def test_what_cannot_be_compiled_runs_eagerly_with_one_warning(
    shapes: Path, tmp_path: Path, mlfix, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler on this machine")

    monkeypatch.setattr(torch, "compile", lambda *_: fails)
    keys = ("train", f"data.root={shapes}", f"outputs={tmp_path}", *FAST)
    answer = mlfix(*keys, "model.compile=true", "name=broken")
    assert answer.code == 0, answer.err
    assert answer.err.count("cannot be compiled (RuntimeError: no compiler on this machine), so it runs eagerly") == 1
    monkeypatch.undo()
    assert mlfix(*keys, "model.compile=false", "name=plain").code == 0
    pair = [predictions(tmp_path / f"{name}/original/seed=0") for name in ("broken", "plain")]
    pd.testing.assert_frame_equal(*pair)


@pytest.mark.slow
def test_a_dry_run_leaves_no_trace(shapes: Path, tmp_path: Path, mlfix, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled network that is the network itself gives the very predictions of a plain one."""
    tried: list[tuple[int, ...]] = []
    real = compiling.dry_run
    monkeypatch.setattr(compiling, "dry_run", lambda *a: tried.append(a[1]) or real(*a))
    monkeypatch.setattr(torch, "compile", lambda forward: forward)
    for settings, name, shape in ((FAST, "small", (16, 3, 16, 16)), (SORTING, "sorting", (32, 3, 16, 16))):
        found = []
        for wanted in ("true", "false"):
            answer = mlfix(
                "train",
                f"data.root={shapes}",
                f"outputs={tmp_path}",
                *settings,
                f"name={name}{wanted}",
                f"model.compile={wanted}",
            )
            assert answer.code == 0, answer.err
            table = pd.read_csv(next((tmp_path / f"{name}{wanted}").glob("*/seed=0")) / "metrics.csv")
            found.append(table.drop(columns=["seconds", "samples_per_second"]))
        assert tried.pop() == shape and not tried
        pd.testing.assert_frame_equal(*found)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("settings", [FAST, SORTING], ids=["classifier", "sorting network"])
def test_a_training_by_cuda_graphs_learns_the_same(
    settings: tuple[str, ...], shapes: Path, tmp_path: Path, mlfix
) -> None:
    found = []
    for wanted in ("auto", "false"):
        keys = [key for key in settings if "accelerator" not in key]
        keys += [f"data.root={shapes}", f"outputs={tmp_path}", f"name=graph-{wanted}", f"model.cuda_graph={wanted}"]
        answer = mlfix("train", *keys)
        assert answer.code == 0, answer.err
        assert "graph" not in answer.err.replace(f"graph-{wanted}", "")
        table = pd.read_csv(next((tmp_path / f"graph-{wanted}").glob("*/seed=0")) / "metrics.csv")
        found.append(table.drop(columns=["seconds", "samples_per_second"]))
    pd.testing.assert_frame_equal(*found, rtol=1e-2)
