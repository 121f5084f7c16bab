"""Scores of one's own: columns of the ranking, and evidence for the suspicion."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest

from mlfix_train.audit.predictions.held_out import merge_runs
from mlfix_train.audit.scores import registry
from mlfix_train.audit.scores.ranking import rank, rank_samples, ranking_columns
from mlfix_train.audit.scores.registry import Evidence, label_score, registered_scores

Predictions = Callable[..., pd.DataFrame]


@pytest.fixture
def registered() -> Iterator[None]:
    before = {score.name for score in registered_scores()}
    yield
    for score in registered_scores():
        if score.name not in before:
            registry.unregister(score.name)


def test_every_built_in_score_says_what_it_is() -> None:
    assert len(registered_scores()) == 10
    assert all(len(score.description) > 20 for score in registered_scores())
    kinds = [score.combine_as for score in registered_scores() if score.combine_as]
    assert kinds == ["dynamics", "neighbour", "twin"]


@pytest.mark.usefixtures("registered")
def test_a_score_of_ones_own_is_a_column(predictions: Predictions) -> None:
    before = rank_samples([predictions()])

    @label_score(higher_is_worse=True)
    def length_of_name(evidence: Evidence) -> np.ndarray:
        """Number of characters of the given label."""
        return np.array([len(name) for name in evidence.held_out.given_labels], float)

    found = rank_samples([predictions()])
    assert list(found.columns) == ranking_columns()
    assert ranking_columns()[-2:] == ["length_of_name", "runs"]
    assert (found["length_of_name"] == 1).all()
    pd.testing.assert_frame_equal(found.drop(columns="length_of_name"), before)
    with pytest.raises(ValueError, match="'length_of_name' is already registered"):
        label_score(higher_is_worse=True)(length_of_name)


@pytest.mark.parametrize("higher_is_worse", [True, False])
@pytest.mark.usefixtures("registered")
def test_a_score_of_ones_own_counts_in_its_direction(predictions: Predictions, higher_is_worse: bool) -> None:
    held = merge_runs([predictions(n=200)])

    @label_score(higher_is_worse=higher_is_worse, combine_as="mine")
    def mine(evidence: Evidence) -> np.ndarray:
        """Points at the first sample."""
        return np.where(evidence.held_out.sample_ids == "s000", 1.0 if higher_is_worse else -1.0, 0.0)

    found = rank(Evidence(held))
    assert found.kinds == ["held_out", "mine"]

    def rank_of(table: pd.DataFrame) -> int:
        return int(table.set_index("sample_id").at["s000", "rank"])

    registry.unregister("mine")
    assert rank_of(found.table) < rank_of(rank_samples([predictions(n=200)]))
