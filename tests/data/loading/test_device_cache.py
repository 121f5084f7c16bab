"""Images held on the device: the very batches of the loader, shared by runs, and left where they don't fit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from mlfix_train.data import cache
from mlfix_train.data.loading import device_cache as resident
from mlfix_train.data.loading.datamodule import DataModule, LoaderSpec
from mlfix_train.data.loading.view_datamodule import ViewData
from mlfix_train.data.pixels.store import PixelSpec
from mlfix_train.data.readers.folder import read_folder
from mlfix_train.errors import ConfigError


@pytest.fixture(autouse=True)
def nothing_held() -> None:
    resident._held.clear()
    resident._said.clear()


def modules(shapes: Path, work: Path, rank: int = 0, world: int = 1, **more: object) -> tuple[DataModule, DataModule]:
    table = read_folder(shapes)
    held_out = np.arange(len(table)) % 5 == 0
    found = []
    for wanted in (False, True):
        loader = LoaderSpec(batch_size=8, eval_batch_size=16, resident=wanted, **more)
        data = DataModule(table, held_out, work / "cache", pixels=PixelSpec(16), loader=loader, seed=3)
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world, strategy=strategy, training=False)
        data.setup()
        found.append(data)
    return found[0], found[1]


@pytest.mark.parametrize("sampling", ["balanced", "shuffled"])
@pytest.mark.parametrize(("rank", "world"), [(0, 1), (0, 3), (2, 3)])
def test_batches_are_those_of_the_loader(shapes: Path, tmp_path: Path, sampling: str, rank: int, world: int) -> None:
    plain, held = modules(shapes, tmp_path, rank, world, sampling=sampling)
    for name in ("train_dataloader", "val_dataloader"):
        ours, theirs = getattr(held, name)(), getattr(plain, name)()
        assert isinstance(ours, resident.ResidentBatches) and not isinstance(theirs, resident.ResidentBatches)
        for epoch in (0, 1):
            for loader in (ours, theirs):
                if hasattr(loader.sampler, "set_epoch"):
                    loader.sampler.set_epoch(epoch)
            pairs = list(zip(ours, theirs, strict=True))
            assert len(pairs) == len(ours) == len(theirs)
            for a, b in pairs:
                assert list(a) == list(b)
                assert all(torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)


@pytest.mark.parametrize("model", ["small", "sorting"])
def test_a_run_is_the_same_either_way(shapes: Path, tmp_path: Path, mlfix, model: str) -> None:
    from shapes import FAST, SORTING

    settings = FAST if model == "small" else SORTING
    metrics = []
    for wanted in ("false", "true"):
        answer = mlfix("train", f"data.root={shapes}", f"outputs={tmp_path}", *settings, f"name={model}{wanted}",
                       f"loader.resident={wanted}")  # fmt: skip
        assert answer.code == 0, answer.err
        run = next((tmp_path / f"{model}{wanted}").glob("*/seed=0"))
        table = pd.read_csv(run / "metrics.csv")
        metrics.append(table.drop(columns=["seconds", "samples_per_second"]))
    pd.testing.assert_frame_equal(*metrics)


def test_by_itself_it_holds_images_on_gpus_alone(shapes: Path, tmp_path: Path) -> None:
    store = modules(shapes, tmp_path)[0].store
    assert resident.hold(store, torch.device("cpu"), "auto") is None
    images = resident.hold(store, torch.device("cpu"), True)
    assert images is not None and torch.equal(images, torch.from_numpy(store[:]))
    assert resident.hold(store, torch.device("cpu"), True) is images  # the next run of a sweep
    with pytest.raises(ConfigError, match=r"loader\.resident=maybe"):
        LoaderSpec(resident="maybe")


def test_what_does_not_fit_is_read_and_said_once(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, held = modules(shapes, tmp_path)
    monkeypatch.setattr(resident, "free_memory", lambda device: 1000)
    for _ in range(3):
        assert not isinstance(held.train_dataloader(), resident.ResidentBatches)
    said = [record.getMessage() for record in caplog.records if "batch by batch" in record.getMessage()]
    assert len(said) == 1 and "more than 50%" in said[0]
    monkeypatch.undo()

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch, "empty", full)
    assert resident.hold(held.store, torch.device("cpu"), True) is None


def test_views_of_two_frames_are_those_of_the_loader(shapes: Path, tmp_path: Path) -> None:
    from mlfix_train.data.loading.views import ViewSpec

    table = read_folder(shapes)
    table["group"] = [f"{name.split('/')[0]}/{int(name[-7:-4]) // 4}" for name in table.index]
    found = []
    for wanted in (False, True):
        data = ViewData(table, tmp_path / "c", PixelSpec(16), LoaderSpec(8, resident=wanted), ViewSpec(partner="group"))
        data.trainer = SimpleNamespace(
            strategy=SimpleNamespace(root_device=torch.device("cpu")), global_rank=0, world_size=1
        )
        data.setup()
        batch = next(iter(data.train_dataloader()))
        found.append((batch["image"], data._partners(batch, 5)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_runs_of_a_sweep_share_what_is_made_once() -> None:
    made: list[int] = []

    def make() -> object:
        made.append(1)
        return object()

    assert cache.cached("a", make) is not cache.cached("a", make)
    cache.enable_cache()
    try:
        first = cache.cached("a", make)
        assert cache.cached("a", make) is first
        for number in range(cache.KEPT):
            cache.cached(number, make)
        assert cache.cached("a", make) is not first  # the oldest went
    finally:
        cache.enable_cache(False)
    assert len(made) == 2 + 1 + cache.KEPT + 1
