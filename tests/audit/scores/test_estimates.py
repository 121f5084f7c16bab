"""How many labels are wrong, with intervals, and what reviewing finds."""

from __future__ import annotations

import numpy as np
import pytest
from score_helpers import combine, random_scores

from mlfix_train.audit.scores.estimates import bootstrap_counts, estimate_wrong_labels, review_yield
from mlfix_train.audit.scores.suspicion import fit_mixture


@pytest.mark.slow
def test_intervals_contain_the_truth_and_groups_widen_them() -> None:
    kinds, truth = random_scores(20_000, 300, 3, 5.0)
    evidence, labels = combine(kinds), np.arange(20_000) % 4
    mixture = fit_mixture(evidence)
    total, by_label = bootstrap_counts(evidence, mixture, labels, 4, None)
    low, high = np.quantile(total, [0.025, 0.975])
    assert low < truth.sum() < high
    np.testing.assert_allclose(by_label.sum(1), total)
    again, _ = bootstrap_counts(evidence, mixture, labels, 4, None)
    np.testing.assert_array_equal(again, total)
    groups = np.full(20_000, 0)
    groups[np.argsort(-evidence)] = np.arange(20_000) // 50  # the suspicious ones share groups
    grouped, _ = bootstrap_counts(evidence, mixture, labels, 4, groups)
    assert grouped.std() > 1.5 * total.std()
    estimate = estimate_wrong_labels(mixture.probability(evidence), labels, list("abcde"), (total, by_label))
    assert estimate.interval[0] < estimate.wrong < estimate.interval[1]
    assert list(estimate.labels) == list("abcd"), "e has no samples"
    assert sum(row["wrong"] for row in estimate.labels.values()) == pytest.approx(estimate.wrong, abs=0.1)


def test_reviewing_is_worthwhile_while_one_in_twenty_is_wrong() -> None:
    found = review_yield(np.array([1.0, 0.9, 0.06, 0.05, 0.049, 0.01]))
    assert (found["stop_rank"], found["expected_found"], found["expected_left"]) == (4, 2.0, 0.1)
    assert found["curve"][0] == [1, 1.0]
    assert found["curve"][-1][0] == 6
    assert review_yield(np.array([0.01]))["stop_rank"] == 0
