"""What makes runs quick: processes that stay, runs side by side, compiling; profiles; what is said where it fails."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from shapes import FAST, SORTING, draw_shapes, start

from mlfix_train.config import build as config
from mlfix_train.data.runs import RunDirectory
from mlfix_train.errors import RunError
from mlfix_train.models import compile as compiling
from mlfix_train.training import trainer as trainers


def predictions(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "predictions.parquet").set_index("sample_id").sort_index()


def test_runs_side_by_side_are_those_alone_and_share_a_process(tmp_path: Path) -> None:
    """Four seeds by two processes: each trains two; the results are those of a seed alone, within rounding."""
    draw_shapes(tmp_path / "shapes", per_label=20)
    keys = [f"data.root={tmp_path}/shapes", *FAST]
    process = start("train", "-m", *keys, "seed=range(0,4)", "trainer.parallel_runs=2", "name=together", cwd=tmp_path)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    runs = [RunDirectory(tmp_path / f"outputs/together/original/seed={seed}") for seed in range(4)]
    assert len({run.read()["pid"] for run in runs}) == 2
    process = start("train", *keys, "seed=3", "name=alone", cwd=tmp_path)
    assert process.wait(120) == 0, process.communicate()
    together, alone = predictions(runs[3].path), predictions(tmp_path / "outputs/alone/original/seed=3")
    assert (together["pred"] == alone["pred"]).all()
    np.testing.assert_allclose(together["loss"], alone["loss"], rtol=2e-3, atol=1e-5)
    again = start("train", "-m", *keys, "seed=range(0,4)", "trainer.parallel_runs=2", "name=together", cwd=tmp_path)
    out, err = again.communicate(timeout=120)
    assert out.count("skipped") == 4


def test_the_runs_of_a_sweep_look_at_the_data_once(shapes: Path, tmp_path: Path, mlfix, monkeypatch) -> None:
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


def test_a_worker_that_is_stopped_is_replaced(tmp_path: Path) -> None:
    """Ctrl-C to one process alone ends that process; the others' runs and the rest of the sweep go on."""
    draw_shapes(tmp_path / "shapes", per_label=20)
    keys = [f"data.root={tmp_path}/shapes", *FAST, "recipe.epochs=30", "trainer.check_val_every_n_epoch=30"]
    process = start(
        "train", "-m", *keys, "seed=range(0,5)", "trainer.parallel_runs=2", cwd=tmp_path, OMP_NUM_THREADS="1"
    )
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


def test_wrong_values_are_named(shapes: Path, tmp_path: Path, mlfix) -> None:
    for key, told in (
        ("model.fast_convs=maybe", "model.fast_convs"),
        ("model.compile=maybe", "model.compile=maybe"),
        ("loader.resident=maybe", "loader.resident=maybe"),
        ("loader.resident=0", "loader.resident=0"),
        ("model.fast_convs=1", "model.fast_convs"),
        ("model.compile=1", "model.compile=1"),
        ("trainer.profile_steps=-1", "trainer.profile_steps"),
        ("trainer.accelerator=gpu", "trainer"),
    ):
        if key.endswith("gpu") and torch.cuda.is_available():
            continue
        settings = [entry for entry in FAST if not entry.startswith("trainer.acc")]
        answer = mlfix("train", f"data.root={shapes}", f"outputs={tmp_path}", *settings, "+" * ("profile" in key) + key)
        assert answer.code == 2 and told in answer.err and "->" in answer.err, (key, answer.err)
    answer = mlfix(
        "train", "-m", f"data.root={shapes}", f"outputs={tmp_path}", *FAST, "seed=0,1", "trainer.parallel_runs=0"
    )
    assert answer.code == 2 and "trainer.parallel_runs=0" in answer.err


# Compiling


