"""Checks of a recipe's values."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from mlfix_train.errors import ConfigError
from mlfix_train.models.recipes import Recipe


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "fine_tune"),
        ("epochs", 0),
        ("epochs", "3"),
        ("frozen_epochs", -1),
        ("lr", 0.0),
        ("lr", math.nan),
        ("lr", True),
        ("discriminative_lr_ratio", 0.5),
        ("pct_start", 0.0),
        ("pct_start", 1.0),
        ("div_factor", 0.5),
        ("weight_decay", -0.1),
        ("label_smoothing", 0.6),
    ],
)
def test_a_wrong_value_is_named_with_its_key(key: str, value: object) -> None:
    shown = f"{value:g}" if isinstance(value, float) else value
    with pytest.raises(ConfigError, match=rf"^{key}={shown} "):
        Recipe(**{key: value})


def test_a_misspelt_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'scratch'"):
        Recipe("scatch")


@pytest.mark.parametrize("key", ["epochs", "frozen_epochs"])
def test_epochs_are_whole(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        Recipe(**{key: 1.5})


def test_recipes_load_without_torch() -> None:
    code = "import sys; import mlfix_train.models.recipes; print({'torch', 'timm', 'lightning'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
