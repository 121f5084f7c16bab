"""Keys of ``mlfix train``."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mlfix_train.config.sections import FixesConfig
from mlfix_train.data.loading.spec import AugmentSpec, LoaderSpec, ViewSpec
from mlfix_train.data.pixels.spec import PixelsConfig
from mlfix_train.data.splits import SplitSpec
from mlfix_train.errors import ConfigError, check_choice, check_range
from mlfix_train.models.recipes import Recipe

ARMS = ("original", "fixed", "control")
REPORTS = ("auto", "full", "line")


@dataclass
class AuditConfig:
    """What the run of a classifier writes and logs about its held-out samples.

    Args:
        table_rows: Rows of the ranked table with thumbnails in W&B, 0 to 108.
        n_panels: Slices of each kind (pairs of given and suggested label; labels) that get a panel.
        every_n_epochs: Epochs between panels during training; null: only at the end.
        probabilities: Also write the whole probability matrix.
        outputs: Where the logits of an own module are: the key of what validation_step returns, or forward (what
            module(x) returned in the step); null: the step returns them, alone or as logits in a dict.
        features: Also write features of the held-out samples, which mlfix audit takes as further evidence: the input of
            the last linear layer (true), or of the layer of this name.
    """

    table_rows: int = 100
    n_panels: int = 6
    every_n_epochs: int | None = None
    probabilities: bool = False
    outputs: str | None = None
    features: Any = False

    def __post_init__(self) -> None:
        if not isinstance(self.features, (bool, str)):
            raise ConfigError(f"audit.features={self.features} is not valid", "use true, false or the name of a layer")
        check_range("table_rows", self.table_rows, 0, 108)
        check_range("n_panels", self.n_panels, 0, 1000)
        if self.every_n_epochs is not None:
            check_range("every_n_epochs", self.every_n_epochs, 1, 1_000_000)


@dataclass
class CheckpointConfig:
    """What is kept of a finished run.

    Args:
        keep: weights (checkpoints/model.ckpt) | none.
    """

    keep: str = "weights"

    def __post_init__(self) -> None:
        check_choice("keep", self.keep, ("weights", "none"))


@dataclass
class StopConfig:
    """When a sweep over seeds and arms is stopped early; stop=auto switches it on.

    Args:
        auto: Look after each block of seeds, and stop when an effect is shown, or hardly could be.
        every: Seeds between looks at the training effect, 1 or more; more of them keep more processes busy. Looks at
            too few seeds to show anything are left out.
        effect: Smallest effect worth having, in percentage points: the sweep also stops where the remaining seeds could
            hardly show it.
        spending: pocock (stops earlier) | obrien_fleming (keeps nearly all of the 5% for the last look).
        slices: slices.<name>=<regex on the given label>, [labels], or {column: <name>, values: [...]}.
        primary: The slice that decides; null: all samples.
    """

    auto: bool = False
    every: int = 2
    effect: float = 0.5
    spending: str = "pocock"
    slices: dict[str, Any] = field(default_factory=dict)
    primary: str | None = None

    def __post_init__(self) -> None:
        check_range("every", self.every, 1, 1000)
        check_range("effect", self.effect, 0.0, 100.0)
        if self.auto:
            from mlfix_train.audit.comparison.sequential import SPENDING

            check_choice("spending", self.spending, list(SPENDING))
        else:
            preset = type(self)(auto=True)
            for key in (one.name for one in fields(self) if one.name != "auto"):
                if getattr(self, key) != getattr(preset, key):
                    raise ConfigError(f"{key}={getattr(self, key)} has no effect alone", "set stop=auto, too")


@dataclass
class TrainConfig:
    """Trains a classifier, or the sorting network (model=sorting_network).

    Args:
        data: The samples; any reader, set by _target_.
        recipe: Learning rates and epochs.
        model: Any LightningModule, set by _target_; labels, recipe, seed and image_size (px) are passed if it accepts
            them. With our models, model.optimizer and model.scheduler replace the recipe's by any of torch's, set by
            _target_.
        datamodule: Your own class, set by _target_, instead of mlfix_train.data.loading.datamodule.DataModule; of its
            arguments, those that your class accepts are passed.
        trainer: Any arguments of lightning.Trainer; an object, such as a profiler, is set by _target_.
        logger: Lightning loggers by name, each set by _target_; several at once: logger=[csv,wandb].
        callbacks: Further Lightning callbacks by name, each set by _target_.
        name: Name of the study; the run directory is <outputs>/<name>/<arm>/seed=<seed>[,fold=<fold>]. A sweep over
            another key adds its values, as in <name>,recipe.lr=0.001.
        outputs: Folder of all run directories.
        seed: Seed of the weights, the order of the data, augmentation, and the control arm's random removals.
        arm: original (given labels) | fixed (with the fixes) | control (as many random samples removed as are marked
            invalid).
        jobs: Runs of a sweep (-m) trained in parallel on this machine, each in its own process; gpus: one per GPU.
        runs_per_device: Runs of a sweep that share a device; multiplies jobs.
        retries: How often a run of a sweep is retried after an unexpected failure.
        stop: When a sweep over seeds and arms is stopped early; stop=auto switches it on.
        report: full | line | auto: what is printed about a finished run; auto: a line in sweeps.
        overwrite: Train again even if the run directory has a finished run, or one with other settings.
        fixes: Applied to the training set in arm=fixed, counted in arm=control, ignored in arm=original.
        split: Which samples are held out.
        pixels: How images are decoded and stored.
        augment: Augmentation of training images.
        views: For model=sorting_network: how much the two views of an image differ.
        loader: How batches are made.
        audit: What is written and logged about the held-out samples.
        checkpoint: What is kept of a finished run.
    """

    data: Any = field(default_factory=dict)
    recipe: Recipe = field(default_factory=Recipe)
    model: Any = field(default_factory=dict)
    datamodule: Any = field(default_factory=dict)
    trainer: Any = field(default_factory=dict)
    logger: Any = field(default_factory=dict)
    callbacks: Any = field(default_factory=dict)
    name: str = "default"
    outputs: str = "outputs"
    seed: int = 0
    arm: str = "original"
    jobs: int | str = 1
    runs_per_device: int = 1
    retries: int = 1
    stop: StopConfig = field(default_factory=StopConfig)
    report: str = "auto"
    overwrite: bool = False
    fixes: FixesConfig = field(default_factory=FixesConfig)
    split: SplitSpec = field(default_factory=SplitSpec)
    pixels: PixelsConfig = field(default_factory=PixelsConfig)
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    views: ViewSpec = field(default_factory=ViewSpec)
    loader: LoaderSpec = field(default_factory=LoaderSpec)
    audit: AuditConfig = field(default_factory=AuditConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def __post_init__(self) -> None:
        for key in ("data", "model", "datamodule", "trainer", "logger", "callbacks"):
            if not isinstance(getattr(self, key), dict):
                value = getattr(self, key)
                raise ConfigError(f"{key}={value} is a value, not a section", f"set its keys: {key}.<key>=...")
        every = self.trainer.get("check_val_every_n_epoch", 1)
        if every is not None:
            check_range("trainer.check_val_every_n_epoch", every, 1, 10**6)
        check_range("seed", self.seed, 0, 2**31)
        check_choice("arm", self.arm, ARMS)
        check_choice("report", self.report, REPORTS)
        check_range("retries", self.retries, 0, 100)
        check_range("runs_per_device", self.runs_per_device, 1, 64)
        if self.jobs != "gpus" and not (isinstance(self.jobs, int) and self.jobs >= 1):
            raise ConfigError(
                f"jobs={self.jobs} is neither a whole number of 1 or more nor gpus", "set jobs=2, for example"
            )
        for key, value in (("outputs", self.outputs), ("name", self.name)):
            if not value.strip(" ."):
                raise ConfigError(f"{key}={value} is empty", f"set {key}=<folder>")
        name = Path(self.name).expanduser()
        if name.is_absolute() or ".." in name.parts:
            hint = "use a plain name; outputs= sets the folder"
            raise ConfigError(f"name={self.name} points outside the outputs folder", hint)
