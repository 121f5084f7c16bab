"""Checks the calibration by judged labels on simulated reviews of data sets whose wrong labels are known.

    python scripts/simulate_calibration.py [--sets sets/*.npz] [--reviews 100] [--judged 100] [--ordinary]

In each review, `draw_to_judge` draws labels, the truth judges them, and `calibrate` says how likely each label is wrong
and how many are. A set is an npz file with `evidence` (higher is worse) and `wrong` (bool), and `labels` (int) and
`groups` (int) if there are any; without files, sets are made: errors of several rates and rankings, heavy ceilings (the
top of the ranking is only half wrong), errors that no evidence shows, and tracks that are wrong as a whole. With
`--ordinary` the reviews are those of the page without a drawn sample: the first `--judged` of the ranking.

Prints for each set how often the 95% interval covers the number of wrong labels (should be 92 to 98%), and how often
the intervals by label do (of labels with 20 samples or more); the mean gap between said and true probability over ten
bins of the said probability, weighted by samples within each review, and over the bins of all reviews together without
weights; the mean estimate and width of the interval; and coverage and width of the stratified estimate without a model
(Horvitz-Thompson, with a normal interval).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlfix_train.audit.scores.calibration import bands, calibrate, count_interval, draw_to_judge, rank_order


@dataclass(frozen=True)
class Set:
    """A ranked data set whose wrong labels are known."""

    name: str
    evidence: np.ndarray
    wrong: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None = None


def read_set(path: Path) -> Set:
    """Reads a set from an npz file."""
    arrays = np.load(path)
    evidence, wrong = arrays["evidence"].astype(float), arrays["wrong"].astype(bool)
    labels = arrays["labels"].astype(np.int64) if "labels" in arrays else np.zeros(len(wrong), np.int64)
    groups = arrays["groups"].astype(np.int64) if "groups" in arrays and arrays["groups"].ndim == 1 else None
    if groups is not None and len(np.unique(groups)) == len(groups):
        groups = None
    return Set(path.stem, evidence, wrong, labels, groups)


def make_set(
    name: str, n: int, rate: float, auroc: float, hard: float = 0, unseen: float = 0, track: int = 1, seed: int = 0
) -> Set:
    """Makes a set of ``n`` samples.

    Args:
        name: in the table.
        n: number of samples.
        rate: fraction of wrong labels.
        auroc: of the ranking: scores of right and wrong labels are normal with the same variance.
        hard: right labels that score as the wrong ones, per wrong label.
        unseen: fraction of the wrong labels that score as right ones.
        track: samples of each group, which are right or wrong together and have much the same score.
        seed: of the draw.
    """
    from scipy.stats import norm

    rng = np.random.default_rng([seed, n])
    n_tracks = n // track
    labels = rng.choice(10, n_tracks, p=np.arange(1, 11) / 55)
    odds = rng.lognormal(0, 0.7, 10)[labels]
    wrong = np.zeros(n_tracks, bool)
    wrong[rng.choice(n_tracks, round(rate * n_tracks), replace=False, p=odds / odds.sum())] = True
    looks_wrong = wrong & (rng.random(n_tracks) >= unseen)
    looks_wrong |= ~wrong & (rng.random(n_tracks) < hard * rate)
    score = rng.normal(0, 1, n_tracks) + np.sqrt(2) * norm.ppf(auroc) * looks_wrong
    score = np.repeat(score, track) + (track > 1) * rng.normal(0, 0.3, n_tracks * track)
    groups = np.repeat(np.arange(n_tracks), track) if track > 1 else None
    return Set(name, score, np.repeat(wrong, track), np.repeat(labels, track), groups)


def made_sets() -> Iterator[Set]:
    """Makes sets from easy to hopeless."""
    yield make_set("none wrong, 10,000", 10_000, 0.0, 0.9)
    for rate in (0.001, 0.01, 0.05, 0.1):
        for auroc in (0.7, 0.9, 0.97, 0.999):
            yield make_set(f"{100 * rate:g}%, AUROC {auroc}, 10,000", 10_000, rate, auroc)
    for n in (1000, 200_000):
        for rate in (0.01, 0.05):
            for auroc in (0.9, 0.99):
                yield make_set(f"{100 * rate:g}%, AUROC {auroc}, {n:,}", n, rate, auroc)
    yield make_set("5%, top half wrong, 10,000", 10_000, 0.05, 0.99, hard=1)
    yield make_set("1%, top a quarter wrong, 50,000", 50_000, 0.01, 0.99, hard=3)
    yield make_set("5%, a third unseen, 10,000", 10_000, 0.05, 0.99, unseen=0.33)
    yield make_set("2%, half unseen, 50,000", 50_000, 0.02, 0.999, unseen=0.5)
    yield make_set("3%, tracks of 30, 39,000", 39_000, 0.03, 0.999, track=30)
    yield make_set("5%, tracks of 10, 10,000", 10_000, 0.05, 0.95, track=10)


def stratified_estimate(one: Set, rows: np.ndarray) -> tuple[float, float, float]:
    """Estimates the number of wrong labels without a model: Horvitz and Thompson (1952), with a normal interval."""
    ranks = np.empty(len(one.wrong), np.int64)
    ranks[rank_order(one.evidence)] = np.arange(len(ranks))
    edges = bands(len(ranks))
    band = np.searchsorted(edges, ranks[rows], side="right") - 1
    size, n = np.diff(edges), np.bincount(band, minlength=len(edges) - 1)
    k = np.bincount(band, weights=one.wrong[rows], minlength=len(n))
    p = k / np.maximum(n, 1)
    variance = size**2 * p * (1 - p) / np.maximum(n - 1, 1) * (1 - n / size)
    total, half = float((size * p).sum()), 1.96 * float(np.sqrt(variance.sum()))
    return total, total - half, total + half


def gaps(said: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns samples, sum of the said probabilities and wrong labels in ten bins of the said probability."""
    bins = np.minimum((10 * said).astype(int), 9)
    return tuple(np.bincount(bins, weights=w, minlength=10) for w in (np.ones(len(said)), said, wrong))  # type: ignore


