"""Schedule and parameter groups, against fastai's ``fine_tune`` reimplemented from its documentation; epoch seeds."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import nn

import mlfix_train.models.backbones.small  # noqa: F401 - registers mlfix_small
from mlfix_train.models.backbones.network import ConcatPoolHead
from mlfix_train.models.recipes import Recipe
from mlfix_train.models.schedules import (
    OneCycleSchedule,
    backbone_stages,
    epoch_seed,
    parameter_groups,
    recipe_cycles,
)

GROUPS = [(0, False), (0, True), (1, False), (1, True), (2, False), (2, True)]


def combined_cos(pct: float, start: float, middle: float, end: float) -> Callable[[float], float]:
    """fastai: two cosine schedules end to end; a position at ``pct`` belongs to the second."""

    def sched_cos(a: float, b: float, p: float) -> float:
        return a + (1 + math.cos(math.pi * (1 - p))) * (b - a) / 2

    def at(p: float) -> float:
        return sched_cos(start, middle, p / pct) if p < pct else sched_cos(middle, end, (p - pct) / (1 - pct))

    return at


def fit_one_cycle(
    steps: int, lr_max: float, div: float = 25.0, div_final: float = 1e5, pct_start: float = 0.25
) -> list[tuple[float, float]]:
    """fastai's (rate, momentum) of each step; ``pct_train`` at step i is i / steps (ParamScheduler, before_batch)."""
    lr = combined_cos(pct_start, lr_max / div, lr_max, lr_max / div_final)
    mom = combined_cos(pct_start, 0.95, 0.85, 0.95)
    return [(lr(i / steps), mom(i / steps)) for i in range(steps)]


def fine_tune(
    frozen_steps: int, steps: int, base_lr: float = 2e-3
) -> dict[tuple[int, bool], list[tuple[float, float]]]:
    """fastai's ``fine_tune`` over three layer groups: rate and momentum of weights and norms, step by step.

    Frozen: ``slice(base_lr)`` is base_lr / 10 for all groups but the last, and only norms train there. Then
    base_lr / 2, spread geometrically from a hundredth.
    """
    result = {}
    for stage, norm in GROUPS:
        rate = base_lr if stage == 2 else base_lr / 10 if norm else 0.0
        top = base_lr / 2 * (0.01, 0.1, 1.0)[stage]
        result[stage, norm] = [
            *fit_one_cycle(frozen_steps, rate, pct_start=0.99),
            *fit_one_cycle(steps, top, div=5.0, pct_start=0.3),
        ]
    return result


def toy_optimizer() -> torch.optim.AdamW:
    groups = [{"params": [nn.Parameter(torch.zeros(2))], "stage": stage, "norm": norm} for stage, norm in GROUPS]
    return torch.optim.AdamW(groups, lr=1.0, betas=(0.95, 0.99))


def rates(recipe: Recipe, steps: int) -> dict[tuple[int, bool], list[tuple[float, float]]]:
    optimizer = toy_optimizer()
    schedule = OneCycleSchedule(optimizer, recipe, steps)
    found: dict[tuple[int, bool], list[tuple[float, float]]] = {key: [] for key in GROUPS}
    for _ in range(steps):
        for group in optimizer.param_groups:
            found[group["stage"], group["norm"]].append((group["lr"], group["betas"][0]))
            assert group["betas"][1] == 0.99
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("per_epoch", [10, 161])
def test_finetune_is_fastais_fine_tune_step_by_step(per_epoch: int) -> None:
    found = rates(Recipe(), 16 * per_epoch)
    for key, wanted in fine_tune(per_epoch, 15 * per_epoch).items():
        for step, (have, want) in enumerate(zip(found[key], wanted, strict=True)):
            assert have == pytest.approx(want, rel=1e-6, abs=1e-12), f"group {key}, step {step}"


def test_finetune_agrees_with_fastai_where_steps_are_many() -> None:
    """Whatever the convention for a step's place in its phase, 1,000 steps an epoch leave little of the difference."""
    n = 1000
    found, wanted = rates(Recipe(epochs=2), 3 * n), fine_tune(n, 2 * n)
    for key in GROUPS:
        for step in [*range(0, int(0.97 * n), 97), *range(n, 3 * n, 97)]:
            have, want = found[key][step], wanted[key][step]
            top = max(rate for rate, _ in wanted[key])
            assert have[0] == pytest.approx(want[0], abs=4e-3 * top), f"group {key}, step {step}"
            assert have[1] == pytest.approx(want[1], abs=4e-4), f"group {key}, step {step}"


