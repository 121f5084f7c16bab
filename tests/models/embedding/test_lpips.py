"""LPIPS as an embedding: squared distances are the package's distances, for every trunk; weights from anywhere."""

from __future__ import annotations

from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
import torchvision

from mlfix_train.errors import ConfigError, DataError, RunError
from mlfix_train.models.embedding.lpips import (
    MIN_SIZE,
    LpipsEmbedder,
    LpipsFeatures,
    check_size,
    from_package,
    load_trunk,
    network_features,
    resize,
)
from mlfix_train.models.embedding.network import TrainedEncoder
from mlfix_train.models.embedding.settings import TRUNKS, LpipsSpec
from mlfix_train.models.ssl.encoder import Encoder

MODELS = {
    "alex": torchvision.models.alexnet,
    "vgg": torchvision.models.vgg16,
    "squeeze": torchvision.models.squeezenet1_1,
}


def package(trunk: str, **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return lpips.LPIPS(net=trunk, pnet_rand=True, verbose=False, **options)


def images(n: int, side: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("weighted", [True, False])
def test_squared_distances_are_the_packages(trunk: str, weighted: bool) -> None:
    model = package(trunk, lpips=weighted)
    embedding = from_package(model, "test")
    a, b = images(12), images(12, seed=1)
    b[:4] = a[:4] + 0.1 * b[:4]
    b[0] = a[0]
    with torch.inference_mode():
        wanted = model(a, b, normalize=True).flatten()
        phi_a, phi_b = embedding(a), embedding(b)
    found = (phi_a - phi_b).square().sum(1)
    assert phi_a.dtype == torch.float32 and phi_a.shape == phi_b.shape
    assert (found - wanted).abs().max() < 1e-5 and found[0] == 0
    assert (found - wanted).abs().max() < 1e-4 * wanted.max()  # a random trunk's distances are small


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("trunk", [pytest.param("vgg", marks=pytest.mark.slow), *(t for t in TRUNKS if t != "vgg")])
def test_weights_come_from_torchvisions_file_or_the_packages(trunk: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    source = MODELS[trunk](weights=None)
    torch.save(source.state_dict(), tmp_path / "trunk.pth")
    embedding = load_trunk(trunk, tmp_path / "trunk.pth")
    model = package(trunk)
    for name, value in model.net.state_dict().items():
        value.copy_(source.state_dict()[name.replace(name.split(".")[0], "features")])
    torch.save(model.state_dict(), tmp_path / "lpips.pth")
    again = load_trunk(trunk, tmp_path / "lpips.pth")
    with torch.inference_mode():
        wanted = model(images(3), images(3, seed=1), normalize=True).flatten()
        for made in (embedding, again):
            found = (made(images(3)) - made(images(3, seed=1))).square().sum(1)
            assert torch.allclose(found, wanted, atol=1e-6)
    assert trunk in embedding.name and "trunk.pth" in embedding.name


@pytest.mark.filterwarnings("ignore")
def test_weights_that_cannot_be_had_or_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match=r"missing\.pth does not exist[\s\S]*by=pixels"):
        load_trunk("alex", tmp_path / "missing.pth")
    (tmp_path / "damaged.pth").write_bytes(b"no weights")
    with pytest.raises(RunError, match="cannot be read"):
        load_trunk("alex", tmp_path / "damaged.pth")
    torch.save(MODELS["squeeze"](weights=None).state_dict(), tmp_path / "squeeze.pth")
    with pytest.raises(RunError, match=r"lacks \d+ of the 10 tensors of the trunk alex"):
        load_trunk("alex", tmp_path / "squeeze.pth")
    with pytest.raises(ConfigError, match=r"alexnet[\s\S]*alex, vgg"):
        load_trunk("alexnet")

    def offline(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(RunError, match=r"trunk=vgg are unavailable: Name or service[\s\S]*lpips.weights=<file>"):
        load_trunk("vgg")


def test_negative_weights_are_no_distance() -> None:
    with pytest.raises(DataError, match=r"layer 1[\s\S]*-0\.5"):
        LpipsFeatures(lambda x: [x, x], [torch.ones(3), torch.tensor([1.0, -0.5, 0.0])], "test")


def test_the_same_formula_on_a_network_of_ones_own() -> None:
    torch.manual_seed(0)
    encoder = Encoder("mlfix_small", backbone_args={"widths": [4, 8]}).eval()
    embedding = network_features(TrainedEncoder(encoder, "own", 16, ""))
    x = images(2, 16)
    with torch.inference_mode():
        found = float((embedding(x)[0] - embedding(x)[1]).square().sum())
        wanted = 0.0
        for grid in encoder.feature_maps(encoder.normalize(x)):
            unit = grid.double().numpy() / np.linalg.norm(grid.double().numpy(), axis=1, keepdims=True).clip(1e-10)
            wanted += float(np.square(unit[0] - unit[1]).sum(0).mean())
    assert found == pytest.approx(wanted, rel=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("trunk", TRUNKS)
def test_the_smallest_side_is_the_smallest(trunk: str) -> None:
    embedding, side = from_package(package(trunk), "test"), MIN_SIZE[trunk]
    assert embedding(images(1, side)).isfinite().all()
    with pytest.raises(RuntimeError):
        embedding(images(1, side - 1))
    check_size(trunk, side)
    with pytest.raises(ConfigError, match=f"{side - 1} px are too small[\\s\\S]*lpips.size"):
        check_size(trunk, side - 1)
    assert resize(images(1, side - 1), side).shape[-1] == side


def test_an_embedder_on_a_network_of_ones_own() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    trained = TrainedEncoder(Encoder("mlfix_small", backbone_args={"widths": [4, 8]}).eval(), "a network", 16, "x")
    embedder = LpipsEmbedder(network_features(trained), LpipsSpec(rerank=5), width=None)
    assert (embedder.n_candidates, embedder.supports_bfloat16, embedder.image_size) == (5, False, 16)
    assert "not LPIPS itself" in embedder.name
    larger = LpipsEmbedder(network_features(trained), LpipsSpec(size=32), width=None)
    assert larger.features(images).shape[1] == 4 * embedder.features(images).shape[1]
    assert larger.fingerprint != embedder.fingerprint
