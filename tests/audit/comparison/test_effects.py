"""Evidence: variances, intervals, p-values and power against textbook formulas, enumeration and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from mlfix_train.audit.comparison import effects as evidence
from mlfix_train.audit.comparison.effects import Part, Variance


def crossed(
    rng: np.random.Generator, runs: int, groups: int, sd: tuple[float, float, float], effect: float = 0.0
) -> np.ndarray:
    """Draws ``R,G`` contributions: effect + run + group + rest, normal, with three standard deviations."""
    a, b, e = (s * rng.normal(size=size) for s, size in zip(sd, ((runs, 1), (1, groups), (runs, groups)), strict=True))
    return effect + a + b + e


def part_of(z: np.ndarray) -> Part:
    """A part whose mean over the groups is the run's value."""
    return Part(z.mean(1), z - z.mean())


def fixed_variance(
    runs: tuple[float, ...], groups: float = 0.0, n_groups: int = 1000, counts: int | tuple[int, ...] = 10
) -> Variance:
    return Variance(runs, (counts,) * len(runs) if isinstance(counts, int) else counts, groups, n_groups, 1.0)


def textbook(z: list[list[float]]) -> tuple[float, float, float, float]:
    """Two-way layout without replication, by loops: mean squares of rows, columns and rest; the grand mean."""
    R, G = len(z), len(z[0])
    grand = sum(sum(row) for row in z) / (R * G)
    row_mean = [sum(row) / G for row in z]
    column_mean = [sum(z[r][g] for r in range(R)) / R for g in range(G)]
    ss_rows = G * sum((m - grand) ** 2 for m in row_mean)
    ss_columns = R * sum((m - grand) ** 2 for m in column_mean)
    ss_rest = 0.0
    for r in range(R):
        for g in range(G):
            ss_rest += (z[r][g] - row_mean[r] - column_mean[g] + grand) ** 2
    return ss_rows / (R - 1), ss_columns / (G - 1), ss_rest / ((R - 1) * (G - 1)), grand


# --- parts ---


def random_errors(seed: int = 0, runs: int = 4, rows: int = 23) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors ``R,M``, labels ``M`` of 3 unequal classes, and groups ``M`` of unequal size."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([0, 1, 2], [rows - 8, 5, 3]))
    groups = rng.permutation(np.concatenate([np.arange(6), rng.integers(0, 6, rows - 6)]))
    return rng.random((runs, rows)) < 0.4, labels, groups


def test_part_of_a_plain_error_by_hand() -> None:
    wrong = np.array([[1, 0, 0, 1], [0, 0, 0, 1]], dtype=bool)  # errors 50 % and 25 %, 37.5 % in all
    one = evidence.part(wrong, np.full(4, 25.0), np.full(4, 0.375), np.array([0, 0, 1, 1]), 2)
    assert one.runs.tolist() == [50, 25]
    # First run, first group: 25 * (1 - .375) + 25 * (0 - .375) = 6.25, times 2 groups.
    np.testing.assert_allclose(one.cells[0], [12.5, 12.5])
    np.testing.assert_allclose(one.cells[1], [-37.5, 12.5])


@pytest.mark.parametrize("macro", [False, True])
def test_part_against_loops_with_groups_of_unequal_size(macro: bool) -> None:
    wrong, labels, groups = random_errors()
    R, M = wrong.shape
    size = {label: sum(x == label for x in labels) for label in set(labels.tolist())}
    weights = [100 / len(size) / size[x] if macro else 100 / M for x in labels.tolist()]
    centre = []
    for label in labels.tolist():
        alike = [wrong[r, m] for r in range(R) for m in range(M) if not macro or labels[m] == label]
        centre.append(sum(alike) / len(alike))
    one = evidence.part(wrong, np.array(weights), np.array(centre), groups, 6)
    for r in range(R):
        per_label = [np.mean([wrong[r, m] for m in range(M) if labels[m] == label]) for label in sorted(size)]
        wanted = 100 * np.mean(per_label) if macro else 100 * np.mean(wrong[r])
        assert one.runs[r] == pytest.approx(wanted)
        for g in range(6):
            cell = sum(weights[m] * (float(wrong[r, m]) - centre[m]) for m in range(M) if groups[m] == g)
            assert one.cells[r, g] == pytest.approx(6 * cell)
    np.testing.assert_allclose(one.cells.mean(1), one.runs - one.runs.mean(), atol=1e-12)


