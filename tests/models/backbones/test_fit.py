"""timm's networks at other sizes and channels: they are made for them, or the error names what they take."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mlfix_train.errors import ConfigError
from mlfix_train.models.backbones.fit import check_forward, fit_arguments, native_size, next_size, why_not
from mlfix_train.models.backbones.network import Network
from mlfix_train.models.ssl.encoder import Encoder

VIT = {"depth": 1, "embed_dim": 12, "num_heads": 2}
SWIN = {"embed_dim": 12, "depths": (1, 1), "num_heads": (1, 2)}


@pytest.mark.parametrize(
    ("backbone", "arguments", "size"),
    [
        ("vit_tiny_patch16_224", VIT, 64),
        ("vit_tiny_patch16_224", VIT, 40),  # no multiple of 16: padded
        ("eva02_tiny_patch14_224", {"depth": 1}, 40),
        ("swin_tiny_patch4_window7_224", SWIN, 40),
        ("mixer_s32_224", {}, 64),
        ("convnext_atto", {}, 40),
        ("mlfix_small", {}, 24),
    ],
)
def test_networks_are_made_for_the_images(backbone: str, arguments: dict[str, object], size: int) -> None:
    net = Network(backbone, 3, backbone_args=arguments, image_size=size).eval()
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        logits = net(images)
        images[:, :, :, -1] = 9  # the last column counts
        assert logits.shape == (2, 3) and not torch.equal(net(images), logits)


@pytest.mark.parametrize(
    ("backbone", "size", "other"),
    [("convnext_atto", 24, 32), ("mixer_s32_224", 40, 64)],
)
def test_a_size_that_does_not_fit_names_one_that_does(backbone: str, size: int, other: int) -> None:
    wanted = rf"(?s)model\.backbone={backbone} can't take images of {size} px: .*set pixels\.size={other}, or"
    with pytest.raises(ConfigError, match=wanted + r".*model\.backbone_args"):
        Network(backbone, 3, image_size=size)


def test_a_size_that_comes_as_a_surprise_is_said_too() -> None:
    with pytest.raises(ConfigError, match=r"(?s)can't take images of 24 px.*pixels\.size=32"):
        Network("convnext_atto", 3).eval()(torch.zeros(2, 3, 24, 24))


def test_arguments_of_ones_own_are_kept() -> None:
    assert fit_arguments("vit_tiny_patch16_224", 40, {"img_size": 32}) == {}
    with pytest.raises(ConfigError, match=r"(?s)img_size.*can't take images of 40 px"):
        Network("vit_tiny_patch16_224", 3, backbone_args={**VIT, "img_size": 32}, image_size=40)
    assert fit_arguments("resnet18", 40, {}) == {} == fit_arguments("vit_tiny_patch16_224", 224, {})


def test_grey_networks_see_the_luma() -> None:
    net = Network("resnet18", 3, backbone_args={"in_chans": 1}, image_size=32).eval()
    images = torch.rand(2, 3, 32, 32)
    luma = (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    with torch.no_grad():
        assert torch.allclose(net(images), net.head(net.backbone(luma)), atol=1e-5)
        assert Encoder("resnet18", backbone_args={"in_chans": 1}, image_size=32).eval()(images).shape == (2, 512)
    with pytest.raises(ConfigError, match=r"in_chans is 4.*three channels"):
        Network("resnet18", 3, backbone_args={"in_chans": 4})


def test_features_only_is_said() -> None:
    with pytest.raises(ConfigError, match=r"(?s)maps of its stages.*leave out model\.backbone_args\.features_only"):
        Network("resnet18", 3, backbone_args={"features_only": True})


def test_an_encoder_names_its_own_size() -> None:
    with pytest.raises(ConfigError, match=r"(?s)images of 24 px.*model\.input_size=32"):
        Encoder("convnext_atto", input_size=24, image_size=64)


def test_trying_leaves_no_trace() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
    net[1].eval()
    before, state = [value.clone() for value in net.state_dict().values()], torch.get_rng_state()
    assert why_not(net, 16) == "" and "Kernel size" in why_not(net, 2)
    assert [part.training for part in net] == [True, False, True]
    assert all(map(torch.equal, before, net.state_dict().values()))
    assert torch.equal(torch.get_rng_state(), state)


def test_native_and_next_sizes() -> None:
    assert (native_size("resnet50"), native_size("mlfix_small"), native_size("mine")) == (224, 64, 224)
    assert next_size("vit_tiny_patch16_224", 40, VIT) == 48  # without padding
    assert next_size("resnet18", 40, {}) == 40 and next_size("nonsense", 40, {}) is None


class Takes(nn.Module):
    def __init__(self, wrong: object) -> None:
        super().__init__()
        self.layer, self.wrong = nn.Linear(3 * 16 * 16, 2), wrong

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.wrong:
            raise self.wrong
        return self.layer(images.flatten(1))


def test_a_users_module_is_tried_where_it_takes_images() -> None:
    check_forward(Takes(None), 16, "mine.Takes")
    with pytest.raises(
        ConfigError, match=r"(?s)model\._target_=mine\.Takes can't take images of 40 px: .*pixels\.size"
    ):
        check_forward(Takes(None), 40, "mine.Takes")
    for error in (KeyError("image"), TypeError(), NotImplementedError(), RuntimeError("not attached to a `Trainer`")):
        check_forward(Takes(error), 16, "mine.Takes")
    check_forward(nn.LazyLinear(2), 16, "mine.Lazy")
