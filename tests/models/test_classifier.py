"""The classifier in real trainings: loss, frozen epoch, thaw, NaN, checkpoints, seeds, resumed runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from mlfix_train.data.loading.datamodule import DataModule
from mlfix_train.data.loading.spec import AugmentSpec, LoaderSpec
from mlfix_train.data.pixels.spec import PixelSpec
from mlfix_train.data.splits import SplitSpec, draw_split
from mlfix_train.errors import RunError
from mlfix_train.models.classifier import Classifier

LABELS = ["blue", "green", "red"]
NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)


def classifier(seed: int = 0, labels: list[str] = LABELS, **recipe: Any) -> Classifier:
    L.seed_everything(seed, verbose=False)
    return Classifier(labels, "mlfix_small", {"epochs": 2, **recipe}, "concat_pool", seed=seed)


def snapshot(model: Classifier) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


class Watch(L.Callback):
    """Keeps the weights after each epoch, and what the optimizer remembers before and after each epoch's first step."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []
        self.remembered: list[tuple[int, float]] = []
        self.rates: list[list[tuple[int, bool, float, float]]] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.weights.append(snapshot(pl_module))

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        groups = trainer.optimizers[0].param_groups
        self.rates.append([(g["stage"], g["norm"], g["lr"], g["betas"][0]) for g in groups])
        if batch_idx == 0:
            self.before = len(trainer.optimizers[0].state)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            steps = {float(state["step"]) for state in trainer.optimizers[0].state.values()}
            assert len(steps) <= 1
            self.remembered.append((self.before, max(steps, default=0.0)))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.weights.append(snapshot(pl_module))


# --- loss ---


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_the_mean_cross_entropy_in_nats(toy: Any, smoothing: float) -> None:
    model = classifier(label_smoothing=smoothing).eval()
    logged: dict[str, Any] = {}
    model.log = lambda name, value, **_: logged.update({name: value})  # type: ignore[method-assign,assignment]
    batch = toy().batch(0)
    outputs = model.training_step(batch, 0)
    loss = outputs["loss"]
    with torch.no_grad():
        logits = model(batch["image"]).double().numpy()
    np.testing.assert_allclose(outputs["logits"].numpy(), logits, rtol=1e-5)
    assert not outputs["logits"].requires_grad
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    own = -log_p[np.arange(6), batch["label"].numpy()]
    wanted = ((1 - smoothing) * own + smoothing * -log_p.mean(1)).mean()
    assert loss.item() == pytest.approx(wanted, rel=1e-5)
    assert loss.requires_grad
    assert logged["train/loss"].item() == loss.item()


def test_validation_step_gives_what_the_audit_needs(toy: Any) -> None:
    model, batch = classifier().eval(), toy().batch(1)
    with torch.no_grad():
        found = model.validation_step(batch, 0)
        assert torch.equal(found["logits"], model(batch["image"]))
    assert found["logits"].dtype == torch.float32
    assert found["logits"].shape == (6, 3)
    assert torch.equal(found["label"], batch["label"])
    assert torch.equal(found["index"], batch["index"])


# --- the frozen epoch and the thaw ---


def test_a_frozen_epoch_moves_head_and_norms_only_and_then_everything_moves(toy: Any, quiet_trainer: Any) -> None:
    model, watch = classifier(), Watch()
    quiet_trainer(3, callbacks=[watch]).fit(model, datamodule=toy())
    start, frozen, thawed, _ = watch.weights
    convs = {f"network.backbone.stages.{i}.0.weight" for i in range(4)}
    assert not changed(start, frozen) & convs, "bit for bit"
    assert changed(start, frozen) == set(start) - convs, "head, norms, and their running statistics"
    parameters = {name for name, _ in model.named_parameters()}
    assert changed(frozen, thawed) >= parameters


def test_the_optimizer_forgets_at_the_thaw_and_only_there(toy: Any, quiet_trainer: Any) -> None:
    watch = Watch()
    quiet_trainer(4, callbacks=[watch]).fit(classifier(epochs=2, frozen_epochs=2), datamodule=toy())
    full = len(list(classifier().parameters()))
    assert watch.remembered == [(0, 1.0), (full, 5.0), (0, 1.0), (full, 5.0)]


def test_a_training_without_frozen_epochs_forgets_nothing(toy: Any, quiet_trainer: Any) -> None:
    watch = Watch()
    quiet_trainer(2, callbacks=[watch]).fit(classifier(frozen_epochs=0), datamodule=toy())
    assert [steps for _, steps in watch.remembered] == [1.0, 5.0]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_thaw_of_the_rates_comes_with_the_epoch(toy: Any, quiet_trainer: Any, accumulate: int) -> None:
    """Four batches an epoch, in steps of three: two steps an epoch, the schedule counts steps and not batches."""
    watch = Watch()
    trainer = quiet_trainer(3, callbacks=[watch], accumulate_grad_batches=accumulate)
    trainer.fit(classifier(), datamodule=toy())
    early = [next(rate for stage, norm, rate, _ in groups if (stage, norm) == (0, False)) for groups in watch.rates]
    assert [rate == 0 for rate in early] == [True] * 4 + [False] * 8


# --- NaN ---


@pytest.mark.parametrize("place", [(0, 0), (1, 2), (2, 3)])
def test_a_nan_loss_stops_the_training_and_says_where(toy: Any, quiet_trainer: Any, place: tuple[int, int]) -> None:
    with pytest.raises(RunError, match=rf"(?s)NaN or infinite in epoch {place[0]},.*recipe\.lr \(it is 0\.003\)"):
        quiet_trainer(3).fit(classifier(lr=3e-3), datamodule=toy(poison=place))


