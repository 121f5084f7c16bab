"""Backbones, heads and weights files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from mlfix_train.errors import ConfigError, MlfixError, RunError
from mlfix_train.models.backbones.network import ConcatPoolHead, Network, create_backbone
from mlfix_train.models.backbones.small import SmallNet


def images(n: int = 4, size: int = 32) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """Gives norms other values than 1 and 0, so that a mixed-up order shows."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor in (part.weight, part.bias, part.running_mean):
                tensor.data.normal_(generator=generator)
            part.running_var.uniform_(0.5, 2.0, generator=generator)
    return module


def norm(x: torch.Tensor, layer: nn.BatchNorm1d) -> torch.Tensor:
    return (x - layer.running_mean) / (layer.running_var + layer.eps).sqrt() * layer.weight + layer.bias


def test_concat_pool_head_in_the_published_order() -> None:
    head = shaken(ConcatPoolHead(7, 5)).eval()
    kinds = [type(part) for part in list(head)[1:]]
    assert kinds == [nn.BatchNorm1d, nn.Dropout, nn.Linear, nn.ReLU, nn.BatchNorm1d, nn.Dropout, nn.Linear]
    assert (head[2].p, head[6].p) == (0.25, 0.5)
    assert (head[3].in_features, head[3].out_features, head[7].out_features) == (14, 512, 5)
    assert head[3].bias is None
    assert head[7].bias is None
    maps = torch.randn(6, 7, 3, 4, generator=torch.Generator().manual_seed(1))
    pooled = torch.empty(6, 14)
    for i in range(6):
        for channel in range(7):
            values = maps[i, channel].flatten()
            pooled[i, channel], pooled[i, 7 + channel] = max(values), sum(values) / 12
    hidden = (norm(pooled, head[1]) @ head[3].weight.T).clamp(min=0)
    wanted = norm(hidden, head[5]) @ head[7].weight.T
    assert torch.allclose(head(maps), wanted, atol=1e-5)


@pytest.mark.parametrize("backbone", ["resnet18", "convnext_atto", "mlfix_small"])
@pytest.mark.parametrize("head", ["concat_pool", "linear"])
def test_channels_last_gives_the_same_numbers(backbone: str, head: str) -> None:
    torch.manual_seed(0)
    plain = Network(backbone, 5, head, channels_last=False).eval()
    last = Network(backbone, 5, head, channels_last=True).eval()
    last.load_state_dict(plain.state_dict())
    with torch.no_grad():
        a, b = plain(images()), last(images())
    assert a.shape == (4, 5)
    assert torch.allclose(a, b, atol=2e-4)
    convs = [p for p in last.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    assert convs and all(p.is_contiguous(memory_format=torch.channels_last) for p in convs)


def test_concat_pool_is_the_head_on_the_feature_map() -> None:
    net = Network("resnet18", 5, "concat_pool").eval()
    with torch.no_grad():
        assert torch.allclose(net(images()), net.head(net.backbone.forward_features(images())), atol=1e-5)


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "efficientnet_b0", "regnety_002"])
@pytest.mark.parametrize("head", ["concat_pool", "linear"])
def test_every_convolutional_backbone_fits_both_heads(backbone: str, head: str) -> None:
    """A MobileNet widens its features after the pooling: 288 channels in the map, 1,024 behind it."""
    with torch.no_grad():
        assert Network(backbone, 5, head).eval()(images(2, 64)).shape == (2, 5)


def test_a_channels_last_feature_map_is_refused() -> None:
    """Swin's feature map is NHWC, which concat_pool would pool over the wrong axes."""
    arguments = {"img_size": 32, "embed_dim": 12, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4}
    net = Network("swin_tiny_patch4_window7_224", 5, "concat_pool", backbone_args=arguments)
    with pytest.raises(ConfigError, match="concat_pool needs a feature map"):
        net(images())


def test_a_backbone_without_a_feature_map_names_the_other_head() -> None:
    net = Network("vit_tiny_patch16_224", 5, "concat_pool", backbone_args={"img_size": 32, "depth": 1})
    with pytest.raises(ConfigError, match="head=linear"):
        net(images())


def test_an_unknown_head_and_backbone_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'concat_pool'"):
        Network("resnet18", 5, "concatpool")
    with pytest.raises(ConfigError, match=r"(?s)model\.backbone=resnet5 .*did you mean 'resnet50'"):
        Network("resnet5", 5)
    with pytest.raises(ConfigError, match="did you mean 'mlfix_small'"):
        Network("mlfix_smal", 5)


@pytest.mark.parametrize("pretrained", [False, True])
def test_an_unknown_weights_tag_is_a_users_error(pretrained: bool) -> None:
    with pytest.raises(MlfixError, match=r"resnet18\.nonsense"):
        Network("resnet18.nonsense", 5, pretrained=pretrained)


