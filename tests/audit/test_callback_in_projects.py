"""The audit callback in a Lightning project of somebody else: plain modules, loaders and datasets."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from mlfix_train import AuditCallback, MlfixError

N, CLASSES = 42, ["cat", "dog", "fox"]
IDS = [f"photo-{i:02}.jpg" for i in range(N)]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    monkeypatch.chdir(tmp_path)


def tensors(seed: int = 0, n: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (n,), generator=rng)
    return F.one_hot(y, 3).float() + 0.3 * torch.randn(n, 3, generator=rng), y


class Module(L.LightningModule):
    """A project's module; ``gives`` says what its validation step returns."""

    def __init__(self, gives: str = "logits", classes: int = 3) -> None:
        super().__init__()
        self.net, self.gives = torch.nn.Linear(3, classes), gives
        torch.nn.init.eye_(self.net.weight)
        torch.nn.init.zeros_(self.net.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = (batch["x"], batch["y"]) if isinstance(batch, dict) else batch[:2]
        logits = self(x)
        return {"loss": F.cross_entropy(logits, y), "logits": logits.detach()}

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        x, y = (batch["x"], batch["y"]) if isinstance(batch, dict) else batch[:2]
        logits = self(x)
        loss = F.cross_entropy(logits, y)
        self.log("val/loss", loss)
        nan = torch.where(torch.arange(len(y))[:, None] == 1, torch.nan, logits)
        return {
            "logits": logits,
            "probabilities": logits.softmax(1),
            "dict": {"logits": logits},
            "named": {"scores": logits, "loss": loss},
            "loss": loss,
            "nothing": None,
            "single": logits[:, 0],
            "short": logits[:-1],
            "nan": nan,
            "sigmoid": logits.sigmoid(),
            "sure sigmoid": (20 * logits - 10).sigmoid(),
            "many sigmoids": logits.sigmoid().repeat(1, 4),
            "rounded": logits.softmax(1).bfloat16(),
            "masked": logits.masked_fill(torch.arange(3) == 2, -torch.inf),
            "masked all": torch.full_like(logits, -torch.inf),
        }[self.gives]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.01)


def loader(seed: int = 0, **options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*tensors(seed)), 8, **options)


def fit(
    audit: AuditCallback | list[Any], val: Any = None, module: L.LightningModule | None = None, **options: Any
) -> L.Trainer:
    train = options.pop("train", None) or loader(1, shuffle=True)
    callbacks = audit if isinstance(audit, list) else [audit]
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    settings = {"max_epochs": 2, "accelerator": "cpu", "devices": 1, "logger": False, **quiet, **options}
    ckpt_path = settings.pop("ckpt_path", None)
    trainer = L.Trainer(callbacks=callbacks, **settings)
    trainer.fit(module or Module(), train, loader() if val is None else val, ckpt_path=ckpt_path)
    return trainer


