"""Compiling the network in a training: falls back to eager, leaves no trace, and is chosen only where it helps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from shapes import FAST, SORTING

from mlfix_train.models import compile as compiling


def predictions(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "predictions.parquet").set_index("sample_id").sort_index()


def test_what_cant_be_compiled_runs_without_and_is_said_once(
    shapes: Path, tmp_path: Path, mlfix, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: torch.nn.Module, *_: object, **__: object) -> None:
        def fails(*_: object, **__: object) -> None:
            raise RuntimeError("no compiler on this machine")

        self._compiled_call_impl = fails

    monkeypatch.setattr(torch.nn.Module, "compile", broken)
    keys = ("train", f"data.root={shapes}", f"outputs={tmp_path}", *FAST)
    answer = mlfix(*keys, "model.compile=true", "name=broken")
    assert answer.code == 0, answer.err
    assert answer.err.count("can't be compiled (RuntimeError: no compiler on this machine): it runs without") == 1
    monkeypatch.undo()
    assert mlfix(*keys, "model.compile=false", "name=plain").code == 0
    pair = [predictions(tmp_path / f"{name}/original/seed=0") for name in ("broken", "plain")]
    pd.testing.assert_frame_equal(*pair)


def test_a_rehearsal_leaves_no_trace(shapes: Path, tmp_path: Path, mlfix, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled network that is the network itself gives the very predictions of a plain one."""
    rehearsed: list[tuple[int, ...]] = []
    real = compiling.rehearse
    monkeypatch.setattr(compiling, "rehearse", lambda *a: rehearsed.append(a[2]) or real(*a))

    def eager(self: torch.nn.Module, *_: object, **__: object) -> None:
        self._compiled_call_impl = self._call_impl

    monkeypatch.setattr(torch.nn.Module, "compile", eager)
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
        assert rehearsed.pop() == shape and not rehearsed
        pd.testing.assert_frame_equal(*found)


def test_auto_compiles_long_trainings_on_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    network = torch.nn.Linear(2, 2)
    monkeypatch.setattr(network, "compile", lambda: called.append(1))
    for device, steps in (("cpu", 10**6), ("cuda", 100), ("cuda", 5000)):
        fit = SimpleNamespace(estimated_stepping_batches=steps)
        compiling.settle(SimpleNamespace(trainer=fit, device=torch.device(device)), network, "auto")
    assert called == [1]
