"""Are pretrained weights at hand? A hub that does not answer is left within seconds."""

from __future__ import annotations

import dataclasses
import socket
import time
from pathlib import Path

import pytest
import timm

from mlfix_train.models.backbones import hub


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path / "torch"))


def test_a_hub_that_is_not_there_refuses_or_stays_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    config = timm.get_pretrained_cfg("resnet18")
    monkeypatch.setattr(hub, "TIMEOUT", 0.3)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")  # never resolves (RFC 2606)
    assert hub.why_unreachable(config).startswith("hub.invalid cannot be reached (")
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections and says nothing
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        started = time.monotonic()
        assert "127.0.0.1 cannot be reached" in hub.why_unreachable(config)
        assert time.monotonic() - started < 30
    assert "refused" in hub.why_unreachable(config)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert hub.why_unreachable(config) == "HF_HUB_OFFLINE is set"


@pytest.mark.parametrize(
    ("named", "file"),
    [
        (None, "model.safetensors"),
        (None, "pytorch_model.bin"),
        ("open_clip_pytorch_model.bin", "open_clip_model.safetensors"),
        ("other.bin", "other.safetensors"),
        ("other.safetensors", "other.safetensors"),
    ],
)
def test_weights_in_the_hubs_cache_are_found(tmp_path: Path, named: str | None, file: str) -> None:
    config = dataclasses.replace(timm.get_pretrained_cfg("resnet18.a1_in1k"), hf_hub_filename=named)
    assert hub.cached_weights(config) is None
    folder = tmp_path / f"models--{config.hf_hub_id.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("abc")
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "snapshots/abc" / file).touch()
    assert hub.cached_weights(config) == folder / "snapshots/abc" / file


def test_weights_that_timm_downloaded_from_an_address_are_found(tmp_path: Path) -> None:
    config = timm.get_pretrained_cfg("tf_efficientnet_lite0")
    path = tmp_path / "torch/checkpoints" / config.url.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    path.touch()
    assert hub.cached_weights(config) == path
