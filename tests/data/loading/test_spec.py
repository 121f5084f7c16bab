"""Settings: they load without torch, and can be Hydra's structured configs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from mlfix_train.data.loading.spec import AugmentSpec, LoaderSpec, ViewSpec, evenness, mirrored_labels
from mlfix_train.data.pixels.spec import PixelsConfig, PixelSpec
from mlfix_train.data.splits import SplitSpec
from mlfix_train.errors import ConfigError

SPECS = [AugmentSpec, LoaderSpec, PixelSpec, PixelsConfig, SplitSpec, ViewSpec]


@pytest.mark.parametrize("module", ["data.loading.spec", "data.pixels.spec", "data.splits", "data.runs"])
def test_settings_load_without_heavy_libraries(module: str) -> None:
    script = (
        f"import sys, mlfix_train.{module}\n"
        "print([name for name in ('torch', 'lightning', 'timm', 'pandas', 'PIL') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


@pytest.mark.parametrize("spec", SPECS)
def test_settings_are_structured_configs(spec: type) -> None:
    """All types are known to OmegaConf, and each field is documented: that is the help text."""
    config = OmegaConf.structured(spec)
    assert OmegaConf.to_object(config) == spec()
    for name in config:
        assert f"\n        {name}: " in (spec.__doc__ or ""), f"{spec.__name__}.{name} has no line in Args"


@pytest.mark.parametrize(("value", "kept"), [("auto", "auto"), ("true", True), ("false", False)])
def test_a_value_of_the_command_line(value: str, kept: object) -> None:
    config = OmegaConf.merge(OmegaConf.structured(LoaderSpec), OmegaConf.from_dotlist([f"cache_on_device={value}"]))
    assert config.cache_on_device is kept or config.cache_on_device == kept == "auto"


def test_an_unknown_sampling() -> None:
    with pytest.raises(ConfigError, match="did you mean 'balanced'"):
        LoaderSpec(sampling="balanecd")


def test_batches_are_balanced_where_labels_are_uneven() -> None:
    assert evenness(["a"] * 5 + ["b"] * 5) == pytest.approx(1)
    assert evenness(["a"] * 9 + ["b"]) == pytest.approx(0.9**-0.9 * 0.1**-0.1 / 2)
    assert LoaderSpec().for_labels(["a"] * 7 + ["b"] * 3).sampling == "shuffled"
    assert LoaderSpec().for_labels(["a"] * 9 + ["b"]).sampling == "balanced"
    assert LoaderSpec().for_labels([]).sampling == "shuffled"
    assert LoaderSpec(sampling="shuffled").for_labels(["a"] * 9 + ["b"]).sampling == "shuffled"


@pytest.mark.parametrize(
    ("labels", "flips"),
    [
        (["cat", "dog"], True),
        (["turn-left", "turn-right"], False),
        (["leftover", "bright"], True),
        (["0", "1", "12"], False),
        (["A", "b"], False),
        (["0", "cat"], True),
    ],
)
def test_no_flips_where_left_and_right_may_matter(labels: list[str], flips: bool) -> None:
    assert bool(mirrored_labels(labels)) != flips
    assert AugmentSpec(flip=0.5, auto=True).for_labels(labels) == AugmentSpec(flip=0.5 if flips else 0.0)
    assert AugmentSpec(flip=0.5).for_labels(labels).flip == 0.5
