"""Weights files: any common nesting and names are found, and what does not fit is said."""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from mlfix_train.errors import RunError
from mlfix_train.models.backbones.network import ConcatPoolHead, Network, create_backbone
from mlfix_train.models.backbones.weights import load_backbone, read_state


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """Gives every tensor other values, so that a mixed-up order shows."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.1, 1, generator=generator)
    return module


def same(backbone: nn.Module, donor: nn.Module) -> bool:
    have, want = backbone.state_dict(), donor.state_dict()
    return set(have) == set(want) and all(torch.equal(have[name], want[name]) for name in want)


def same_backbone(net: Network, donor: nn.Module) -> bool:
    return same(net.backbone, donor)


@pytest.fixture
def donor() -> nn.Module:
    torch.manual_seed(7)
    return shaken(create_backbone("resnet18", False, {"global_pool": ""}))


@pytest.mark.parametrize("prefix", ["", "network.backbone.", "net.layer1.0."])
def test_weights_from_state_dicts_of_any_prefix(tmp_path: Path, donor: nn.Module, prefix: str) -> None:
    state = {prefix + name: value for name, value in donor.state_dict().items()}
    state |= {prefix + "fc.weight": torch.randn(9, 512), prefix + "fc.bias": torch.randn(9)}
    torch.save(state, tmp_path / "w.pt")
    assert same_backbone(Network("resnet18", 5, "concat_pool", weights=tmp_path / "w.pt"), donor)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
def test_weights_from_a_checkpoint(tmp_path: Path, donor: nn.Module, key: str) -> None:
    state = {f"network.backbone.{name}": value for name, value in donor.state_dict().items()}
    state |= {f"network.head.{name}": value for name, value in ConcatPoolHead(512, 3).state_dict().items()}
    torch.save({key: state, "epoch": 3, "labels": ["a", "b"], "optimizer_states": []}, tmp_path / "last.ckpt")
    net = Network("resnet18", 5, "concat_pool", weights=str(tmp_path / "last.ckpt"))
    assert same_backbone(net, donor)


def test_weights_from_safetensors(tmp_path: Path, donor: nn.Module) -> None:
    save_file({f"model.{name}": value for name, value in donor.state_dict().items()}, tmp_path / "w.safetensors")
    assert same_backbone(Network("resnet18", 5, "linear", weights=tmp_path / "w.safetensors"), donor)


def test_weights_of_another_architecture(tmp_path: Path) -> None:
    torch.save(create_backbone("resnet34", False, {}).state_dict(), tmp_path / "w.pt")
    backbone = create_backbone("resnet50", False, {})
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(RunError, match=r"(?s)model\.weights=.*w\.pt lacks \d+ of the 318 tensors.*model\.backbone"):
        load_backbone(backbone, tmp_path / "w.pt")
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


def test_a_block_that_the_file_lacks_is_not_left_random_in_silence(tmp_path: Path, donor: nn.Module) -> None:
    """Twelve of 120 tensors, the whole of layer4.1."""
    state = {name: value for name, value in donor.state_dict().items() if not name.startswith("layer4.1.")}
    assert len(state) == 108
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(RunError, match=r"layer4\.1"):
        Network("resnet18", 5, "concat_pool", weights=tmp_path / "w.pt")


class Bomb:
    def __init__(self, flag: str) -> None:
        self.flag = flag

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.flag,)


@pytest.mark.parametrize("plain", [True, False])
def test_a_pickle_that_would_run_code_does_not(tmp_path: Path, plain: bool) -> None:
    flag, file = tmp_path / "executed", tmp_path / "bomb.pt"
    content = {"state_dict": {"conv1.weight": torch.zeros(2), "x": Bomb(str(flag))}}
    if plain:
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file)
    with pytest.raises(RunError, match=r"bomb\.pt cannot be read"):
        Network("mlfix_small", 5, weights=file)
    assert not flag.exists()


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("cut", [0, 11, 3000])
def test_damaged_and_missing_files(tmp_path: Path, name: str, cut: int) -> None:
    state = create_backbone("mlfix_small", False, {}).state_dict()
    path = tmp_path / name
    with pytest.raises(RunError, match="does not exist"):
        read_state(path)
    if name.endswith("pt"):
        torch.save(state, path)
    else:
        save_file(state, path)
    assert len(read_state(path)) == len(state)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(RunError, match=f"{name} cannot be read"):
        read_state(path)


@pytest.mark.parametrize(
    "content", [torch.zeros(3), [torch.zeros(3)], {"a": 1}, {}, 5], ids=["tensor", "list", "plain", "empty", "number"]
)
def test_files_without_named_tensors(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(RunError, match=r"w\.pt"):
        read_state(tmp_path / "w.pt")


def resnet18() -> nn.Module:
    return create_backbone("resnet18", False, {"global_pool": ""})


def test_a_deeper_networks_weights_are_refused(tmp_path: Path) -> None:
    """Every name and shape of a ResNet18 is in a ResNet34, too."""
    torch.save(timm.create_model("resnet34", num_classes=0).state_dict(), tmp_path / "w.pt")
    with pytest.raises(RunError, match=r"(?s)is of a larger network: 80 of its tensors.*layer1\.2.*model\.backbone"):
        load_backbone(resnet18(), tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("place", "how"),
    [
        ("net", {}),
        ("model_ema", {"model": "other"}),
        ("state_dict_ema", {"state_dict": "other"}),
        ("teacher", {"student": "other"}),
        ("state_dict", {"optimizer": "other"}),
        ("checkpoint.model", {}),
    ],
)
def test_any_nesting_and_the_averaged_weights_first(
    tmp_path: Path, donor: nn.Module, place: str, how: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mlfix_train")
    other = {f"module.{name}": value for name, value in shaken(resnet18(), 5).state_dict().items()}
    state = {f"module._orig_mod.{name}": value for name, value in donor.state_dict().items()}
    state["module._orig_mod.fc.weight"] = torch.zeros(9, 512)
    content: dict[str, object] = dict.fromkeys(how, other)
    outer, _, inner = place.partition(".")
    content[outer] = {inner: state} if inner else state
    content |= {"args": argparse.Namespace(lr=0.1), "best": np.float64(0.5), "epoch": 3}
    torch.save(content, tmp_path / "w.pt")
    backbone = resnet18()
    load_backbone(backbone, tmp_path / "w.pt")
    assert same(backbone, donor)
    assert f"of {place}.module" in caplog.text and "not used: fc (1)" in caplog.text
    assert ("model.module would fit, too" in caplog.text) == (place == "model_ema")


@pytest.mark.parametrize(
    ("mine", "others"),
    [
        ("module.encoder_q.", "module.encoder_k."),
        ("teacher.backbone.", "student.backbone."),
        ("online_network.encoder.", "target_network.encoder."),
        ("model.backbone.", "decoder.layers."),
    ],
)
def test_of_two_networks_under_prefixes_the_usual_one_is_taken(
    tmp_path: Path, donor: nn.Module, mine: str, others: str
) -> None:
    """MoCo, DINO, BYOL, and a network with a decoder."""
    other = shaken(resnet18(), 5).state_dict()
    state = {others + name: value for name, value in other.items()}
    state |= {
        mine + name.replace("layer1.0", "layer1.0._orig_mod"): value for name, value in donor.state_dict().items()
    }
    state["module.queue"] = torch.zeros(3)
    torch.save({"state_dict": state}, tmp_path / "w.pt")
    backbone = resnet18()
    load_backbone(backbone, tmp_path / "w.pt")
    assert same(backbone, donor)


@pytest.mark.parametrize(("name", "prefix"), [("efficientnet_b0", "net."), ("densenet121", "")])
def test_torchvisions_names_give_torchvisions_features(tmp_path: Path, name: str, prefix: str) -> None:
    import torchvision

    torch.manual_seed(0)
    donor = getattr(torchvision.models, name)().eval()
    torch.save({prefix + key: value for key, value in donor.state_dict().items()}, tmp_path / "w.pt")
    backbone = create_backbone(name, False, {"global_pool": ""}).eval()
    load_backbone(backbone, tmp_path / "w.pt")
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        wanted, found = donor.features(images), backbone.forward_features(images)
    assert torch.allclose(torch.relu(found), torch.relu(wanted), atol=1e-4)


def test_color_weights_fit_a_network_for_grey_images(tmp_path: Path, donor: nn.Module) -> None:
    torch.save(donor.state_dict(), tmp_path / "w.pt")
    backbone = create_backbone("resnet18", False, {"in_chans": 1})
    load_backbone(backbone, tmp_path / "w.pt")
    assert torch.allclose(backbone.conv1.weight, donor.conv1.weight.sum(1, keepdim=True))


def test_a_transformers_weights_are_interpolated_to_another_size(tmp_path: Path) -> None:
    args = {"depth": 1, "embed_dim": 12, "num_heads": 2}
    torch.save(timm.create_model("vit_tiny_patch16_224", **args).state_dict(), tmp_path / "w.pt")
    net = Network("vit_tiny_patch16_224", 3, weights=tmp_path / "w.pt", backbone_args=args, image_size=64)
    assert net.backbone.pos_embed.shape == (1, 17, 12)


@pytest.mark.parametrize(
    ("content", "said", "remedy"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a pointer of Git LFS", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "a web page", "download the file itself"),
        (b'{"error": "not found"}', "JSON text", "model.safetensors"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "convert"),
        (b"\x1f\x8b\x08", "compressed by gzip", "unpack"),
        (b"", "it is empty", "again"),
        (b"PK\x03\x04cut", "it is truncated", "again"),
    ],
)
def test_what_is_no_weights_file_is_said(tmp_path: Path, content: bytes, said: str, remedy: str) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(RunError, match=f"(?s){said}.*{remedy}"):
        read_state(tmp_path / "w.pth")


def test_whole_models_and_other_archives_are_said(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "w.pth")
    with pytest.raises(RunError, match=r"(?s)a pickled torch\.nn\.modules\.container\.Sequential.*state_dict\(\)"):
        read_state(tmp_path / "w.pth")
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "jit.pt")
    with pytest.raises(RunError, match=r"(?s)TorchScript.*torch\.jit\.load"):
        read_state(tmp_path / "jit.pt")
    np.savez(tmp_path / "w.npz", a=np.zeros(3))
    with pytest.raises(RunError, match="arrays of NumPy"):
        read_state(tmp_path / "w.npz")
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("w.pth", b"")
    with pytest.raises(RunError, match=r"(?s)torch\.save did not write.*unpack"):
        read_state(tmp_path / "w.zip")
    with pytest.raises(RunError, match="is a folder"):
        read_state(tmp_path)


def test_safetensors_are_known_by_their_content(tmp_path: Path, donor: nn.Module) -> None:
    save_file(donor.state_dict(), tmp_path / "w.pth")
    assert len(read_state(tmp_path / "w.pth")) == len(donor.state_dict())