def test_a_group_without_rows_has_empty_cells() -> None:
    one = evidence.part(np.ones((2, 3)), np.full(3, 100 / 3), np.zeros(3), np.array([0, 2, 2]), 3)
    np.testing.assert_allclose(one.cells, [[100, 0, 200], [100, 0, 200]])


def test_a_difference_is_added_negated_and_estimated() -> None:
    rng = np.random.default_rng(1)
    a, b = part_of(rng.normal(size=(3, 5))), part_of(rng.normal(size=(3, 5)))
    pair = evidence.add(a, b)
    np.testing.assert_array_equal(pair.runs, a.runs - b.runs)
    np.testing.assert_array_equal(pair.cells, a.cells - b.cells)
    np.testing.assert_array_equal(evidence.add(a, b, +1.0).runs, a.runs + b.runs)
    wanted = a.runs.mean() - b.runs.mean()
    assert evidence.estimate([pair]) == pytest.approx(wanted)
    assert evidence.estimate([a, evidence.negate(b)]) == pytest.approx(wanted)
    np.testing.assert_array_equal(evidence.negate(b).cells, -b.cells)


# --- variance ---


@pytest.mark.parametrize(("runs", "groups"), [(2, 2), (2, 30), (5, 3), (7, 40)])
def test_variance_of_pairs_is_the_textbooks_two_way_layout(runs: int, groups: int) -> None:
    rng = np.random.default_rng(runs * 100 + groups)
    for sd in ((1.0, 2.0, 0.5), (0.1, 3.0, 2.0), (1.0, 0.0, 1.0), (0.0, 1.0, 0.0)):
        z = crossed(rng, runs, groups, sd, effect=3.0)
        rows, columns, rest, _ = textbook(z.tolist())
        of_group = max(0.0, (columns - rest) / runs)
        found = evidence.variance([part_of(z)])
        assert found is not None
        assert found.runs[0] == pytest.approx(rows / groups)
        assert found.groups == pytest.approx(of_group / groups, abs=1e-12)
        # Of the grand mean: run / R + group / G + rest / (R G); rows = G * run + rest.
        of_run = (rows - rest) / groups
        wanted = of_run / runs + rest / (runs * groups) + of_group / groups
        assert found.total == pytest.approx(wanted)
        assert (found.counts, found.n_groups) == ((runs,), groups)


def test_variance_of_two_sets_of_runs_against_loops() -> None:
    """Unpaired arms share the groups, whose effects are taken from each other; the rests of both are taken off."""
    rng = np.random.default_rng(3)
    G = 25
    a, b = crossed(rng, 4, G, (1.0, 2.0, 1.0)), crossed(rng, 6, G, (0.5, 1.0, 2.0))
    found = evidence.variance([part_of(a), evidence.negate(part_of(b))])
    assert found is not None
    (rows_a, _, rest_a, _), (rows_b, _, rest_b, _) = textbook(a.tolist()), textbook(b.tolist())
    difference = [sum(a[r, g] for r in range(4)) / 4 - sum(b[r, g] for r in range(6)) / 6 for g in range(G)]
    mean = sum(difference) / G
    spread = sum((x - mean) ** 2 for x in difference) / (G - 1)
    of_group = spread - rest_a / 4 - rest_b / 6
    assert of_group > 0
    assert found.runs == pytest.approx((rows_a / G, rows_b / G))
    assert found.groups == pytest.approx(of_group / G)
    assert found.total == pytest.approx(rows_a / G / 4 + rows_b / G / 6 + of_group / G)
    assert found.shrink == pytest.approx(math.sqrt(of_group / spread))


