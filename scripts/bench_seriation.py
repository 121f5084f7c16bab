"""Measures seriation: path length and longest steps against LKH and the greedy chain, time and memory as data grow.

    python scripts/bench_seriation.py <folder of class folders> [--lkh] [--libraries] [--large 200000]

Embeddings are the first 128 principal components of the pixels of real images (32 px). For more points than images,
images are shifted, brightened and made noisy at random. The greedy chain is MLfix's published way to sort, rewritten
here: each step goes to the nearest image that was not visited. LKH is in the package elkai; --libraries compares our
neighbour search with faiss-cpu and pynndescent. All three are tools of this benchmark only: pip install elkai faiss-cpu
pynndescent. Our own code is compiled before the clock starts.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import torch

from mlfix_train.audit.similarity.neighbours import nearest_neighbours
from mlfix_train.audit.similarity.seriation import path_steps, seriate
from mlfix_train.data.pixels.spec import PixelSpec
from mlfix_train.data.pixels.store import open_store
from mlfix_train.data.readers.folder import read_folder


def embed(pixels: np.ndarray, count: int, rng: np.random.Generator, width: int = 128) -> np.ndarray:
    """Returns ``(count, width)`` principal components of images, varied at random if there are too few."""
    n = len(pixels)
    rows = (
        rng.choice(n, count, replace=False) if count <= n else np.concatenate([np.arange(n), rng.choice(n, count - n)])
    )
    flat = pixels[rows].reshape(count, -1)
    basis = pixels[rng.choice(n, min(n, 4000), replace=False)].reshape(-1, flat.shape[1]).astype(np.float32) / 255
    mean = basis.mean(0)
    _, _, axes = np.linalg.svd(basis - mean, full_matrices=False)
    result = np.empty((count, width), np.float32)
    for start in range(0, count, 5000):
        part = flat[start : start + 5000].astype(np.float32) / 255
        again = np.arange(start, start + len(part)) >= n
        if again.any():
            shape = (again.sum(), *pixels.shape[1:])
            images = np.roll(part[again].reshape(shape), rng.integers(-2, 3, 2).tolist(), (1, 2))
            images = images * rng.uniform(0.7, 1.3, (len(images), 1, 1, 1)) + rng.normal(0, 0.03, shape)
            part[again] = images.reshape(len(images), -1)
        result[start : start + len(part)] = (part - mean) @ axes[:width].T
    return result


def greedy_chain(x: np.ndarray) -> np.ndarray:
    """Returns the published order: from the first image, each step to the nearest image that was not visited."""
    squares, left, order = (x * x).sum(1), np.ones(len(x), bool), [0]
    left[0] = False
    for _ in range(len(x) - 1):
        gaps = squares - 2 * (x @ x[order[-1]])
        gaps[~left] = np.inf
        order.append(int(gaps.argmin()))
        left[order[-1]] = False
    return np.array(order)


def bags_of_words(pixels: np.ndarray, rng: np.random.Generator, count: int = 1024) -> np.ndarray:
    """Returns the visual words of 4 x 4 patches, bool ``(N, count)``, for the chain as it was published."""
    from mlfix_train.models.embedding.visual_words import learn_visual_words

    n, side = len(pixels), pixels.shape[1]
    patches = pixels.reshape(n, side // 4, 4, side // 4, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 48)
    x = patches.astype(np.float32)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)
    centers = learn_visual_words(x[rng.choice(len(x), 50_000, replace=False)], count, iterations=5)
    found = np.concatenate([(part @ centers.T - 0.5 * (centers**2).sum(1)).argmax(1) for part in np.array_split(x, 64)])
    bags = np.zeros((n, len(centers)), np.bool_)
    bags[np.repeat(np.arange(n), len(x) // n), found] = True
    return bags


def published_chain(bags: np.ndarray) -> np.ndarray:
    """Returns the order as published: each step to the unvisited image that shares the most words."""
    left, order = np.ones(len(bags), bool), [0]
    left[0] = False
    for _ in range(len(bags) - 1):
        shared = (bags & bags[order[-1]]).sum(1)
        shared[~left] = -1
        order.append(int(shared.argmax()))
        left[order[-1]] = False
    return np.array(order)


def lkh(x: np.ndarray) -> np.ndarray:
    """Returns LKH's path; a point at distance 0 from all others makes its tour an open path."""
    import elkai

    n, squares = len(x), (x.astype(np.float64) ** 2).sum(1)
    gaps = np.zeros((n + 1, n + 1))
    gaps[:n, :n] = np.sqrt(np.maximum(squares[:, None] + squares - 2 * x.astype(np.float64) @ x.T, 0))
    np.fill_diagonal(gaps, 0)
    tour = elkai.DistanceMatrix((gaps * 1e4).round().astype(int).tolist()).solve_tsp(runs=1)[:-1]
    at = tour.index(n)
    return np.array(tour[at + 1 :] + tour[:at])


