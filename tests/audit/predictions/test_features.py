"""Features of held-out samples: recorded from a layer, written, read, and used as evidence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mlfix_train.audit.predictions.features import FeatureRecorder, read_features, write_features
from mlfix_train.errors import ConfigError, DataError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.head = nn.Conv2d(3, 5, 1), nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.fc(self.conv(x).mean((2, 3))).relu())


@pytest.mark.parametrize(("layer", "width"), [(True, 4), ("head", 4), ("fc", 5)])
def test_the_input_of_a_layer_is_recorded(layer: str | bool, width: int) -> None:
    net, x = Net(), torch.randn(7, 3, 2, 2)
    recorder = FeatureRecorder(layer)
    recorder.attach(net)
    net(x)
    pooled = net.conv(x).mean((2, 3))
    expected = pooled if layer == "fc" else net.fc(pooled).relu()
    found = recorder.take(7)
    assert found.dtype == np.float16 and found.shape == (7, width)
    np.testing.assert_allclose(found, expected.detach(), atol=2e-3)
    recorder.detach()
    net(x)
    assert not net.head._forward_pre_hooks
    with pytest.raises(DataError, match="got no input for a batch of 7"):
        recorder.take(7)


def test_a_layer_that_does_not_fit_is_named() -> None:
    with pytest.raises(ConfigError, match="features='haed' is not a layer of Net") as caught:
        FeatureRecorder("haed").attach(Net())
    assert "head" in caught.value.hint
    with pytest.raises(ConfigError, match="Sequential has no torch"):
        FeatureRecorder(True).attach(nn.Sequential(nn.ReLU()))
    recorder = FeatureRecorder("conv")
    net = Net()
    recorder.attach(net)
    net(torch.randn(2, 3, 2, 2))
    with pytest.raises(DataError, match=r"got \(2, 3, 2, 2\) for a batch of 2"):
        recorder.take(2)


def test_features_are_read_as_they_were_written(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert read_features(tmp_path, 4) is None
    write_features(values, tmp_path)
    found = read_features(tmp_path, 4)
    assert found is not None and found.dtype == np.float16
    np.testing.assert_array_equal(found, values)
    with pytest.raises(DataError, match="there are 5 predictions"):
        read_features(tmp_path, 5)
    values[2, 1] = np.nan
    write_features(values, tmp_path)
    with pytest.raises(DataError, match="row 2 contains NaN"):
        read_features(tmp_path, 4)
    (tmp_path / "features.npy").write_bytes(b"cut")
    with pytest.raises(DataError, match="can't be read"):
        read_features(tmp_path, 4)