def test_noise_alone_makes_no_variance_of_groups() -> None:
    z = np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]]) + np.array([[2.0], [0.0]])
    found = evidence.variance([part_of(z)])
    assert found is not None
    assert found.groups == found.shrink == 0
    assert found.total == pytest.approx(2.0 / 2)


@pytest.mark.parametrize(("runs", "groups"), [(1, 10), (10, 1), (1, 1)])
def test_one_run_or_one_group_tells_no_variance(runs: int, groups: int) -> None:
    one = part_of(np.random.default_rng(0).normal(size=(runs, groups)))
    other = part_of(np.random.default_rng(1).normal(size=(5, groups)))
    assert evidence.variance([one]) is None
    assert evidence.variance([other, evidence.negate(one)]) is None
    assert evidence.interval([one]) is None
    assert evidence.interval([one, evidence.negate(other)]) is None


@pytest.mark.parametrize("sd", [(1.0, 4.0, 2.0), (0.3, 1.0, 6.0), (2.0, 0.5, 0.5)])
def test_variance_of_pairs_is_right_on_average(sd: tuple[float, float, float]) -> None:
    """Over many simulated studies the estimate's mean is the true variance of the estimated effect."""
    rng = np.random.default_rng(11)
    R, G, studies = 5, 60, 3000
    effects, totals, of_groups = [], [], []
    for _ in range(studies):
        one = part_of(crossed(rng, R, G, sd))
        found = evidence.variance([one])
        assert found is not None
        effects.append(evidence.estimate([one]))
        totals.append(found.total)
        of_groups.append(found.groups)
    a, b, e = (s**2 for s in sd)
    true = a / R + b / G + e / (R * G)
    assert np.var(effects) == pytest.approx(true, rel=0.09)
    bias = (np.mean(totals) - true) / (np.std(totals) / math.sqrt(studies))
    lift = 0.0 if min(of_groups) > 0 else np.mean(of_groups) - b / G  # what never being below 0 adds
    assert lift < 0.05 * true
    assert abs(bias) < 4 or np.mean(totals) - true == pytest.approx(lift, abs=0.03 * true)
    assert np.mean(totals) == pytest.approx(true, rel=0.06)


def test_variance_of_two_sets_of_runs_is_right_on_average() -> None:
    rng = np.random.default_rng(12)
    G, studies = 50, 3000
    totals, effects = [], []
    for _ in range(studies):
        shared = rng.normal(size=(1, G))  # hard groups are hard for both arms, and cancel
        a = crossed(rng, 4, G, (1.0, 1.0, 2.0)) + 5 * shared
        b = crossed(rng, 7, G, (0.7, 2.0, 1.0)) + 5 * shared
        parts = [part_of(a), evidence.negate(part_of(b))]
        found = evidence.variance(parts)
        assert found is not None
        totals.append(found.total)
        effects.append(evidence.estimate(parts))
    true = 1 / 4 + 0.49 / 7 + (1 + 4) / G + 4 / (4 * G) + 1 / (7 * G)
    assert np.var(effects) == pytest.approx(true, rel=0.09)
    assert np.mean(totals) == pytest.approx(true, rel=0.04)


def test_grouped_rows_with_one_fate_need_the_groups() -> None:
    """Rows of a photo that fail together: told apart as groups they give a wider interval than as single rows."""
    rng = np.random.default_rng(4)
    photos = np.repeat(np.arange(30), rng.integers(1, 9, 30))
    hard = rng.random(30) < 0.3
    wrong = np.tile(hard[photos], (6, 1)) ^ (rng.random((6, len(photos))) < 0.02)
    weights, centre = np.full(len(photos), 100 / len(photos)), np.full(len(photos), wrong.mean())
    together = evidence.variance([evidence.part(wrong, weights, centre, photos, 30)])
    apart = evidence.variance([evidence.part(wrong, weights, centre, np.arange(len(photos)), len(photos))])
    assert together is not None and apart is not None
    assert together.runs == apart.runs
    assert together.total > 2 * apart.total


