"""Nearest neighbours among the rows of a matrix, by Euclidean distance: exact for some thousands, by cells for more.

For more, the points are clustered and each is compared with all points of the cells nearest to its own, in blocks of
one matrix product a cell; then the neighbours of its neighbours are looked at (see ``neighbour_graph``), round by
round, until the recall that a sample of points measures is reached.

Shapes: N points, D dimensions, K neighbours, C cells.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch

from mlfix_train.errors import ConfigError, DataError

log = logging.getLogger(__name__)

EXACT = 12_000
"""Up to so many points all pairs are looked at."""
BLOCK = 1 << 25
"""Distances held at a time (float32: 128 MB)."""
LARGEST = 1e15
"""Numbers beyond it have squares whose sums float32 does not hold."""
SAMPLED = 512
"""Points whose true neighbours measure the recall."""
CELL = 256
"""Points of a cell, on the mean."""
VISITS = 16
"""Cells that each point is compared with, its own among them."""
ROUNDS = 12
"""Rounds, at most, in which the graph is bettered."""


@dataclass(frozen=True)
class Neighbours:
    """The nearest other points of each point.

    Attributes:
        index: int32 ``N,K``, nearest first, never the point itself.
        distance: float32 ``N,K``, in the units of the embeddings.
        recall: share of the true neighbours that were found, by a sample; 1 where all pairs were looked at.
    """

    index: np.ndarray
    distance: np.ndarray
    recall: float = 1.0


def check_embeddings(embeddings: np.ndarray, name: str = "embeddings") -> np.ndarray:
    """Returns embeddings as contiguous float32 ``N,D``.

    Raises:
        DataError: another shape, no numbers, or a row with NaN or infinity, named by its number.
    """
    try:
        x = np.ascontiguousarray(embeddings, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} are no numbers: {error}", "give an array of shape (images, dimensions)") from error
    if x.ndim != 2 or x.shape[1] == 0:
        raise DataError(f"{name} have the shape {x.shape}", "give an array of shape (images, dimensions)")
    bad = np.flatnonzero(~np.isfinite(x).all(1))
    if len(bad):
        raise DataError(
            f"{name}: {len(bad):,} of {len(x):,} rows hold NaN or infinity, the first is row {bad[0]}",
            "embed these images again; a network that gives NaN has diverged, or overflowed in half precision",
        )
    if x.size and (largest := float(np.abs(x).max())) > LARGEST:
        raise DataError(
            f"{name} hold numbers as large as {largest:.3g}", f"scale them: squares above {LARGEST:g} overflow"
        )
    return x


def nearest_neighbours(
    embeddings: np.ndarray, k: int = 10, device: str = "cpu", goal: float = 0.97, seed: int = 0
) -> Neighbours:
    """Finds the nearest neighbours of every point.

    Args:
        embeddings: ``N,D`` numbers.
        k: neighbours of each; all others where there are fewer.
        device: ``cpu``, or a GPU, on which all pairs are looked at whatever N is.
        goal: recall to reach where not all pairs are looked at, 0.5 to 1.
        seed: of the cells.

    Returns:
        K = min(k, N - 1) neighbours of each point.

    Raises:
        DataError: embeddings that are no finite matrix.
        ConfigError: ``k`` or ``goal`` out of range.
    """
    x = check_embeddings(embeddings)
    if not 1 <= k <= 4096:
        raise ConfigError(f"k={k} is out of range", "ask for 1 to 4096 neighbours")
    if not 0.5 <= goal <= 1:
        raise ConfigError(f"goal={goal} is out of range", "give a recall from 0.5 to 1")
    n, k = len(x), min(k, max(len(x) - 1, 0))
    if k == 0:
        return Neighbours(np.empty((n, 0), np.int32), np.empty((n, 0), np.float32))
    x = x - x.mean(0)  # distances stay, and rounding of their squares shrinks
    if n <= EXACT or device != "cpu" or goal == 1:
        index, distance = _exact(torch.from_numpy(x), np.arange(n), k, device)
        return Neighbours(index, distance)
    return _by_cells(x, k, goal, seed)


def rerank(found: Neighbours, exact: np.ndarray, k: int, block: int = 512) -> Neighbours:
    """Lets exact features decide which of some candidates are nearest.

    Args:
        found: ``N,C`` candidates, C >= k, such as neighbours in a projection.
        exact: ``N,D`` features, which may be a memory map in half precision; they are read in blocks.
        k: neighbours to keep.
        block: points looked at at a time.

    Returns:
        The k nearest of each point's candidates and their exact distances; ``recall`` stays that of the candidates.
    """
    n, candidates = found.index.shape
    k = min(k, candidates)
    index, distance = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    if not k:
        return Neighbours(index, distance, found.recall)
    for own in _alike(found.index, block):
        near = found.index[own]
        others, position = np.unique(near, return_inverse=True)
        # Differences, not products: the distance of near-duplicates is what rounding would swallow first.
        gaps = np.empty(near.shape, np.float32)
        theirs = np.asarray(exact[others], dtype=np.float32)
        mine = np.asarray(exact[own], dtype=np.float32)
        for i, places in enumerate(position.reshape(near.shape)):
            gaps[i] = np.square(theirs[places] - mine[i]).sum(1)
        best = np.argsort(gaps, 1, kind="stable")[:, :k]
        index[own] = np.take_along_axis(near, best, 1)
        distance[own] = np.sqrt(np.take_along_axis(gaps, best, 1))
    return Neighbours(index, distance, found.recall)


def _alike(near: np.ndarray, block: int) -> list[np.ndarray]:
    """Splits points into blocks of neighbours, so that the points of a block share most of their candidates."""
    n = len(near)
    left, blocks = np.ones(n, bool), []
    for seed in range(n):
        if not left[seed]:
            continue
        own: list[int] = []
        edge = [seed]
        left[seed] = False
        while edge and len(own) < block:
            point = edge.pop()
            own.append(point)
            fresh = near[point][left[near[point]]]
            left[fresh] = False
            edge[:0] = fresh.tolist()
        left[edge] = True  # seen, but for another block
        blocks.append(np.array(own))
    return blocks


def _exact(x: torch.Tensor, rows: np.ndarray, k: int, device: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the k nearest other points of some rows, by looking at all points."""
    x = x.to(device)
    squares = (x * x).sum(1)
    index = np.empty((len(rows), k), np.int32)
    distance = np.empty((len(rows), k), np.float32)
    step = max(1, BLOCK // len(x))
    for start in range(0, len(rows), step):
        own = torch.from_numpy(rows[start : start + step]).to(device)
        d = torch.addmm(squares, x[own], x.T, alpha=-2.0)
        d[torch.arange(len(own), device=device), own] = torch.inf
        found = d.topk(k, largest=False)
        index[start : start + len(own)] = found.indices.cpu().numpy()
        values = (found.values + squares[own, None]).clamp_min(0).sqrt()
        distance[start : start + len(own)] = values.cpu().numpy()
    return index, distance


def _by_cells(x: np.ndarray, k: int, goal: float, seed: int) -> Neighbours:
    """Looks through the nearest cells, then betters the graph until the sampled recall is reached."""
    from mlfix_train.audit.similarity.refine_graph import reverse_graph

    rng = np.random.default_rng(seed)
    centres, cell = _cluster(x, max(1, len(x) // CELL), rng)
    members = np.argsort(cell, kind="stable")  # points of a cell lie side by side from here on
    x, bounds = x[members], np.searchsorted(cell[members], np.arange(len(centres) + 1))
    sample = rng.choice(len(x), min(SAMPLED, len(x)), replace=False)
    truth, _ = _exact(torch.from_numpy(x), sample, k, "cpu")
    width = min(k + 10, len(x) - 1)
    index, distance = _visit(x, centres, bounds, width)

    def recall() -> float:
        return float(np.mean([len(np.intersect1d(index[row, :k], truth[i])) / k for i, row in enumerate(sample)]))

    rounds, found, fresh = 0, recall(), np.ones(index.shape, np.bool_)
    while found < goal and rounds < ROUNDS and fresh.any():
        index, distance, fresh = _better(x, index, distance, fresh, *reverse_graph(index, fresh, width))
        rounds, found = rounds + 1, recall()
    log.debug("neighbours: %d cells, %d rounds, recall %.3f", len(centres), rounds, found)
    index, distance = index[:, :k], distance[:, :k]
    lonely = np.flatnonzero((index < 0).any(1))
    if len(lonely):  # cells too small to hold k others
        index[lonely], values = _exact(torch.from_numpy(x), lonely, k, "cpu")
        distance[lonely] = values**2
    result = np.empty_like(index), np.empty_like(distance)
    result[0][members], result[1][members] = members[index], np.sqrt(np.maximum(distance, 0))
    return Neighbours(*result, found)


def _better(x: np.ndarray, *graph: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs a round on as many threads as torch uses, and leaves torch's threads as they were.

    numba and torch share one OpenMP, and numba sets its number of threads for both: a training in the same process
    would then sum in another order, and end with other numbers.
    """
    import numba

    from mlfix_train.audit.similarity.refine_graph import better_graph

    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    try:
        return better_graph(x, *graph)
    finally:
        torch.set_num_threads(threads)


def _visit(x: np.ndarray, centres: np.ndarray, bounds: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Compares the points of each cell with those of the nearest cells, one matrix product a cell.

    Returns:
        int32 ``N,width`` nearest found, -1 where there are fewer, and their squared distances.
    """
    from mlfix_train.audit.similarity.refine_graph import best_of_block

    points, squares = torch.from_numpy(x), np.einsum("ij,ij->i", x, x)
    gaps = torch.cdist(torch.from_numpy(centres), torch.from_numpy(centres))
    near = gaps.topk(min(VISITS, len(centres)), largest=False).indices.numpy()
    index = np.full((len(x), width), -1, np.int32)
    distance = np.full((len(x), width), np.inf, np.float32)
    for number, cells in enumerate(near):
        own = np.arange(bounds[number], bounds[number + 1])
        others = np.concatenate([np.arange(bounds[c], bounds[c + 1]) for c in cells])
        theirs = points[torch.from_numpy(others)]
        d = torch.addmm(torch.from_numpy(squares[others]), points[own[0] : own[-1] + 1], theirs.T, alpha=-2.0)
        best_of_block(d.numpy(), own, others, index, distance)
    return index, np.maximum(distance + squares[:, None], 0)


def _cluster(x: np.ndarray, cells: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Clusters points by a few rounds of k-means on a sample; returns the centres and the cell of each point."""
    taken = x[rng.choice(len(x), min(len(x), 50 * cells), replace=False)]
    centres = torch.from_numpy(taken[rng.choice(len(taken), cells, replace=False)].copy())
    points = torch.from_numpy(taken)
    for _ in range(6):
        own = _nearest_centre(points, centres)
        sums = torch.zeros_like(centres).index_add_(0, own, points)
        counts = torch.bincount(own, minlength=cells)
        filled = counts > 0
        centres[filled] = sums[filled] / counts[filled, None]
    cell = _nearest_centre(torch.from_numpy(x), centres).numpy()
    used, cell = np.unique(cell, return_inverse=True)
    return centres.numpy()[used], cell


def _nearest_centre(points: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    squares = (centres * centres).sum(1)
    step = max(1, BLOCK // len(centres))
    parts = [
        torch.addmm(squares, points[i : i + step], centres.T, alpha=-2.0).argmin(1) for i in range(0, len(points), step)
    ]
    return torch.cat(parts)
