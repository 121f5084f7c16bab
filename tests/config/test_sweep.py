"""Which runs the overrides of ``mlfix train -m`` expand to, and in which order."""

from __future__ import annotations

import pytest

from mlfix_train.config.sweep import plan_sweep
from mlfix_train.errors import ConfigError
from mlfix_train.training.sweep import SweepRun, alternate_arms


def ends(runs: list[SweepRun]) -> list[str]:
    return ["/".join(run.path.parts[-2:]) for run in runs]


def test_arms_take_turns_however_they_are_typed() -> None:
    found = plan_sweep(alternate_arms(["data.root=x", "arm=original,fixed", "seed=range(0,3)"]))
    assert ends(found) == [f"{arm}/seed={seed}" for seed in range(3) for arm in ("original", "fixed")]


def test_before_and_after_is_twenty_seeds_of_three_arms_and_can_be_changed() -> None:
    whole = ends(plan_sweep(["data.root=x", "sweep=before_after"]))
    assert len(whole) == 60
    assert whole[:4] == ["original/seed=0", "fixed/seed=0", "control/seed=0", "original/seed=1"]
    few = ends(plan_sweep(["data.root=x", "sweep=before_after", "seed=range(0,2)", "arm=original,fixed"]))
    assert few == ["original/seed=0", "fixed/seed=0", "original/seed=1", "fixed/seed=1"]


def test_out_of_fold_has_as_many_runs_as_folds() -> None:
    assert len(plan_sweep(["data.root=x", "sweep=out_of_fold"])) == 5
    found = ends(plan_sweep(["data.root=x", "sweep=out_of_fold", "split.folds=3"]))
    assert found == [f"original/seed=0,fold={k}" for k in range(3)]


def test_a_plan_keeps_values_as_they_were_typed() -> None:
    found = plan_sweep(["data.root='/a b/c, d'", "name=x", "outputs=/o", "seed=3,5"])
    assert [str(run.path) for run in found] == ["/o/x/original/seed=3", "/o/x/original/seed=5"]
    assert "data.root='/a b/c, d'" in found[0].overrides


def test_presets_may_be_swept() -> None:
    found = plan_sweep(["data.root=x", "recipe=scratch,finetune", "seed=0"])
    assert [run.overrides[1] for run in found] == ["recipe=scratch", "recipe=finetune"]


def test_the_last_value_of_a_key_wins() -> None:
    assert ends(plan_sweep(["data.root=x", "seed=0,1", "seed=5"])) == ["original/seed=5"]


@pytest.mark.parametrize(
    ("key", "message"), [("sed=range(0,2)", "did you mean seed"), ("seed=interval(0,1)", "no list of values")]
)
def test_what_cannot_be_swept_is_named(key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_sweep(["data.root=x", key])
