"""Convolutions as matrix products: the same numbers as convolutions, forward and back, but for rounding."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlfix_train.models.backbones.matmul_conv import LARGEST, MatmulConv2d, use_matmul_convs
from mlfix_train.models.backbones.network import Network


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


@pytest.mark.parametrize("side", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_the_numbers_are_those_of_a_convolution(side: int, step: int, kernel: int, bias: bool) -> None:
    """Compared with a float64 convolution of the rounded inputs: no further off than oneDNN's own bfloat16."""
    torch.manual_seed(side)
    plain = nn.Conv2d(32, 48, kernel, step, kernel // 2, bias=bias).to(memory_format=torch.channels_last)
    quick = copy.deepcopy(plain)
    assert use_matmul_convs(nn.Sequential(quick)) == 1 and type(quick) is MatmulConv2d
    images = torch.randn(5, 32, side, side).bfloat16().float().contiguous(memory_format=torch.channels_last)
    exact = copy.deepcopy(plain).double()
    with torch.no_grad():
        exact.weight.copy_(plain.weight.bfloat16())
    found = []
    grad = torch.randn(exact(images.double()).shape).bfloat16().float()
    for conv, kind in ((exact, torch.double), (plain, torch.float), (quick, torch.float)):
        x = images.to(kind, copy=True).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.float):
            out = conv(x)
        out.backward(grad.to(out.dtype))
        found.append((out.detach(), x.grad, conv.weight.grad))
    for wanted, theirs, ours in zip(*found, strict=True):
        assert ours.shape == wanted.shape
        off = relative(theirs, wanted)  # oneDNN 3.x leaves what was in memory in some gradients of maps of one pixel
        assert relative(ours, wanted) < (max(1.5 * off, 6e-3) if off < 0.1 else 6e-3)
    assert found[2][0].is_contiguous(memory_format=torch.channels_last)


def test_what_it_does_not_suit_stays_as_it_is() -> None:
    others = nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3), nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.Conv2d(64, 64, 3),
        nn.Conv2d(64, 64, 3, padding=2, dilation=2), nn.Conv2d(64, 64, (1, 3), padding=(0, 1)),
        nn.Conv2d(64, 64, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(16, 16, 1),
    )  # fmt: skip
    assert use_matmul_convs(others) == 0


def test_in_float32_it_is_the_convolution_itself() -> None:
    conv = nn.Conv2d(32, 32, 3, padding=1)
    images = torch.randn(2, 32, 3, 3)
    wanted = conv(images)
    use_matmul_convs(nn.Sequential(conv))
    assert torch.equal(conv(images), wanted)


def test_large_maps_are_convolved(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = nn.Conv2d(32, 32, 3, padding=1)
    use_matmul_convs(nn.Sequential(conv))
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: "convolved")
    side = int(LARGEST**0.5)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert conv(torch.randn(1, 32, side + 1, side + 1)) == "convolved"
        assert conv(torch.randn(1, 32, side, side)).shape == (1, 32, side, side)


def test_a_network_learns_the_same_and_keeps_its_names() -> None:
    """A few steps of a ResNet18 at 40 px: losses and weights stay as near as those of two roundings do."""
    torch.manual_seed(0)
    plain = Network("resnet18", 5, "concat_pool")
    quick = copy.deepcopy(plain)
    assert use_matmul_convs(quick) > 15
    assert list(quick.state_dict()) == list(plain.state_dict())
    images, labels = torch.randn(16, 3, 40, 40), torch.randint(0, 5, (16,))
    losses = []
    for network in (plain, quick):
        optimizer = torch.optim.SGD(network.parameters(), 0.01)
        row = []
        for step in range(5):
            torch.manual_seed(step)  # dropout
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(network(images).float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            row.append(float(loss.detach()))
        losses.append(row)
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    quick.load_state_dict(plain.state_dict())
    quick.eval(), plain.eval()
    with torch.no_grad():
        assert torch.equal(quick(images), plain(images))