def test_a_nan_is_found_within_25_steps(toy: Any, quiet_trainer: Any) -> None:
    with pytest.raises(RunError) as caught:
        quiet_trainer(1).fit(classifier(epochs=1, frozen_epochs=0), datamodule=toy(poison=(0, 3), batches=40))
    assert caught.value.problem.endswith("at or before step 26")


# --- checkpoints ---


def test_a_checkpoint_of_other_labels_is_refused_by_name(toy: Any, quiet_trainer: Any, tmp_path: Path) -> None:
    trainer = quiet_trainer(3, enable_checkpointing=True)
    trainer.fit(classifier(), datamodule=toy())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["labels"] == LABELS
    for labels, names in ((["blue", "green", "white"], "red, white"), (["blue", "green"], "red")):
        with pytest.raises(RunError, match=rf"made for 3 labels, the data has {len(labels)}; they differ in {names}"):
            quiet_trainer(3).fit(
                classifier(labels=labels), datamodule=toy(), ckpt_path=tmp_path / "last.ckpt", weights_only=True
            )
    with pytest.raises(RunError):  # the same labels in another order are other logits
        quiet_trainer(3).fit(
            classifier(labels=LABELS[::-1]), datamodule=toy(), ckpt_path=tmp_path / "last.ckpt", weights_only=True
        )


# --- one seed, one result ---


def test_the_seed_of_dropout_is_the_modules_own_whatever_feeds_it(toy: Any, quiet_trainer: Any) -> None:
    """Loaders without a DataModule, which a seed could be taken from: the seed decides all the same."""

    def train(seed: int) -> dict[str, torch.Tensor]:
        L.seed_everything(0, verbose=False)  # the same weights
        model = Classifier(LABELS, "mlfix_small", {"epochs": 1, "frozen_epochs": 0}, "concat_pool", seed=seed)
        torch.rand(17 * seed + 3)
        quiet_trainer(1).fit(model, toy(seed=99).train_dataloader())
        return snapshot(model)

    first, again, other = train(3), train(3), train(4)
    assert not changed(first, again)
    assert changed(first, other)


class Stop(L.Callback):
    """Breaks a training off in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == (self.epoch, 1):
            raise InterruptedError


class Logits(L.Callback):
    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.parts: list[torch.Tensor] = []

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.parts.append(outputs["logits"].clone())


EPOCHS = 4


class Lab:
    """Trains on real files as ``mlfix train`` does: balanced, augmented, checkpointed after every epoch."""

    def __init__(self, table: pd.DataFrame, cache: Path, make: Any, root: Path) -> None:
        self.table, self.cache, self.make, self.root = table, cache, make, root

    def train(
        self, name: str, seed: int = 0, stop: int | None = None, resume: bool = False
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, float]:
        folder = self.root / name
        data = DataModule(
            self.table,
            draw_split(self.table, SplitSpec(0.2)),
            self.cache,
            pixels=PixelSpec(size=16),
            loader=LoaderSpec(batch_size=12, eval_batch_size=5),
            augmentation=AugmentSpec(),
            seed=seed,
        )
        model = classifier(seed, epochs=EPOCHS - 1)
        keep = ModelCheckpoint(folder, "last", save_top_k=1, enable_version_counter=False, save_on_train_epoch_end=True)
        logits = Logits()
        callbacks = [logits, keep, *([] if stop is None else [Stop(stop)])]
        trainer = self.make(EPOCHS, callbacks=callbacks, enable_checkpointing=True)
        checkpoint = folder / "last.ckpt" if resume else None
        if resume:
            torch.rand(1234)  # a new process has another past
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True if resume else None)
        loss = float(trainer.callback_metrics["train/loss"])
        return snapshot(model), torch.cat(logits.parts), loss


@pytest.fixture
def lab(pictures: pd.DataFrame, cache: Path, quiet_trainer: Any, tmp_path: Path) -> Lab:
    return Lab(pictures, cache, quiet_trainer, tmp_path)


def test_one_seed_gives_one_result_and_another_seed_another(lab: Lab) -> None:
    first, logits, _ = lab.train("a")
    torch.rand(99)
    second, again, _ = lab.train("b")
    assert not changed(first, second)
    assert torch.equal(logits, again)
    other, differ, _ = lab.train("c", seed=1)
    assert changed(first, other) == {name for name in first if "num_batches" not in name}
    assert not torch.equal(logits, differ)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_broken_training_goes_on_to_the_very_same_end(lab: Lab, stop: int) -> None:
    """Broken off in the first epoch after the thaw (whose checkpoint was written before it), and later."""
    whole, logits, loss = lab.train("whole")
    with pytest.raises(InterruptedError):
        lab.train("broken", stop=stop)
    assert torch.load(lab.root / "broken" / "last.ckpt", weights_only=True)["epoch"] == stop - 1
    resumed, again, loss_again = lab.train("broken", resume=True)
    assert not changed(whole, resumed)
    assert torch.equal(logits, again)
    assert loss == loss_again


def test_a_training_can_be_broken_twice(lab: Lab) -> None:
    whole, logits, _ = lab.train("whole")
    with pytest.raises(InterruptedError):
        lab.train("broken", stop=1)
    with pytest.raises(InterruptedError):
        lab.train("broken", stop=3, resume=True)
    resumed, again, _ = lab.train("broken", resume=True)
    assert not changed(whole, resumed)
    assert torch.equal(logits, again)


# --- statistics ---


@pytest.mark.parametrize(
    ("backbone", "mean", "std"),
    [
        ("tf_efficientnet_lite0", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("resnet18", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("mlfix_small", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_images_are_normalized_as_the_backbone_wants_them(
    backbone: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    model = Classifier(LABELS, backbone)
    assert (model.mean, model.std) == (mean, std)
