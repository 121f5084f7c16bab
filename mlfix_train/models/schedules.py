"""From a recipe to an optimizer: layer groups, one-cycle learning rates, and the seed of each epoch.

Sources: fastai's ``fine_tune`` and ``fit_one_cycle``, as the published experiment calls them; Smith 2018, "A
disciplined approach to neural network hyper-parameters", with fastai's cosine form.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from timm.models import group_parameters
from torch import nn

from mlfix_train.models.recipes import Recipe

N_STAGES = 3
"""Layer groups: 0 is the early backbone, 1 the late backbone, 2 the head."""
HEAD = N_STAGES - 1
BETA1 = (0.95, 0.85)
"""Adam's first beta at both ends and at the peak of a cycle, as in fastai."""


@dataclass(frozen=True)
class Cycle:
    """One cycle of learning rate and momentum, ``epochs`` long.

    ``lrs`` and ``norm_lrs`` are the peak rates of weights, and of norms and biases, for each layer group. The rate
    rises from peak / ``div_factor`` in the first ``pct_start`` (0 to 1) of the steps, then falls to peak /
    ``final_div_factor``.
    """

    epochs: int
    lrs: tuple[float, ...]
    norm_lrs: tuple[float, ...]
    pct_start: float
    div_factor: float
    final_div_factor: float = 1e5


def recipe_cycles(recipe: Recipe) -> list[Cycle]:
    """Returns the cycles of a recipe: that of the frozen epochs, if there are any, and that of the others.

    In fastai's ``fine_tune``, the frozen cycle has pct_start 0.99, div 25, and norms at a tenth of the rate; the other
    has half the rate at its peak. Rates of the layer groups form a geometric sequence.
    """
    peak, norm_lr = recipe.lr / 2 if recipe.name == "finetune" else recipe.lr, recipe.lr / 10
    lrs = tuple(peak / recipe.discriminative_lr_ratio ** ((HEAD - stage) / HEAD) for stage in range(N_STAGES))
    frozen = Cycle(recipe.frozen_epochs, (0.0, 0.0, recipe.lr), (norm_lr, norm_lr, recipe.lr), 0.99, 25.0)
    unfrozen = Cycle(recipe.epochs, lrs, lrs, recipe.pct_start, recipe.div_factor)
    return [frozen, unfrozen] if recipe.frozen_epochs else [unfrozen]


def cosine(start: float, stop: float, position: float) -> float:
    """Returns the value at ``position`` (0 to 1) of half a cosine from ``start`` to ``stop``."""
    return stop + (start - stop) * (1 + math.cos(math.pi * position)) / 2


def one_cycle(position: float, cycle: Cycle) -> tuple[float, float]:
    """Returns (share of the peak learning rate, beta1) at ``position`` (0 to 1) of a cycle."""
    if position < cycle.pct_start:
        rise = position / cycle.pct_start
        return cosine(1 / cycle.div_factor, 1.0, rise), cosine(BETA1[0], BETA1[1], rise)
    fall = min((position - cycle.pct_start) / (1 - cycle.pct_start), 1.0)
    return cosine(1.0, 1 / cycle.final_div_factor, fall), cosine(BETA1[1], BETA1[0], fall)


