"""Convolutions as matrix products: the same numbers as convolutions, forward and back, but for rounding."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlfix_train.models.backbones.fast_convs import MAX_POSITIONS, FastConv2d, Im2ColConv3x3, use_fast_convs
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
    assert use_fast_convs(nn.Sequential(quick)) == 1 and type(quick) is FastConv2d
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
        nn.Conv2d(3, 64, 7, 2, 3),
        nn.Conv2d(64, 64, 3, padding=1, groups=64),
        nn.Conv2d(64, 64, 3),
        nn.Conv2d(64, 64, 3, padding=2, dilation=2),
        nn.Conv2d(64, 64, (1, 3), padding=(0, 1)),
        nn.Conv2d(64, 64, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(16, 16, 1),
    )
    assert use_fast_convs(others) == 0


def test_in_float32_it_is_the_convolution_itself() -> None:
    conv = nn.Conv2d(32, 32, 3, padding=1)
    images = torch.randn(2, 32, 3, 3)
    wanted = conv(images)
    use_fast_convs(nn.Sequential(conv))
    assert torch.equal(conv(images), wanted)


def test_large_maps_are_convolved(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = nn.Conv2d(32, 32, 3, padding=1)
    use_fast_convs(nn.Sequential(conv))
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: "convolved")
    side = int(MAX_POSITIONS**0.5)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert conv(torch.randn(1, 32, side + 1, side + 1)) == "convolved"
        assert conv(torch.randn(1, 32, side, side)).shape == (1, 32, side, side)


@pytest.mark.parametrize("side", [1, 2, 3])
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_before_rounding_to_bfloat16_the_columns_are_the_convolution(side: int, step: int, kind: torch.dtype) -> None:
    """In float64 and float32 the two ways differ by the order of a sum over 9 * 32 products alone."""
    torch.manual_seed(side)
    images, weight = torch.randn(5, 32, side, side, dtype=kind), torch.randn(48, 32, 3, 3, dtype=kind)
    grad = torch.randn(F.conv2d(images, weight, None, step, 1).shape, dtype=kind)
    found = []
    for convolve in (lambda x, w: F.conv2d(x, w, None, step, 1), lambda x, w: Im2ColConv3x3.apply(x, w, step)):
        x, w = images.clone().requires_grad_(), weight.clone().requires_grad_()
        out = convolve(x, w)
        out.backward(grad)
        found.append((out.detach(), x.grad, w.grad))
    for wanted, ours in zip(*found, strict=True):
        assert relative(ours, wanted) < 9 * 32 * torch.finfo(kind).eps


def flat(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def learn(network: nn.Module, half: bool, steps: int = 2) -> tuple[float, torch.Tensor, list[torch.Tensor]]:
    """Trains a copy of a network for a few steps of SGD on one batch.

    Returns:
        The first loss, the first gradient, and after each step how far all weights have moved.
    """
    network = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, 40, 40, generator=generator)
    labels = torch.randint(0, 5, (8,), generator=generator)
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    start = flat(network.parameters())
    losses, gradients, moved = [], [], []
    for step in range(steps):
        torch.manual_seed(step)  # dropout
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = F.cross_entropy(network(images).float(), labels)
        optimizer.zero_grad()
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append(flat(parameter.grad for parameter in network.parameters()))
        optimizer.step()
        moved.append(flat(network.parameters()) - start)
    return losses[0], gradients[0], moved


@pytest.mark.slow
def test_a_network_learns_the_same_and_keeps_its_names() -> None:
    """A few steps of a ResNet18 at 40 px in bfloat16: no further from float32 than with torch's own convolutions.

    How far bfloat16 takes a training from float32 depends on the processor and grows from step to step, so torch's
    own convolutions are the measure, over all weights together. Both ways round as often and to the same 8 bits;
    they sum in another order, which changes some roundings but not how large they are.
    """
    torch.manual_seed(0)
    plain = Network("resnet18", 5, "concat_pool")
    quick = copy.deepcopy(plain)
    assert use_fast_convs(quick) > 15
    assert list(quick.state_dict()) == list(plain.state_dict())
    exact_loss, exact_gradient, exact_moved = learn(plain, half=False)
    their_loss, their_gradient, their_moved = learn(plain, half=True)
    our_loss, our_gradient, our_moved = learn(quick, half=True)
    unit = 2**-8  # bfloat16 keeps 8 bits
    assert abs(our_loss - exact_loss) <= abs(their_loss - exact_loss) + unit * exact_loss
    assert relative(our_gradient, exact_gradient) < 1.05 * relative(their_gradient, exact_gradient)
    for ours, theirs, exact in zip(our_moved, their_moved, exact_moved, strict=True):
        assert relative(ours, exact) < 1.2 * relative(theirs, exact)
        assert relative(ours, theirs) < relative(theirs, exact)
    images = torch.randn(4, 3, 40, 40)
    quick.eval(), plain.eval()
    with torch.no_grad():
        assert torch.equal(quick(images), plain(images))
