"""Nearest neighbours by Euclidean distance: exact for some thousands of points, approximate for more.

On a CPU, the approximate search clusters the points (inverted file index: each point is compared with all points of the
nearest cells, one matrix product per cell) and then refines the graph (see ``refine_graph``) until a sample of points
shows the recall that was asked for. On a GPU it compares all pairs, coarsely, and the nearest of them exactly.

Shapes: N points, D dimensions, K neighbours, C cells.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from mlfix_train.errors import DataError, check_range

log = logging.getLogger(__name__)

EXACT_LIMIT = 12_000  # up to this many points, all pairs are compared
BLOCK_SIZE = 1 << 25  # distances held at a time (float32: 128 MB)
LARGEST_VALUE = 1e15  # sums of the squares of larger numbers overflow float32
RECALL_SAMPLE = 512  # points whose true neighbours measure the recall
CELL_SIZE = 256  # mean number of points in a cell
N_PROBES = 16  # cells each point is compared with, its own included
MAX_ROUNDS = 12  # rounds of refinement at most
GPU_BLOCK_SIZE = 1 << 30  # distances held at a time on a GPU, at most (float32: 4 GB)
GROUP_SIZE = 32  # points of which a GPU keeps the smallest distance
SPARE = 16  # groups, and points, that are looked at beyond the k nearest, since coarse distances are rounded


@dataclass(frozen=True)
class Neighbours:
    """The nearest other points of each point.

    Attributes:
        index: int32 ``(N, K)``, nearest first, never the point itself.
        distance: float32 ``(N, K)``, in the units of the embeddings.
        recall: share of the true neighbours found, estimated from a sample; 1 if all pairs were compared.
    """

    index: np.ndarray
    distance: np.ndarray
    recall: float = 1.0


def check_embeddings(embeddings: np.ndarray, name: str = "embeddings") -> np.ndarray:
    """Returns embeddings as contiguous float32 ``(N, D)``.

    Raises:
        DataError: Another shape, not numeric, too large, or NaN or infinity, with the number of the first such row.
    """
    hint = "pass an array of shape (images, dimensions)"
    try:
        x = np.ascontiguousarray(embeddings, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} are not numeric: {error}", hint) from error
    if x.ndim != 2 or x.shape[1] == 0:
        raise DataError(f"{name} have the shape {x.shape}", hint)
    bad = np.flatnonzero(~np.isfinite(x).all(1))
    if len(bad):
        problem = f"{name}: {len(bad):,} of {len(x):,} rows contain NaN or infinity, the first is row {bad[0]}"
        hint = "embed these images again; a network that outputs NaN has diverged, or overflowed in half precision"
        raise DataError(problem, hint)
    if x.size and (largest := float(np.abs(x).max())) > LARGEST_VALUE:
        hint = f"scale them: squares of values above {LARGEST_VALUE:g} overflow"
        raise DataError(f"{name} contain values as large as {largest:.3g}", hint)
    return x


def nearest_neighbours(
    embeddings: np.ndarray, k: int = 10, device: str = "cpu", min_recall: float = 0.97, seed: int = 0
) -> Neighbours:
    """Finds the nearest neighbours of every point.

    The same arguments give the same result on the same machine. Up to 12,000 points, and with ``min_recall=1``, the
    search is exact.

    Args:
        embeddings: ``(N, D)`` numbers.
        k: Neighbours of each point, 1 to 4096; all others if there are fewer.
        device: ``cpu`` or a GPU.
        min_recall: Recall at which the approximate search stops, 0.5 to 1.
        seed: Of the clustering.

    Returns:
        K = min(k, N - 1) neighbours of each point.

    Raises:
        DataError: The embeddings are not a finite matrix.
        ConfigError: ``k`` or ``min_recall`` is out of range.
    """
    x = check_embeddings(embeddings)
    check_range("k", k, 1, 4096)
    check_range("min_recall", min_recall, 0.5, 1)
    n, k = len(x), min(k, max(len(x) - 1, 0))
    if k == 0:
        return Neighbours(np.empty((n, 0), np.int32), np.empty((n, 0), np.float32))
    x = x - x.mean(0)  # keeps distances, and shrinks the rounding error of squares
    if n <= EXACT_LIMIT or min_recall == 1:
        return Neighbours(*_exact_search(torch.from_numpy(x), np.arange(n), k, device))
    if device != "cpu":
        found = _search_on_gpu(torch.from_numpy(x), k, device, seed)
        if found.recall >= min_recall:
            return found
        return Neighbours(*_exact_search(torch.from_numpy(x), np.arange(n), k, device))
    return _approximate_search(x, k, min_recall, seed)


def rerank(candidates: Neighbours, features: np.ndarray, k: int, block_size: int = 512) -> Neighbours:
    """Selects the k nearest of given candidates, such as neighbours after a projection, by their exact distance.

    ``features`` ``(N, D)`` may be a memory map in half precision and are read in blocks.
    """
    n, n_candidates = candidates.index.shape
    k = min(k, n_candidates)
    index, distance = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    if not k:
        return Neighbours(index, distance, candidates.recall)
    for own in _blocks_of_neighbours(candidates.index, block_size):
        near = candidates.index[own]
        needed, positions = np.unique(near, return_inverse=True)
        others = np.asarray(features[needed], dtype=np.float32)
        points = np.asarray(features[own], dtype=np.float32)
        # Differences instead of products: near-duplicates have distances that rounding would swallow first
        squared = np.empty(near.shape, np.float32)
        for i, columns in enumerate(positions.reshape(near.shape)):
            squared[i] = np.square(others[columns] - points[i]).sum(1)
        best = np.argsort(squared, 1, kind="stable")[:, :k]
        index[own] = np.take_along_axis(near, best, 1)
        distance[own] = np.sqrt(np.take_along_axis(squared, best, 1))
    return Neighbours(index, distance, candidates.recall)


def _blocks_of_neighbours(near: np.ndarray, block_size: int) -> list[np.ndarray]:
    """Partitions points by breadth-first search into blocks that share most of their candidates."""
    unassigned, blocks = np.ones(len(near), bool), []
    for seed in range(len(near)):
        if not unassigned[seed]:
            continue
        block: list[int] = []
        frontier = [seed]
        unassigned[seed] = False
        while frontier and len(block) < block_size:
            point = frontier.pop()
            block.append(point)
            found = near[point][unassigned[near[point]]]
            unassigned[found] = False
            frontier[:0] = found.tolist()
        unassigned[frontier] = True  # for another block
        blocks.append(np.array(block))
    return blocks


def _exact_search(x: torch.Tensor, rows: np.ndarray, k: int, device: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns index and distance ``(len(rows), k)`` of the nearest other points of some rows, comparing all pairs."""
    x = x.to(device)
    squares = (x * x).sum(1)
    index = np.empty((len(rows), k), np.int32)
    distance = np.empty((len(rows), k), np.float32)
    step = max(1, BLOCK_SIZE // len(x))
    for start in range(0, len(rows), step):
        own = torch.from_numpy(rows[start : start + step]).to(device)
        gaps = torch.addmm(squares, x[own], x.T, alpha=-2.0)
        gaps[torch.arange(len(own), device=device), own] = torch.inf
        nearest = gaps.topk(k, largest=False)
        index[start : start + len(own)] = nearest.indices.cpu().numpy()
        values = (nearest.values + squares[own, None]).clamp_min(0).sqrt()
        distance[start : start + len(own)] = values.cpu().numpy()
    return index, distance


def _search_on_gpu(x: torch.Tensor, k: int, device: str, seed: int = 0) -> Neighbours:
    """Compares all pairs in TF32, and ranks the nearest candidates of each point by their exact distance.

    The k nearest points lie in the k groups of points with the smallest minima, so only the minima are ranked: that
    reads the distances once, where a selection among all of them would read them several times.
    """
    x = x.to(device)
    n, width = len(x), -(-len(x) // GROUP_SIZE)  # point i is in group i % width
    padded = torch.nn.functional.pad(x, (0, 0, 0, width * GROUP_SIZE - n))
    squares = torch.nn.functional.pad((x * x).sum(1), (0, width * GROUP_SIZE - n), value=torch.inf)
    members = width * torch.arange(GROUP_SIZE, device=device)
    n_near = min(k + SPARE, n - 1)
    index = np.empty((n, k), np.int32)
    distance = np.empty((n, k), np.float32)
    step = max(1, _gpu_block_size(device) // len(padded))
    for start in range(0, n, step):
        own = x[start : start + step]
        with _tf32():
            gaps = torch.addmm(squares, own, padded.T, alpha=-2.0)
        rows = torch.arange(len(own), device=device)
        gaps[rows, start + rows] = torch.inf
        groups = gaps.view(len(own), GROUP_SIZE, width).amin(1).topk(min(k + SPARE, width), largest=False).indices
        candidates = (groups[:, :, None] + members).flatten(1)
        coarse = gaps.gather(1, candidates).topk(n_near, largest=False).indices
        del gaps
        nearest = candidates.gather(1, coarse)
        exact = torch.cat(
            [
                (padded[part] - mine[:, None]).square().sum(2)
                for part, mine in zip(nearest.split(8192), own.split(8192), strict=True)  # type: ignore[no-untyped-call]
            ]
        )
        best = exact.topk(k, largest=False)
        index[start : start + len(own)] = nearest.gather(1, best.indices).int().cpu().numpy()
        distance[start : start + len(own)] = best.values.sqrt().cpu().numpy()
    sample = np.sort(np.random.default_rng(seed).choice(n, min(RECALL_SAMPLE, n), replace=False))
    truth, _ = _exact_search(x, sample, k, device)
    recall = float(np.mean([len(np.intersect1d(index[row], truth[i])) / k for i, row in enumerate(sample)]))
    return Neighbours(index, distance, recall)


def _gpu_block_size(device: str) -> int:
    """Returns how many float32 distances are held at a time: at most an eighth of the free memory."""
    if not device.startswith("cuda"):
        return BLOCK_SIZE
    return int(min(GPU_BLOCK_SIZE, torch.cuda.mem_get_info(device)[0] // 32))


@contextmanager
def _tf32() -> Iterator[None]:
    """Lets float32 matrix products on a GPU round their factors to TF32."""
    matmul = torch.backends.cuda.matmul
    name, value = ("fp32_precision", "tf32") if hasattr(matmul, "fp32_precision") else ("allow_tf32", True)
    before = getattr(matmul, name)
    setattr(matmul, name, value)
    try:
        yield
    finally:
        setattr(matmul, name, before)


def _approximate_search(x: np.ndarray, k: int, min_recall: float, seed: int) -> Neighbours:
    """Searches the nearest cells of each point, then refines the graph until the sampled recall is reached."""
    from mlfix_train.audit.similarity.refine_graph import reverse_graph

    rng = np.random.default_rng(seed)
    centers, cell = _cluster(x, max(1, len(x) // CELL_SIZE), rng)
    members = np.argsort(cell, kind="stable")
    x, bounds = x[members], np.searchsorted(cell[members], np.arange(len(centers) + 1))  # a cell is a range from here
    sample = rng.choice(len(x), min(RECALL_SAMPLE, len(x)), replace=False)
    truth, _ = _exact_search(torch.from_numpy(x), sample, k, "cpu")
    width = min(k + 10, len(x) - 1)
    index, squared = _search_cells(x, centers, bounds, width)

    def measure_recall() -> float:
        return float(np.mean([len(np.intersect1d(index[row, :k], truth[i])) / k for i, row in enumerate(sample)]))

    rounds, recall, is_new = 0, measure_recall(), np.ones(index.shape, np.bool_)
    while recall < min_recall and rounds < MAX_ROUNDS and is_new.any():
        index, squared, is_new = _refine(x, index, squared, is_new, *reverse_graph(index, is_new, width))
        rounds, recall = rounds + 1, measure_recall()
    log.debug("neighbours: %d cells, %d rounds, recall %.3f", len(centers), rounds, recall)
    index, distance = index[:, :k], np.sqrt(np.maximum(squared[:, :k], 0))
    incomplete = np.flatnonzero((index < 0).any(1))  # the cells searched hold fewer than k others
    if len(incomplete):
        index[incomplete], distance[incomplete] = _exact_search(torch.from_numpy(x), incomplete, k, "cpu")
    place = np.argsort(members)
    return Neighbours(members[index][place].astype(np.int32), distance[place], recall)


def _refine(x: np.ndarray, *graph: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs a round of refinement on as many threads as torch uses, and leaves torch's number of threads as it was.

    numba and torch share one OpenMP runtime, and numba sets the number of threads for both. A training in the same
    process would then sum in another order and end with other numbers.
    """
    import numba

    from mlfix_train.audit.similarity.refine_graph import refine_graph

    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    try:
        return refine_graph(x, *graph)
    finally:
        torch.set_num_threads(threads)


def _search_cells(x: np.ndarray, centers: np.ndarray, bounds: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the nearest points in the nearest cells, int32 ``(N, width)`` (-1: no more), and squared distances."""
    from mlfix_train.audit.similarity.refine_graph import keep_nearest

    points, squares = torch.from_numpy(x), np.einsum("ij,ij->i", x, x)
    gaps = torch.cdist(torch.from_numpy(centers), torch.from_numpy(centers))
    nearest_cells = gaps.topk(min(N_PROBES, len(centers)), largest=False).indices.numpy()
    index = np.full((len(x), width), -1, np.int32)
    squared = np.full((len(x), width), np.inf, np.float32)
    for number, cells in enumerate(nearest_cells):
        own = np.arange(bounds[number], bounds[number + 1])
        others = np.concatenate([np.arange(bounds[cell], bounds[cell + 1]) for cell in cells])
        candidates = points[torch.from_numpy(others)]
        block = torch.addmm(torch.from_numpy(squares[others]), points[own[0] : own[-1] + 1], candidates.T, alpha=-2.0)
        keep_nearest(block.numpy(), own, others, index, squared)
    return index, np.maximum(squared + squares[:, None], 0)


def _cluster(x: np.ndarray, n_cells: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Runs a few rounds of k-means on a sample; returns the centers ``(C, D)`` and the cell of each point ``(N,)``."""
    sample = x[rng.choice(len(x), min(len(x), 50 * n_cells), replace=False)]
    centers = torch.from_numpy(sample[rng.choice(len(sample), n_cells, replace=False)].copy())
    points = torch.from_numpy(sample)
    for _ in range(6):
        nearest = _nearest_center(points, centers)
        sums = torch.zeros_like(centers).index_add_(0, nearest, points)
        counts = torch.bincount(nearest, minlength=n_cells)
        filled = counts > 0
        centers[filled] = sums[filled] / counts[filled, None]
    cell = _nearest_center(torch.from_numpy(x), centers).numpy()
    used, cell = np.unique(cell, return_inverse=True)
    return centers.numpy()[used], cell


def _nearest_center(points: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    squares = (centers * centers).sum(1)
    step = max(1, BLOCK_SIZE // len(centers))
    blocks = [points[start : start + step] for start in range(0, len(points), step)]
    return torch.cat([torch.addmm(squares, block, centers.T, alpha=-2.0).argmin(1) for block in blocks])