def simulate(one: Set, reviews: int, judged: int, ordinary: bool) -> list[str]:
    """Simulates reviews of a set, and returns the cells of its row."""
    truth, order = int(one.wrong.sum()), rank_order(one.evidence)
    n_classes = int(one.labels.max()) + 1
    true_by_label = np.bincount(one.labels, weights=one.wrong, minlength=n_classes)
    counted = np.bincount(one.labels, minlength=n_classes) >= 20
    covered, label_covered, design_covered, gap, widths, design_widths, wrongs = [], [], [], [], [], [], []
    pooled = np.zeros((3, 10))
    for seed in range(reviews):
        rows = order[:judged] if ordinary else draw_to_judge(one.evidence, judged, seed)
        found = calibrate(one.evidence, rows, one.wrong[rows], one.labels, n_classes, one.groups, seed=seed)
        low, high = found.interval
        covered.append(low <= truth <= high)
        widths.append(high - low)
        wrongs.append(found.wrong)
        ends = count_interval(found.counts[1])
        label_covered.append(((ends[0] <= true_by_label) & (true_by_label <= ends[1]))[counted].mean())
        samples, said, wrong = gaps(found.probability, one.wrong)
        pooled += samples, said, wrong
        gap.append(np.abs(said - wrong).sum() / len(one.wrong))
        _, low, high = stratified_estimate(one, rows)
        design_covered.append(low <= truth <= high)
        design_widths.append(high - low)
        if ordinary:
            break
    filled = pooled[0] > 0
    unweighted = np.mean(np.abs(pooled[1] - pooled[2])[filled] / pooled[0][filled])
    percent = [f"{100 * np.mean(values):.0f}%" for values in (covered, label_covered)]
    return [
        *(one.name, f"{truth:,}", *percent, f"{np.mean(gap):.3f}", f"{unweighted:.3f}"),
        *(f"{np.mean(wrongs):,.0f}", f"{np.mean(widths):,.0f}"),
        *(f"{100 * np.mean(design_covered):.0f}%", f"{np.mean(design_widths):,.0f}"),
    ]


def main() -> None:
    """Simulates reviews of all sets."""
    parser = argparse.ArgumentParser(description="Coverage and gap of the calibration by judged labels.")
    parser.add_argument("--sets", nargs="*", type=Path, default=[], help="npz files; default: made sets")
    parser.add_argument("--reviews", type=int, default=100)
    parser.add_argument("--judged", type=int, default=100)
    parser.add_argument("--ordinary", action="store_true", help="judge the top of the ranking, not a drawn sample")
    options = parser.parse_args()
    head = ["set", "wrong", "covered", "by label", "gap", "gap, unweighted", "estimate", "width"]
    head += ["stratified: covered", "width"]
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for one in map(read_set, options.sets) if options.sets else made_sets():
        started = time.monotonic()
        cells = simulate(one, options.reviews, options.judged, options.ordinary)
        print(f"| {' | '.join(cells)} |", flush=True)
        if time.monotonic() - started > 60:
            print(f"    ({time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
