"""Changes of single labels against t tests and the Benjamini-Hochberg procedure written out."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mlfix_train.audit.comparison.label_changes import MIN_GROUPS, label_changes
from mlfix_train.audit.comparison.study import REMOVED, Study


def make(
    truth: list[int], original: np.ndarray, fixed: np.ndarray, groups: list[int] | None = None, labels: str = "abcdefgh"
) -> Study:
    """A study of clean labels ``truth`` (-1: removed), with wrong predictions where the arrays ``R,N`` are true."""
    clean, wrong = np.array(truth), {"original": original, "fixed": fixed}
    return Study(
        samples=pd.Index([f"s{i}" for i in range(len(clean))]),
        labels=np.array(list(labels), dtype=object),
        given=clean,
        clean=clean,
        groups=np.array(range(len(clean)) if groups is None else groups),
        runs={name: [str(i) for i in range(len(runs))] for name, runs in wrong.items()},
        preds={name: np.where(runs, 99, clean).astype(np.int32) for name, runs in wrong.items()},
    )


def random_study(seed: int = 0, before: float = 0.4, after: float = 0.2, runs: tuple[int, int] = (6, 6)) -> Study:
    """Four labels of 20 to 50 rows, in groups of 1 to 3 rows; the fixed arm errs less on b and d."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat([0, 1, 2, 3, REMOVED], [50, 40, 30, 20, 7]))
    groups = rng.integers(0, 70, len(truth)).tolist()
    hard = rng.uniform(0.5, 1.5, len(truth))
    rate = np.where(np.isin(truth, [1, 3]), after, before)
    return make(
        truth.tolist(),
        rng.random((runs[0], len(truth))) < before * hard,
        rng.random((runs[1], len(truth))) < rate * hard,
        groups,
    )


def by_hand(study: Study, label: int, paired: bool) -> tuple[float, float, float, float]:
    """Effect, standard error, degrees of freedom and p of one label, by loops over its runs and groups."""
    rows = [i for i, x in enumerate(study.clean) if x == label]
    own = sorted({int(study.groups[i]) for i in rows})
    G = len(own)
    arms = []
    for arm in ("original", "fixed"):
        wrong = study.preds[arm] != label
        mean = sum(bool(run[i]) for run in wrong for i in rows) / len(rows) / len(wrong)
        # What a group adds to a run's error, so that the mean over groups is the run's deviation.
        arms.append(
            [
                [G * sum(100 * (float(run[i]) - mean) / len(rows) for i in rows if study.groups[i] == g) for g in own]
                for run in wrong
            ]
        )
    errors = [
        [100 * sum(bool(run[i]) for i in rows) / len(rows) for run in study.preds[arm] != label]
        for arm in ("original", "fixed")
    ]
    if paired:
        sides = [[[x - y for x, y in zip(a, b, strict=True)] for a, b in zip(*arms, strict=True)]]
        values = [[x - y for x, y in zip(*errors, strict=True)]]
    else:
        sides, values = arms, errors
    column = [0.0] * G
    noise, pieces = 0.0, []
    for sign, z, one in zip((1, -1), sides, values, strict=False):
        R = len(z)
        grand = sum(map(sum, z)) / R / G
        rows_mean, columns_mean = [sum(row) / G for row in z], [sum(row[g] for row in z) / R for g in range(G)]
        rest = sum((z[r][g] - rows_mean[r] - columns_mean[g] + grand) ** 2 for r in range(R) for g in range(G))
        noise += rest / (R - 1) / (G - 1) / R
        mean = sum(one) / R
        pieces.append((sum((x - mean) ** 2 for x in one) / (R - 1) / R, R - 1))
        column = [c + sign * x for c, x in zip(column, columns_mean, strict=True)]
    middle = sum(column) / G
    spread = sum((x - middle) ** 2 for x in column) / (G - 1)
    pieces.append((max(0.0, spread - noise) / G, G - 1))
    variance = sum(v for v, _ in pieces)
    df = variance**2 / sum(v**2 / n for v, n in pieces)
    effect = sum(errors[0]) / len(errors[0]) - sum(errors[1]) / len(errors[1])
    return effect, math.sqrt(variance), df, 2 * float(stats.t.sf(abs(effect) / math.sqrt(variance), df))