def test_the_published_rates_and_bounds() -> None:
    found = rates(Recipe(), 16 * 161)
    frozen, then = slice(0, 161), slice(161, None)
    head, early, late = found[2, False], found[0, False], found[1, False]
    assert max(rate for rate, _ in head[frozen]) == pytest.approx(2e-3, rel=1e-3)
    assert head[0][0] == pytest.approx(2e-3 / 25)
    assert {rate for rate, _ in early[frozen]} == {rate for rate, _ in late[frozen]} == {0.0}
    assert max(rate for rate, _ in found[0, True][frozen]) == pytest.approx(2e-4, rel=1e-3)
    for key, top in ((early, 1e-5), (late, 1e-4), (head, 1e-3)):
        assert max(rate for rate, _ in key[then]) == pytest.approx(top, rel=1e-5)
        assert key[161][0] == pytest.approx(top / 5)
    assert found[0, True][then] == early[then], "after the thaw norms go with their layers"
    momenta = [momentum for _, momentum in head[then]]
    assert momenta[0] == pytest.approx(0.95)
    assert min(momenta) == pytest.approx(0.85, abs=1e-5)
    assert momenta.index(min(momenta)) == pytest.approx(0.3 * 15 * 161, abs=1)
    assert momenta[-1] == pytest.approx(0.95, abs=1e-4)


def test_scratch_is_one_cycle_at_one_rate() -> None:
    recipe = Recipe(
        "scratch", epochs=4, frozen_epochs=0, lr=4e-3, discriminative_lr_ratio=1.0, pct_start=0.25, div_factor=25.0
    )
    n = 4 * 300
    found = rates(recipe, n)
    wanted = fit_one_cycle(n, 4e-3)
    assert all(found[key] == found[0, False] for key in GROUPS)
    for step in range(0, n, 53):
        assert found[0, False][step][0] == pytest.approx(wanted[step][0], abs=4e-3 * 4e-3)
        assert found[0, False][step][1] == pytest.approx(wanted[step][1], abs=4e-4)
    assert max(rate for rate, _ in found[0, False]) == pytest.approx(4e-3, rel=1e-5)


def test_frozen_epochs_take_their_share_of_the_steps() -> None:
    found = rates(Recipe(epochs=3, frozen_epochs=2), 50)[0, False]
    assert [rate == 0.0 for rate, _ in found] == [True] * 20 + [False] * 30


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_do_not_fail(steps: int) -> None:
    for have in rates(Recipe(epochs=1), steps).values():
        assert all(math.isfinite(rate) and 0 <= rate <= 2e-3 and 0.85 <= beta <= 0.95 for rate, beta in have)


def test_steps_past_the_end_keep_the_last_rate() -> None:
    optimizer = toy_optimizer()
    schedule = OneCycleSchedule(optimizer, Recipe(epochs=1), 10)
    optimizer.step()
    for _ in range(9):
        schedule.step()
    last = [group["lr"] for group in optimizer.param_groups]
    for _ in range(5):
        schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == last


@pytest.mark.parametrize("stop", [1, 9, 10, 11, 25])
def test_a_resumed_schedule_goes_on_with_the_same_rates(stop: int) -> None:
    wanted = rates(Recipe(epochs=2), 30)
    first = toy_optimizer()
    schedule = OneCycleSchedule(first, Recipe(epochs=2), 30)
    for _ in range(stop):
        first.step()
        schedule.step()
    kept = schedule.state_dict(), first.state_dict()
    assert all(isinstance(value, (int, float)) for value in kept[0].values())
    second = toy_optimizer()
    resumed = OneCycleSchedule(second, Recipe(epochs=2), 30)
    second.load_state_dict(kept[1])
    resumed.load_state_dict(kept[0])
    for step in range(stop, 30):
        for group in second.param_groups:
            assert (group["lr"], group["betas"][0]) == wanted[group["stage"], group["norm"]][step]
        second.step()
        resumed.step()


BACKBONES = ["resnet18", "convnext_atto", "mobilenetv3_small_050", "vit_tiny_patch16_224", "mlfix_small"]


def backbone_on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, num_classes=0)


