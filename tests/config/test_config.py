"""The configuration: every preset composes, every key is documented by use, mistakes name the nearest right key."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from shapes import REPO

from mlfix_train.config import build as config
from mlfix_train.errors import ConfigError

GROUPS = {
    group: sorted(path.stem for path in (REPO / "configs" / group).glob("*.yaml"))
    for group in ("data", "model", "recipe", "trainer", "logger", "experiment", "sweep")
}


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, names in GROUPS.items() for name in names])
def test_every_preset_composes(group: str, name: str) -> None:
    cfg = config.compose("train", [f"{group}={name}", "++data.root=x"])
    config.plain(cfg)
    config.build_model(
        cfg, ["a", "b"]
    ) if group == "recipe" and name == "scratch" and cfg.model.pretrained is False else None


@pytest.mark.parametrize("verb", ["crop", "train", "audit", "compare", "export", "demo"])
def test_every_verb_composes(verb: str) -> None:
    assert len(config.compose(verb, [])) > 3


@pytest.mark.parametrize("name", ["resnet50", "resnet18", "small"])
def test_every_model_preset_builds(name: str) -> None:
    cfg = config.compose("train", [f"model={name}", "model.pretrained=false", "data.root=x"])
    model = config.build_model(cfg, ["a", "b", "c"])
    assert model.recipe.name == ("scratch" if name == "small" else "finetune")


def test_data_root_is_enough_to_start() -> None:
    cfg = config.compose("train", ["data.root=x"])
    config.check_missing(cfg, "train")
    assert cfg.model.backbone == "resnet50"
    assert cfg.data._target_.endswith("read_folder")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["sed=3"], "did you mean seed?"),
        (["split.fractoin=0.3"], "did you mean split.fraction?"),
        (["model.pretraned=false"], "did you mean model.pretrained?"),
        (["data=foldr"], "did you mean 'folder'?"),
        (["experiment=smok"], "did you mean 'smoke'?"),
        (["recipe.epochs"], "key=value"),
    ],
)
def test_a_mistyped_key_names_the_nearest(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.compose("train", overrides)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "value", [r"(.+)_\d+\.jpg", "^speed", "a'b", "a b", r"x\'y", "tail\\", "größe, 1", "speed|limit", "a=b", "[x"]
)
def test_values_survive_hydras_grammar(value: str) -> None:
    cfg = config.compose("compare", ["original=a", "fixed=b", "fixes.path=c", f"slices.x={value}"])
    if value == "größe, 1":
        return  # a comma is a sweep of Hydra's; see the next test
    assert cfg.slices.x == value
    assert config.compose("train", [config.assign("data.root", value)]).data.root == value


def test_assign_takes_any_path() -> None:
    for value in ("a, b", "with 'quotes' \\' and \\", "größe/停", "${x}".replace("$", "S")):
        assert config.compose("train", [config.assign("outputs", value)]).outputs == value


def test_one_default_in_one_place() -> None:
    """Signatures of what users set by YAML agree with the YAML, or leave it to the YAML."""
    from mlfix_train.data.crops.geometry import CropSpec
    from mlfix_train.data.loading.augment import AugmentSpec
    from mlfix_train.data.loading.datamodule import LoaderSpec
    from mlfix_train.data.pixels.store import PixelSpec

    cfg = config.plain(config.compose("train", ["data.root=x"]))
    augment = {key: value for key, value in cfg["augment"].items() if key != "enabled"}
    assert AugmentSpec(**augment) == AugmentSpec()
    assert LoaderSpec(**cfg["loader"]) == LoaderSpec()
    pixels = {key: value for key, value in cfg["pixels"].items() if key not in ("cache", "max_unreadable")}
    assert PixelSpec(**pixels) == PixelSpec()
    crop = config.plain(config.compose("crop", ["data.root=x"]))
    assert CropSpec(**{field.name: crop[field.name] for field in fields(CropSpec)}) == CropSpec()


def test_all_yaml_says_what_it_is() -> None:
    for path in Path(config.config_dir()).rglob("*.yaml"):
        assert path.read_text().lstrip().startswith("#") or path.parent.name in ("logger",), path
