"""Pictures for tests of what is seen in images."""

import numpy as np


def texture(n: int = 20, side: int = 32, seed: int = 0) -> np.ndarray:
    """Random pictures with edges at all scales, uint8 ``(n, side, side, 3)``."""
    rng = np.random.default_rng(seed)
    pictures = rng.uniform(60, 200, (n, 1, 1, 3)) * np.ones((n, side, side, 3))
    for picture in pictures:
        for _ in range(14):
            top, left = rng.integers(0, side - 4, 2)
            picture[top : top + rng.integers(3, side // 2), left : left + rng.integers(3, side // 2)] = rng.uniform(
                20, 235, 3
            )
    return pictures.round().astype(np.uint8)
