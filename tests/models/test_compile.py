"""Compiling with a fallback, dry runs that leave no trace, and the largest batch that fits."""

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
from mlfix_train.models.compile import dry_run, largest_batch, maybe_compile

CPU = torch.device("cpu")
SHAPE = (4, 3, 16, 16)


def network() -> Network:
    torch.manual_seed(0)
    return Network("mlfix_small", 3, "concat_pool")


def test_compiled_gives_the_same_logits_under_the_same_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and run by AOT autograd; the code generator behind it (inductor) takes most of a minute."""
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args: original(*args, backend="aot_eager"))
    net, names = network(), list(network().state_dict())
    compiled = maybe_compile(net, True, SHAPE, CPU, 1)
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
    assert maybe_compile(network(), True, SHAPE, CPU, 1) is None
    assert [record.message for record in caplog.records] == [
        "the network cannot be compiled (RuntimeError: no compiler on this machine), so it runs eagerly"
    ]


def test_auto_compiles_long_trainings_on_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[torch.device] = []
    monkeypatch.setattr(torch, "compile", lambda forward: forward)
    monkeypatch.setattr(compiling, "dry_run", lambda network, shape, device, *_: tried.append(device))
    for device, steps in (("cpu", 10**6), ("cuda", 100), ("cuda", 5000)):
        compiled = maybe_compile(network(), "auto", SHAPE, torch.device(device), steps)
        assert (compiled is not None) == (steps == 5000)
    assert tried == [torch.device("cuda")]


@pytest.mark.parametrize("key", ["compile", "fast_convs"])
def test_wrong_values_are_named(key: str) -> None:
    for value in ("maybe", 1, None):
        with pytest.raises(ConfigError, match=f"model.{key}={value} is not auto, true or false"):
            Classifier(["a", "b"], "mlfix_small", **{key: value})


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