def longest(steps: np.ndarray) -> float:
    """Returns the mean of the longest 1% of the steps."""
    return float(np.sort(steps)[-max(1, len(steps) // 100) :].mean())


def against_others(pixels: np.ndarray, rng: np.random.Generator, with_lkh: bool) -> None:
    """Compares our order of 4,000 real images with the chain and LKH."""
    x = embed(pixels, 4000, rng)
    bags = bags_of_words(pixels[rng.choice(len(pixels), 4000, replace=False)], rng)
    seriate(x[:300])  # compiles
    start = time.perf_counter()
    published_chain(bags)
    published = time.perf_counter() - start
    times: dict[str, list[float]] = {"chain": [], "ours": []}
    for _ in range(3):
        for name, sort in (("chain", greedy_chain), ("ours", seriate)):
            start = time.perf_counter()
            order = sort(x)
            times[name].append(time.perf_counter() - start)
            if name == "chain":
                chain = path_steps(x, order)
            else:
                ours = path_steps(x, order)
    print(
        f"4,000 images: path {ours.sum() / chain.sum():.4f} of the greedy chain's, mean of the longest 1% of steps "
        f"{longest(ours) / longest(chain):.3f} of its (promised: 0.85)"
    )
    took = {name: float(np.median(values)) for name, values in times.items()}
    print(
        f"    {took['ours']:.2f} s (median of three in turn) against {published:.2f} s of the chain as published, on "
        f"sets of {bags.shape[1]:,} words: {published / took['ours']:.1f} times as fast (promised: 20); a chain by "
        f"matrix products on these {x.shape[1]} numbers an image takes {took['chain']:.2f} s"
    )
    for effort in (0.0, 20.0):
        start = time.perf_counter()
        steps = path_steps(x, seriate(x, search_effort=effort))
        print(
            f"    effort={effort:g}: path {steps.sum() / chain.sum():.4f}, longest 1% "
            f"{longest(steps) / longest(chain):.3f}, {time.perf_counter() - start:.2f} s"
        )
    if with_lkh:
        start = time.perf_counter()
        best = path_steps(x, lkh(x))
        print(
            f"    LKH: path {best.sum() / chain.sum():.4f} of the chain's, longest 1% "
            f"{longest(best) / longest(chain):.3f}, {time.perf_counter() - start:.0f} s; "
            f"ours is {ours.sum() / best.sum():.4f} of LKH's (promised: 1.02)"
        )


def scaling(pixels: np.ndarray, rng: np.random.Generator, largest: int) -> None:
    """Measures time, memory and recall as the data grow."""
    before = smallest = 0.0
    seriate(rng.normal(size=(13_000, 8)))  # compiles
    for n in (largest // 8, largest // 4, largest // 2, largest):
        x = embed(pixels, n, rng)
        start = time.perf_counter()
        found = nearest_neighbours(x, 10)
        middle = time.perf_counter()
        order = seriate(x, neighbours=found)
        end = time.perf_counter()
        recall = measure_recall(x, found.index)
        work = (end - start) / (n * np.log(n))
        smallest = smallest or work
        growth = f", {work / before:.2f} of the time per N log N of the size before" if before else ""
        before = work
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        parts = f"neighbours {middle - start:.1f}, path {end - middle:.1f}"
        print(
            f"{n:,} x {x.shape[1]}: {end - start:.1f} s ({parts}){growth}; recall of the 10 "
            f"nearest {recall:.3f}; peak memory {memory:.1f} GB; mean step "
            f"{path_steps(x, order).mean():.3f}",
            flush=True,
        )
    print(
        f"from {largest // 8:,} to {largest:,} the time per N log N changed to {work / smallest:.2f} of what it was "
        "(promised: 1 at most)"
    )


def measure_recall(x: np.ndarray, index: np.ndarray, k: int = 10) -> float:
    """Returns the share of the k nearest neighbours of 300 points that ``index`` ``(N, >= k)`` holds."""
    sample = np.random.default_rng(5).choice(len(x), 300, replace=False)
    gaps = (x[sample] ** 2).sum(1)[:, None] + (x**2).sum(1) - 2 * x[sample] @ x.T
    gaps[np.arange(300), sample] = np.inf
    truth = np.argpartition(gaps, k, axis=1)[:, :k]
    return float(np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(truth, index[sample], strict=True)]))


def without_self(index: np.ndarray) -> np.ndarray:
    """Returns ``(N, K)`` from ``(N, K + 1)`` neighbours that usually include the point itself."""
    own = index == np.arange(len(index))[:, None]
    own[~own.any(1), -1] = True
    return index[~own].reshape(len(index), -1)


def compare_libraries(x: np.ndarray) -> None:
    """Compares our search for 10 neighbours with faiss (inverted file) and pynndescent, on the threads of torch."""
    threads = torch.get_num_threads()
    print(f"{len(x):,} x {x.shape[1]}, {threads} threads; CPU seconds, recall of the 10 nearest")

    def report(name: str, start: float, index: np.ndarray) -> None:
        print(f"    {name}: {time.process_time() - start:.1f} s, {measure_recall(x, index):.3f}", flush=True)

    nearest_neighbours(x[:13_000], 10, min_recall=0.9999)  # compiles
    start = time.process_time()
    report("ours", start, nearest_neighbours(x, 10).index)
    import faiss

    faiss.omp_set_num_threads(threads)
    for n_probes in (8, 16):
        start = time.process_time()
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(x.shape[1]), x.shape[1], len(x) // 256)
        index.cp.niter, index.cp.max_points_per_centroid = 6, 50
        index.train(x)
        index.add(x)
        index.nprobe = n_probes
        report(f"faiss, {n_probes} cells", start, without_self(index.search(x, 11)[1]))
    start = time.process_time()
    import pynndescent

    pynndescent.NNDescent(x[:13_000], n_neighbors=15, random_state=0, n_jobs=threads)
    print(f"    pynndescent: imported and compiled in {time.process_time() - start:.1f} s, in every process")
    start = time.process_time()
    found, _ = pynndescent.NNDescent(x, n_neighbors=15, random_state=0, n_jobs=threads).neighbor_graph
    report("pynndescent", start, without_self(found))


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="Measures the visual order.")
    parser.add_argument("root")
    parser.add_argument("--lkh", action="store_true")
    parser.add_argument("--libraries", action="store_true")
    parser.add_argument("--large", type=int, default=200_000)
    options = parser.parse_args()
    table = read_folder(options.root)
    store = open_store(table, PixelSpec(size=32), Path("outputs/.pixels"))
    pixels, rng = store[:], np.random.default_rng(0)
    if not options.libraries:
        against_others(pixels, rng, options.lkh)
    if options.libraries:
        compare_libraries(embed(pixels, options.large, rng))
    elif options.large:
        scaling(pixels, rng, options.large)


if __name__ == "__main__":
    main()