def test_degrees_of_freedom_are_satterthwaites() -> None:
    found = fixed_variance((4.0, 2.0), groups=0.5, n_groups=21, counts=(5, 8))
    a, b, c = 4 / 5, 2 / 8, 0.5
    assert found.total == pytest.approx(a + b + c)
    assert found.freedom() == pytest.approx((a + b + c) ** 2 / (a**2 / 4 + b**2 / 7 + c**2 / 20))
    assert fixed_variance((3.0,), counts=9).freedom() == pytest.approx(8), "runs alone: Student's n - 1"
    welch = fixed_variance((4.0, 2.0), counts=(5, 8))
    assert welch.freedom() == pytest.approx((a + b) ** 2 / (a**2 / 4 + b**2 / 7)), "two sets of runs: Welch's"


# --- interval ---


@pytest.mark.parametrize("paired", [True, False])
def test_interval_is_the_effect_and_t_standard_errors_about(paired: bool) -> None:
    rng = np.random.default_rng(5)
    a, b = crossed(rng, 12, 80, (1.0, 3.0, 1.0), effect=10.0), crossed(rng, 12, 80, (1.0, 1.0, 1.0))
    parts = [part_of(a - b)] if paired else [part_of(a), evidence.negate(part_of(b))]
    found, ci = evidence.variance(parts), evidence.interval(parts, seed=1, resamples=20_000)
    assert found is not None and ci is not None
    for level in (0.8, 0.95, 0.99):
        low, high = evidence.interval(parts, seed=1, resamples=20_000, level=level) or (0.0, 0.0)
        half = stats.t.ppf((1 + level) / 2, found.freedom()) * math.sqrt(found.total)
        assert (low + high) / 2 == pytest.approx(a.mean() - b.mean(), abs=0.1 * half)
        assert (high - low) / 2 == pytest.approx(half, rel=0.06)
    again = evidence.interval(parts, seed=1, resamples=20_000)
    other = evidence.interval(parts, seed=2, resamples=20_000)
    assert ci == again and ci != other
    np.testing.assert_allclose(ci, other, atol=0.1 * (ci[1] - ci[0]))


def test_interval_turns_with_the_sign() -> None:
    one = part_of(crossed(np.random.default_rng(6), 9, 50, (1.0, 1.0, 1.0), effect=1.0))
    low, high = evidence.interval([one], seed=3, resamples=40_000) or (0.0, 0.0)
    turned = evidence.interval([evidence.negate(one)], seed=3, resamples=40_000)
    np.testing.assert_allclose(turned, [-high, -low], atol=0.05 * (high - low))


SKEWED = np.array([0.0, 0.1, 0.0, 0.1, 0.05, 0.0, 0.1, 4.0])


def lean(cells: np.ndarray) -> float:
    """How much further the upper end of the interval of the skewed runs lies off than the lower, as a ratio."""
    ci = evidence.interval([Part(SKEWED, (SKEWED - SKEWED.mean())[:, None] + cells)], resamples=20_000)
    assert ci is not None
    return (ci[1] - SKEWED.mean()) / (SKEWED.mean() - ci[0])


