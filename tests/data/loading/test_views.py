"""Views and the sorting network's DataModule: geometry, color, light, partners, and nothing that depends on luck."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mlfix_train.data.loading.spec import LoaderSpec, ViewSpec
from mlfix_train.data.loading.views import ViewDataModule, color_maps, crops, two_views, view
from mlfix_train.data.pixels.spec import PixelSpec
from mlfix_train.data.readers.folder import read_folder
from mlfix_train.errors import ConfigError, DataError

OFF = {"crop": 1.0, "aspect_ratio": 1.0, "rotate": 0.0, "warp": 0.0, "lighting": 0.0, "blur": 0.0}


def images(n: int, side: int = 12) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, 3, side, side), dtype=np.uint8))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def test_nothing_on_changes_nothing() -> None:
    batch = images(5)
    views = two_views(batch, ViewSpec(**OFF), 0)
    assert views.shape == (2, 5, 3, 12, 12) and views.dtype == torch.float32
    assert torch.allclose(views, (batch.float() / 255).expand(2, -1, -1, -1, -1), atol=1e-5)


def test_views_are_those_of_the_seed_and_differ_from_each_other() -> None:
    batch = images(6)
    kept = batch.clone()
    first = two_views(batch, ViewSpec(), 3)
    assert torch.equal(first, two_views(batch, ViewSpec(), 3)) and torch.equal(batch, kept)
    assert not torch.equal(first, two_views(batch, ViewSpec(), 4)) and not torch.equal(first[0], first[1])
    assert first.min() >= 0 and first.max() <= 1


def test_partners_are_what_the_second_view_is_of() -> None:
    batch, other = images(4), images(4).flip(0)
    views = two_views(batch, ViewSpec(**OFF), 0, other)
    assert torch.allclose(views[0] * 255, batch.float(), atol=1e-3)
    assert torch.allclose(views[1] * 255, other.float(), atol=1e-3)


def test_crops_lie_inside_and_have_the_area_they_say() -> None:
    spec = ViewSpec(crop=0.3, aspect_ratio=1.5)
    maps = crops(4000, spec.crop, spec.aspect_ratio, spec.flip, generator())
    width, height = maps[:, 0, 0], maps[:, 1, 1]
    assert ((maps[:, :2, 2].abs() + torch.stack([width, height], 1)) <= 1 + 1e-5).all()
    area = width * height
    assert area.max() <= 1 and area.min() >= 0.3 / 1.5  # a side that would be too long is cut
    free = (width < 1) & (height < 1)
    ratio = (width / height)[free]
    assert ratio.max() <= 1.5 + 1e-4 and ratio.min() >= 1 / 1.5 - 1e-4
    rng = np.random.default_rng(0)
    wanted, stretch = rng.uniform(0.3, 1, 100_000), np.exp(rng.uniform(-1, 1, 100_000) * np.log(1.5))
    by_hand = np.minimum(np.sqrt(wanted * stretch), 1) * np.minimum(np.sqrt(wanted / stretch), 1)
    assert area.mean() == pytest.approx(by_hand.mean(), abs=0.01)


def test_a_flip_mirrors_and_is_off_by_itself() -> None:
    batch = images(300)
    x = batch.float() / 255
    assert (crops(500, 0.6, 1.33, 0.0, generator())[:, 0, 0] > 0).all()
    views = view(x, ViewSpec(**{**OFF, "flip": 1.0}), 1)
    assert torch.allclose(views, x.flip(3), atol=1e-5)
    share = (crops(4000, 0.6, 1.33, 0.25, generator())[:, 0, 0] < 0).float().mean()
    assert share == pytest.approx(0.25, abs=0.03)


def test_color_is_kept_unless_it_need_not_be() -> None:
    batch = images(64)
    kept = view(batch.float() / 255, ViewSpec(**OFF), 0)
    assert torch.allclose(kept, batch.float() / 255, atol=1e-5)
    changed = view(batch.float() / 255, ViewSpec(**OFF, keep_color=False), 0)
    assert (changed - kept).abs().mean() > 0.02


def test_color_maps_leave_greys_and_brightness_alone() -> None:
    maps = color_maps(500, ViewSpec(keep_color=False, gray=0.3), generator())
    assert torch.allclose(maps @ torch.ones(3), torch.ones(500, 3), atol=2e-3)
    luma = torch.tensor([0.299, 0.587, 0.114])
    assert torch.allclose(luma @ maps, luma.expand(500, 3), atol=1e-3)
    gray = torch.isclose(maps[:, 0], maps[:, 1], atol=1e-4).all(1)
    assert gray.float().mean() == pytest.approx(0.3, abs=0.06)
    still = color_maps(3, ViewSpec(hue=0, saturation=0, gray=0), generator())
    assert torch.allclose(still, torch.eye(3).expand(3, 3, 3), atol=1e-5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("crop", 0.0),
        ("aspect_ratio", 0.5),
        ("rotate", 200),
        ("warp", 0.5),
        ("lighting", 1.0),
        ("blur", 2),
        ("hue", 181),
        ("flip", -1),
        ("gray", 1.1),
        ("positive_pair", "track"),
        ("keep_color", 1),
    ],
)
def test_settings_out_of_range_are_named(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{key}="):
        ViewSpec(**{key: value})


# The DataModule


def data(shapes: Path, tmp_path: Path, **more: object) -> ViewDataModule:
    how = {"pixels": PixelSpec(size=16), "loader": LoaderSpec(batch_size=16), **more}
    made = ViewDataModule(read_folder(shapes), tmp_path / "px", **how)
    made.prepare_data()
    made.setup()
    return made


def test_all_samples_are_seen_once_an_epoch_with_or_without_labels(shapes: Path, tmp_path: Path) -> None:
    made = data(shapes, tmp_path)
    assert len(made.train_rows) == 72 and made.labels == ["disc", "square", "triangle"]
    seen = torch.cat([batch["index"] for batch in made.train_dataloader()])
    assert len(seen) == 64 == len(seen.unique())  # the last, short batch is left out
    unlabelled = read_folder(shapes)
    unlabelled["label"] = None
    assert len(ViewDataModule(unlabelled, tmp_path / "px").labels) == 0
    batch = made.on_after_batch_transfer(next(iter(made.val_dataloader())), 0)
    pixels = torch.from_numpy(made.store[batch["index"].numpy()]).permute(0, 3, 1, 2)
    assert torch.allclose(batch["image"], made.normalize(pixels))


def test_partners_come_from_the_group_and_never_are_the_image_itself(shapes: Path, tmp_path: Path) -> None:
    table = read_folder(shapes)
    table["group"] = [f"{label}-{number // 4}" for number, label in enumerate(table["label"])]
    table.iloc[0, table.columns.get_loc("group")] = "alone"
    made = ViewDataModule(table, tmp_path / "px", ViewSpec(positive_pair="group"), pixels=PixelSpec(size=16))
    made.setup()
    rows = np.arange(72)
    batch = {"image": torch.from_numpy(made.store[rows]), "index": torch.from_numpy(rows)}
    groups = table["group"].to_numpy()
    drawn = set()
    for seed in range(20):
        other = made._images_of_same_groups(batch, seed).permute(0, 2, 3, 1).numpy()
        for row in rows:
            found = np.flatnonzero((made.store[:] == other[row]).all((1, 2, 3)))
            assert groups[found[0]] == groups[row] and (found[0] != row or row == 0)
            drawn.add((int(row), int(found[0])))
    assert len([pair for pair in drawn if pair[0] == 70]) == 3  # all others of its group


def test_what_can_not_be_learnt_from_is_an_error(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"positive_pair=group[\s\S]*data.group"):
        data(shapes, tmp_path, views=ViewSpec(positive_pair="group"))
    one: pd.DataFrame = read_folder(shapes).iloc[:1]
    with pytest.raises(DataError, match="1 image"):
        ViewDataModule(one, tmp_path / "px").setup()
