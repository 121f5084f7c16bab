"""What ``auto`` means for a run: the images, the labels and the backbone decide, once for all runs of a name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shapes import draw_shapes

from mlfix_train.commands.inputs import read_samples
from mlfix_train.commands.train_choices import choose_by_data
from mlfix_train.config.compose import load
from mlfix_train.config.train import TrainConfig
from mlfix_train.data.runs import RunDirectory


def choose(root: Path, *keys: str) -> TrainConfig:
    cfg = load("train", [f"data.root={root}", f"outputs={root.parent}/o", "logger=none", *keys])
    run = RunDirectory(root.parent / f"o/{cfg.name}/original/seed={cfg.seed}")
    return choose_by_data(cfg, run, read_samples(cfg.data))


@pytest.mark.parametrize(
    ("side", "keys", "size"),
    [
        (300, ("model.pretrained=false",), 224),
        (48, ("model=resnet18",), 48),
        (300, ("model=small",), 64),
        (24, ("model.backbone=convnext_atto",), 32),
        (300, ("model=sorting_network",), 64),
        (40, ("model=small", "pixels.size=33"), 33),
    ],
)
def test_images_are_stored_as_large_as_they_are_of_use(
    tmp_path: Path, side: int, keys: tuple[str, ...], size: int
) -> None:
    assert choose(draw_shapes(tmp_path / "data", 4, side), *keys).pixels.size == size


def test_labels_decide_on_draws_and_flips(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mlfix_train")
    photos = draw_shapes(tmp_path / "photos", 6)
    cfg = choose(photos, "model=small")
    assert (cfg.loader.sampling, cfg.augment.flip, cfg.augment.crop, cfg.augment.auto) == ("shuffled", 0.5, 0.5, False)
    assert "pixels.size=16 (the images have 16 px" in caplog.text and "6 to 6 samples a label" in caplog.text
    draw_shapes(photos, 120, labels=("disc",))
    assert choose(photos, "model=small").loader.sampling == "balanced"
    turns = draw_shapes(tmp_path / "turns", 4, labels=("turn left", "turn right"))
    assert choose(turns, "model=small").augment.flip == 0
    assert choose(turns, "model=small", "augment=photo").augment.flip == 0.5
    assert "no flips, since the labels name left or right: turn left" in caplog.text


def test_earlier_runs_of_the_name_decide_first(tmp_path: Path) -> None:
    """A study that began before there was ``auto`` goes on as it was, and all its runs are alike."""
    photos = draw_shapes(tmp_path / "photos", 6, 64)
    run = tmp_path / "o/default/original/seed=7"
    run.mkdir(parents=True)
    old = {"enabled": True, "blur": 0.4, "rotate": 10.0, "zoom": 1.1, "warp": 0.2, "lighting": 0.2}
    config = {"pixels": {"size": 40}, "loader": {"sampling": "balanced"}, "augment": old}
    (run / "run.json").write_text(json.dumps({"status": "failed", "config": config}))
    assert choose(photos, "model=small").pixels.size == 64  # it learned nothing
    (run / "run.json").write_text(json.dumps({"status": "finished", "config": config}))
    cfg = choose(photos, "model=small")
    assert (cfg.pixels.size, cfg.loader.sampling) == (40, "balanced")
    assert (cfg.augment.blur, cfg.augment.flip, cfg.augment.crop) == (0.4, 0.0, 1.0)
    assert choose(photos, "model=small", "augment.rotate=3").augment.rotate == 3
    fresh = choose(photos, "model=small", "overwrite=true")
    assert (fresh.pixels.size, fresh.loader.sampling, fresh.augment.flip) == (64, "shuffled", 0.5)
    assert choose(photos, "model=small", "name=other").pixels.size == 64


def test_the_published_presets_leave_nothing_open(tmp_path: Path) -> None:
    from mlfix_train.data.loading.spec import AugmentSpec

    photos = draw_shapes(tmp_path / "photos", 4, 64)
    for experiment in ("published", "gtsrb", "mtsd_speed_limits"):
        cfg = load("train", [f"data.root={photos}", f"experiment={experiment}"])
        assert (cfg.pixels.size, cfg.loader.sampling, cfg.augment) == (40, "balanced", AugmentSpec())
