"""The DataModule: what is in a batch, who trains, who is held out, and with which labels."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mlfix_train.data.arms import Arm
from mlfix_train.data.fixes.table import match_fixes
from mlfix_train.data.loading.augment import IMAGENET_MEAN, IMAGENET_STD
from mlfix_train.data.loading.datamodule import DataModule
from mlfix_train.data.loading.spec import AugmentSpec, LoaderSpec
from mlfix_train.data.pixels.decode import decode_image
from mlfix_train.data.pixels.spec import PixelSpec
from mlfix_train.data.readers.folder import read_folder
from mlfix_train.data.splits import SplitSpec, draw_split
from mlfix_train.errors import ConfigError, DataError

COUNTS = {"stop": 20, "yield": 14, "parking": 6}
SMALL = LoaderSpec(batch_size=4, eval_batch_size=3, sampling="shuffled")


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    for label, n in COUNTS.items():
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 256, (10, 13, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{i:02d}.png")
    return read_folder(tmp_path / "data")


@pytest.fixture
def held_out(table: pd.DataFrame) -> np.ndarray:
    return draw_split(table, SplitSpec(0.25, seed=1))


@pytest.fixture
def build(table: pd.DataFrame, held_out: np.ndarray, tmp_path: Path):
    def make(**how: object) -> DataModule:
        settings = {"table": table, "held_out": held_out, "cache": tmp_path / "cache", "loader": SMALL, **how}
        data = DataModule(pixels=PixelSpec(size=8), **settings)
        data.prepare_data()
        data.setup()
        return data

    return make


def fixes_of(table: pd.DataFrame, answers: dict[str, str], *allow: str) -> pd.DataFrame:
    frame = pd.DataFrame({"sample_id": list(answers), "new_label": list(answers.values()), "old_label": ""})
    return match_fixes(frame.assign(row=range(2, len(frame) + 2)), table, allow)


def rows_and_labels(loader: object, data: DataModule) -> dict[int, str]:
    pairs = {}
    for batch in loader:
        for index, label in zip(batch["index"].tolist(), batch["label"].tolist(), strict=True):
            assert index not in pairs
            pairs[index] = data.labels[label]
    return pairs


def test_batch_contract(build, table: pd.DataFrame) -> None:
    data = build()
    assert data.labels == ["parking", "stop", "yield"]
    for loader, size in ((data.train_dataloader(), 4), (data.val_dataloader(), 3)):
        for batch in loader:
            assert set(batch) == {"image", "label", "index"}
            assert batch["image"].dtype == torch.uint8 and batch["image"].shape[1:] == (3, 8, 8)
            assert batch["label"].dtype == batch["index"].dtype == torch.int64
            assert len(batch["image"]) == len(batch["label"]) == len(batch["index"]) <= size
            for image, label, index in zip(batch["image"], batch["label"], batch["index"], strict=True):
                picture = decode_image(table["path"].iloc[int(index)], 8)
                assert (image.permute(1, 2, 0).numpy() == picture).all()
                assert data.labels[int(label)] == table["label"].iloc[int(index)]


def test_sides(build, table: pd.DataFrame, held_out: np.ndarray) -> None:
    data = build()
    assert data.train_rows.tolist() == np.flatnonzero(~held_out).tolist()
    held = rows_and_labels(data.val_dataloader(), data)
    assert sorted(held) == np.flatnonzero(held_out).tolist()
    assert set(rows_and_labels(data.train_dataloader(), data)) <= set(np.flatnonzero(~held_out).tolist())
    assert len(data.train_dataloader()) == (~held_out).sum() // 4


def test_workers_give_the_same(build) -> None:
    alone = build()
    other = build(loader=LoaderSpec(batch_size=4, eval_batch_size=3, sampling="shuffled", workers=1))
    for name in ("train_dataloader", "val_dataloader"):
        for a, b in zip(getattr(alone, name)(), getattr(other, name)(), strict=True):
            assert all(torch.equal(a[key], b[key]) for key in a)


def test_unreadable_images_are_on_neither_side(
    build,
    table: pd.DataFrame,
    held_out: np.ndarray,
) -> None:
    bad = [np.flatnonzero(held_out)[2], np.flatnonzero(~held_out)[5]]
    for row in bad:
        Path(table["path"].iloc[row]).write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 40 images can't be read"):
        build()
    data = build(max_unreadable=0.1)
    assert set(data.train_rows) == set(np.flatnonzero(~held_out)) - set(bad)
    assert set(rows_and_labels(data.val_dataloader(), data)) == set(np.flatnonzero(held_out)) - set(bad)
    assert [data.labels[code] for code in data.train_labels] == table["label"].iloc[data.train_rows].tolist()


def test_arms(build, table: pd.DataFrame, held_out: np.ndarray) -> None:
    train, held = table.index[~held_out], table.index[held_out]
    answers = {train[0]: "yield", train[1]: "invalid", train[-1]: "invalid", held[0]: "stop", held[1]: "invalid"}
    fixes = fixes_of(table, answers)
    modules = {arm: build(arm=Arm(arm, fixes), seed=3) for arm in ("original", "fixed", "control")}
    given = {row: table["label"].iloc[row] for row in np.flatnonzero(held_out)}
    for arm, data in modules.items():
        assert data.labels == ["parking", "stop", "yield"], arm
        assert rows_and_labels(data.val_dataloader(), data) == given, "held-out samples keep their given labels"
    fixed = modules["fixed"]
    trained = dict(zip(table.index[fixed.train_rows], (fixed.labels[c] for c in fixed.train_labels), strict=True))
    wanted = table["label"][~held_out].to_dict() | answers
    assert trained == {name: wanted[name] for name in train if wanted[name] != "invalid"}
    assert len(modules["original"].train_rows) - len(modules["control"].train_rows) == 2
    assert len(build(arm=Arm("control", fixes), seed=4).train_rows) == len(modules["control"].train_rows)


def test_a_new_label_is_in_the_list_of_every_arm(build, table: pd.DataFrame, held_out: np.ndarray) -> None:
    fixes = fixes_of(table, {table.index[~held_out][0]: "octagon"}, "new_labels")
    for arm in ("original", "fixed", "control"):
        data = build(arm=Arm(arm, fixes))
        assert data.labels == ["octagon", "parking", "stop", "yield"]
        codes = set(data.train_labels.tolist())
        assert codes == ({0, 1, 2, 3} if arm == "fixed" else {1, 2, 3})
        assert data.val_labels.min() >= 1


def test_a_label_that_vanishes_stays_in_the_list(build, table: pd.DataFrame) -> None:
    names = table.index[table["label"] == "parking"]
    data = build(arm=Arm("fixed", fixes_of(table, dict.fromkeys(names, "invalid"), "empty_labels")))
    assert data.labels == ["parking", "stop", "yield"] and set(data.train_labels.tolist()) == {1, 2}


def training(epoch: int = 0, rank: int = 0) -> SimpleNamespace:
    return SimpleNamespace(training=True, current_epoch=epoch, global_rank=rank, world_size=1)


def test_normalised_after_the_transfer(build) -> None:
    data = build(augmentation=AugmentSpec())
    batch = next(iter(data.val_dataloader()))
    wanted = (batch["image"].numpy() / 255.0 - np.reshape(IMAGENET_MEAN, (3, 1, 1))) / np.reshape(
        IMAGENET_STD, (3, 1, 1)
    )
    for trainer in (None, SimpleNamespace(**{**vars(training()), "training": False})):
        data.trainer = trainer
        after = data.on_after_batch_transfer(batch, 0)
        assert after["image"].dtype == torch.float32 and np.abs(after["image"].numpy() - wanted).max() < 1e-5
        assert after["label"] is batch["label"] and after["index"] is batch["index"]
    assert batch["image"].dtype == torch.uint8


def test_the_statistics_are_those_of_the_backbone(build) -> None:
    """A backbone that was pretrained with mean and standard deviation 0.5 gets images in -1..1."""
    data = build(mean=(0.5, 0.5, 0.5), std=[0.5, 0.5, 0.25])
    batch = next(iter(data.val_dataloader()))
    wanted = (batch["image"].numpy() / 255.0 - 0.5) / np.reshape([0.5, 0.5, 0.25], (3, 1, 1))
    assert np.abs(data.on_after_batch_transfer(batch, 0)["image"].numpy() - wanted).max() < 1e-5


def test_augmentation_can_be_off(build) -> None:
    assert build(augmentation=AugmentSpec(enabled=False)).augmentation is None


def test_augmented_in_training_alone(build) -> None:
    data = build(augmentation=AugmentSpec(), seed=1)
    batch = next(iter(data.val_dataloader()))

    def epoch(module: DataModule, number: int, rank: int = 0) -> list[torch.Tensor]:
        module.trainer = training(number, rank)
        return [module.on_after_batch_transfer(batch, 0)["image"] for _ in range(3)]

    plain = build(augmentation=None, seed=1)
    first = epoch(data, 0)
    assert not torch.allclose(first[0], epoch(plain, 0)[0], atol=0.01)
    changes = [
        *first,
        *epoch(data, 1),
        *epoch(build(augmentation=AugmentSpec(), seed=1), 0, rank=1),
        *epoch(build(augmentation=AugmentSpec(), seed=2), 0),
    ]
    assert len({image.numpy().tobytes() for image in changes}) == len(changes), "never the same twice"
    resumed = epoch(build(augmentation=AugmentSpec(), seed=1), 1)
    assert all(torch.equal(a, b) for a, b in zip(resumed, changes[3:6], strict=True)), "resumed at the second epoch"


def test_errors(build, table: pd.DataFrame, held_out: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"40 of 40 samples have no label"):
        build(table=table.assign(label=None))
    with pytest.raises(DataError, match=r"have one label, 'a'"):
        build(table=table.assign(label="a"))
    everything = np.ones(40, dtype=bool)
    everything[0] = False
    with pytest.raises(DataError, match=r"fewer than two readable samples"):
        build(held_out=everything)
    for key, value in (("batch_size", 1), ("eval_batch_size", 0), ("workers", -1)):
        with pytest.raises(ConfigError, match=rf"^{key}={value} is out of range"):
            LoaderSpec(**{key: value})
    for row in np.flatnonzero(held_out):
        Path(table["path"].iloc[row]).write_bytes(b"")
    with pytest.raises(DataError, match=r"no held-out sample is readable"):
        build(max_unreadable=1.0)