def expected(module: L.LightningModule, rows: Any = slice(None), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Loss and prediction of the rows, by the trained module itself."""
    x, y = (tensor[rows] for tensor in tensors(seed))
    with torch.no_grad():
        logits = module(x)
    return F.cross_entropy(logits, y, reduction="none").numpy(), logits.argmax(1).numpy()


@pytest.mark.parametrize(
    ("gives", "outputs"),
    [
        ("logits", None),
        ("probabilities", None),
        ("dict", None),
        ("named", "scores"),
        ("nothing", "forward"),
        ("loss", lambda outputs, batch, module: module(batch[0])),
        ("loss", lambda outputs, batch, module: {"logits": module(batch[0]), "label": batch[1]}),
    ],
    ids=["logits", "probabilities", "dict", "key", "forward", "function", "function of dict"],
)
def test_any_step_is_audited(gives: str, outputs: Any) -> None:
    module = Module(gives)
    audit = AuditCallback("out", sample_ids=IDS, class_names=CLASSES, outputs=outputs)
    fit(audit, module=module)
    loss, pred = expected(module)
    table = pd.read_parquet("out/predictions.parquet").set_index("sample_id").loc[IDS]
    np.testing.assert_allclose(table["loss"], loss, rtol=1e-4, atol=1e-5)
    assert table["pred"].tolist() == [CLASSES[code] for code in pred]
    assert table["label"].tolist() == [CLASSES[code] for code in tensors()[1]]
    assert audit.audit is not None
    assert len(audit.audit.ranking) == N
    ranking = pd.read_csv("out/ranking.csv")
    assert ranking["sample_id"].tolist() == audit.audit.ranking["sample_id"].tolist()
    assert Path("out/report.html").exists()


def test_the_callback_changes_nothing_that_is_learnt() -> None:
    weights = []
    for callbacks in ([], [AuditCallback("out")]):
        L.seed_everything(0, verbose=False)
        module = Module()
        fit(callbacks, module=module, num_sanity_val_steps=0)
        weights.append(module.net.weight.detach().clone())
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


def test_without_anything_said_rows_are_numbered() -> None:
    audit = AuditCallback("out")
    fit(audit)
    assert audit.predictions is not None
    assert audit.predictions["sample_id"].tolist() == [str(i) for i in range(N)]
    assert set(audit.predictions["label"]) == {"0", "1", "2"}


class Rows(Dataset[Any]):
    """Rows that say their number, of a data set that also holds other rows."""

    def __init__(self, rows: list[int], seed: int = 0) -> None:
        self.rows, (self.x, self.y) = rows, tensors(seed)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Any:
        row = self.rows[i]
        return {"x": self.x[row], "y": self.y[row], "index": row}


def test_an_index_in_the_batch_wins_over_the_order_and_may_be_shuffled() -> None:
    rows, module = [5, 40, 0, 17, 23], Module("dict")
    audit = AuditCallback("out", sample_ids=IDS, class_names=CLASSES, n_panels=0)
    fit(audit, DataLoader(Rows(rows), 2, shuffle=True), module=module)
    table = pd.read_parquet("out/predictions.parquet").set_index("sample_id")
    assert sorted(table.index) == sorted(IDS[row] for row in rows)
    np.testing.assert_allclose(table.loc[[IDS[row] for row in rows], "loss"], expected(module, rows)[0], rtol=1e-4)


def test_training_and_validation_sets_that_count_from_zero_do_not_mix() -> None:
    train, val = Rows(list(range(N)), 1), Rows(list(range(N)), 0)
    fit(AuditCallback("apart", sample_ids=IDS), DataLoader(val, 8), train=DataLoader(train, 8))
    assert not Path("apart/dynamics.parquet").exists()
    names = [f"train-{i}" for i in range(N)]
    audit = AuditCallback("both", sample_ids=IDS, train_ids=names, class_names=CLASSES)
    fit(audit, DataLoader(val, 8), train=DataLoader(train, 8, shuffle=True))
    dynamics = pd.read_parquet("both/dynamics.parquet").set_index("sample_id")
    assert sorted(dynamics.index) == sorted(names)
    assert dynamics.loc[names, "label"].tolist() == [CLASSES[code] for code in train.y]
    assert (dynamics["times"] == 2).all()


def test_images_groups_and_panels() -> None:
    images = np.zeros((N, 16, 16, 3), np.uint8)
    images[..., 0] = np.arange(N)[:, None, None]
    groups = [f"track-{i // 3}" for i in range(N)]
    audit = AuditCallback("out", sample_ids=IDS, class_names=CLASSES, images=images, groups=groups)
    fit(audit)
    assert Path("out/panels/worst.png").exists()
    assert audit.audit is not None
    np.testing.assert_array_equal(audit.audit.images([IDS[7]])[0], images[7])
    assert audit.audit.samples is not None
    assert audit.audit.samples.loc[IDS[7], "group"] == "track-2"


def image_folder(root: Path) -> Any:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import functional as T

    for i in range(12):
        path = root / CLASSES[i % 3] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (20 * i, 0, 0)).save(path)

    def three_numbers(image: Any) -> torch.Tensor:
        return T.to_tensor(image).mean((1, 2))

    return ImageFolder(str(root), transform=three_numbers)


def test_an_image_folder_names_its_samples_labels_and_images(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "photos")
    audit = AuditCallback("out")
    fit(audit, DataLoader(folder, 5))
    assert audit.predictions is not None
    assert audit.predictions["sample_id"].tolist()[:2] == ["cat/00.png", "cat/03.png"]
    assert set(audit.predictions["label"]) == set(CLASSES)
    assert Path("out/panels/worst.png").exists()
    half = AuditCallback("half")
    fit(half, DataLoader(Subset(folder, [5, 0, 7]), 5))
    assert half.predictions is not None
    assert half.predictions["sample_id"].tolist() == [folder_id(folder, i) for i in (5, 0, 7)]


def test_an_image_folder_is_found_in_subsets_and_concatenations(tmp_path: Path) -> None:
    first, second = image_folder(tmp_path / "photos/a"), image_folder(tmp_path / "photos/b")
    data = ConcatDataset([Subset(first, [5, 0, 7]), Subset(ConcatDataset([first, second]), [13, 20])])
    audit = AuditCallback("out")
    fit(audit, DataLoader(data, 2))
    assert audit.predictions is not None
    assert audit.audit is not None
    ids = [f"a/{folder_id(first, i)}" for i in (5, 0, 7)] + [f"b/{folder_id(second, i)}" for i in (1, 8)]
    assert audit.predictions["sample_id"].tolist() == ids
    assert audit.predictions["label"].tolist() == [name.split("/")[1] for name in ids]
    shade = 20 * int(Path(ids[3]).stem)
    assert audit.audit.images(ids[3:4])[0, 32, 32].tolist() == [shade, 0, 0]


def test_datasets_of_which_names_or_classes_can_not_be_known(tmp_path: Path) -> None:
    first, second = image_folder(tmp_path / "a"), image_folder(tmp_path / "b")
    with pytest.raises(MlfixError, match=r"1 images are in the validation dataset twice: .*cat/00.png") as caught:
        fit(AuditCallback("out"), DataLoader(ConcatDataset([first, Subset(first, [0])]), 5))
    assert "sample_ids=" in caught.value.hint
    second.classes = ["cat", "dog", "wolf"]
    with pytest.raises(MlfixError, match="parts of the validation dataset have different classes") as caught:
        fit(AuditCallback("out"), DataLoader(ConcatDataset([first, second]), 5))
    assert "class_names=" in caught.value.hint

    class Indexed(type(first)):  # type: ignore[misc]
        def __getitem__(self, row: int) -> Any:
            x, y = super().__getitem__(row)
            return {"x": x, "y": y, "index": row}

    whole = Indexed(first.root, transform=first.transform)
    with pytest.raises(MlfixError, match="an index that may count other rows") as caught:
        fit(AuditCallback("out"), DataLoader(Subset(whole, [3, 1]), 2), Module("dict"))
    assert "sample_ids=" in caught.value.hint
    audit = AuditCallback("given", sample_ids=[folder_id(whole, i) for i in range(12)])
    fit(audit, DataLoader(Subset(whole, [3, 1]), 2), Module("dict"))
    assert audit.predictions is not None
    assert set(audit.predictions["sample_id"]) == {folder_id(whole, 3), folder_id(whole, 1)}


def folder_id(folder: Any, row: int) -> str:
    return Path(folder.samples[row][0]).relative_to(folder.root).as_posix()


def test_the_second_validation_loader_and_two_callbacks() -> None:
    first, second = AuditCallback("first", val_loader=0), AuditCallback("second", val_loader=1)
    module = Module()
    fit([first, second], [loader(0), DataLoader(TensorDataset(*tensors(2, 10)), 4)], module)
    assert first.predictions is not None
    assert second.predictions is not None
    assert (len(first.predictions), len(second.predictions)) == (N, 10)
    np.testing.assert_allclose(first.predictions["loss"], expected(module)[0], rtol=1e-4)
    named = AuditCallback("named", val_loader="clean")
    loaders = {"web": loader(0), "clean": DataLoader(TensorDataset(*tensors(2, 10)), 4)}
    fit(named, loaders, max_epochs=1)
    assert named.predictions is not None and len(named.predictions) == 10
    assert "val_loader=dirty, but there are 2 validation loaders: web, clean" in bad({"val_loader": "dirty"}, loaders)


def test_accumulation_limits_and_validation_within_an_epoch() -> None:
    audit = AuditCallback("out", sample_ids=IDS)
    fit(audit, accumulate_grad_batches=3, limit_val_batches=2, val_check_interval=0.5, num_sanity_val_steps=2)
    assert audit.predictions is not None
    assert audit.predictions["sample_id"].tolist() == IDS[:16]


def test_validate_alone_writes_the_audit() -> None:
    module, audit = Module(), AuditCallback("out", sample_ids=IDS)
    trainer = L.Trainer(accelerator="cpu", logger=False, callbacks=[audit], enable_progress_bar=False)
    trainer.validate(module, loader(), verbose=False)
    table = pd.read_parquet("out/predictions.parquet")
    np.testing.assert_allclose(table["loss"], expected(module)[0], rtol=1e-4)


def test_a_resumed_training_continues_its_margins() -> None:
    names = [f"train-{i}" for i in range(N)]

    def run(folder: str, epochs: int, **options: Any) -> pd.DataFrame:
        L.seed_everything(0, verbose=False)
        train = DataLoader(Rows(list(range(N)), 1), 8)
        audit = AuditCallback(folder, train_ids=names)
        keep = ModelCheckpoint(folder, filename="last", save_on_train_epoch_end=True)
        options |= {"max_epochs": epochs, "enable_checkpointing": True, "num_sanity_val_steps": 0}
        fit([audit, keep], DataLoader(Rows(list(range(N))), 8), Module("dict"), train=train, **options)
        return pd.read_parquet(f"{folder}/dynamics.parquet")

    whole = run("whole", 3)
    run("broken", 1)
    pd.testing.assert_frame_equal(run("broken", 3, ckpt_path="broken/last.ckpt"), whole)


@pytest.mark.slow  # test_validation_collector gathers over two processes, too
def test_two_processes_hold_every_sample_once(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_callback_in_projects as t\n"
        "from mlfix_train import AuditCallback\n"
        "if __name__ == '__main__':\n"
        "    audit = AuditCallback('out', sample_ids=t.IDS, train_ids=['t%d' % i for i in range(t.N)])\n"
        "    train = t.DataLoader(t.Rows(list(range(t.N)), 1), 8, shuffle=True)\n"
        "    val = t.DataLoader(t.TensorDataset(*t.tensors()), 8)\n"
        "    t.fit(audit, val, train=train, devices=2, strategy='ddp', max_epochs=1)\n"
    )
    import os
    import subprocess
    import sys

    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(script)], check=False, capture_output=True, text=True, env=env, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_parquet("out/predictions.parquet")
    assert table["sample_id"].tolist() == IDS
    assert table["label"].tolist() == [str(int(code)) for code in tensors()[1]]
    assert (pd.read_parquet("out/dynamics.parquet")["times"] == 1).all()


def test_loggers_get_pictures_and_tables() -> None:
    images = np.zeros((N, 16, 16, 3), np.uint8)
    loggers = [TensorBoardLogger(".", name="tb", version=""), CSVLogger(".", name="csv", version="")]
    fit(AuditCallback("out", images=images), logger=loggers, log_every_n_steps=1)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator("tb")
    events.Reload()
    assert any("suspicious" in tag for tag in events.Tags()["images"])
    assert "audit/error" in pd.read_csv("csv/metrics.csv").columns


# --- what is wrong is found before the first training step ---


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(zip(*tensors(), strict=True))


def bad(audit: dict[str, Any] | None = None, val: Any = None, gives: str = "logits") -> str:
    """Returns the error of a training; it has to come before the first training step."""
    steps: list[int] = []

    class Count(L.Callback):
        def on_train_batch_start(self, *arguments: Any) -> None:
            steps.append(1)

    with pytest.raises(MlfixError) as caught:
        fit([AuditCallback("out", **(audit or {})), Count()], val, Module(gives), num_sanity_val_steps=0)
    assert not steps, "found out too late"
    assert caught.value.hint
    return str(caught.value)


@pytest.mark.parametrize(
    ("audit", "gives", "problem"),
    [
        ({"class_names": ["cat", "dog"]}, "logits", "logits have 3 columns, but there are 2 class names"),
        ({"class_names": ["cat", "dog", "cat"]}, "logits", "class_names has 1 names twice: cat"),
        ({"sample_ids": IDS[:-1]}, "logits", "41 sample_ids, the validation dataset has 42 rows"),
        ({"sample_ids": [*IDS, "more"]}, "logits", "43 sample_ids"),
        ({"sample_ids": [*IDS[:-1], IDS[0]]}, "logits", "sample_ids has 1 names twice: photo-00.jpg"),
        ({"images": np.zeros((3, 8, 8, 3), np.uint8)}, "logits", "3 images for 42 samples"),
        ({"groups": ["a", "b"]}, "logits", "2 groups for 42 samples"),
        ({"outputs": "scores"}, "dict", "returns a dict with logits"),
        ({}, "loss", "validation_step returns the loss alone, not logits"),
        ({}, "nothing", "validation_step returns nothing, not logits"),
        ({}, "named", "a dict with scores, loss"),
        ({}, "single", r"logits have the shape \(8,\)"),
        ({}, "short", "7 logits, 8 label of one batch"),
        ({}, "many sigmoids", "as a sigmoid does, .* neither logits nor probabilities"),
        ({"val_loader": 2}, "logits", "val_loader=2, but there are 1 validation loaders"),
        ({"val_loader": "web"}, "logits", "val_loader=web, but there are 1 validation loaders, without names"),
    ],
)
def test_bad_input_is_found_at_the_start(audit: dict[str, Any], gives: str, problem: str) -> None:
    import re

    assert re.search(problem, bad(audit, gives=gives))


@pytest.mark.parametrize("kind", ["shuffled", "stream", "sampler"])
def test_an_order_that_can_not_be_known_is_not_believed(kind: str) -> None:
    data = TensorDataset(*tensors())
    loaders = {
        "shuffled": DataLoader(data, 8, shuffle=True),
        "stream": DataLoader(Stream(), 8),
        "sampler": DataLoader(data, 8, sampler=torch.utils.data.WeightedRandomSampler(torch.ones(N), N)),
    }
    remedy = "an IterableDataset has no order" if kind == "stream" else "shuffle=False"
    assert remedy in bad({"sample_ids": IDS}, loaders[kind])


def test_a_dataset_that_shuffles_by_itself_is_found_out() -> None:
    class Shuffled(TensorDataset):
        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(int(torch.randint(N, ())))

    with pytest.raises(MlfixError, match="differ from those of the previous validation"):
        fit(AuditCallback("out"), DataLoader(Shuffled(*tensors()), 8))


def test_several_labels_and_labels_out_of_range() -> None:
    x, y = tensors()
    assert "several labels" in bad(val=DataLoader(TensorDataset(x, F.one_hot(y, 3).float()), 8))
    trainer = L.Trainer(accelerator="cpu", logger=False, callbacks=[AuditCallback("out")], enable_progress_bar=False)
    module = Module()
    module.validation_step = lambda batch, batch_idx: module(batch[0])  # type: ignore[method-assign]
    val = DataLoader(TensorDataset(x, torch.full_like(y, 7)), 8)
    with pytest.raises(MlfixError, match="a label is 7, and logits have 3 columns"):
        trainer.validate(module, val, verbose=False)


def test_an_index_that_repeats_or_does_not_fit() -> None:
    with pytest.raises(MlfixError, match=r"1 samples were validated twice, such as index 5"):
        fit(AuditCallback("out", sample_ids=IDS), DataLoader(Rows([5, 6, 5]), 2), Module("dict"))
    text = bad({"sample_ids": IDS[:10]}, DataLoader(Rows([5, 40]), 2, shuffle=True), "dict")
    assert "the index 40, and there are 10 sample_ids" in text


def test_nan_logits_name_samples() -> None:
    with pytest.raises(MlfixError, match=r"6 of 42 validation samples are NaN.*photo-01.jpg, photo-09.jpg") as caught:
        fit(AuditCallback("out", sample_ids=IDS), module=Module("nan"))
    assert "learning rate" in caught.value.hint


def test_sigmoid_outputs_of_few_classes_are_found_out_after_the_first_epoch() -> None:
    with pytest.raises(MlfixError, match="neither logits nor probabilities") as caught:
        fit(AuditCallback("out", sample_ids=IDS), module=Module("sure sigmoid"))
    assert "before the sigmoid" in caught.value.hint and "log_softmax" in caught.value.hint
    with pytest.warns(UserWarning, match="as a sigmoid does.*If these are not logits: return the logits before"):
        fit(AuditCallback("few", sample_ids=IDS), module=Module("sigmoid"))  # as logits may be by chance


def test_probabilities_of_half_precision_are_still_probabilities() -> None:
    module, audit = Module("rounded"), AuditCallback("out", sample_ids=IDS)
    fit(audit, module=module)
    assert audit.predictions is not None
    np.testing.assert_allclose(audit.predictions["loss"], expected(module)[0], atol=0.02)


def test_features_are_the_input_of_a_layer() -> None:
    module = Module()
    fit(AuditCallback("out", sample_ids=IDS, features=True), module=module)
    np.testing.assert_allclose(np.load("out/features.npy"), tensors()[0], atol=2e-3)
    assert not module.net._forward_pre_hooks
    with pytest.raises(MlfixError, match="features='nte' is not a layer of Module"):
        fit(AuditCallback("named", features="nte"))


def test_excluded_classes_have_no_probability() -> None:
    module, audit = Module("masked"), AuditCallback("out", sample_ids=IDS, class_names=CLASSES, probabilities=True)
    fit(audit, module=module)
    assert audit.predictions is not None
    x, y = tensors()
    with torch.no_grad():
        loss = F.cross_entropy(module(x)[:, :2], y.clamp_max(1), reduction="none").numpy()
    possible = (y < 2).numpy()
    np.testing.assert_allclose(audit.predictions["loss"][possible], loss[possible], rtol=1e-4, atol=1e-5)
    assert (audit.predictions["loss"][~possible] > 80).all(), "the label is one of the excluded classes"
    assert np.isfinite(audit.predictions["loss"]).all()
    assert not set(audit.predictions["pred"]) & {"fox"}
    assert not np.load("out/probabilities.npy")[:, 2].any()
    with pytest.raises(MlfixError, match="NaN or infinite"):
        fit(AuditCallback("all"), module=Module("masked all"))


def test_no_validation_is_an_error_unless_it_was_turned_off() -> None:
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", logger=False, callbacks=[AuditCallback("out")])
    with pytest.raises(MlfixError, match="no validation"):
        trainer.fit(Module(), loader())
    fit(AuditCallback("off"), limit_val_batches=0)
    assert not Path("off").exists()


def test_training_ids_that_do_not_fit() -> None:
    val = DataLoader(Rows(list(range(N))), 8)
    train = DataLoader(Rows(list(range(N)), 1), 8)
    with pytest.raises(MlfixError, match="index 7, and there are 3 train_ids"):
        fit(AuditCallback("out", train_ids=["a", "b", "c"]), val, Module("dict"), train=train)
    with pytest.raises(MlfixError, match="training batches have no index"):
        fit(AuditCallback("out", train_ids=["a", "b", "c"]))


def test_the_folder_is_checked_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MlfixError, match="file is a file"):
        fit(AuditCallback("file/audit"))
    with pytest.raises(MlfixError, match="two AuditCallbacks write to same"):
        fit([AuditCallback("same"), AuditCallback("same", val_loader=1)], [loader(), loader()])
    folder = image_folder(tmp_path / "photos")
    with pytest.raises(MlfixError, match="panels would become images of the dataset"):
        fit(AuditCallback("photos/audit"), DataLoader(folder, 5))


def test_forward_is_taken_from_one_call_alone() -> None:
    class Twice(Module):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self(batch[0])
            self(batch[0].flip(0))

    with pytest.raises(MlfixError, match=r"called module\(x\) 2 times"):
        fit(AuditCallback("out", outputs="forward"), module=Twice())


def test_a_training_without_a_whole_validation_is_told() -> None:
    with pytest.warns(UserWarning, match="AuditCallback wrote nothing: no validation was complete"):
        fit(AuditCallback("out"), check_val_every_n_epoch=5)
    keep = ModelCheckpoint("kept", filename="last", save_on_train_epoch_end=True)
    fit([keep], enable_checkpointing=True)
    with pytest.warns(UserWarning, match=r"nothing: the training of .*last.ckpt was at its end \(max_epochs=2\)"):
        fit([AuditCallback("out"), keep], enable_checkpointing=True, ckpt_path="kept/last.ckpt")
    assert not Path("out").exists()


def test_names_are_lists() -> None:
    for names in ({"a", "b"}, {1: "a", 2: "b"}):
        with pytest.raises(MlfixError, match="class_names is a"):
            AuditCallback("out", class_names=names)  # type: ignore[arg-type]
    assert AuditCallback("out", class_names={1: "b", 0: "a"}).class_names == ["a", "b"]
    with pytest.raises(MlfixError, match=r"folder is a list.*"):
        AuditCallback(["a", "b"])  # type: ignore[arg-type]
    audit = AuditCallback("out", sample_ids=torch.arange(N))
    fit(audit)
    assert audit.predictions is not None
    assert audit.predictions["sample_id"][7] == "7"


def test_logits_in_training_and_probabilities_in_validation() -> None:
    names = [f"train-{i}" for i in range(N)]
    dynamics = {}
    for gives in ("dict", "probabilities"):
        L.seed_everything(0, verbose=False)
        train = DataLoader(Rows(list(range(N)), 1), 8)
        fit(AuditCallback(gives, train_ids=names), DataLoader(Rows(list(range(N))), 8), Module(gives), train=train)
        dynamics[gives] = pd.read_parquet(f"{gives}/dynamics.parquet")
    pd.testing.assert_frame_equal(dynamics["dict"], dynamics["probabilities"])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")], ids=["ctrl-c", "error"])
def test_the_last_whole_validation_counts_where_a_training_is_broken_off(error: BaseException) -> None:
    class Breaks(L.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.current_epoch == 1:
                raise error

    with pytest.raises((SystemExit, RuntimeError)):
        fit([AuditCallback("out", sample_ids=IDS), Breaks()])
    assert len(pd.read_csv("out/ranking.csv")) == N
    with pytest.raises((SystemExit, RuntimeError)):
        fit([AuditCallback("none", sample_ids=IDS, on_interrupt=False), Breaks()])
    assert not Path("none").exists()


def test_a_dry_run_keeps_the_audit_and_a_new_one_leaves_nothing_old(capsys: pytest.CaptureFixture[str]) -> None:
    fit(AuditCallback("out", sample_ids=IDS, probabilities=True, features="net"))
    fit(AuditCallback("out", sample_ids=IDS), fast_dev_run=True)
    assert len(pd.read_csv("out/ranking.csv")) == N
    assert Path("out/probabilities.npy").exists() and Path("out/features.npy").exists()
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)
    fit(AuditCallback("out", sample_ids=IDS), limit_val_batches=2)
    assert len(pd.read_csv("out/ranking.csv")) == 16
    assert not Path("out/probabilities.npy").exists() and not Path("out/features.npy").exists()


def test_two_audits_of_one_loader() -> None:
    audits = [AuditCallback("a/audit", sample_ids=IDS), AuditCallback("b/audit", sample_ids=IDS, class_names=CLASSES)]
    fit([*audits, ModelCheckpoint("checkpoints", save_last=True)], enable_checkpointing=True)
    assert all(len(pd.read_csv(f"{name}/audit/ranking.csv")) == N for name in "ab")


def test_another_loader_in_validate_is_not_taken_for_the_audited_one() -> None:
    audit = AuditCallback("out")
    trainer = fit(audit)
    trainer.validate(Module(), loader(), verbose=False)
    with pytest.raises(MlfixError, match="another dataset than the one that out audits"):
        trainer.validate(Module(), DataLoader(TensorDataset(*tensors(2, 50)), 8), verbose=False)


def test_class_names_in_another_order_than_the_datasets() -> None:
    val = loader()
    val.dataset.classes = CLASSES  # type: ignore[attr-defined]
    with pytest.raises(MlfixError, match="class_names are fox, dog, cat, those of the dataset cat, dog, fox"):
        fit(AuditCallback("out", class_names=CLASSES[::-1]), val)


def test_audited_samples_that_were_trained_on_are_said() -> None:
    class WithIndex(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return {**super().training_step(batch, batch_idx), "index": batch[2]}

    train = DataLoader(TensorDataset(*tensors(), torch.arange(N)), 8)
    with pytest.warns(UserWarning, match=f"{N} of the audited samples, such as .*, were trained on"):
        fit(AuditCallback("out", sample_ids=IDS, train_ids=IDS), module=WithIndex(), train=train)


@pytest.mark.parametrize(
    ("outputs", "message", "remedy"),
    [
        (lambda out, batch, module: out.softmax(1) * 100, "rows that sum to 100", "divide the rows by 100"),
        (lambda out, batch, module: {"logits": out, "label": batch[1].float()}, "type torch.float32", r"y\.long\(\)"),
        (lambda out, batch, module: None, r"outputs\(\.\.\.\) returns nothing", "return {'logits'"),
    ],
    ids=["percent", "float labels", "nothing"],
)
def test_what_the_message_names_is_what_is_wrong(outputs: Any, message: str, remedy: str) -> None:
    with pytest.raises(MlfixError, match=message) as error:
        fit(AuditCallback("out", sample_ids=IDS, outputs=outputs))
    assert re.search(remedy, str(error.value.hint))


def test_samples_without_a_group_are_their_own() -> None:
    audit = AuditCallback("out", sample_ids=IDS, groups=[None] * N)
    fit(audit)
    assert audit.audit is not None and audit.audit.evidence.groups is None
