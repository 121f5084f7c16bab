"""Labels that may be one: found when a class was split at random, and nothing else; against the area by pairs."""

from __future__ import annotations

import numpy as np
import pytest

from mlfix_train.audit.scores.overlap import overlapping_labels


def predictions(sizes: list[int], split: list[int], seed: int = 0, noise: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels of classes of some sizes; those of ``split`` are one class, labelled at random."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    logits = rng.normal(scale=noise, size=(len(labels), len(sizes)))
    share = np.log(np.array(sizes) / np.sum(np.array(sizes)[split]))
    for row, label in enumerate(labels):
        if label in split:
            logits[row, split] += 4 + share[split]
        else:
            logits[row, label] += 4
    p = np.exp(logits)
    return p / p.sum(1, keepdims=True), labels


@pytest.mark.parametrize("sizes", [[400, 300, 300, 500, 200], [400, 2000, 150, 500, 200]])
def test_a_class_that_was_split_at_random_is_found_alone(sizes: list[int]) -> None:
    p, labels = predictions(sizes, [1, 2])
    found = overlapping_labels(p, labels)
    assert found[["first", "second"]].to_numpy().tolist() == [[1, 2]]
    assert found["overlap"].iloc[0] > 0.9
    assert found["samples"].iloc[0] == sizes[1] + sizes[2]


def test_the_overlap_against_all_pairs_of_samples() -> None:
    p, labels = predictions([40, 60, 60, 30], [1, 2])
    found = overlapping_labels(p, labels, min_overlap=0.1).set_index(["first", "second"])
    share = p[:, 2] / (p[:, 1] + p[:, 2])
    wins = [(a > b) + 0.5 * (a == b) for a in share[labels == 2] for b in share[labels == 1]]
    assert found.loc[(1, 2), "overlap"] == pytest.approx(min(1.0, 2 * (1 - np.mean(wins))))
    deviation = np.sqrt(121 / (12 * 60 * 60))
    assert found.loc[(1, 2), "lowest"] == pytest.approx(min(1, 2 * (1 - np.mean(wins) - 1.96 * deviation)))


def test_classes_that_are_often_confused_are_not_one() -> None:
    p, labels = predictions([300] * 4, [1, 2])
    rng = np.random.default_rng(1)
    told = np.isin(labels, (1, 2)) & (rng.random(len(labels)) < 0.5)  # half of them can be told apart
    p[told] = 0.05
    p[told, labels[told]] = 0.85
    assert overlapping_labels(p, labels).empty


def test_models_that_learned_nothing_find_nothing() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 200)
    p = rng.dirichlet(np.ones(4), 800)
    assert overlapping_labels(p, labels).empty
    assert overlapping_labels(p[:400, :2], labels[:400]).empty, "two labels have nothing to be compared with"


def test_few_samples_are_no_proof() -> None:
    p, labels = predictions([300, 8, 8, 300], [1, 2])
    assert overlapping_labels(p, labels).empty


def test_similar_images_that_tell_labels_apart_count() -> None:
    p, labels = predictions([300] * 4, [1, 2])
    assert len(overlapping_labels(p, labels, np.where(labels > 0, 3 - labels, 0) % 3)) in (0, 1)
    assert overlapping_labels(p, labels, labels).empty
    rng = np.random.default_rng(0)
    votes = np.where(np.isin(labels, (1, 2)), rng.integers(1, 3, len(labels)), labels)
    assert len(overlapping_labels(p, labels, votes)) == 1


def test_a_label_without_samples_is_left_out() -> None:
    p, labels = predictions([300] * 4, [1, 2])
    p = np.hstack([p, np.zeros((len(p), 1))])
    assert overlapping_labels(p, labels)[["first", "second"]].to_numpy().tolist() == [[1, 2]]
