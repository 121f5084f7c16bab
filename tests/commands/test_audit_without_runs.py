"""`mlfix audit data.root=photos`: no runs, no training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from shapes import draw_shapes
from torch import Tensor

from mlfix_train import Audit
from mlfix_train.models.backbones import efficientnet_lite0
from mlfix_train.models.embedding.base import TorchEmbedder

WRONG = [f"square/disc-{i}.png" for i in range(4)]


class Pooled(TorchEmbedder):
    """An embedder of the user's own: the mean of each cell of an 8 x 8 grid."""

    def compute(self, images: Tensor) -> Tensor:
        from torch.nn.functional import adaptive_avg_pool2d

        return adaptive_avg_pool2d(images, 8).flatten(1)


def make_pooled(name: str = "pooled") -> Pooled:
    return Pooled(name, width=16)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three folders of shapes; four discs are in the folder of the squares."""
    monkeypatch.chdir(tmp_path)
    draw_shapes(tmp_path / "photos", 30)
    for i in range(4):
        (tmp_path / f"photos/disc/{i:03}.png").rename(tmp_path / f"photos/square/disc-{i}.png")
    return tmp_path


OWN = "embedder._target_=test_audit_without_runs.make_pooled"


def own(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return OWN


def found(folder: Path, count: int = 4) -> list[str]:
    return sorted(pd.read_csv(folder / "ranking.csv")["sample_id"].head(count))


def test_a_folder_is_ranked_with_report_order_and_page(
    mlfix: Callable[..., Any], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = mlfix("audit", "data.root=photos", "logger=none", own(monkeypatch))
    assert done.code == 0, done.err
    assert found(photos / "audit") == WRONG
    assert "by a linear layer, without training" in done.out and "images by pooled" in done.out
    about = json.loads((photos / "audit/audit.json").read_text())
    assert (about["runs"], about["ranked"], about["neighbours"]) == (0, 90, "pooled")
    assert set(about["evidence"]) == {"probe", "neighbours"} and about["estimates"] == {}
    ranking = pd.read_csv(photos / "audit/ranking.csv").set_index("sample_id")
    assert ranking.loc[WRONG, "suggested_label"].tolist() == ["disc"] * 4
    assert ranking["pooled_loss"].notna().all() and ranking["suspicion"].is_monotonic_decreasing
    for name in ("report.html", "panels/worst.png", "order.parquet", "features.npy", "slices.csv"):
        assert (photos / "audit" / name).exists(), name
    # the embedding is kept: the next audit reads it, and gives the same
    monkeypatch.setattr(
        Pooled,
        "compute",
        lambda self, images: pytest.fail("embedded again") if len(images) > 64 else make_pooled().compute(images),
    )
    before = (photos / "audit/ranking.csv").read_text()
    assert mlfix("audit", "data.root=photos", "logger=none", OWN).code == 0
    assert (photos / "audit/ranking.csv").read_text() == before
    assert mlfix("export", "audit=audit", "to=cleanlab", "out=e").code == 0


def test_the_library_does_the_same(mlfix: Callable[..., Any], photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mlfix("audit", "data.root=photos", "logger=none", own(monkeypatch)).code == 0
    audit = Audit.from_folder("photos", embedder=make_pooled())
    wanted = pd.read_csv("audit/ranking.csv")
    head = slice(0, 8)  # labels that are certainly right tie but for rounding
    assert audit.ranking["sample_id"][head].tolist() == wanted["sample_id"][head].tolist()
    np.testing.assert_allclose(audit.ranking["pooled_loss"][head], wanted["pooled_loss"][head], rtol=1e-3)
    assert audit.order is not None and set(audit.order["position"]) == set(range(90))


def test_groups_are_held_out_together(mlfix: Callable[..., Any], photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in sorted((photos / "photos").rglob("*.png")):  # three copies of each, in one group
        for copy in range(2):
            Image.open(path).save(path.with_name(f"{path.stem}_{copy}.png"))
        path.rename(path.with_name(f"{path.stem}_2.png"))
    pattern = r"data.group='(.+)_\d\.png'"
    assert mlfix("audit", "data.root=photos", "logger=none", own(monkeypatch), pattern).code == 0
    assert {name.rsplit("_", 1)[0] + ".png" for name in found(photos / "audit", 12)} == set(WRONG)


def test_without_a_network_pixels_are_compared_and_that_is_said(mlfix: Callable[..., Any], photos: Path) -> None:
    done = mlfix("audit", "data.root=photos", "logger=none")
    assert done.code == 0, done.err
    assert "compared by their pixels" in done.err and "mlfix-train[pretrained]" in done.err
    assert "images by the pixels" in done.out


@pytest.mark.pretrained
@pytest.mark.skipif(not efficientnet_lite0.has_package(), reason="the extra pretrained is not installed")
def test_the_pretrained_network_is_used_where_it_is_at_hand(mlfix: Callable[..., Any], photos: Path) -> None:
    done = mlfix("audit", "data.root=photos", "logger=none", "embedder.size=64")
    assert done.code == 0, done.err
    assert "EfficientNet-Lite0, ImageNet weights, 64 px" in done.out
    assert found(photos / "audit") == WRONG


def test_labels_that_nothing_can_be_said_about(
    mlfix: Callable[..., Any], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own(monkeypatch)
    (photos / "photos/lonely").mkdir()
    Image.new("RGB", (40, 40), "red").save(photos / "photos/lonely/0.png")
    (photos / "photos/disc/broken.png").write_bytes(b"no image")
    done = mlfix("audit", "data.root=photos", "logger=none", OWN)
    assert done.code == 0, done.err
    assert "1 label(s) with a single sample" in done.out and "lonely" in done.out
    unranked = pd.read_csv(photos / "audit/unranked.csv")
    assert unranked[["sample_id", "reason"]].values.tolist() == [["disc/broken.png", "the image can't be read"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "neither runs nor data.root is set"),
        (["data.root=photos", "by=none"], "by=none needs runs"),
        (["data.root=photos", "by=network"], "by=network needs network"),
        (["data.root=photos", "by=near"], "by=near"),
        (["data.root=photos", "embedder.nme=x"], "embedder.name"),
        (["data.root=photos/disc"], "fewer than two labels"),
    ],
)
def test_what_can_not_be_audited_is_named(
    mlfix: Callable[..., Any], photos: Path, arguments: list[str], message: str
) -> None:
    done = mlfix("audit", "logger=none", *arguments)
    assert done.code in (1, 2) and message in done.err, done.err


def test_photos_that_are_all_alike(mlfix: Callable[..., Any], photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (photos / "photos").rglob("*.png"):
        Image.new("RGB", (20, 20), "gray").save(path)
    done = mlfix("audit", "data.root=photos", "logger=none", own(monkeypatch))
    assert done.code == 1 and "alike" in done.err, done.err