@pytest.mark.parametrize("distinct", [10, 10**9])
def test_interval_leans_as_skewed_runs_do(distinct: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resampling keeps the shape, and mixes runs and groups by their shares: here the runs have the larger one."""
    monkeypatch.setattr(evidence, "DISTINCT", distinct)
    groups = np.random.default_rng(0).normal(0, 1.0, 60)
    assert lean(np.zeros((8, 60))) > 1.3
    assert lean(np.tile(groups - groups.mean(), (8, 1))) > 1.2


def test_noise_of_the_groups_does_not_hide_the_shape_of_the_runs() -> None:
    """What differs from run to run on one group is no variance of the groups, however large it is."""
    noise = np.random.default_rng(3).normal(0, 30.0, (8, 60))
    noise -= noise.mean(1, keepdims=True)
    found = evidence.variance([Part(SKEWED, (SKEWED - SKEWED.mean())[:, None] + noise)])
    assert found is not None and found.shrink == 0
    assert lean(noise) > 1.2


def test_interval_of_no_difference_at_all_is_a_point() -> None:
    nothing = Part(np.zeros(6), np.zeros((6, 9)))
    assert evidence.interval([nothing]) == [0.0, 0.0]
    assert evidence.permutation_p([nothing]) == 1.0
    found = evidence.variance([nothing])
    assert found is not None and found.total == 0
    assert evidence.runs_needed(0.0, found) is None
    assert evidence.power(0.0, found, 10) == 0


@pytest.mark.parametrize(
    ("runs", "groups", "sd"),
    [(20, 100, (1.0, 6.0, 12.0)), (6, 60, (1.0, 1.0, 5.0)), (10, 40, (0.2, 5.0, 5.0))],
)
def test_interval_covers_the_truth(runs: int, groups: int, sd: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(7)
    studies, hit = 400, 0
    for number in range(studies):
        ci = evidence.interval([part_of(crossed(rng, runs, groups, sd, effect=2.0))], seed=number, resamples=400)
        assert ci is not None
        hit += ci[0] <= 2.0 <= ci[1]
    assert stats.binomtest(hit, studies, 0.95).pvalue > 1e-3 or hit / studies > 0.95


def test_many_groups_give_the_same_interval_as_their_normal_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    one = part_of(crossed(np.random.default_rng(8), 3, evidence.DISTINCT + 50, (0.01, 3.0, 1.0)))
    normal = evidence.interval([one], resamples=2000)
    monkeypatch.setattr(evidence, "DISTINCT", 10**9)
    drawn = evidence.interval([one], resamples=2000)
    assert normal is not None and drawn is not None and normal != drawn
    np.testing.assert_allclose(normal, drawn, atol=0.08 * (normal[1] - normal[0]))


def test_means_of_resamples_are_those_of_drawing_one_by_one() -> None:
    values = np.array([0.0, 0.0, 0.0, 1.0, -2.0, 5.0])
    means = evidence._draw_means(values, np.random.default_rng(0), 20_500)
    assert len(means) == 20_500
    assert means.mean() == pytest.approx(values.mean(), abs=0.03)
    assert means.std() == pytest.approx(values.std() / math.sqrt(6), rel=0.02)
    slow = values[np.random.default_rng(1).integers(6, size=(20_500, 6))].mean(1)
    assert stats.ks_2samp(np.round(means, 6), np.round(slow, 6)).pvalue > 1e-3


# --- permutation test ---


def flips(values: np.ndarray) -> float:
    """Two-sided p of all sign flips, one by one."""
    observed = values.mean()
    means = [np.mean(values * signs) for signs in itertools.product((1, -1), repeat=len(values))]
    below = sum(m <= observed + 1e-12 for m in means) / len(means)
    above = sum(m >= observed - 1e-12 for m in means) / len(means)
    return min(1.0, 2 * min(below, above))


def deals(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided p of all ways to deal the runs to the arms anew, one by one."""
    both, n = np.concatenate([first, second]), len(first)
    observed = first.mean() - second.mean()
    differences = []
    for chosen in itertools.combinations(range(len(both)), n):
        rest = [i for i in range(len(both)) if i not in chosen]
        differences.append(both[list(chosen)].mean() - both[rest].mean())
    below = sum(d <= observed + 1e-12 for d in differences) / len(differences)
    above = sum(d >= observed - 1e-12 for d in differences) / len(differences)
    return min(1.0, 2 * min(below, above))


def paired(values: np.ndarray) -> list[Part]:
    return [Part(values, np.zeros((len(values), 2)))]


def unpaired(first: np.ndarray, second: np.ndarray) -> list[Part]:
    return [Part(first, np.zeros((len(first), 2))), Part(-second, np.zeros((len(second), 2)))]


@pytest.mark.parametrize("runs", [2, 3, 5, 8, 10])
def test_p_of_pairs_is_that_of_all_flips(runs: int) -> None:
    rng = np.random.default_rng(runs)
    tables = [rng.normal(0.6, 1, runs), rng.normal(0, 1, runs), np.round(rng.normal(0.5, 1, runs)),
              np.abs(rng.normal(1, 1, runs)), -np.abs(rng.normal(1, 1, runs)), np.full(runs, 0.1)]  # fmt: skip
    for values in tables:
        if values.any():
            assert evidence.permutation_p(paired(values)) == pytest.approx(flips(values)), values


@pytest.mark.parametrize(("n", "m"), [(2, 2), (2, 5), (3, 3), (4, 6), (6, 3)])
def test_p_of_runs_that_are_no_pairs_is_that_of_all_deals(n: int, m: int) -> None:
    rng = np.random.default_rng(n * 10 + m)
    for shift in (0.0, 1.0, -1.0, 9.0, -9.0):
        a, b = rng.normal(shift, 1, n), rng.normal(0, 1, m)
        assert evidence.permutation_p(unpaired(a, b)) == pytest.approx(deals(a, b)), (a, b)
        a, b = np.round(a), np.round(b)  # ties
        assert evidence.permutation_p(unpaired(a, b)) == pytest.approx(deals(a, b)), (a, b)


def test_rounding_in_the_last_digits_makes_no_difference() -> None:
    """Errors that are equal but for the order of their sums count as equal."""
    values = np.array([0.1 + 0.2, 0.3, -0.3, -(0.1 + 0.2), 0.3, 0.3])
    assert evidence.permutation_p(paired(values)) == pytest.approx(flips(np.round(values, 6)))
    a, b = np.array([0.1 + 0.2, 0.6, 0.3]), np.array([0.3, 0.3, 0.1 + 0.5])
    assert evidence.permutation_p(unpaired(a, b)) == 1.0


@pytest.mark.parametrize("mean", [0.0, 0.25, 0.4])
def test_p_of_many_runs_is_near_students(mean: float) -> None:
    rng = np.random.default_rng(9)
    a, b = rng.normal(mean, 1, 60), rng.normal(0, 1, 60)
    pairs = evidence.permutation_p(paired(a), resamples=20_000)
    assert pairs == pytest.approx(stats.ttest_1samp(a, 0).pvalue, abs=0.025)
    free = evidence.permutation_p(unpaired(a, b), resamples=20_000)
    assert free == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue, abs=0.025)