@pytest.mark.parametrize(
    ("backbone", "arguments"),
    [
        ("resnet18", {"nonsense": 1}),
        ("resnet18", {"global_pool": "nonsense"}),
        ("resnet18", {"num_classes": 3}),
        ("mlfix_small", {"nonsense": 1}),
        ("mlfix_small", {"widths": "abc"}),
        ("mlfix_small", {"global_pool": "nonsense"}),
        ("vit_tiny_patch16_224", {"img_size": -3}),
    ],
)
def test_arguments_that_do_not_fit_are_named(backbone: str, arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"model\.backbone_args=.*" + next(iter(arguments))):
        Network(backbone, 5, backbone_args=arguments)


# --- pretrained weights ---


def same_backbone(net: Network, donor: nn.Module) -> bool:
    have, want = net.backbone.state_dict(), donor.state_dict()
    return set(have) == set(want) and all(torch.equal(have[name], want[name]) for name in want)


@pytest.mark.parametrize("backbone", ["resnet18", "mlfix_small"])
def test_pretrained_without_a_network_says_what_to_do_at_once(
    backbone: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")  # never resolves (RFC 2606)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    if backbone == "resnet18":  # the other has no weights on the hub, and says so itself
        monkeypatch.setattr("timm.create_model", lambda *_, **__: pytest.fail("the hub's client retries for a minute"))
    with pytest.raises(RunError, match=r"(?s)" + backbone + r".*model\.pretrained=false.*model\.weights=<file>"):
        Network(backbone, 5, pretrained=True)


def test_weights_take_the_place_of_the_hub(tmp_path: Path) -> None:
    torch.save(create_backbone("mlfix_small", False, {}).state_dict(), tmp_path / "w.pt")
    Network("mlfix_small", 5, pretrained=True, weights=tmp_path / "w.pt")


def test_weights_in_the_hubs_cache_need_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("it asks the hub"))
    torch.manual_seed(7)
    donor = shaken(create_backbone("resnet18", False, {"global_pool": ""}))
    folder = tmp_path / "models--timm--resnet18.a1_in1k"
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("abc")
    classifier = {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    save_file({**donor.state_dict(), **classifier}, folder / "snapshots/abc/model.safetensors")
    assert same_backbone(Network("resnet18", 5, "concat_pool", pretrained=True), donor)


# --- mlfix_small ---


@pytest.mark.parametrize(
    ("pool", "shape"), [("grid", (2, 512)), ("avg", (2, 128)), ("", (2, 128, 3, 2))], ids=["grid", "avg", "map"]
)
def test_shapes_of_mlfix_small(pool: str, shape: tuple[int, ...]) -> None:
    backbone = create_backbone("mlfix_small", False, {"global_pool": pool}).eval()
    x = torch.randn(2, 3, 48, 40)
    assert backbone(x).shape == shape
    assert backbone.forward_features(x).shape == (2, 128, 3, 2)
    assert backbone.head_hidden_size == (512 if pool == "grid" else 128)


def test_mlfix_small_keeps_left_and_right_apart() -> None:
    backbone = create_backbone("mlfix_small", False, {}).eval()
    x = images(1)
    maps, out = backbone.forward_features(x)[0], backbone(x)[0].view(128, 2, 2)
    assert torch.allclose(out[:, 0, 1], maps[:, :1, 1:].mean((1, 2)), atol=1e-6)
    assert torch.allclose(out[:, 1, 0], maps[:, 1:, :1].mean((1, 2)), atol=1e-6)


def norm_first(net: SmallNet, x: torch.Tensor) -> torch.Tensor:
    for conv, pool, bn, _ in net.stages:
        x = pool(F.relu(bn(conv(x))))
    return x


def test_pooling_first_is_the_same_function_where_gamma_is_positive() -> None:
    """Max pooling commutes with what is monotone: norm (fixed statistics, gamma > 0) and ReLU."""
    net = shaken(SmallNet(num_classes=0)).eval()
    for stage in net.stages:
        stage[2].weight.data.abs_()
    with torch.no_grad():
        assert torch.allclose(net.forward_features(images()), norm_first(net, images()), atol=1e-4)


def test_pooling_first_is_another_function_where_gamma_is_negative() -> None:
    """So 'the same function' holds for what can be expressed, not for given weights or for batch statistics."""
    net = shaken(SmallNet(num_classes=0)).eval()
    assert any((stage[2].weight < 0).any() for stage in net.stages)
    with torch.no_grad():
        assert not torch.allclose(net.forward_features(images()), norm_first(net, images()), atol=1e-2)
        fresh = SmallNet(num_classes=0).train()
        assert not torch.allclose(fresh.forward_features(images()), norm_first(fresh, images()), atol=1e-2)