def test_what_cant_be_compiled_runs_without_and_is_said_once(
    shapes: Path, tmp_path: Path, mlfix, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler on this machine")

    monkeypatch.setattr(torch, "compile", lambda *args: fails)
    keys = ("train", f"data.root={shapes}", f"outputs={tmp_path}", *FAST)
    answer = mlfix(*keys, "model.compile=true", "name=broken")
    assert answer.code == 0, answer.err
    assert answer.err.count("cannot be compiled (RuntimeError: no compiler on this machine), so it runs eagerly") == 1
    monkeypatch.undo()
    assert mlfix(*keys, "model.compile=false", "name=plain").code == 0
    pair = [predictions(tmp_path / f"{name}/original/seed=0") for name in ("broken", "plain")]
    pd.testing.assert_frame_equal(*pair)


def test_a_dry_run_leaves_no_trace(shapes: Path, tmp_path: Path, mlfix, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled network that is the network itself gives the very predictions of a plain one."""
    tried: list[tuple[int, ...]] = []
    real = compiling.dry_run
    monkeypatch.setattr(compiling, "dry_run", lambda *a: tried.append(a[1]) or real(*a))
    monkeypatch.setattr(torch, "compile", lambda forward: forward)
    for settings, name, shape in ((FAST, "small", (16, 3, 16, 16)), (SORTING, "sorting", (32, 3, 16, 16))):
        found = []
        for wanted in ("true", "false"):
            answer = mlfix("train", f"data.root={shapes}", f"outputs={tmp_path}", *settings, f"name={name}{wanted}",
                           f"model.compile={wanted}")  # fmt: skip
            assert answer.code == 0, answer.err
            table = pd.read_csv(next((tmp_path / f"{name}{wanted}").glob("*/seed=0")) / "metrics.csv")
            found.append(table.drop(columns=["seconds", "samples_per_second"]))
        assert tried.pop() == shape and not tried
        pd.testing.assert_frame_equal(*found)


# Memory


def test_out_of_memory_names_the_key_and_the_batch_that_fits(
    shapes: Path, tmp_path: Path, mlfix, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlfix_train.models.backbones.network import Network

    real = Network.forward

    def short(self: Network, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return real(self, images)

    monkeypatch.setattr(Network, "forward", short)
    answer = mlfix("train", f"data.root={shapes}", f"outputs={tmp_path}", *FAST)
    assert answer.code == 1
    assert "loader.batch_size=16: CUDA out of memory" in answer.err
    assert "loader.batch_size=4 fits" in answer.err
    assert RunDirectory(tmp_path / "default/original/seed=0").status == "failed"
    for error in (ValueError("another"), RuntimeError("another")):
        with pytest.raises(type(error), match="another"), trainers.enough_memory(None, None, None):
            raise error


@pytest.mark.parametrize(
    "words", ["DefaultCPUAllocator: can't allocate memory: you tried", "not enough memory: you tried"]
)
def test_a_cpu_without_memory_is_told_alike(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple] = []
    monkeypatch.setattr(compiling, "largest_batch", lambda *a: asked.append(a[1:]) or 0)
    sizes = SimpleNamespace(loader=SimpleNamespace(batch_size=8, eval_batch_size=16), pixels=SimpleNamespace(size=40))
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    fit = SimpleNamespace(strategy=strategy, optimizers=[], validating=False)
    with pytest.raises(RunError, match="not even two samples fit"), trainers.enough_memory(fit, None, sizes, 2):
        raise RuntimeError(words)
    assert asked == [(torch.device("cpu"), 40, 8, 2)]
    fit.validating = True
    with pytest.raises(RunError, match=r"loader\.eval_batch_size=16"), trainers.enough_memory(fit, None, sizes):
        raise torch.OutOfMemoryError("no")


# Profiles


@pytest.mark.parametrize("settings", [FAST, SORTING])
def test_a_profile_tells_where_the_time_goes(shapes: Path, tmp_path: Path, mlfix, settings: tuple[str, ...]) -> None:
    keys = ("train", f"data.root={shapes}", f"outputs={tmp_path}", *settings)
    assert mlfix(*keys, "trainer=profile", "trainer.profile_steps=2", "name=profiled").code == 0
    assert mlfix(*keys, "name=plain").code == 0
    run, plain = (next((tmp_path / name).glob("*/seed=0")) for name in ("profiled", "plain"))
    text = (run / "profile/profile.md").read_text()
    assert "2 steps of" in text and "GFLOP a step" in text and "| operation |" in text and "convolution" in text
    assert json.loads((run / "profile/trace.json").read_text())["traceEvents"]
    columns = ["seconds", "samples_per_second"]
    tables = [pd.read_csv(place / "metrics.csv").drop(columns=columns) for place in (run, plain)]
    pd.testing.assert_frame_equal(*tables)  # looking changes nothing


def test_a_training_too_short_for_a_profile_says_so_and_old_ones_go(shapes: Path, tmp_path: Path, mlfix) -> None:
    keys = ("train", f"data.root={shapes}", f"outputs={tmp_path}", *FAST)
    assert mlfix(*keys, "trainer=profile", "trainer.profile_steps=1").code == 0
    folder = tmp_path / "default/original/seed=0/profile"
    assert folder.is_dir()
    answer = mlfix(*keys, "trainer=profile", "trainer.profile_steps=100", "overwrite=true")
    assert "no step was profiled" in answer.err and not folder.exists()


def test_flops_are_counted_right() -> None:
    """Forward and back of two layers, by hand: 2 * M * N * K each, the input's gradient left out."""
    from contextlib import nullcontext

    from mlfix_train.training.profile import count_step

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.nn.ReLU(), torch.nn.Flatten(),
                                  torch.nn.Linear(8 * 36, 5, bias=False))  # fmt: skip
    plugin = SimpleNamespace(forward_context=nullcontext)
    module = SimpleNamespace(network=network, trainer=SimpleNamespace(precision_plugin=plugin))
    flops, moved = count_step(module, torch.randn(4, 3, 6, 6))
    convolution, product = 2 * 4 * 36 * 8 * 27, 2 * 4 * 288 * 5
    assert flops == 2 * convolution + 3 * product
    assert moved == 3 * (4 * 8 * 36 + 4 * 5) * 4 + (8 * 27 + 288 * 5) * 4 * 10


def test_the_presets_compose() -> None:
    cfg = config.compose("train", ["data.root=x", "trainer=profile"])
    assert (cfg.trainer.profile_steps, cfg.trainer.parallel_runs, cfg.model.fast_convs) == (10, 1, "auto")


def test_processes_may_be_spawned(tmp_path: Path) -> None:
    draw_shapes(tmp_path / "shapes", per_label=12)
    keys = [f"data.root={tmp_path}/shapes", *FAST, "recipe.epochs=1", "loader.batch_size=8", "loader.resident=true"]
    process = start(
        "train", *keys, "trainer.devices=2", "trainer.strategy=ddp_spawn", cwd=tmp_path, OMP_NUM_THREADS="1"
    )
    _, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert len(predictions(tmp_path / "outputs/default/original/seed=0")) == 6
