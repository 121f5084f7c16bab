"""Scores of one's own: columns of the ranking, and evidence for the suspicion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlfix_train.audit.predictions.held_out import merge_runs
from mlfix_train.audit.scores.ranking import rank, rank_samples, ranking_columns
from mlfix_train.audit.scores.registry import SCORES, Evidence, LabelScore, register_score, registered
from mlfix_train.errors import ConfigError, DataError

Predictions = Callable[..., pd.DataFrame]


@pytest.fixture
def registry() -> Iterator[None]:
    """The registry, restored after the test."""
    before = list(SCORES)
    yield
    SCORES[:] = before


def test_every_built_in_score_says_what_it_is() -> None:
    assert len({score.name for score in SCORES}) == len(SCORES) == 18
    assert all(len(score.description) > 20 for score in SCORES)
    assert [score.combine_as for score in SCORES if score.combine_as] == ["dynamics", "twin"]


@pytest.mark.usefixtures("registry")
def test_a_score_of_ones_own_is_a_column(predictions: Predictions) -> None:
    before = rank_samples([predictions()])

    def length(evidence: Evidence) -> np.ndarray:
        return np.array([len(name) for name in evidence.held_out.given_labels], float)

    score = LabelScore("length_of_name", length, True, "Number of characters of the given label.")
    register_score(score)
    found = rank_samples([predictions()])
    assert list(found.columns) == ranking_columns()
    assert ranking_columns()[-2:] == ["length_of_name", "runs"]
    assert (found["length_of_name"] == 1).all()
    pd.testing.assert_frame_equal(found.drop(columns="length_of_name"), before)
    with pytest.raises(ValueError, match="'length_of_name' is already registered"):
        register_score(score)


@pytest.mark.parametrize("higher_is_worse", [True, False])
@pytest.mark.usefixtures("registry")
def test_a_score_of_ones_own_counts_in_its_direction(predictions: Predictions, higher_is_worse: bool) -> None:
    def rank_of(table: pd.DataFrame) -> int:
        return int(table.set_index("sample_id").at["s000", "rank"])

    def first_sample(evidence: Evidence) -> np.ndarray:
        worse = evidence.held_out.scores["loss"] + 9.0 * (evidence.held_out.sample_ids == "s000")
        return worse if higher_is_worse else -worse

    before = rank_samples([predictions(n=200)])
    register_score(LabelScore("mine", first_sample, higher_is_worse, "The loss, but for the first sample.", "mine"))
    found = rank(Evidence(merge_runs([predictions(n=200)])))
    assert found.kinds["mine"] > 0.8
    assert rank_of(found.table) < rank_of(before)


def test_the_reference_lists_every_score() -> None:
    text = (Path(__file__).parents[3] / "docs/reference.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    for score in SCORES:
        assert any(f"`{score.name}`" in row.split("|")[1] for row in rows), f"docs/reference.md lacks {score.name}"


@pytest.mark.usefixtures("registry")
def test_a_score_is_computed_where_what_it_needs_is_there(predictions: Predictions) -> None:
    def never(evidence: Evidence) -> np.ndarray:
        pytest.fail("there are no probabilities")

    register_score(
        LabelScore("entropy", never, True, "Entropy of the probabilities, in nats.", needs=("probabilities",))
    )
    assert rank_samples([predictions()])["entropy"].isna().all()
    with pytest.raises(ConfigError, match="needs of the score x=pixels"):
        LabelScore("x", never, True, "A need that does not exist.", needs=("pixels",))
    with pytest.raises(ValueError, match="'twin' already has a score"):
        register_score(LabelScore("y", never, True, "A second score of twins.", "twin"))
    with registered([LabelScore("z", never, True, "For a while.")]):
        assert SCORES[-1].name == "z"
    assert SCORES[-1].name == "entropy"
    with pytest.raises(DataError, match=r"the score bad returned the shape \(3,\)"):
        LabelScore("bad", lambda _: np.zeros(3), True, "Three numbers.").values(Evidence(merge_runs([predictions()])))
