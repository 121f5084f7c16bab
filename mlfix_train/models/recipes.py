"""Recipes: how fast which part of a network learns, and when.

``finetune`` is the published one (fastai's ``fine_tune``): an epoch in which the backbone's weights stand still and
the head learns, then all of it, earlier layers slower, each phase one cycle of learning rate and momentum. ``scratch``
is one cycle at one rate for a network without pretrained weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mlfix_train.errors import ConfigError, check_choice, check_range

RECIPES = ("finetune", "scratch")
STAGES = 3
"""Layer groups: early backbone, late backbone, head."""
HEAD = STAGES - 1
BETA1 = (0.95, 0.85)
"""Adam's first beta outside and at the height of a cycle."""


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained. The values for each recipe stand in ``configs/recipe``.

    Args:
        name: ``finetune`` or ``scratch``.
        epochs: epochs in which everything learns.
        frozen_epochs: epochs before them in which only the head and the norms learn.
        lr: ``finetune``: rate of the head in the frozen epochs; half of it is the highest rate after them.
            ``scratch``: the highest rate.
        spread: rate of the head over rate of the earliest layers.
        pct_start: share of the unfrozen steps in which the rate rises.
        div: highest rate over the first.
        weight_decay: decoupled; not on norms and biases.
        label_smoothing: 0 to 0.5; more than 0 makes losses less telling.
    """

    name: str = "finetune"
    epochs: int = 15
    frozen_epochs: int = 1
    lr: float = 2e-3
    spread: float = 100.0
    pct_start: float = 0.3
    div: float = 5.0
    weight_decay: float = 0.01
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_choice("recipe.name", self.name, RECIPES)
        for name in ("epochs", "frozen_epochs"):
            if not isinstance(getattr(self, name), int):
                raise ConfigError(f"recipe.{name}={getattr(self, name)} is not a whole number", "give a whole number")
        check_range("recipe.epochs", self.epochs, 1, 100_000)
        check_range("recipe.frozen_epochs", self.frozen_epochs, 0, 100_000)
        check_range("recipe.lr", self.lr, 1e-9, 100)
        check_range("recipe.spread", self.spread, 1, 1e6)
        check_range("recipe.pct_start", self.pct_start, 0.01, 0.99)
        check_range("recipe.div", self.div, 1, 1e6)
        check_range("recipe.weight_decay", self.weight_decay, 0, 10)
        check_range("recipe.label_smoothing", self.label_smoothing, 0, 0.5)

    @property
    def total_epochs(self) -> int:
        """Frozen and unfrozen epochs."""
        return self.frozen_epochs + self.epochs


@dataclass(frozen=True)
class Phase:
    """One cycle: ``epochs`` long, highest rates per layer group for weights (``lrs``) and norms and biases."""

    epochs: int
    lrs: tuple[float, ...]
    norm_lrs: tuple[float, ...]
    pct_start: float
    div: float
    div_final: float = 1e5


def phases(recipe: Recipe) -> list[Phase]:
    """Returns the cycles of a recipe.

    Source: fastai's ``fine_tune`` and ``fit_one_cycle`` as the published notebook calls them: frozen with pct_start
    0.99 and div 25, its frozen norms at a tenth of the rate; then half the rate, spread geometrically over the layer
    groups.
    """
    result = []
    if recipe.frozen_epochs:
        tenth = recipe.lr / 10
        result.append(Phase(recipe.frozen_epochs, (0.0, 0.0, recipe.lr), (tenth, tenth, recipe.lr), 0.99, 25.0))
    top = recipe.lr / 2 if recipe.name == "finetune" else recipe.lr
    lrs = tuple(top / recipe.spread ** ((HEAD - stage) / HEAD) for stage in range(STAGES))
    result.append(Phase(recipe.epochs, lrs, lrs, recipe.pct_start, recipe.div))
    return result


def cosine(start: float, stop: float, position: float) -> float:
    """Returns the value at ``position`` (0 to 1) of half a cosine from ``start`` to ``stop``."""
    return stop + (start - stop) * (1 + math.cos(math.pi * position)) / 2


def one_cycle(position: float, phase: Phase) -> tuple[float, float]:
    """Returns (share of the highest rate, beta1) at ``position`` (0 to 1) of a cycle (Smith 2018, cosine form)."""
    if position < phase.pct_start:
        rise = position / phase.pct_start
        return cosine(1 / phase.div, 1.0, rise), cosine(BETA1[0], BETA1[1], rise)
    fall = min((position - phase.pct_start) / (1 - phase.pct_start), 1.0)
    return cosine(1.0, 1 / phase.div_final, fall), cosine(BETA1[1], BETA1[0], fall)


class CycleSchedule(torch.optim.lr_scheduler.LRScheduler):
    """Sets rates and beta1 of an optimizer from :func:`parameter_groups`, step by step, through all phases.

    Everything follows from the number of the step, so that a resumed run goes on exactly.

    Args:
        optimizer: with ``stage`` and ``norm`` in its groups.
        recipe: gives the phases.
        total_steps: optimizer steps of the whole training.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, recipe: Recipe, total_steps: int) -> None:
        self.phases = phases(recipe)
        epochs = sum(phase.epochs for phase in self.phases)
        self.bounds = [0]
        for phase in self.phases:
            self.bounds.append(self.bounds[-1] + round(phase.epochs * total_steps / epochs))
        super().__init__(optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Returns the step; the rest follows from the recipe."""
        return {"last_epoch": self.last_epoch}

    def get_lr(self) -> list[float | torch.Tensor]:
        """Returns the rate of each group at the current step; sets beta1 beside.

        Step i of a phase of n steps stands at i / n of its cycle, as in fastai.
        """
        step = min(self.last_epoch, self.bounds[-1] - 1)
        number = next(i for i in range(len(self.phases)) if step < self.bounds[i + 1] or i == len(self.phases) - 1)
        phase, start, stop = self.phases[number], self.bounds[number], self.bounds[number + 1]
        share, beta1 = one_cycle((step - start) / max(stop - start, 1), phase)
        rates: list[float | torch.Tensor] = []
        for group in self.optimizer.param_groups:
            group["betas"] = (beta1, group["betas"][1])
            rates.append(share * (phase.norm_lrs if group["norm"] else phase.lrs)[group["stage"]])
        return rates


def parameter_groups(backbone: nn.Module, head: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Sorts parameters by layer group (early and late backbone, head) and by kind (weights; norms and biases).

    A timm backbone says itself in which order its layers come; the first half of them, rounded up, are early (for a
    ResNet: stem and stages 1 and 2, as fastai cuts it).

    Returns:
        Groups for an optimizer, with ``stage`` (0 to 2) and ``norm`` (bool) beside ``params`` and ``weight_decay``.
    """
    stages = backbone_stages(backbone)
    sorted_: dict[tuple[int, bool], list[nn.Parameter]] = {}
    named = [(stages[name], p) for name, p in backbone.named_parameters()] + [(HEAD, p) for p in head.parameters()]
    for stage, parameter in named:
        sorted_.setdefault((stage, parameter.ndim < 2), []).append(parameter)
    return [
        {"params": parameters, "stage": stage, "norm": norm, "weight_decay": 0.0 if norm else weight_decay}
        for (stage, norm), parameters in sorted(sorted_.items(), key=lambda item: item[0])
    ]


def backbone_stages(backbone: nn.Module) -> dict[str, int]:
    """Returns the layer group, 0 or 1, of every parameter of a timm backbone by name."""
    names: Sequence[str] = [name for name, _ in backbone.named_parameters()]
    try:
        from timm.models import group_parameters

        matcher = backbone.group_matcher(coarse=True)  # type: ignore[operator]
        layers = group_parameters(backbone, matcher)  # layer number -> names
        numbers = sorted(layers)
        early = set(numbers[: (len(numbers) + 1) // 2])
        return {name: int(number not in early) for number in numbers for name in layers[number]}
    except (
        AttributeError,
        KeyError,
        AssertionError,
    ):  # a backbone that doesn't know its order: halve the list of its parameters
        return {name: int(i >= (len(names) + 1) // 2) for i, name in enumerate(names)}


def seed_epoch(module: Any, batch_idx: int) -> None:
    """Seeds torch by (seed, epoch, process) at the first batch of an epoch; the seed is the DataModule's.

    Args:
        module: a LightningModule in training.
        batch_idx: number of the batch in its epoch.
    """
    if batch_idx == 0:
        seed = int(getattr(module.trainer.datamodule, "seed", 0))
        torch.manual_seed(hash((seed, module.current_epoch, module.global_rank)) % 2**63)
