"""What the tests of audits share: small rankings, flat pixels, the published predictions."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlfix_train.audit.predictions.table import predictions_table
from mlfix_train.audit.scores.ranking import rank_samples

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "mtsd-published.tar.xz"


def random_predictions(n: int = 50, classes: int = 3, seed: int = 0, sharpness: float = 2.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    names = [chr(97 + c) for c in range(classes)]
    labels = np.random.default_rng(123).integers(classes, size=n)
    return predictions_table([f"s{i:03d}" for i in range(n)], labels, sharpness * rng.normal(size=(n, classes)), names)


@pytest.fixture
def predictions() -> Callable[..., pd.DataFrame]:
    return random_predictions


@pytest.fixture
def ranking() -> Callable[..., pd.DataFrame]:
    return lambda **options: rank_samples([random_predictions(**options)])


@pytest.fixture
def flat() -> Callable[[list[str]], np.ndarray]:
    """Pixels by sample id: 12 px, the id's number as the grey value."""
    return lambda ids: np.stack([np.full((12, 12, 3), int(i[1:]) % 256, np.uint8) for i in ids])


class Published:
    """The 40 published files as tables of predictions, and the published fixes."""

    def __init__(self, path: Path) -> None:
        self.arms: dict[str, dict[str, pd.DataFrame]] = {"original": {}, "fixed": {}}
        with tarfile.open(path) as archive:
            for member in archive:
                name = Path(member.name)
                if name.suffix != ".csv":
                    continue
                file = archive.extractfile(member)
                assert file is not None
                table = pd.read_csv(io.BytesIO(file.read()), index_col=0)
                if name.name == "invalid-speed-limits.csv":
                    self.fixes = table.rename_axis("sample_id")
                else:
                    arm, _, number = name.stem.split("-")
                    self.arms[arm][number] = self.as_predictions(table)

    @staticmethod
    def as_predictions(table: pd.DataFrame) -> pd.DataFrame:
        loss = -table["loss"].to_numpy(dtype=np.float64)
        ids = table.index.astype(str)
        return pd.DataFrame(
            {
                "sample_id": ids,
                "split": "val",
                "label": [name.split("/")[1] for name in ids],
                "pred": table["pred"].to_numpy(),
                "loss": np.maximum(loss, 0.0),
                "label_prob": np.exp(-loss),
            }
        )


@pytest.fixture(scope="session")
def published() -> Published:
    if not PUBLISHED.exists():
        pytest.skip(f"checks the published predictions, which users don't have: {PUBLISHED} is not here")
    return Published(PUBLISHED)
