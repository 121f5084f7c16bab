"""What the tests of the data package share: small pictures, tables, and the real data where it is at hand."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mlfix_train.data.samples import make_table

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
GTSRB_LABELS = ("stop", "yield", "speed-limit-30")


@pytest.fixture
def picture() -> Callable[..., Path]:
    """Writes a picture of one color (or of given pixels) and returns its path."""

    def write(path: Path, color: object = (200, 30, 30), size: tuple[int, int] = (16, 16)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(color) if isinstance(color, np.ndarray) else Image.new("RGB", size, color)
        image.save(path)
        return path

    return write


@pytest.fixture
def folder(tmp_path: Path, picture: Callable[..., Path]) -> Path:
    """A folder of two class folders of three pictures."""
    for k, name in enumerate(("stop", "yield")):
        for i in range(3):
            picture(tmp_path / "data" / name / f"{i}.png", (40 * k, 50 * i, 9))
    return tmp_path / "data"


@pytest.fixture
def counted() -> Callable[..., pd.DataFrame]:
    """Makes a table, without files, of so many samples of each label: ``counted(stop=3, yield_=2)``."""

    def build(**counts: int) -> pd.DataFrame:
        ids = [f"{name}/{i:04d}.png" for name, count in counts.items() for i in range(count)]
        return make_table(ids, [f"/nowhere/{name}" for name in ids], [name.split("/")[0] for name in ids])

    return build


@pytest.fixture(scope="session")
def gtsrb_archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with a few tracks of three labels, and the names of all samples: one pass through the archive."""
    archive = SHARED / "gtsrb.tar.xz"
    if not archive.exists():
        pytest.skip(f"checks real photos (GTSRB), which users don't have: {archive} is not here")
    root, names = tmp_path_factory.mktemp("gtsrb"), []
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = Path(member.name).parts
            if len(parts) != 3 or not member.name.endswith(".jpg"):
                continue
            names.append("/".join(parts[1:]))
            if parts[1] in GTSRB_LABELS and int(parts[2][:5]) < 4:
                tar.extract(member, root, filter="data")
    return root / "gtsrb", sorted(names)


@pytest.fixture
def gtsrb(gtsrb_archive: tuple[Path, list[str]]) -> Path:
    """Three folders of real photos: four tracks of 30 frames each."""
    return gtsrb_archive[0]


@pytest.fixture
def gtsrb_names(gtsrb_archive: tuple[Path, list[str]]) -> list[str]:
    """The ids of all 39,209 GTSRB samples, such as ``stop/00003_00012.jpg``."""
    return gtsrb_archive[1]


@pytest.fixture(scope="session")
def published_fixes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLfix's published file of invalid speed signs, where it is at hand."""
    archive = SHARED / "mtsd-published.tar.xz"
    if not archive.exists():
        pytest.skip(f"checks the published MTSD files, which users don't have: {archive} is not here")
    target = tmp_path_factory.mktemp("published") / "invalid-speed-limits.csv"
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.endswith("invalid-speed-limits.csv"):
                target.write_bytes(tar.extractfile(member).read())
                return target
    pytest.fail("invalid-speed-limits.csv is not in the archive")
