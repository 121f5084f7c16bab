"""Images cached on the device: the same batches as a loader's, shared by a sweep's runs, released after a fit."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch

from mlfix_train.data import cache
from mlfix_train.data.loading import device_cache
from mlfix_train.data.loading.datamodule import DataModule
from mlfix_train.data.loading.spec import LoaderSpec, ViewSpec
from mlfix_train.data.loading.views import ViewDataModule
from mlfix_train.data.pixels.spec import PixelSpec
from mlfix_train.data.readers.folder import read_folder
from mlfix_train.errors import ConfigError


@pytest.fixture
def sweep() -> Iterator[None]:
    """As if several runs were trained in this process."""
    cache.enable_cache()
    yield
    cache.enable_cache(False)


def modules(shapes: Path, work: Path, rank: int = 0, world: int = 1, **more: object) -> tuple[DataModule, DataModule]:
    table = read_folder(shapes)
    held_out = np.arange(len(table)) % 5 == 0
    found = []
    for wanted in (False, True):
        loader = LoaderSpec(batch_size=8, eval_batch_size=16, cache_on_device=wanted, **more)
        data = DataModule(table, held_out, work / "cache", pixels=PixelSpec(16), loader=loader, seed=3)
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world, strategy=strategy, training=False)
        data.setup()
        found.append(data)
    return found[0], found[1]


@pytest.mark.parametrize("sampling", ["balanced", "shuffled"])
@pytest.mark.parametrize(("rank", "world"), [(0, 1), (0, 3), (2, 3)])
def test_batches_are_those_of_the_loader(shapes: Path, tmp_path: Path, sampling: str, rank: int, world: int) -> None:
    plain, cached = modules(shapes, tmp_path, rank, world, sampling=sampling)
    for name in ("train_dataloader", "val_dataloader"):
        ours, theirs = getattr(cached, name)(), getattr(plain, name)()
        assert isinstance(ours, device_cache.DeviceBatches) and not isinstance(theirs, device_cache.DeviceBatches)
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
        answer = mlfix(
            "train",
            f"data.root={shapes}",
            f"outputs={tmp_path}",
            *settings,
            f"name={model}{wanted}",
            f"loader.cache_on_device={wanted}",
        )
        assert answer.code == 0, answer.err
        run = next((tmp_path / f"{model}{wanted}").glob("*/seed=0"))
        table = pd.read_csv(run / "metrics.csv")
        metrics.append(table.drop(columns=["seconds", "samples_per_second"]))
    pd.testing.assert_frame_equal(*metrics)


def test_auto_caches_on_gpus_only(shapes: Path, tmp_path: Path) -> None:
    store = modules(shapes, tmp_path)[0].store
    assert device_cache.device_images(store, torch.device("cpu"), "auto") is None
    images = device_cache.device_images(store, torch.device("cpu"), True)
    assert images is not None and torch.equal(images, torch.from_numpy(store[:]))
    for value in ("maybe", 0, None):
        with pytest.raises(ConfigError, match=rf"cache_on_device={value} is not valid"):
            LoaderSpec(cache_on_device=value)


def test_runs_of_a_sweep_share_one_copy(shapes: Path, tmp_path: Path, sweep: None) -> None:
    store = modules(shapes, tmp_path)[0].store
    first = device_cache.device_images(store, torch.device("cpu"), True)
    assert device_cache.device_images(store, torch.device("cpu"), True) is first
    other = modules(shapes, tmp_path)[1]
    other.pixels = PixelSpec(12)
    del other.store
    other.prepare_data()
    assert device_cache.device_images(other.store, torch.device("cpu"), True).shape[1:] == (12, 12, 3)
    gone = weakref.ref(first)
    del first
    assert gone() is None, "one data set at a time"


def test_images_that_do_not_fit_are_read_with_one_warning(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, cached = modules(shapes, tmp_path)
    monkeypatch.setattr(device_cache, "free_memory", lambda device: 1000)
    for _ in range(3):
        assert not isinstance(cached.train_dataloader(), device_cache.DeviceBatches)
    messages = [record.getMessage() for record in caplog.records if "batch by batch" in record.getMessage()]
    assert len(messages) == 1 and "more than 50%" in messages[0]
    monkeypatch.undo()

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch, "empty", full)
    assert device_cache.device_images(cached.store, torch.device("cpu"), True) is None


def test_memory_is_free_again_after_fit(shapes: Path, tmp_path: Path) -> None:
    """The trainer keeps its loaders, and the user the DataModule; neither keeps the images."""

    class Model(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3 * 16 * 16, 3)

        def training_step(self, batch: dict[str, torch.Tensor], _: int) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(self.layer(batch["image"].flatten(1)), batch["label"])

        def validation_step(self, batch: dict[str, torch.Tensor], _: int) -> None:
            self.layer(batch["image"].flatten(1))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.01)

    table = read_folder(shapes)
    loader = LoaderSpec(batch_size=8, eval_batch_size=16, cache_on_device=True)
    data = DataModule(table, np.arange(len(table)) % 5 == 0, tmp_path / "cache", pixels=PixelSpec(16), loader=loader)
    held: list[weakref.ref[torch.Tensor]] = []

    class Watch(L.Callback):
        def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
            held.append(weakref.ref(data.device_images()))

    how = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", callbacks=[Watch()], **how)
    trainer.fit(Model(), data)
    gc.collect()
    assert held[0]() is None
    trainer.fit_loop.max_epochs = 2
    trainer.fit(Model(), data)  # and a second fit loads them again
    assert len(held) == 2


def test_views_of_two_frames_are_those_of_the_loader(shapes: Path, tmp_path: Path) -> None:
    table = read_folder(shapes)
    table["group"] = [f"{name.split('/')[0]}/{int(name[-7:-4]) // 4}" for name in table.index]
    found = []
    for wanted in (False, True):
        loader, views = LoaderSpec(8, cache_on_device=wanted), ViewSpec(positive_pair="group")
        data = ViewDataModule(table, tmp_path / "c", views, pixels=PixelSpec(16), loader=loader)
        data.trainer = SimpleNamespace(
            strategy=SimpleNamespace(root_device=torch.device("cpu")), global_rank=0, world_size=1
        )
        data.setup()
        batch = next(iter(data.train_dataloader()))
        found.append((batch["image"], data._images_of_same_groups(batch, 5)))
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
        for number in range(cache.MAX_ITEMS):
            cache.cached(number, make)
        assert cache.cached("a", make) is not first  # the oldest went
    finally:
        cache.enable_cache(False)
    assert len(made) == 2 + 1 + cache.MAX_ITEMS + 1