def test_p_repeats_with_its_seed_and_is_never_0() -> None:
    values = np.random.default_rng(10).normal(0.3, 1, 40)
    first = evidence.permutation_p(paired(values), seed=4, resamples=500)
    assert first == evidence.permutation_p(paired(values), seed=4, resamples=500)
    assert first != evidence.permutation_p(paired(values), seed=5, resamples=500)
    assert evidence.permutation_p(paired(np.full(40, 3.0)), resamples=500) == pytest.approx(2 / 501)


def test_p_is_uniform_where_nothing_happens() -> None:
    rng = np.random.default_rng(13)
    ps = [evidence.permutation_p(paired(rng.normal(size=8))) or 0.0 for _ in range(400)]
    assert np.mean(np.array(ps) <= 0.05) < 0.08
    assert stats.kstest(ps, "uniform").pvalue > 1e-3


def test_one_run_has_no_p() -> None:
    assert evidence.permutation_p(paired(np.array([1.0]))) is None
    assert evidence.permutation_p(unpaired(np.array([1.0]), np.arange(5.0))) is None


@pytest.mark.parametrize("counts", [(1,), (2,), (5,), (6,), (10,), (2, 2), (3, 3), (4, 4), (2, 6), (5, 3)])
def test_smallest_p_is_that_of_runs_entirely_apart(counts: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    sets = [rng.random(count) + 1 for count in counts]
    wanted = flips(sets[0]) if len(sets) == 1 else deals(sets[0], sets[1] + 10)
    assert evidence.smallest_p(counts) == pytest.approx(wanted)
    if min(counts) > 1:
        parts = paired(sets[0]) if len(sets) == 1 else unpaired(sets[0], sets[1] + 10)
        assert evidence.permutation_p(parts) == pytest.approx(wanted)


def test_six_pairs_or_four_runs_of_each_arm_can_show_something() -> None:
    assert evidence.smallest_p((5,)) > 0.05 > evidence.smallest_p((6,))
    assert evidence.smallest_p((3, 3)) > 0.05 > evidence.smallest_p((4, 4))


# --- power ---


def test_power_is_that_of_statsmodels() -> None:
    models = pytest.importorskip("statsmodels.stats.power")
    for effect in (0.3, 0.5, 1.0):
        one, two = fixed_variance((1.0,)), fixed_variance((1.0, 1.0))
        for runs in (3, 10, 40):
            wanted = models.TTestPower().power(effect, runs, 0.05)
            assert evidence.power(effect, one, runs) == pytest.approx(wanted, abs=1e-6)
            wanted = models.TTestIndPower().power(effect, runs, 0.05)
            assert evidence.power(effect, two, runs) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(("effect", "runs"), [(0.0, 5), (0.8, 4), (0.5, 20), (-0.8, 12)])
def test_power_is_how_often_a_t_test_finds_it(effect: float, runs: int) -> None:
    rng = np.random.default_rng(14)
    a, b = rng.normal(effect, 1, (40_000, runs)), rng.normal(0, 1, (40_000, runs))
    pairs = np.mean(stats.ttest_1samp(a, 0, axis=1).pvalue < 0.05)
    assert evidence.power(effect, fixed_variance((1.0,)), runs) == pytest.approx(pairs, abs=0.01)
    free = np.mean(stats.ttest_ind(a, b, axis=1).pvalue < 0.05)
    assert evidence.power(effect, fixed_variance((1.0, 1.0)), runs) == pytest.approx(free, abs=0.01)


def test_power_with_groups_is_how_often_the_interval_leaves_out_0() -> None:
    """Another study of so many runs and as many new groups, judged by t with the estimated variance."""
    rng = np.random.default_rng(15)
    R, G, effect, sd = 8, 100, 1.3, (0.8, 4.0, 2.0)
    a, b, e = (s**2 for s in sd)
    known = fixed_variance((a + e / G,), groups=b / G, n_groups=G, counts=R)
    found = 0
    for _ in range(2000):
        z = part_of(crossed(rng, R, G, sd, effect))
        seen = evidence.variance([z])
        assert seen is not None
        found += abs(evidence.estimate([z])) > stats.t.ppf(0.975, seen.freedom()) * math.sqrt(seen.total)
    assert evidence.power(effect, known, R) == pytest.approx(found / 2000, abs=0.04)


@pytest.mark.parametrize("groups", [0.0, 0.001, 0.02])
@pytest.mark.parametrize("variances", [(1.0,), (1.0, 0.3)])
def test_power_rises_with_runs_and_effect(variances: tuple[float, ...], groups: float) -> None:
    known = fixed_variance(variances, groups=groups, n_groups=500)
    by_runs = [evidence.power(0.5, known, runs) for runs in range(2, 80)]
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(by_runs))
    by_effect = [evidence.power(effect, known, 10) for effect in np.linspace(0, 2, 30)]
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(by_effect))
    if not groups:
        assert by_effect[0] == pytest.approx(0.05)
    assert evidence.power(-0.7, known, 10) == pytest.approx(evidence.power(0.7, known, 10))
    assert min(by_runs) >= 0.0 and max(by_runs) <= 1.0


def test_no_number_of_runs_makes_up_for_few_groups() -> None:
    known = fixed_variance((1.0,), groups=0.25, n_groups=50)
    assert evidence.runs_needed(0.5, known) is None
    assert evidence.power(0.5, known, evidence.MOST_RUNS) < 0.2
    assert evidence.runs_needed(2.0, known) is not None
    assert evidence.runs_needed(0.5, None) is None
    assert evidence.runs_needed(0.0, known) is None


def test_an_effect_without_variance_needs_two_runs() -> None:
    sure = fixed_variance((0.0,))
    assert evidence.power(0.1, sure, 2) == 1
    assert evidence.runs_needed(0.1, sure) == 2
