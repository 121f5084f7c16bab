"""Settings of cropping."""

from __future__ import annotations

import pytest

from mlfix_train.data.crops.spec import CropSpec
from mlfix_train.errors import ConfigError


def test_wrong_settings() -> None:
    for bad in ({"size": 4}, {"size": 2000}, {"margin": -1}, {"quality": 0}, {"aspect": "stretch"}, {"ids": "n"}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            CropSpec(**bad)
