"""Compiling and CUDA graphs with a fallback, dry runs that leave no trace, and the largest batch that fits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from mlfix_train.errors import ConfigError
from mlfix_train.models import compile as compiling
from mlfix_train.models.backbones.network import Network
from mlfix_train.models.classifier import Classifier
from mlfix_train.models.compile import dry_run, largest_batch, maybe_compile, maybe_graph

CPU = torch.device("cpu")
SHAPE = (4, 3, 16, 16)


def network() -> Network:
    torch.manual_seed(0)
    return Network("mlfix_small", 3, "concat_pool")


@pytest.mark.slow
def test_compiled_gives_the_same_logits_under_the_same_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and run by AOT autograd; the code generator behind it (inductor) takes most of a minute."""
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args: original(*args, backend="aot_eager"))
    net, names = network(), list(network().state_dict())
    compiled = maybe_compile(net, True, SHAPE, CPU)
    assert compiled is not None
    assert list(net.state_dict()) == names
    net.eval()
    images = torch.randn(SHAPE)
    with torch.no_grad():
        assert torch.allclose(compiled(images), net(images), atol=1e-5)


def test_a_network_that_cannot_be_compiled_runs_eagerly_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("no compiler on this machine")

    monkeypatch.setattr(torch, "compile", lambda *args: fails)
    assert maybe_compile(network(), True, SHAPE, CPU) is None
    assert [record.message for record in caplog.records] == [
        "the network cannot be compiled (RuntimeError: no compiler on this machine), so it runs eagerly"
    ]


def test_a_cpu_records_no_graph_and_compiles_only_if_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "dry_run", lambda *_: pytest.fail("tried a step"))
    assert maybe_compile(network(), False, SHAPE, CPU) is None
    assert maybe_graph(network(), True, torch.zeros(SHAPE)) is None


on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def train(net: Network, forward: Any, steps: int = 8) -> list[float]:
    """Losses of some steps of a network with dropout, on the GPU."""
    torch.manual_seed(3)
    optimizer, losses = torch.optim.SGD(net.parameters(), 0.005), []
    generator = torch.Generator("cuda").manual_seed(5)
    for step in range(steps):
        size = 3 if step == 4 else SHAPE[0]  # a batch of another size
        images = torch.randn((size, *SHAPE[1:]), generator=generator, device="cuda")
        with torch.autocast("cuda", torch.bfloat16):
            logits = forward(images).float()
        loss = logits.square().mean() + logits[:, 0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.gpu
@on_a_gpu
def test_a_graph_trains_like_the_network_itself() -> None:
    eager, recorded = network().cuda().train(), network().cuda().train()
    before = [buffer.clone() for buffer in recorded.buffers()]
    images = torch.randn(SHAPE, device="cuda")
    seed = torch.cuda.get_rng_state()
    step = maybe_graph(recorded, True, images, lambda: torch.autocast("cuda", torch.bfloat16))
    assert step is not None
    assert torch.cuda.get_rng_state().equal(seed)
    assert all(buffer.equal(was) for buffer, was in zip(recorded.buffers(), before, strict=True)), "no trace"
    assert train(eager, eager) == pytest.approx(train(recorded, step), rel=1e-3)
    for (name, one), other in zip(eager.state_dict().items(), recorded.state_dict().values(), strict=True):
        assert torch.allclose(one.float(), other.float(), rtol=1e-2, atol=2e-3), name
    eager.eval()
    recorded.eval()
    images = torch.randn((2, *SHAPE[1:]), device="cuda")
    assert torch.allclose(eager(images), recorded(images), atol=1e-2), "validation is not affected"


@pytest.mark.gpu
@on_a_gpu
def test_frozen_weights_and_hooks_run_eagerly() -> None:
    net = network().cuda().train()
    images = torch.randn(SHAPE, device="cuda")
    step = maybe_graph(net, "auto", images)
    assert step is not None
    for weight in net.backbone.parameters():
        weight.requires_grad_(False)
    step(images).sum().backward()
    assert all(weight.grad is None for weight in net.backbone.parameters())
    assert all(weight.grad is not None for weight in net.head.parameters())
    handle = net.backbone.register_forward_hook(lambda *_: None)
    assert maybe_graph(net, "auto", images) is None
    handle.remove()
    assert maybe_graph(net, "auto", images) is not None


class Waiting(nn.Module):
    """Looks at a number on the device, which can't be recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = torch.dropout(self.layer(x), 0.5, train=True)
        return y if float(y.detach().sum()) > 0 else -y


@pytest.mark.gpu
@on_a_gpu
def test_what_cannot_be_recorded_runs_eagerly_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    net = Waiting().cuda().train()
    assert maybe_graph(net, "auto", torch.randn(8, 4, device="cuda")) is None
    assert [record.message[:44] for record in caplog.records] == ["the step can't be recorded as a CUDA graph ("]
    net(torch.dropout(torch.randn(8, 4, device="cuda"), 0.5, train=True)).sum().backward()
    torch.cuda.synchronize()


@pytest.mark.gpu
@on_a_gpu
def test_a_recording_that_fails_leaves_the_random_generator_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "dry_run", lambda *_, **__: None)
    torch.manual_seed(4)
    expected = torch.rand(5, device="cuda")
    torch.manual_seed(4)
    assert maybe_graph(Waiting().cuda().train(), "auto", torch.zeros(8, 4, device="cuda")) is None
    assert torch.rand(5, device="cuda").equal(expected)


@pytest.mark.parametrize("key", ["cuda_graph", "fast_convs"])
def test_wrong_values_are_named(key: str) -> None:
    for value in ("maybe", 1, None):
        with pytest.raises(ConfigError, match=f"model.{key}={value} is not auto, true or false"):
            Classifier(["a", "b"], "mlfix_small", **{key: value})
    with pytest.raises(ConfigError, match=r"model\.compile=maybe is not true or false"):
        Classifier(["a", "b"], "mlfix_small", compile="maybe")  # type: ignore[arg-type]


def test_fast_convs_are_used_where_asked_for_or_where_there_is_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlfix_train.models import recipe_module

    for wanted, amx, used in ((True, False, True), (False, True, False), ("auto", True, True), ("auto", False, False)):
        monkeypatch.setattr(recipe_module, "has_amx", lambda amx=amx: amx)
        model = Classifier(["a", "b"], "resnet10t", fast_convs=wanted)
        kinds = {type(part).__name__ for part in model.modules()}
        assert ("FastConv2d" in kinds) == used


@pytest.mark.parametrize("training", [True, False])
def test_a_dry_run_leaves_no_trace(training: bool) -> None:
    net = network().train(training)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    dry_run(net, SHAPE, CPU)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    assert torch.equal(state, torch.get_rng_state())
    assert net.training == training and all(parameter.grad is None for parameter in net.parameters())


class Limited(nn.Module):
    """Runs out of memory above a number of images."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit, self.layer = limit, nn.Conv2d(3, 2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        output: torch.Tensor = self.layer(images)
        return output


@pytest.mark.parametrize(("limit", "images", "fits"), [(100, 1, 64), (9, 1, 8), (9, 2, 4), (1, 1, 0)])
def test_the_largest_batch_that_fits(limit: int, images: int, fits: int) -> None:
    from contextlib import nullcontext

    module = nn.Module()
    module.network = Limited(limit)
    module.trainer = SimpleNamespace(precision_plugin=SimpleNamespace(forward_context=nullcontext))
    assert largest_batch(module, CPU, 8, 128, images) == fits