class OneCycleSchedule(torch.optim.lr_scheduler.LRScheduler):
    """Sets learning rate and beta1 of an optimizer step by step, through all cycles of a recipe.

    Both depend on the number of the step alone, so a resumed run continues exactly. The groups of the optimizer are
    those of :func:`parameter_groups`; ``total_steps`` are the optimizer's in the whole training.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, recipe: Recipe, total_steps: int) -> None:
        self.cycles = recipe_cycles(recipe)
        lengths = (round(cycle.epochs * total_steps / recipe.total_epochs) for cycle in self.cycles)
        self.bounds = list(itertools.accumulate(lengths, initial=0))
        super().__init__(optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Returns the number of the step; the rest follows from the recipe."""
        return {"last_epoch": self.last_epoch}

    def get_lr(self) -> list[float | torch.Tensor]:
        """Returns the learning rate of each group at the current step, and sets its beta1.

        As in fastai, step i of the n steps of a cycle is at position i / n.
        """
        step = min(self.last_epoch, self.bounds[-1] - 1)
        last = len(self.cycles) - 1
        number = next(i for i in range(len(self.cycles)) if step < self.bounds[i + 1] or i == last)
        cycle, start, stop = self.cycles[number], self.bounds[number], self.bounds[number + 1]
        share, beta1 = one_cycle((step - start) / max(stop - start, 1), cycle)
        rates: list[float | torch.Tensor] = []
        for group in self.optimizer.param_groups:
            group["betas"] = (beta1, group["betas"][1])
            rates.append(share * (cycle.norm_lrs if group["norm"] else cycle.lrs)[group["stage"]])
        return rates


def build_optimizer(backbone: nn.Module, head: nn.Module, recipe: Recipe, total_steps: int) -> dict[str, Any]:
    """Returns AdamW over the layer groups with the recipe's cycles, as ``configure_optimizers`` returns it.

    Betas and epsilon are fastai's. The head is trained from the start; ``total_steps`` are those of the whole training.
    """
    groups = parameter_groups(backbone, head, recipe.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(BETA1[0], 0.99), eps=1e-5, fused=True)
    schedule = OneCycleSchedule(optimizer, recipe, total_steps)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def parameter_groups(backbone: nn.Module, head: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Groups parameters by layer group and by kind: weights, or norms and biases, which have no weight decay.

    The backbone has two layer groups, see :func:`backbone_stages`; the head is the third. The groups, for an optimizer,
    have ``stage`` (0 to 2) and ``norm`` (bool) beside ``params`` and ``weight_decay``.
    """
    stages = backbone_stages(backbone)
    named = [(stages[name], p) for name, p in backbone.named_parameters()] + [(HEAD, p) for p in head.parameters()]
    groups = []
    for stage, norm in itertools.product(range(N_STAGES), (False, True)):
        found = [parameter for number, parameter in named if (number, parameter.ndim < 2) == (stage, norm)]
        if found:
            decay = 0.0 if norm else weight_decay
            groups.append({"params": found, "stage": stage, "norm": norm, "weight_decay": decay})
    return groups


def backbone_stages(backbone: nn.Module) -> dict[str, int]:
    """Returns the layer group, 0 or 1, of every parameter of a timm backbone by name.

    timm knows the order of a backbone's layers; the first half of them, rounded up, is group 0. For a ResNet that is
    the stem and stages 1 and 2, where fastai cuts it, too. Without a known order, the list of parameters is halved.
    """
    try:
        layers = group_parameters(backbone, backbone.group_matcher(coarse=True))  # type: ignore[operator]
        numbers = sorted(layers)
        early = set(numbers[: (len(numbers) + 1) // 2])
        return {name: int(number not in early) for number in numbers for name in layers[number]}
    except (AttributeError, KeyError, AssertionError):
        names = [name for name, _ in backbone.named_parameters()]
        return {name: int(i >= (len(names) + 1) // 2) for i, name in enumerate(names)}


def epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """Returns a seed for torch that mixes a run's seed, an epoch and a process, 0 to 2**63 - 1.

    Source: xxHash's mixing, as CPython uses it for tuples since 3.8: the result is ``hash((seed, epoch, rank)) %
    2**63`` there, which trainings were seeded with at first, but the same in any Python.
    """
    multiply_1, multiply_2, state = 11400714785074694791, 14029467366897019727, 2870177450012600261
    mask = 2**64 - 1
    end = 3 ^ state ^ 3527539  # of 3 numbers
    for number in (seed, epoch, rank):
        state = (state + number * multiply_2) & mask
        state = (state << 31 | state >> 33) & mask
        state = state * multiply_1 & mask
    return (state + end) % 2**63