def benjamini_hochberg(p: list[float]) -> list[float]:
    """Adjusted p-values: the least m p(j) / j over all ranks j from the own one on (Benjamini and Hochberg 1995)."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    q = [0.0] * len(p)
    for rank, i in enumerate(order, start=1):
        q[i] = min(1.0, *(len(p) * p[order[j - 1]] / j for j in range(rank, len(p) + 1)))
    return q


def named(rows: list[dict]) -> dict[str, dict]:
    return {row["label"]: row for row in rows}


@pytest.mark.parametrize(("paired", "runs"), [(True, (6, 6)), (False, (6, 6)), (False, (3, 8)), (True, (2, 2))])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_label_against_loops(paired: bool, runs: tuple[int, int], seed: int) -> None:
    study = random_study(seed, runs=runs)
    found = named(label_changes(study, paired))
    assert set(found) == {"a", "b", "c", "d"}
    for code, label in enumerate("abcd"):
        effect, error, df, p = by_hand(study, code, paired)
        row, rows = found[label], study.clean == code
        assert row["rows"] == rows.sum()
        assert row["groups"] == len(set(study.groups[rows]))
        assert row["before"] == pytest.approx(100 * (study.preds["original"][:, rows] != code).mean(), abs=1e-5)
        assert row["after"] == pytest.approx(100 * (study.preds["fixed"][:, rows] != code).mean(), abs=1e-5)
        assert row["training"] == pytest.approx(effect, abs=1e-5)
        half = stats.t.ppf(0.975, df) * error
        assert row["ci95"] == pytest.approx(np.clip([effect - half, effect + half], -100, 100))
        assert row["p_value"] == pytest.approx(p)
        assert (row["p_value"] < 0.05) == (not row["ci95"][0] <= 0 <= row["ci95"][1]), "test and interval agree"
    wanted = dict(zip("abcd", benjamini_hochberg([found[x]["p_value"] for x in "abcd"]), strict=True))
    for label, q in wanted.items():
        assert found[label]["q_value"] == pytest.approx(q)
        assert found[label]["significant"] == (q < 0.05)


def test_runs_alone_make_a_t_test_as_in_the_books() -> None:
    """Where the groups have no effect of their own the test is Student's on pairs, and Welch's without them."""
    original, fixed = np.zeros((4, 12), dtype=bool), np.zeros((4, 12), dtype=bool)
    starts = [0, 0]
    for r, counts in enumerate(((6, 2), (7, 2), (6, 3), (8, 1))):
        for arm, wrong in enumerate((original, fixed)):  # each run errs where the one before left off: no hard rows
            wrong[r, (starts[arm] + np.arange(counts[arm])) % 12] = True
            starts[arm] += counts[arm]
    study = make([0] * 12, original, fixed)
    x, y = 100 * original.mean(1), 100 * fixed.mean(1)
    paired, free = label_changes(study, True)[0], label_changes(study, False)[0]
    assert by_hand(study, 0, True)[1] == pytest.approx((x - y).std(ddof=1) / 2), "no variance of groups is left"
    assert paired["p_value"] == pytest.approx(stats.ttest_rel(x, y).pvalue)
    assert free["p_value"] == pytest.approx(stats.ttest_ind(x, y, equal_var=False).pvalue)


def test_a_correction_for_many_takes_away_what_chance_brings() -> None:
    """Forty labels of nothing but noise: some have p < 0.05, (almost) none is shown."""
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(40), 30)
    names = "".join(chr(0x4E00 + i) for i in range(40))
    few, shown = 0, 0
    for _ in range(4):
        wrong = [rng.random((5, len(truth))) < 0.3 for _ in range(2)]
        rows = label_changes(make(truth.tolist(), *wrong, labels=names), True)
        few += sum(row["p_value"] < 0.05 for row in rows)
        shown += sum(row["significant"] for row in rows)
        np.testing.assert_allclose([row["q_value"] for row in rows], benjamini_hochberg([r["p_value"] for r in rows]))
    assert few >= 3 and shown <= 1


def test_a_real_change_among_many_is_shown() -> None:
    rng = np.random.default_rng(2)
    truth = np.repeat(np.arange(8), 40)
    before, after = (rng.random((8, len(truth))) < 0.3 for _ in range(2))
    after[:, truth == 5] &= rng.random((8, 40)) < 0.2
    before[:, truth == 2] &= rng.random((8, 40)) < 0.2
    rows = label_changes(make(truth.tolist(), before, after), True)
    assert {row["label"]: row["training"] > 0 for row in rows if row["significant"]} == {"f": True, "c": False}
    assert {row["label"] for row in rows[:2]} == {"c", "f"}


@pytest.mark.parametrize("paired", [True, False])
def test_labels_of_few_groups_are_listed_without_a_test(paired: bool) -> None:
    rng = np.random.default_rng(2)
    truth = [0] * 20 + [1] * 20 + [2] * MIN_GROUPS
    groups = [i % (MIN_GROUPS - 1) for i in range(20)] + list(range(100, 120)) + list(range(200, 200 + MIN_GROUPS))
    wrong = [rng.random((6, len(truth))) < rate for rate in (0.6, 0.3)]
    found = named(label_changes(make(truth, *wrong, groups=groups), paired))
    few, many, least = found["a"], found["b"], found["c"]
    assert (few["rows"], few["groups"]) == (20, MIN_GROUPS - 1)
    assert few["ci95"] is few["p_value"] is few["q_value"] is None and few["significant"] is False
    assert few["training"] == pytest.approx(100 * (wrong[0][:, :20].mean() - wrong[1][:, :20].mean()), abs=1e-5)
    assert many["p_value"] is not None and least["p_value"] is not None
    assert [many["q_value"], least["q_value"]] == pytest.approx(
        benjamini_hochberg([many["p_value"], least["p_value"]])
    ), "labels without a test don't count among the tested"


def test_one_run_tests_nothing() -> None:
    study = random_study(runs=(1, 6))
    rows = label_changes(study, False)
    assert len(rows) == 4
    assert all(row["p_value"] is row["q_value"] is row["ci95"] is None and not row["significant"] for row in rows)


def test_a_label_that_nothing_changes_has_p_1() -> None:
    wrong = np.zeros((4, 12), dtype=bool)
    row = label_changes(make([0] * 12, wrong, wrong), True)[0]
    assert (row["before"], row["after"], row["training"], row["p_value"], row["q_value"]) == (0, 0, 0, 1, 1)
    assert row["significant"] is False


def test_labels_that_lost_all_their_rows_are_not_listed() -> None:
    wrong = np.zeros((3, 14), dtype=bool)
    study = make([0] * 12 + [REMOVED] * 2, wrong, wrong)
    assert [row["label"] for row in label_changes(study, True)] == ["a"]


def test_largest_change_first_whatever_its_sign_then_rows_then_name() -> None:
    truth = [4] * 8 + [3] * 8 + [2] * 16 + [1] * 8 + [0] * 8
    before, after = np.zeros((3, len(truth)), dtype=bool), np.zeros((3, len(truth)), dtype=bool)
    label = np.array(truth)
    for code, count, arm in ((4, 2, before), (3, 4, after), (2, 4, before), (1, 2, after)):
        arm[:, np.flatnonzero(label == code)[:count]] = True
    rows = label_changes(make(truth, before, after), True)
    assert [row["label"] for row in rows] == ["d", "c", "b", "e", "a"]
    assert [row["training"] for row in rows] == pytest.approx([-50, 25, -25, 25, 0])


@pytest.mark.parametrize("n", [13, 14, 30, 50])
def test_a_label_that_all_runs_learn_is_shown(n: int) -> None:
    clean = np.zeros(n, int)
    preds = {"original": np.full((6, n), 9), "fixed": np.zeros((6, n), int)}
    study = Study(pd.Index(range(n)), np.array(["a"], object), clean, clean, np.arange(n), {}, preds)
    (row,) = label_changes(study, True)
    assert row["significant"]
    assert row["p_value"] == pytest.approx(max(2 / 2**6, 2 / 2**n))
