"""The audit callback: collects every held-out prediction of a training, and writes, draws and logs the audit.

Shapes: N validation samples, B samples of a batch, C classes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch.utils.data import IterableDataset

from mlfix_train.audit.audit import Audit
from mlfix_train.audit.audited_data import AuditedData
from mlfix_train.audit.embedded import group_codes
from mlfix_train.audit.predictions.arrays import list_groups, list_ids, list_names
from mlfix_train.audit.predictions.checks import warn_if_few_right
from mlfix_train.audit.predictions.dynamics import MarginMeter, write_dynamics
from mlfix_train.audit.predictions.features import FILE as FEATURES_FILE
from mlfix_train.audit.predictions.features import FeatureRecorder, write_features
from mlfix_train.audit.predictions.held_out import merge_runs
from mlfix_train.audit.predictions.outputs import REMEDIES, OutputReader, Outputs, check_scale, fixed_order
from mlfix_train.audit.predictions.table import predictions_table, softmax, write_predictions
from mlfix_train.audit.reporting.images import dataset_roots, open_images
from mlfix_train.audit.reporting.log_results import artifact_name, log_audit, log_ranking
from mlfix_train.audit.reporting.pictures import draw_audit
from mlfix_train.audit.reporting.trackers import Tracker, log_to_trackers
from mlfix_train.audit.reporting.wandb import IMAGES_PER_TABLE
from mlfix_train.audit.scores.image_properties import measure_samples
from mlfix_train.audit.scores.ranking import rank_samples, write_ranking
from mlfix_train.audit.scores.registry import Evidence
from mlfix_train.audit.validation_collector import Arrays, ValidationCollector, gather_on_rank_zero
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.fixes.table import fixes_fingerprint, write_fixes
from mlfix_train.data.loading.datamodule import StoreDataModule
from mlfix_train.data.pixels.store import PixelStore
from mlfix_train.data.samples import make_table
from mlfix_train.errors import ConfigError, DataError, check_range, format_list
from mlfix_train.models.classifier import Classifier


class AuditCallback(ValidationCollector):
    """Audits the labels of the validation samples of any training, by what the model predicts for them.

    With ``lightning.Trainer(callbacks=[AuditCallback("audit")])`` it collects the logits of every validation. When the
    training ends (and after ``trainer.validate``) it writes into ``folder``, on rank 0:

    - ``predictions.parquet``: one row per sample, see :mod:`mlfix_train.audit.predictions.table`;
    - ``ranking.csv``: the samples, most suspicious label first, see :mod:`mlfix_train.audit.scores.ranking`;
    - ``panels/*.png``: contact sheets of the most suspicious samples, if there are images;
    - ``report.html``, ``slices.csv`` and ``audit.json`` (``report=True``), as ``mlfix audit`` does;
    - ``probabilities.npy``: float16 ``(N, C)`` (``probabilities=True``);
    - ``features.npy``: float16 ``(N, D)`` (``features=True``), further evidence for an audit of several runs;
    - ``dynamics.parquet``: margins of the training samples over the training (``train_ids``), see
      :mod:`mlfix_train.audit.predictions.dynamics`; a resumed training continues them.

    The Trainer's loggers get the pictures, the top of the ranking and the files, as far as they can show them (see
    :mod:`mlfix_train.audit.reporting.trackers`). Each validation logs ``<log_prefix>/error`` (percent) and
    ``<log_prefix>/loss`` (nats), exact over all processes. Works with several devices (each sample counts once; logits
    are gathered on rank 0 only), gradient accumulation, several validation loaders and resumed trainings.

    **Logits**: ``validation_step`` returns them, alone or as ``logits`` in a dict; or see ``outputs``. Probabilities
    that sum to 1 will do; logits of -inf exclude classes.
    **Labels**: ``label`` in the same dict, the second item of the batch, or ``label`` in the batch.
    **Which sample a row is**: ``index`` (a number per sample, its place in ``sample_ids``) in that dict or the batch;
    without it, the order of a validation loader that does not shuffle.

    What is missing or does not fit is a :class:`~mlfix_train.errors.MlfixError` before the first training step: where
    the Trainer does no sanity check, one batch is validated for that. Sigmoid outputs of fewer than 10 classes are an
    error after the first whole validation, since the logits of an untrained network may look the same.

    Args:
        folder: where the results go.
        title: name of the training in headlines; by default the folder's name.
        sample_ids: N distinct names of the validation samples. By default the files of an ``ImageFolder`` (also in a
            ``Subset`` or ``ConcatDataset``), the DataModule's ``table``, or row numbers.
        class_names: C names, in the order of the logits, or a mapping of names to numbers. By default the dataset's
            ``classes``, the DataModule's ``labels``, or numbers.
        images: images of the N samples: an array, paths or a dataset, see
            :func:`mlfix_train.audit.reporting.images.open_images`. By default the files of an ``ImageFolder``, or the
            DataModule's ``store``.
        groups: N photos, tracks or patients (``None``: of its own); samples of one are not independent.
        outputs: where logits come from: a key of what the step returns, ``"forward"`` (what ``module(x)`` returned in
            the step), or a function of (step outputs, batch, module) that returns logits, or a dict of them with
            ``label`` and ``index``.
        val_loader: which validation loader is audited: its number, from 0, or its name in a dict of loaders.
        train_ids: names of the training samples, for ``dynamics.parquet``: ``index`` in a training batch is a place in
            them. It takes logits of ``training_step``, found like those of ``validation_step``.
        probabilities: write the probability matrix.
        features: write the input of a layer in validation: its name, such as ``"model.fc"``, or ``True`` for the last
            ``torch.nn.Linear`` of the module.
        report: write the report, too.
        on_interrupt: also write the audit of the last whole validation where Ctrl-C or an error ends the training.
        table_rows: rows of the logged table with thumbnails, 0 to 108.
        n_panels: number of slices of each kind that get a panel, 0 to 1000.
        every_n_epochs: also draw and log ranking and panels every so many epochs; ``None``: only at the end.
        split: name of the validation samples' split in the predictions.
        log_prefix: prefix of the logged metrics.

    Attributes:
        has_results: whether a validation has ended, on any rank.
        predictions: table of the last validation; ``None`` before it, and on other ranks than 0.
        audit: the :class:`~mlfix_train.audit.audit.Audit` of the last validation; ``None`` likewise.

    Raises:
        DataError: ``sample_ids`` or ``class_names`` with duplicates, or arrays of different lengths.
        ConfigError: A number out of range.

    Example:
        >>> import lightning as L, torch
        >>> from mlfix_train import AuditCallback
        >>> class Module(L.LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = torch.nn.Linear(4, 3)
        ...     def training_step(self, batch, batch_idx):
        ...         return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        ...     def validation_step(self, batch, batch_idx):
        ...         return self.net(batch[0])
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.parameters(), 0.1)
        >>> y = torch.arange(30) % 3
        >>> data = torch.utils.data.TensorDataset(torch.eye(4)[y], y)
        >>> loader = torch.utils.data.DataLoader(data, 10)
        >>> audit = AuditCallback("audit", class_names=["cat", "dog", "fox"])
        >>> options = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        >>> trainer = L.Trainer(max_epochs=1, accelerator="cpu", logger=False, callbacks=[audit], **options)
        >>> trainer.fit(Module(), loader, loader)
        >>> audit.audit.ranking["given_label"].value_counts().sort_index().to_dict()
        {'cat': 10, 'dog': 10, 'fox': 10}
    """

    keys = ("logits", "label", "index")
    remedies: ClassVar[Mapping[str, str]] = REMEDIES

    def __init__(
        self,
        folder: str | Path = "audit",
        title: str | None = None,
        *,
        sample_ids: Sequence[Any] | pd.Index | np.ndarray | None = None,
        class_names: Sequence[str] | Mapping[Any, Any] | None = None,
        images: Any = None,
        groups: Sequence[Any] | np.ndarray | None = None,
        outputs: Outputs | None = None,
        val_loader: int | str = 0,
        train_ids: Sequence[str] | pd.Index | np.ndarray | None = None,
        probabilities: bool = False,
        features: str | bool = False,
        report: bool = True,
        on_interrupt: bool = True,
        table_rows: int = 100,
        n_panels: int = 6,
        every_n_epochs: int | None = None,
        split: str = "val",
        log_prefix: str = "audit",
    ) -> None:
        super().__init__()
        if not isinstance(folder, (str, os.PathLike)):
            problem = f"folder is a {type(folder).__name__}, not a path"
            raise ConfigError(problem, 'pass the folder of the results first: AuditCallback("audit", sample_ids=...)')
        check_range("table_rows", table_rows, 0, IMAGES_PER_TABLE)
        check_range("n_panels", n_panels, 0, 1000)
        if not isinstance(val_loader, str):
            check_range("val_loader", val_loader, 0, 1000)
        if every_n_epochs is not None:
            check_range("every_n_epochs", every_n_epochs, 1, 1_000_000)
        self.folder, self.title = Path(folder), title if title is not None else Path(folder).name
        self.sample_ids = list_ids("sample_ids", sample_ids)
        self.class_names = None if class_names is None else list_names("class_names", class_names)
        self.train_ids = list_ids("train_ids", train_ids)
        self.images, self.groups = images, groups
        if self.sample_ids is not None:
            for name, values in (("images", images), ("groups", groups)):
                if values is not None and hasattr(values, "__len__") and len(values) != len(self.sample_ids):
                    problem = f"{len(values):,} {name} for {len(self.sample_ids):,} sample_ids"
                    raise DataError(problem, "pass one per sample, in the order of sample_ids")
        self.outputs, self.val_loader, self.probabilities, self.report = outputs, val_loader, probabilities, report
        self.on_interrupt = on_interrupt
        self.table_rows, self.n_panels, self.every_n_epochs = table_rows, n_panels, every_n_epochs
        self.split, self.log_prefix = split, log_prefix
        self.has_results = False
        self.predictions: pd.DataFrame | None = None
        self._audit: Audit | None = None
        self._reader = OutputReader(outputs, remedies=self.remedies)
        self._recorder = FeatureRecorder(features) if features else None
        self._features: np.ndarray | None = None
        self._data: AuditedData | None = None
        self._dataset: Any = None
        self._order: np.ndarray | None = None
        self._is_stream = self._has_begun = False
        self._done = self._loader = 0
        self._logits: np.ndarray | None = None
        self._last_labels: pd.Series | None = None
        self._meter: MarginMeter | None = None
        self._restored: dict[str, torch.Tensor] = {}

    @property
    def state_key(self) -> str:
        """Distinguishes several audits of one training in its checkpoint."""
        place = "/".join(self.folder.absolute().parts[-2:])
        return f"AuditCallback{{'folder': {place!r}, 'val_loader': {self.val_loader}}}"

    # Before the training

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Has the requirements of the callback checked before the first training step."""
        if stage == "fit" and not getattr(trainer, "fast_dev_run", False) and not isinstance(pl_module, Classifier):
            trainer.num_sanity_val_steps = max(trainer.num_sanity_val_steps, 1)
        self._check_folder(trainer)
        self._reader.attach(pl_module)

    def _check_folder(self, trainer: L.Trainer) -> None:
        """Checks that results can be written to the folder, and that no other audit writes there."""
        others = [
            one for one in getattr(trainer, "callbacks", []) if isinstance(one, AuditCallback) and one is not self
        ]
        if any(one.folder.resolve() == self.folder.resolve() for one in others):
            raise ConfigError(f"two AuditCallbacks write to {self.folder}", "pass each its own folder")
        place = next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists())
        if not place.is_dir() or not os.access(place, os.W_OK):
            what = "is a file" if place.is_file() else "can't be written to"
            raise ConfigError(f"folder={self.folder}: {place} {what}", "pass another folder: AuditCallback(<folder>)")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Releases the module."""
        self._reader.detach()
        if self._recorder is not None:
            self._recorder.detach()

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Checks that there is a validation, unless the user turned it off (``limit_val_batches=0``)."""
        if not trainer.enable_validation and trainer.limit_val_batches != 0:
            raise DataError(
                "AuditCallback audits the samples of a validation loader, and this training has no validation",
                "pass trainer.fit a validation loader, and add a validation_step to the module",
            )

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Determines which samples the validation loader yields."""
        if self._recorder is not None:
            self._recorder.attach(pl_module)
        loaders = trainer.val_dataloaders
        names = list(loaders) if isinstance(loaders, dict) else []
        loaders = list(loaders.values()) if isinstance(loaders, dict) else loaders
        loaders = list(loaders) if isinstance(loaders, (list, tuple)) else [loaders]
        is_known = self.val_loader in (names if isinstance(self.val_loader, str) else range(len(loaders)))
        if not is_known:
            what = f"{len(loaders)} validation loaders" + (f": {format_list(names)}" if names else ", without names")
            problem = f"val_loader={self.val_loader}, but there are {what}"
            raise DataError(problem, f"use a number from 0 to {len(loaders) - 1}" + " or a name" * bool(names))
        self._loader = names.index(self.val_loader) if isinstance(self.val_loader, str) else self.val_loader
        loader = loaders[self._loader]
        for root in dataset_roots(getattr(loader, "dataset", None)):
            if self.folder.resolve().is_relative_to(root.resolve()):
                problem = f"folder={self.folder} is in {root}, so panels would become images of the dataset"
                raise ConfigError(problem, "pass a folder outside of it: AuditCallback(<folder>)")
        self._order, self._done = fixed_order(loader), 0
        self._is_stream = isinstance(getattr(loader, "dataset", None), IterableDataset)
        dataset = getattr(loader, "dataset", None)
        if self._data is None:
            self._data, self._dataset = self._describe_data(trainer, loader), dataset
            self._reader.class_names = self._data.class_names
        elif dataset is not self._dataset:
            self._check_same_samples(trainer, dataset)
            self._dataset = dataset

    def _check_same_samples(self, trainer: L.Trainer, dataset: Any) -> None:
        """Checks that another dataset than that of the validation before may hold the same samples."""
        was, now = (AuditedData.find(getattr(trainer, "datamodule", None), one) for one in (self._dataset, dataset))
        ids = [one.sample_ids for one in (was, now) if one.sample_ids is not None]
        if was.n_rows != now.n_rows or (len(ids) == 2 and not ids[0].equals(ids[1])):
            problem = f"this validation loader has another dataset than the one that {self.folder} audits"
            raise DataError(problem, "audit it by another Trainer, with an AuditCallback and a folder of its own")

    def _describe_data(self, trainer: L.Trainer, loader: Any) -> AuditedData:
        """Returns the description of the samples: from the user's arguments, else from DataModule and dataset."""
        data = AuditedData.find(getattr(trainer, "datamodule", None), getattr(loader, "dataset", None))
        if self.sample_ids is not None:
            same = data.sample_ids is not None and self.sample_ids.equals(data.sample_ids)
            same_rows = data.sample_ids is not None and data.n_rows == len(data.sample_ids) == len(self.sample_ids)
            data = replace(data, sample_ids=self.sample_ids, of_parts=False)
            if not same and not same_rows:  # images and groups of other samples
                data = replace(data, images=None, groups=None)
        elif data.sample_ids is None and data.n_rows is not None:
            data = replace(data, sample_ids=pd.Index([str(row) for row in range(data.n_rows)], dtype=object))
        elif data.sample_ids is not None and not data.sample_ids.is_unique:
            twice = data.sample_ids[data.sample_ids.duplicated()].unique()
            problem = f"{len(twice):,} images are in the validation dataset twice: {format_list(twice, 3)}"
            raise DataError(problem, "remove the copies, or pass sample_ids=: one distinct name per row")
        count = 0 if data.sample_ids is None else len(data.sample_ids)
        if self.class_names is not None:
            known = data.class_names or self.class_names
            if known != self.class_names and set(known) == set(self.class_names):
                own, others = format_list(self.class_names, 6), format_list(known, 6)
                problem = f"class_names are {own}, those of the dataset {others}"
                raise DataError(problem, "pass them in the dataset's order, which its labels count; or leave them out")
            data = replace(data, class_names=self.class_names)
        elif data.of_parts and data.class_names is None:
            hint = "pass class_names=, in the order of the logits, and labels that count them"
            raise DataError("the parts of the validation dataset have different classes", hint)
        if self.images is not None:
            data = replace(data, images=open_images(self.images, count))
        if self.groups is not None:
            if len(self.groups) != count:
                raise DataError(f"there are {len(self.groups):,} groups for {count:,} samples", "pass one per sample")
            assert data.sample_ids is not None
            data = replace(data, groups=np.asarray(list_groups(self.groups, data.sample_ids.tolist()), dtype=object))
        return data

    # During the training

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts collecting margins, or continues those of a checkpoint."""
        self._has_begun = True
        ids = self._training_ids(trainer)
        if ids is not None:
            self._meter = MarginMeter(len(ids), pl_module.device)
            self._meter.restore(self._restored)

    def _training_ids(self, trainer: L.Trainer) -> pd.Index | None:
        """Returns the ids that ``index`` of a training batch refers to, ``None`` if they are not known."""
        if self.train_ids is not None:
            return self.train_ids
        data = getattr(trainer, "datamodule", None)
        return data.table.index if isinstance(data, StoreDataModule) else None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Forgets what the module returned before."""
        self._reader.start_batch()

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Forgets what the module returned before."""
        self._reader.start_batch()
        if self._recorder is not None:
            self._recorder.start_batch()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Adds the margins of a training batch, without synchronizing with the device."""
        says_logits = isinstance(outputs, Mapping) and "logits" in outputs
        if self._meter is None or (self.train_ids is None and not says_logits):
            return
        found = self._reader.read("training_step", outputs, batch, pl_module)
        index, n_ids = found.get("index"), self._meter.total.shape[1]
        if index is None:
            hint = "add 'index' to the batch: the place of each sample in train_ids; or leave train_ids out"
            raise DataError("train_ids is set, but training batches have no index", hint)
        if batch_idx == 0 and len(index) and not 0 <= int(index.min()) <= int(index.max()) < n_ids:
            problem = f"a training batch has the index {int(index.max())}, and there are {n_ids:,} train_ids"
            raise DataError(problem, "pass an id for every training sample; index counts them from 0")
        self._meter.add(found["logits"], found["label"], index)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Adds up the margins of all processes."""
        if self._meter is not None:
            self._meter.end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """Returns the sums of the margins, for a checkpoint."""
        return {} if self._meter is None else self._meter.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the sums of a checkpoint."""
        self._restored = state_dict

    # Validation

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Copies logits, labels and positions of a batch to the CPU."""
        if dataloader_idx != self._loader:
            return
        assert self._data is not None
        found = self._reader.read("validation_step", outputs, batch, pl_module)
        arrays: Arrays = {key: value.cpu().numpy() for key, value in found.items()}
        if self._recorder is not None:
            arrays["features"] = self._recorder.take(len(arrays["label"]))
        n, ids = len(arrays["label"]), self._data.sample_ids
        if "index" not in arrays:
            if self._order is None:
                reason = "the validation loader shuffles or has an order of its own"
                hint = "use shuffle=False; or add 'index' to the batch, the position of each sample in sample_ids"
                if self._is_stream:
                    reason = "an IterableDataset has no order that can be relied on"
                    hint = "add 'index' to the batch, the position of each sample in sample_ids (its number without)"
                raise DataError(f"rows can't be matched to samples: {reason}", hint)
            if ids is not None and self._data.n_rows != len(ids):
                whose = "sample_ids" if self.sample_ids is not None else "known samples"
                problem = f"there are {len(ids):,} {whose}, the validation dataset has {self._data.n_rows:,} rows"
                raise DataError(
                    problem, "pass one id per row of the dataset, in its order; or add 'index' to the batch"
                )
            arrays["index"] = self._order[self._done : self._done + n]
            if len(arrays["index"]) != n:
                problem = f"batches hold more rows than the validation dataset ({len(self._order):,})"
                raise DataError(problem, "return one row of logits per sample; or add 'index' to the batch")
        elif self._data.of_parts:
            rows = None if self._order is None else self._order[self._done : self._done + n]
            if rows is None or not np.array_equal(rows, arrays["index"]):
                raise DataError(
                    "the batches of a Subset or ConcatDataset have an index that may count other rows than its own",
                    "pass sample_ids=: the names of the samples that index counts, from 0",
                )
        self._done += n
        index, n_classes = arrays["index"], arrays["logits"].shape[1]
        if n and (index.min() < 0 or (ids is not None and index.max() >= len(ids))):
            limit = "" if ids is None else f", and there are {len(ids):,} sample_ids"
            wrong = index.min() if index.min() < 0 else index.max()
            raise DataError(f"a validation batch has the index {wrong}{limit}", "index counts the sample_ids from 0")
        label = arrays["label"]
        if n and (label.min() < 0 or label.max() >= n_classes):
            wrong = label.min() if label.min() < 0 else label.max()
            raise DataError(
                f"a label is {wrong}, and logits have {n_classes} columns", "labels must be 0 to columns - 1"
            )
        self._batches.append(arrays)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Builds the predictions on rank 0, and logs error and loss on all ranks."""
        if self._recorder is not None:
            self._recorder.detach()  # hooks would keep training steps from being recorded as CUDA graphs
        if not self._batches:
            return
        if trainer.sanity_checking:
            if not isinstance(pl_module, Classifier):
                check_scale(np.concatenate([batch["logits"] for batch in self._batches]), is_trained=False)
            return
        seen = np.concatenate([batch["index"] for batch in self._batches])
        gathered, self._batches = gather_on_rank_zero(self._batches), []
        metrics: dict[str, float] = {}
        if gathered is not None:
            if trainer.world_size == 1 and len(gathered["index"]) < len(seen):
                values, counts = np.unique(seen, return_counts=True)
                problem = (
                    f"{int((counts > 1).sum()):,} samples were validated twice, such as index {values[counts > 1][0]}"
                )
                raise DataError(problem, "index has to be unique: the position of each sample in sample_ids")
            if not isinstance(pl_module, Classifier):
                check_scale(gathered["logits"], is_trained=True)
            table = self.predictions = self._predict(gathered, pl_module)
            self._features = gathered.get("features")
            self._audit = None
            error = float(100 * (table["pred"] != table["label"]).mean())
            metrics = {f"{self.log_prefix}/error": error, f"{self.log_prefix}/loss": float(table["loss"].mean())}
        self.has_results = True
        pl_module.log_dict(trainer.strategy.broadcast(metrics), rank_zero_only=False)
        epochs = trainer.current_epoch + 1
        due = self.every_n_epochs is not None and epochs % self.every_n_epochs == 0
        if due and epochs < (trainer.max_epochs or 0) and self.predictions is not None:
            self._draw(trainer, rank_samples([self.predictions]))

    def _predict(self, gathered: Arrays, pl_module: L.LightningModule) -> pd.DataFrame:
        """Returns the predictions of a validation."""
        assert self._data is not None
        data, logits, index = self._data, gathered["logits"], gathered["index"]
        ids = index.astype(str).astype(object) if data.sample_ids is None else data.sample_ids.to_numpy()[index]
        broken = ~np.isfinite(logits).all(1)
        if broken.any():
            names = format_list(ids[broken], 3)
            problem = (
                f"logits of {int(broken.sum()):,} of {len(logits):,} validation samples are NaN or infinite: {names}"
            )
            hint = "lower the learning rate, or train in float32 (precision=32); -inf may exclude some classes, not all"
            raise DataError(problem, getattr(pl_module, "divergence_hint", hint))
        labels = pd.Series(gathered["label"], index)
        if self._last_labels is not None and not labels.equals(self._last_labels):
            raise DataError(
                "validation labels differ from those of the previous validation: the samples have no fixed order",
                "use a validation loader with a fixed order; or add 'index' to the batch",
            )
        self._last_labels, self._logits = labels, logits
        classes = data.class_names or [str(code) for code in range(logits.shape[1])]
        return predictions_table(ids, gathered["label"], logits, classes, self.split)

    # Results

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Warns if there was no validation to audit."""
        if self.has_results or trainer.limit_val_batches == 0:
            return
        if self._has_begun:
            reason = (
                "no validation was complete. Train to the end of an epoch, lower check_val_every_n_epoch or "
                "val_check_interval, or call trainer.validate."
            )
        else:
            reason = (
                f"the training of {trainer.ckpt_path} was at its end (max_epochs={trainer.max_epochs}). Train longer, "
                "or call trainer.validate with this ckpt_path."
            )
        rank_zero_warn(f"AuditCallback wrote nothing: {reason}")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Writes and logs the audit of the last whole validation."""
        if self.on_interrupt and self.predictions is not None and trainer.state.fn == TrainerFn.FITTING:
            try:
                self.finish(trainer)
            except Exception as error:  # what ended the training is to be seen
                rank_zero_warn(f"AuditCallback could not write the audit: {error}")

    def finish(self, trainer: L.Trainer) -> None:
        """Writes and logs the audit of the last validation, on rank 0."""
        if not trainer.is_global_zero or self.predictions is None or self._logits is None or self._data is None:
            return
        if getattr(trainer, "fast_dev_run", False) and not (self.folder / "run.json").exists():
            rank_zero_info("AuditCallback writes nothing in a fast_dev_run.")
            return
        for name in ("probabilities.npy", FEATURES_FILE, "dynamics.parquet", "fixes.csv"):  # of an earlier training
            (self.folder / name).unlink(missing_ok=True)
        labels = self.predictions["label"].reset_index(drop=True)
        warn_if_few_right(labels, self.predictions["pred"].reset_index(drop=True), str(self.folder))
        files = [write_predictions(self.predictions, self.folder / "predictions.parquet")]
        if self.probabilities:
            files.append(self.folder / "probabilities.npy")
            with atomic_path(files[-1]) as temporary, open(temporary, "wb") as file:
                np.save(file, softmax(self._logits))
        if self._features is not None:
            files.append(write_features(self._features, self.folder))
        files += self._write_dynamics(trainer)
        fixes = self._data.fixes
        if fixes is not None:
            write_fixes(fixes.reset_index(), self.folder / "fixes.csv")
        if self.report and self.audit is not None:
            audit, pictures = self.audit, self.audit.save(self.folder, self.n_panels)
            log_to_trackers(trainer.loggers, lambda tracker: log_audit(tracker, audit, pictures, self.folder))
            known = len(self.predictions) if self._data.sample_ids is None else len(self._data.sample_ids)
            part = "" if known == len(self.predictions) else f" of {known:,}"
            rank_zero_info(f"Audit of {len(self.predictions):,}{part} samples: {self.folder / 'report.html'}")
        else:
            ranking = rank_samples([self.predictions])
            files.insert(1, write_ranking(ranking, self.folder / "ranking.csv"))
            self._draw(trainer, ranking)
        metadata = {"samples": len(self.predictions), "labels": self._logits.shape[1], "arm": self._data.arm}

        def log_files(tracker: Tracker) -> None:
            name = artifact_name(tracker.name or self.folder.name)
            tracker.log_artifact(f"predictions-{name}", "predictions", files, metadata)
            if fixes is not None:
                digest = fixes_fingerprint(fixes)
                about = {"fixes": len(fixes), "sha256": digest}
                tracker.log_artifact(f"fixes-{digest[:12]}", "fixes", [self.folder / "fixes.csv"], about, used=True)

        log_to_trackers(trainer.loggers, log_files)

    @property
    def audit(self) -> Audit | None:
        """The audit of the last validation, on rank 0."""
        if self._audit is None and self.predictions is not None and self._data is not None:
            held, data = merge_runs([self.predictions]), self._data
            samples, groups, ids = None, None, data.sample_ids
            if ids is not None:
                label = pd.Series(None, ids, dtype=object)
                label.loc[self.predictions["sample_id"]] = self.predictions["label"].to_numpy()
                own_groups = None if data.groups is None else data.groups.tolist()
                samples = make_table(list(ids), list(ids), label.tolist(), own_groups, source="the validation samples")
                groups = None if data.groups is None else group_codes(samples.loc[held.sample_ids, "group"])
            known = None if samples is None else samples.loc[held.sample_ids]
            properties = None
            if samples is not None and isinstance(data.images, (PixelStore, np.ndarray)):
                properties = measure_samples(data.images, samples).loc[held.sample_ids]
            evidence = Evidence(held, groups=groups, samples=known, image_properties=properties)
            self._audit = Audit(evidence, samples=samples, pixels=data.images, title=self.title)
        return self._audit

    def _draw(self, trainer: L.Trainer, ranking: pd.DataFrame) -> None:
        """Draws the panels of a ranking, and logs them and its top rows."""
        if self._data is None or self._data.images is None or self._data.sample_ids is None:
            return
        rows, pixels, fixes = self._data.sample_ids, self._data.images, self._data.all_fixes

        def images(sample_ids: Sequence[str]) -> np.ndarray:
            return np.asarray(pixels[rows.get_indexer(pd.Index(sample_ids))])

        marks = None if fixes is None else {str(name): str(new) for name, new in fixes["new_label"].items()}
        pictures = draw_audit(ranking, images, self.folder / "panels", self.title, self.n_panels, marks)

        def log_panels(tracker: Tracker) -> None:
            tracker.log_pictures(pictures)
            log_ranking(tracker, ranking, images, self.table_rows)

        log_to_trackers(trainer.loggers, log_panels)

    def _write_dynamics(self, trainer: L.Trainer) -> list[Path]:
        """Writes the area under the margin of the training samples; returns the file, if there are margins."""
        ids = self._training_ids(trainer)
        if ids is None or self._data is None or self._logits is None:
            return []
        meter = self._meter
        if meter is None:  # validated only, after a training that was interrupted at its very end
            meter = MarginMeter(len(ids))
            meter.restore(self._restored)
        names = self._data.class_names or [str(code) for code in range(self._logits.shape[1])]
        dynamics = meter.table(ids, names)
        assert self.predictions is not None
        seen = self.predictions["sample_id"].isin(dynamics["sample_id"])
        if seen.any():
            which = f"{int(seen.sum()):,} of the audited samples, such as {self.predictions['sample_id'][seen].iloc[0]}"
            rank_zero_warn(f"{which}, were trained on, so their predictions tell little. Audit held-out samples.")
        return [write_dynamics(dynamics, self.folder / "dynamics.parquet")] if len(dynamics) else []
