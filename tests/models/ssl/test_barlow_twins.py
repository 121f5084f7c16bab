"""The loss of Barlow Twins: against its definition in float64, lightly's (where installed), and over processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing

from mlfix_train.models.ssl.barlow_twins import barlow_twins_loss


def pair(n: int, d: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, d, generator=generator) * 3 + 1
    return a, a * 0.7 + torch.randn(n, d, generator=generator)


def by_definition(a: np.ndarray, b: np.ndarray, weight: float) -> float:
    """Equation 1 and 2 of the paper, entry by entry."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    n, d = a.shape
    total = 0.0
    for i in range(d):
        for j in range(d):
            x, y = a[:, i] - a[:, i].mean(), b[:, j] - b[:, j].mean()
            c = (x * y).sum() / n / np.sqrt((x**2).mean() + 1e-5) / np.sqrt((y**2).mean() + 1e-5)
            total += (1 - c) ** 2 if i == j else weight * c**2
    return float(total)


@pytest.mark.parametrize(("n", "d", "weight"), [(8, 3, 5e-3), (32, 16, 5e-3), (64, 10, 0.1), (4, 20, 0.0)])
def test_the_loss_is_that_of_the_paper(n: int, d: int, weight: float) -> None:
    a, b = pair(n, d)
    assert barlow_twins_loss(a, b, weight).item() == pytest.approx(
        by_definition(a.numpy(), b.numpy(), weight), rel=1e-5
    )


def test_the_loss_is_lightlys() -> None:
    theirs = pytest.importorskip("lightly.loss.barlow_twins_loss").BarlowTwinsLoss(lambda_param=5e-3)
    a, b = pair(128, 64)
    mine, other = a.clone().requires_grad_(), a.clone().requires_grad_()
    ours, wanted = barlow_twins_loss(mine, b), theirs(other, b)
    ours.backward()
    wanted.backward()
    assert ours.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert torch.allclose(mine.grad, other.grad, atol=1e-6)


def test_mixed_precision_does_not_reach_the_loss() -> None:
    a, b = pair(64, 10)
    with torch.autocast("cpu", torch.bfloat16):
        found = barlow_twins_loss(a, b)
    assert found.dtype == torch.float32 and found.item() == pytest.approx(barlow_twins_loss(a, b).item(), rel=1e-6)


def test_the_best_and_the_worst() -> None:
    a = torch.linalg.qr(torch.randn(64, 9, generator=torch.Generator().manual_seed(1)) - 0.0)[0]
    a = a - a.mean(0)
    a = torch.linalg.qr(a)[0] * 8  # uncorrelated columns of variance 1
    assert barlow_twins_loss(a, a).item() == pytest.approx(0, abs=1e-4)
    assert barlow_twins_loss(a, -a).item() == pytest.approx(4 * 9, rel=1e-3)
    twice = torch.cat([a, a], 1)  # every feature said twice: 18 pairs of correlation 1
    assert barlow_twins_loss(twice, twice, 0.5).item() == pytest.approx(0.5 * 18, rel=1e-3)


def test_scale_and_shift_change_nothing_and_flat_features_are_finite() -> None:
    a, b = pair(40, 6)
    assert barlow_twins_loss(5 * a - 3, b).item() == pytest.approx(barlow_twins_loss(a, b).item(), rel=1e-4)
    flat = torch.zeros(10, 4, requires_grad=True)
    loss = barlow_twins_loss(flat, torch.zeros(10, 4))
    loss.backward()
    assert loss.item() == pytest.approx(4) and torch.isfinite(flat.grad).all()


def _process(rank: int, world: int, file: str, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    torch.manual_seed(0)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(7, 5))
    x, y = pair(24, 7)
    z = model(torch.cat([x[rank::world], y[rank::world]])).chunk(2)
    loss = barlow_twins_loss(*z)
    loss.backward()
    torch.save([loss.detach(), model.module.weight.grad], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_over_processes_loss_and_gradient_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    arguments = (2, str(tmp_path / "store"), str(tmp_path))
    torch.multiprocessing.start_processes(_process, arguments, nprocs=2, start_method="spawn")
    torch.manual_seed(0)
    model = torch.nn.Linear(7, 5)
    x, y = pair(24, 7)
    order = torch.cat([torch.arange(24)[0::2], torch.arange(24)[1::2]])
    loss = barlow_twins_loss(*model(torch.cat([x[order], y[order]])).chunk(2))
    loss.backward()
    for rank in range(2):
        found, gradient = torch.load(tmp_path / f"{rank}.pt")
        assert found.item() == pytest.approx(loss.item(), rel=1e-5)
        assert torch.allclose(gradient, model.weight.grad, atol=1e-5)