@pytest.mark.parametrize("name", [*BACKBONES, "resnet50"])
def test_every_parameter_stands_in_exactly_one_group(name: str) -> None:
    backbone = backbone_on_meta(name)
    with torch.device("meta"):
        head = ConcatPoolHead(8, 3)
    groups = parameter_groups(backbone, head, 0.01)
    grouped = [id(p) for group in groups for p in group["params"]]
    everything = [id(p) for p in (*backbone.parameters(), *head.parameters())]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == set(everything)
    kinds = [(group["stage"], group["norm"]) for group in groups]
    assert kinds == sorted(kinds)
    assert {stage for stage, _ in kinds} == {0, 1, 2}, "each layer group has something in it"
    heads = {id(p) for p in head.parameters()}
    for group in groups:
        assert {id(p) in heads for p in group["params"]} == {group["stage"] == 2}


@pytest.mark.parametrize("name", BACKBONES)
def test_norms_and_biases_have_no_weight_decay(name: str) -> None:
    backbone = backbone_on_meta(name)
    kinds: dict[int, bool] = {}
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
    for module in backbone.modules():
        for kind, parameter in module.named_parameters(recurse=False):
            kinds[id(parameter)] = isinstance(module, norms) or kind == "bias"
    for group in parameter_groups(backbone, nn.Linear(2, 3), 0.07):
        assert group["weight_decay"] == (0.0 if group["norm"] else 0.07)
        for parameter in group["params"]:
            if kinds.get(id(parameter)):
                assert group["norm"]
            elif parameter.ndim > 1:
                assert not group["norm"]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_resnet_is_cut_before_layer3(name: str) -> None:
    for parameter, stage in backbone_stages(backbone_on_meta(name)).items():
        assert stage == int(parameter.startswith(("layer3", "layer4"))), parameter


@pytest.mark.parametrize(
    ("name", "early", "late"),
    [
        ("convnext_atto", ("stem.", "stages.0.", "stages.1."), ("stages.2.", "stages.3.", "head.")),
        ("vit_tiny_patch16_224", ("patch_embed.", "cls_token", "pos_embed", "blocks.0."), ("blocks.11.", "norm.")),
        ("mlfix_small", ("stages.0.", "stages.1."), ("stages.2.", "stages.3.")),
        ("mobilenetv3_small_050", ("conv_stem.", "blocks.0."), ("blocks.5.", "conv_head.")),
    ],
)
def test_other_backbones_are_cut_by_depth(name: str, early: tuple[str, ...], late: tuple[str, ...]) -> None:
    stages = backbone_stages(backbone_on_meta(name))
    for start, stage in [(start, 0) for start in early] + [(start, 1) for start in late]:
        found = {stages[parameter] for parameter in stages if parameter.startswith(start)}
        assert found == {stage}, start


def test_a_backbone_without_a_known_order_is_halved() -> None:
    backbone = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert backbone_stages(backbone) == {"0.weight": 0, "0.bias": 0, "1.weight": 1, "1.bias": 1}


def test_a_backbone_that_refuses_coarse_groups_is_trained_all_the_same() -> None:
    """timm's rdnet_* assert in ``group_matcher(coarse=True)``."""

    class Refusing(nn.Sequential):
        def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
            assert not coarse, "coarse grouping is not implemented"
            return {}

    assert set(backbone_stages(Refusing(nn.Linear(2, 2), nn.Linear(2, 2))).values()) == {0, 1}


def test_cycles_of_a_recipe_without_frozen_epochs() -> None:
    assert [cycle.epochs for cycle in recipe_cycles(Recipe(frozen_epochs=0, epochs=3))] == [3]
    assert Recipe(frozen_epochs=2, epochs=3).total_epochs == 5


@pytest.mark.parametrize(
    ("numbers", "wanted"),
    [
        ((0, 0, 0), 3010437511937009226),
        ((7, 3, 1), 392975784757629358),
        ((2**31, 99_999, 63), 5349786923551497507),
    ],
)
def test_epoch_seeds_are_those_of_earlier_trainings(numbers: tuple[int, int, int], wanted: int) -> None:
    """The values are CPython's hashes of such tuples; written down, as another Python may hash otherwise."""
    assert epoch_seed(*numbers) == wanted
    if sys.implementation.name == "cpython" and sys.maxsize == 2**63 - 1:
        assert epoch_seed(*numbers) == hash(numbers) % 2**63


def test_every_seed_epoch_and_process_has_a_seed_of_its_own() -> None:
    seeds = {epoch_seed(*numbers) for numbers in itertools.product(range(10), range(20), range(4))}
    assert len(seeds) == 800 and all(0 <= seed < 2**63 for seed in seeds)
