"""Batch samplers: balanced or shuffled for training, every sample once for evaluation, in one process or under DDP.

They yield lists of positions. Every process draws the same epoch from (seed, epoch) and takes its own part of it, so
the processes need not communicate, and a resumed run continues with exactly the batches it would have had.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from mlfix_train.data.loading.spec import SAMPLINGS
from mlfix_train.errors import check_choice


class _Batches(Sampler[list[int]], ABC):
    batch_size: int

    @abstractmethod
    def positions(self) -> np.ndarray:
        """Returns the positions of this process in an epoch, int64, in order."""

    def __iter__(self) -> Iterator[list[int]]:
        own = self.positions()
        for start in range(0, len(own), self.batch_size):
            yield own[start : start + self.batch_size].tolist()


class TrainingBatches(_Batches):
    """Batches of a training epoch; the last one is dropped if it is not full and not the only one (stable shapes).

    Args:
        labels: int64 (N,); what ``balanced`` balances.
        batch_size: Samples per batch and process.
        sampling: ``balanced`` draws N samples with replacement, weighted by 1 / frequency of their label;
            ``shuffled`` draws every sample once.
        seed: The run's seed.
        rank: Number of this process, 0 to ``world - 1``.
        world: Number of processes.
    """

    def __init__(
        self,
        labels: np.ndarray,
        batch_size: int,
        sampling: str = "balanced",
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        check_choice("sampling", sampling, SAMPLINGS)
        self.labels, self.batch_size, self.sampling = np.asarray(labels), batch_size, sampling
        self.seed, self.rank, self.world, self.epoch = seed, rank, world, 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch that is drawn next; Lightning calls it."""
        self.epoch = epoch

    def draw(self) -> np.ndarray:
        """Returns the epoch's samples of all processes together, in order: positions (N,)."""
        rng = np.random.default_rng([self.seed, self.epoch, 0x5A])
        n = len(self.labels)
        if self.sampling == "shuffled":
            return rng.permutation(n)
        _, codes, counts = np.unique(self.labels, return_inverse=True, return_counts=True)
        # A label at random, then one of its samples: the same distribution as weights 1 / frequency.
        by_label = np.argsort(codes, kind="stable")
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        drawn = rng.integers(len(counts), size=n)
        within = (rng.random(n) * counts[drawn]).astype(np.int64)
        return by_label[starts[drawn] + within]

    def positions(self) -> np.ndarray:
        """Returns this process's samples of the epoch, in order, batch after batch: int64."""
        n = len(self.labels) // self.world * self.world or len(self.labels)
        own = np.resize(self.draw()[:n], max(n, self.world))[self.rank :: self.world]
        return own[: len(self) * self.batch_size].astype(np.int64)

    def __len__(self) -> int:
        return max(1, max(len(self.labels) // self.world, 1) // self.batch_size)


class EvaluationBatches(_Batches):
    """Every position below ``n`` once, in order; under DDP repetition pads the processes' parts to one length."""

    def __init__(self, n: int, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.n, self.batch_size, self.rank, self.world = n, batch_size, rank, world

    def positions(self) -> np.ndarray:
        """Returns this process's samples, in order: int64."""
        share = math.ceil(self.n / self.world)
        return np.resize(np.arange(self.n, dtype=np.int64), share * self.world)[self.rank :: self.world]

    def __len__(self) -> int:
        return math.ceil(math.ceil(self.n / self.world) / self.batch_size)
