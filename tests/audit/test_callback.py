"""The audit callback inside real trainings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from mlfix_train.audit import callback as module
from mlfix_train.audit.callback import AuditCallback
from mlfix_train.data.arms import Arm
from mlfix_train.data.fixes.table import match_fixes
from mlfix_train.data.loading.datamodule import DataModule
from mlfix_train.data.loading.spec import LoaderSpec
from mlfix_train.data.pixels.spec import PixelSpec
from mlfix_train.data.samples import make_table
from mlfix_train.data.splits import SplitSpec, draw_split
from mlfix_train.models.classifier import Classifier


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- in a training ---


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    root = tmp_path_factory.mktemp("signs")
    rng = np.random.default_rng(0)
    ids = [f"{label}/{i}.png" for i in range(15) for label in ("blue", "green", "red")]
    for i, name in enumerate(ids):
        pixels = rng.integers(0, 100, (16, 16, 3), dtype=np.uint8)
        pixels[..., 2 - i % 3] += 120
        (root / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(root / name)
    return make_table(ids, [str(root / name) for name in ids], [name.split("/")[0] for name in ids])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


Train = Callable[..., tuple[L.Trainer, DataModule, AuditCallback, Classifier]]


@pytest.fixture
def train(table: pd.DataFrame, cache: Path, tmp_path: Path) -> Train:
    def run(
        arm: str = "original", loggers: Any = False, fixes: pd.DataFrame | None = None, **options: Any
    ) -> tuple[L.Trainer, DataModule, AuditCallback, Classifier]:
        L.seed_everything(0, verbose=False)
        how = {"pixels": PixelSpec(size=16), "loader": LoaderSpec(16, 7)}
        data = DataModule(table, draw_split(table, SplitSpec(0.4)), cache, Arm(arm, fixes), **how)
        model = Classifier(data.labels, "mlfix_small", {"epochs": 1}, "concat_pool")
        audit = AuditCallback(
            tmp_path / "run", "a title", report=False, log_prefix="val", probabilities=True, n_panels=2
        )
        trainer = L.Trainer(
            max_epochs=2,
            accelerator="cpu",
            devices=1,
            logger=loggers,
            callbacks=[audit],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=tmp_path,
            **options,
        )
        trainer.fit(model, datamodule=data)
        return trainer, data, audit, model

    return run


def fixes_for(table: pd.DataFrame) -> pd.DataFrame:
    held = table.index[draw_split(table, SplitSpec(0.4))]
    trained = table.index[~draw_split(table, SplitSpec(0.4))]
    answers = {held[0]: "invalid", held[1]: "invalid", held[5]: "blue", trained[0]: "invalid"}
    raw = pd.DataFrame({"row": range(2, 6), "sample_id": list(answers), "new_label": list(answers.values())})
    return match_fixes(raw.assign(old_label="", reviewer="", time="", note=""), table)


@pytest.mark.parametrize(("arm", "logger"), [("fixed", True), ("original", False)])
def test_a_run_leaves_every_held_out_sample_once(
    train: Train, table: pd.DataFrame, tmp_path: Path, arm: str, logger: bool
) -> None:
    loggers = CSVLogger(tmp_path, name="csv", version="") if logger else False
    fixes = fixes_for(table) if arm == "fixed" else None
    trainer, data, _, model = train(arm, loggers, fixes, num_sanity_val_steps=1)
    folder = tmp_path / "run"
    found = pd.read_parquet(folder / "predictions.parquet")
    assert list(found.columns) == ["sample_id", "split", "label", "pred", "loss", "prob", "label_prob", "margin"]
    held = table.index[draw_split(table, SplitSpec(0.4))]
    assert found["sample_id"].tolist() == held.tolist()
    assert found["label"].tolist() == table.loc[held, "label"].tolist(), "the given labels, in every arm"
    assert set(found["split"]) == {"val"}
    if fixes is not None:
        gone = fixes.index[fixes["new_label"] == "invalid"]
        assert len(set(gone) & set(found["sample_id"])) == 2, "removed samples are judged too"
        trained = set(table.index[data.train_rows])
        assert not trained & set(gone)
    # the logits, drawn anew from the trained network
    model.eval()
    rows = np.flatnonzero(draw_split(table, SplitSpec(0.4)))
    pixels = torch.from_numpy(data.store[rows]).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        logits = model((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    p = torch.softmax(logits.double(), 1).numpy()
    own = p[np.arange(len(rows)), [data.labels.index(label) for label in found["label"]]]
    np.testing.assert_allclose(found["label_prob"], own, atol=1e-4)
    np.testing.assert_allclose(found["loss"], -np.log(own), atol=1e-3)
    probabilities = np.load(folder / "probabilities.npy")
    assert probabilities.dtype == np.float16
    np.testing.assert_allclose(probabilities, p, atol=2e-3)
    assert [data.labels[i] for i in probabilities.argmax(1)] == found["pred"].tolist()
    wrong = 100 * sum(a != b for a, b in zip(found["pred"], found["label"], strict=True)) / len(found)
    assert float(trainer.callback_metrics["val/error"]) == pytest.approx(wrong, rel=1e-5)
    assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(found["loss"].mean(), rel=1e-5)
    if logger:
        metrics = pd.read_csv(tmp_path / "csv" / "metrics.csv")
        assert metrics["val/error"].dropna().iloc[-1] == pytest.approx(wrong, rel=1e-5)
        assert len(metrics["val/error"].dropna()) == 2, "once an epoch, not for the sanity check"
    ranking = pd.read_csv(folder / "ranking.csv")
    assert sorted(ranking["sample_id"]) == sorted(held)
    assert (folder / "panels" / "worst.png").exists()
    panels = sorted(path.name for path in (folder / "panels").glob("*.png"))
    assert {"worst.png", "loss.png", "errors.png"} <= set(panels)
    pairs = ranking[ranking["suggested_label"] != ranking["given_label"]]["slice"].nunique()
    assert len(panels) == 3 + min(2, pairs) + min(2, ranking["given_label"].nunique())
    assert not list(folder.rglob("*.tmp"))


def test_marks_of_the_fixes_are_given_to_the_pictures(
    train: Train, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(module, "draw_audit", lambda *args: seen.append(args) or [])
    fixes = fixes_for(table)
    train("fixed", False, fixes)
    ranking, images, _, title, panels, marks = seen[0]
    assert (title, panels, marks) == ("a title", 2, fixes["new_label"].to_dict())
    ids = ranking["sample_id"].tolist()[:5]
    wanted = np.stack([np.asarray(Image.open(table.loc[name, "path"]).convert("RGB")) for name in ids])
    np.testing.assert_array_equal(images(ids), wanted)
    assert images(ids).dtype == np.uint8


def test_a_training_that_never_validated_writes_nothing(train: Train, tmp_path: Path) -> None:
    _, _, audit, _ = train(limit_val_batches=0)
    assert audit.predictions is None
    assert not (tmp_path / "run").exists()


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    audit = AuditCallback(tmp_path / "run")
    audit.predictions, audit._logits = pd.DataFrame(), np.empty((0, 3))
    trainer = type("Trainer", (), {"is_global_zero": False})()
    audit.finish(trainer)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()
