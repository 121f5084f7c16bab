"""Sampling: balanced as torch's own sampler is, parted among processes without loss, each once for evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import WeightedRandomSampler

from mlfix_train.data.loading.sampling import EvaluationBatches, TrainingBatches
from mlfix_train.errors import ConfigError

LABELS = np.repeat([4, 0, 9, 2], [500, 300, 150, 50])


def flat(batches: TrainingBatches | EvaluationBatches) -> list[int]:
    return [position for batch in batches for position in batch]


def epochs(count: int, **how: object) -> np.ndarray:
    batches = TrainingBatches(LABELS, 10, **how)
    drawn = []
    for epoch in range(count):
        batches.set_epoch(epoch)
        drawn.append(flat(batches))
    return np.array(drawn)


def test_balanced_frequencies() -> None:
    drawn = epochs(200).ravel()
    n = len(drawn)
    assert n == 200_000
    labels = np.bincount(LABELS[drawn], minlength=10)[[4, 0, 9, 2]]
    assert ((labels - n / 4) ** 2 / (n / 4)).sum() < 22, "chi-square, 3 degrees of freedom, p = 0.0001"
    wanted = n / 4 / np.bincount(LABELS)[LABELS]
    chi = ((np.bincount(drawn, minlength=1000) - wanted) ** 2 / wanted).sum()
    assert abs(chi - 996) < 5 * np.sqrt(2 * 996), "every sample of a label is as likely, and no more even than chance"


def test_the_law_is_that_of_torch() -> None:
    """Weights 1 / frequency with replacement: the spread within an epoch is that of torch's sampler too."""
    weights = 1 / np.bincount(LABELS)[LABELS]
    generator = torch.Generator().manual_seed(0)
    theirs = np.array([list(WeightedRandomSampler(weights.tolist(), 1000, generator=generator)) for _ in range(200)])
    ours = epochs(200)
    for statistic in (
        lambda rows: [len(set(row)) for row in rows],  # distinct samples in an epoch
        lambda rows: [np.bincount(LABELS[row], minlength=10)[2] for row in rows],  # of the rarest label
        lambda rows: [np.bincount(row).max() for row in rows],  # how often the luckiest is drawn
        lambda rows: [np.mean(LABELS[row[:-1]] == LABELS[row[1:]]) for row in rows],  # neighbours of one label
    ):
        a, b = np.array(statistic(ours), float), np.array(statistic(theirs), float)
        error = np.sqrt(a.var() / len(a) + b.var() / len(b))
        assert abs(a.mean() - b.mean()) < 4.5 * error
        assert 0.75 < a.std() / b.std() < 1.35


def test_balanced_labels_need_no_order() -> None:
    labels = np.random.default_rng(0).permutation(LABELS)
    drawn = np.concatenate([TrainingBatches(labels, 10, seed=seed).draw() for seed in range(50)])
    assert abs(np.bincount(labels[drawn], minlength=10)[[4, 0, 9, 2]] / len(drawn) - 0.25).max() < 0.01


def test_shuffled_draws_each_once() -> None:
    for row in epochs(5, sampling="shuffled"):
        assert sorted(row) == list(range(1000))


@pytest.mark.parametrize("sampling", ["balanced", "shuffled"])
def test_epochs_and_seeds(sampling: str) -> None:
    first = epochs(4, sampling=sampling, seed=1)
    assert (first == epochs(4, sampling=sampling, seed=1)).all()
    assert len({row.tobytes() for row in first}) == 4
    assert not (first == epochs(4, sampling=sampling, seed=2)).all(1).any()
    resumed = TrainingBatches(LABELS, 10, sampling, seed=1)
    resumed.set_epoch(3)
    assert flat(resumed) == first[3].tolist(), "a resumed run draws what it would have drawn"


def test_global_random_state_is_left_alone() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    before, state = torch.get_rng_state(), np.random.get_state()[1].copy()
    flat(TrainingBatches(LABELS, 10))
    assert torch.equal(before, torch.get_rng_state()) and (state == np.random.get_state()[1]).all()


@pytest.mark.parametrize("sampling", ["balanced", "shuffled"])
@pytest.mark.parametrize("world", [2, 3, 4, 7])
@pytest.mark.parametrize("size", [8, 64])
def test_ranks_part_one_draw(sampling: str, world: int, size: int) -> None:
    ranks = [TrainingBatches(LABELS, size, sampling, 5, rank, world) for rank in range(world)]
    for batches in ranks:
        batches.set_epoch(2)
    parts = [list(batches) for batches in ranks]
    assert len({len(part) for part in parts}) == 1 and all(len(b) == len(p) for b, p in zip(ranks, parts, strict=True))
    assert {len(batch) for part in parts for batch in part} == {size}
    whole = ranks[0].draw().tolist()
    assert all((batches.draw() == whole).all() for batches in ranks)
    steps = len(parts[0])
    assert steps == 1000 // world // size
    rows = np.array([[p for batch in part for p in batch] for part in parts])
    assert rows.T.ravel().tolist() == whole[: steps * size * world], "side by side they are the draw itself"
    if sampling == "shuffled":
        assert len(set(rows.ravel().tolist())) == rows.size, "no sample twice"


@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 17])
@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("sampling", ["balanced", "shuffled"])
def test_small_data(n: int, world: int, sampling: str) -> None:
    parts = [list(TrainingBatches(np.arange(n) % 2, 16, sampling, 0, rank, world)) for rank in range(world)]
    assert {len(part) for part in parts} == {1}
    sizes = {len(part[0]) for part in parts}
    assert sizes == {min(max(n // world, 1), 16)}
    assert all(0 <= position < n for part in parts for batch in part for position in batch)
    if sampling == "shuffled" and n >= world and n <= 16:
        seen = [position for part in parts for position in part[0]]
        assert len(set(seen)) == len(seen) == n // world * world


def test_last_batch() -> None:
    batches = list(TrainingBatches(np.zeros(105, int), 10, "shuffled"))
    assert [len(batch) for batch in batches] == [10] * 10
    assert len(TrainingBatches(np.zeros(105, int), 10)) == 10


@pytest.mark.parametrize("n", [1, 2, 5, 63, 64, 65, 200])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [1, 16, 64])
def test_evaluation_covers_everything(n: int, world: int, size: int) -> None:
    ranks = [EvaluationBatches(n, size, rank, world) for rank in range(world)]
    parts = [list(batches) for batches in ranks]
    assert len({tuple(map(len, part)) for part in parts}) == 1, "the same number and sizes of batches everywhere"
    assert all(len(batches) == len(part) for batches, part in zip(ranks, parts, strict=True))
    seen = np.bincount([p for part in parts for batch in part for p in batch], minlength=n)
    assert len(seen) == n and seen.min() == 1 if world == 1 else seen.min() >= 1
    assert seen.sum() - n < world, "no more repeats than the padding needs"
    assert max(len(batch) for part in parts for batch in part) <= size
    if world == 1:
        assert flat(ranks[0]) == list(range(n))


def test_errors() -> None:
    with pytest.raises(ConfigError, match=r"(?s)^sampling=balance.*did you mean 'balanced'"):
        TrainingBatches(LABELS, 10, "balance")
