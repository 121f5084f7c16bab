"""Folding batch norms into convolutions changes no output."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from mlfix_train.models.backbones.fold_norms import fold_batch_norms


def norms(network: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in network.modules())


def shaken(network: nn.Module) -> nn.Module:
    """Gives norms statistics of their own, so that a wrong fold shows."""
    generator = torch.Generator().manual_seed(0)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.weight.data.uniform_(0.5, 1.5, generator=generator)
            part.bias.data.normal_(0, 0.2, generator=generator)
            part.running_mean.normal_(0, 0.2, generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "mobilenetv3_small_050"])
def test_it_computes_the_same_without_norms(name: str) -> None:
    torch.manual_seed(0)
    network, images = shaken(timm.create_model(name, num_classes=0)), torch.randn(2, 3, 64, 64)
    before = norms(network)
    folded = fold_batch_norms(network, images)
    other = torch.randn(3, 3, 80, 80)
    with torch.no_grad():
        wanted = network(other)
        assert (folded(other) - wanted).abs().max() < 1e-4 * wanted.abs().max()
    assert norms(folded) == 0 and norms(network) == before > 0


class PreActivation(nn.Module):
    """A norm that takes a convolution's output changed in place, one shared by two, and one whose input others use."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 3) for _ in range(3))
        self.changed, self.shared, self.used = (nn.BatchNorm2d(3) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.changed(self.first(x).relu_())
        maps = self.second(x)
        x = self.shared(maps) + self.shared(x[:, :, 1:-1, 1:-1])
        maps = self.third(x)
        return (self.used(maps) + maps).flatten(1)


def test_what_cannot_be_folded_stays() -> None:
    torch.manual_seed(0)
    network, images = shaken(PreActivation()), torch.randn(2, 3, 16, 16)
    folded = fold_batch_norms(network, images)
    assert torch.allclose(folded(images), network(images), atol=1e-4) and norms(folded) == 3
    plain = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, depth=1).eval()
    assert fold_batch_norms(plain, torch.rand(1, 3, 32, 32)) is plain
