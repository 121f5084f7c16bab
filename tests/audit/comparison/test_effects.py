"""Components and variances of effects against textbook formulas, loops and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from comparison_helpers import component_of, crossed, fixed_variance

from mlfix_train.audit.comparison.effects import (
    effect_variance,
    error_component,
    estimate,
)
from mlfix_train.audit.comparison.intervals import bootstrap_interval


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


# --- components ---


def random_errors(seed: int = 0, runs: int = 4, rows: int = 23) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors ``R,M``, labels ``M`` of 3 unequal classes, and groups ``M`` of unequal size."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([0, 1, 2], [rows - 8, 5, 3]))
    groups = rng.permutation(np.concatenate([np.arange(6), rng.integers(0, 6, rows - 6)]))
    return rng.random((runs, rows)) < 0.4, labels, groups


def test_part_of_a_plain_error_by_hand() -> None:
    wrong = np.array([[1, 0, 0, 1], [0, 0, 0, 1]], dtype=bool)  # errors 50 % and 25 %, 37.5 % in all
    one = error_component(wrong, np.full(4, 25.0), np.full(4, 0.375), np.array([0, 0, 1, 1]), 2)
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
    center = []
    for label in labels.tolist():
        alike = [wrong[r, m] for r in range(R) for m in range(M) if not macro or labels[m] == label]
        center.append(sum(alike) / len(alike))
    one = error_component(wrong, np.array(weights), np.array(center), groups, 6)
    for r in range(R):
        per_label = [np.mean([wrong[r, m] for m in range(M) if labels[m] == label]) for label in sorted(size)]
        wanted = 100 * np.mean(per_label) if macro else 100 * np.mean(wrong[r])
        assert one.runs[r] == pytest.approx(wanted)
        for g in range(6):
            cell = sum(weights[m] * (float(wrong[r, m]) - center[m]) for m in range(M) if groups[m] == g)
            assert one.cells[r, g] == pytest.approx(6 * cell)
    np.testing.assert_allclose(one.cells.mean(1), one.runs - one.runs.mean(), atol=1e-12)


def test_a_group_without_rows_has_empty_cells() -> None:
    one = error_component(np.ones((2, 3)), np.full(3, 100 / 3), np.zeros(3), np.array([0, 2, 2]), 3)
    np.testing.assert_allclose(one.cells, [[100, 0, 200], [100, 0, 200]])


def test_a_difference_is_added_negated_and_estimated() -> None:
    rng = np.random.default_rng(1)
    a, b = component_of(rng.normal(size=(3, 5))), component_of(rng.normal(size=(3, 5)))
    pair = a - b
    np.testing.assert_array_equal(pair.runs, a.runs - b.runs)
    np.testing.assert_array_equal(pair.cells, a.cells - b.cells)
    np.testing.assert_array_equal((a - -b).runs, a.runs + b.runs)
    wanted = a.runs.mean() - b.runs.mean()
    assert estimate([pair]) == pytest.approx(wanted)
    assert estimate([a, -b]) == pytest.approx(wanted)
    np.testing.assert_array_equal(-b.cells, -b.cells)


# --- variance ---


@pytest.mark.parametrize(("runs", "groups"), [(2, 2), (2, 30), (5, 3), (7, 40)])
def test_variance_of_pairs_is_the_textbooks_two_way_layout(runs: int, groups: int) -> None:
    rng = np.random.default_rng(runs * 100 + groups)
    for sd in ((1.0, 2.0, 0.5), (0.1, 3.0, 2.0), (1.0, 0.0, 1.0), (0.0, 1.0, 0.0)):
        z = crossed(rng, runs, groups, sd, effect=3.0)
        rows, columns, rest, _ = textbook(z.tolist())
        of_group = max(0.0, (columns - rest) / runs)
        found = effect_variance([component_of(z)])
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
    found = effect_variance([component_of(a), -component_of(b)])
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
    assert found.shrinkage == pytest.approx(math.sqrt(of_group / spread))


def test_noise_alone_makes_no_variance_of_groups() -> None:
    z = np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]]) + np.array([[2.0], [0.0]])
    found = effect_variance([component_of(z)])
    assert found is not None
    assert found.groups == found.shrinkage == 0
    assert found.total == pytest.approx(2.0 / 2)


@pytest.mark.parametrize(("runs", "groups"), [(1, 10), (10, 1), (1, 1)])
def test_one_run_or_one_group_tells_no_variance(runs: int, groups: int) -> None:
    one = component_of(np.random.default_rng(0).normal(size=(runs, groups)))
    other = component_of(np.random.default_rng(1).normal(size=(5, groups)))
    assert effect_variance([one]) is None
    assert effect_variance([other, -one]) is None
    assert bootstrap_interval([one]) is None
    assert bootstrap_interval([one, -other]) is None


@pytest.mark.parametrize("sd", [(1.0, 4.0, 2.0), (0.3, 1.0, 6.0), (2.0, 0.5, 0.5)])
def test_variance_of_pairs_is_right_on_average(sd: tuple[float, float, float]) -> None:
    """Over many simulated studies the estimate's mean is the true variance of the estimated effect."""
    rng = np.random.default_rng(11)
    R, G, studies = 5, 60, 3000
    effects, totals, of_groups = [], [], []
    for _ in range(studies):
        one = component_of(crossed(rng, R, G, sd))
        found = effect_variance([one])
        assert found is not None
        effects.append(estimate([one]))
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
        parts = [component_of(a), -component_of(b)]
        found = effect_variance(parts)
        assert found is not None
        totals.append(found.total)
        effects.append(estimate(parts))
    true = 1 / 4 + 0.49 / 7 + (1 + 4) / G + 4 / (4 * G) + 1 / (7 * G)
    assert np.var(effects) == pytest.approx(true, rel=0.09)
    assert np.mean(totals) == pytest.approx(true, rel=0.04)


def test_grouped_rows_with_one_fate_need_the_groups() -> None:
    """Rows of a photo that fail together: told apart as groups they give a wider interval than as single rows."""
    rng = np.random.default_rng(4)
    photos = np.repeat(np.arange(30), rng.integers(1, 9, 30))
    hard = rng.random(30) < 0.3
    wrong = np.tile(hard[photos], (6, 1)) ^ (rng.random((6, len(photos))) < 0.02)
    weights, center = np.full(len(photos), 100 / len(photos)), np.full(len(photos), wrong.mean())
    together = effect_variance([error_component(wrong, weights, center, photos, 30)])
    apart = effect_variance([error_component(wrong, weights, center, np.arange(len(photos)), len(photos))])
    assert together is not None and apart is not None
    assert together.runs == apart.runs
    assert together.total > 2 * apart.total


def test_degrees_of_freedom_are_satterthwaites() -> None:
    found = fixed_variance((4.0, 2.0), groups=0.5, n_groups=21, counts=(5, 8))
    a, b, c = 4 / 5, 2 / 8, 0.5
    assert found.total == pytest.approx(a + b + c)
    assert found.satterthwaite_df() == pytest.approx((a + b + c) ** 2 / (a**2 / 4 + b**2 / 7 + c**2 / 20))
    assert fixed_variance((3.0,), counts=9).satterthwaite_df() == pytest.approx(8), "runs alone: Student's n - 1"
    welch = fixed_variance((4.0, 2.0), counts=(5, 8))
    assert welch.satterthwaite_df() == pytest.approx((a + b) ** 2 / (a**2 / 4 + b**2 / 7)), "two sets of runs: Welch's"
