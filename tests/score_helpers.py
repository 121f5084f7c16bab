"""What the tests of scores share: scores of several kinds with known wrong labels."""

from __future__ import annotations

import numpy as np

from mlfix_train.audit.scores.suspicion import combine_log_ranks


def random_scores(
    n: int, wrong: int, seed: int, strength: float = 3.5, kinds: int = 3
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns scores of several kinds and which labels are wrong; hard samples are hard for all kinds."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(n, bool)
    truth[rng.permutation(n)[:wrong]] = True
    hard = rng.normal(size=n)
    return {f"k{k}": 0.5 * hard + rng.normal(size=n) + strength * truth for k in range(kinds)}, truth


def combine(kinds: dict[str, np.ndarray], cells: np.ndarray | None = None) -> np.ndarray:
    return combine_log_ranks(kinds["k0"], {name: kinds[name] for name in list(kinds)[1:]}, cells)[0]
