"""`mlfix train -m`: which runs Hydra's sweepers make of a command line, where they go, and what sweepers get back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from shapes import REPO

from mlfix_train.cli import sweep as cli_sweep
from mlfix_train.data.runs import RunDirectory, run_path


@pytest.fixture
def runs(tmp_path: Path, mlfix, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """``runs("seed=0,1")``: the directories of the runs that a sweep trains, in order; ``runs.answer`` is the rest."""
    monkeypatch.chdir(tmp_path)
    seen: list[Any] = []

    def train(cfg: Any) -> float:
        fold = cfg.split.fold if cfg.split.folds is not None else None
        run = RunDirectory(run_path(cfg.outputs, cfg.name, cfg.arm, cfg.seed, fold))
        seen.append((cfg, str(run.path.relative_to(cfg.outputs))))
        run.path.mkdir(parents=True, exist_ok=True)
        run.update(status="finished", held_out_error=1000 * float(cfg.recipe.lr))
        return 1000 * float(cfg.recipe.lr)

    monkeypatch.setattr(cli_sweep, "train_composed", train)

    def call(*keys: str) -> list[str]:
        seen.clear()
        call.answer = mlfix("train", "-m", "data.root=x", "logger=none", *keys)  # type: ignore[attr-defined]
        call.seen = [cfg for cfg, _ in seen]  # type: ignore[attr-defined]
        return [place for _, place in seen]

    return call


def test_arms_take_turns_however_they_are_typed(runs) -> None:
    found = runs("arm=original,fixed", "seed=range(0,2)", "fixes.path=f.csv")
    assert found == [f"default/{arm}/seed={seed}" for seed in range(2) for arm in ("original", "fixed")]
    assert runs.answer.code == 0 and "4 runs: 4 finished" in runs.answer.out


def test_before_and_after_is_all_arms_and_can_be_changed(runs, tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("sample_id,new_label\na,invalid\n")
    keys = ("sweep=before_after", "fixes.path=f.csv")
    assert runs(*keys, "seed=3") == [f"default/{arm}/seed=3" for arm in ("original", "fixed", "control")]
    changed = runs(*keys, "seed=range(0,2)", "arm=original,fixed", "name=two")
    assert changed == [f"two/{arm}/seed={seed}" for seed in (0, 1) for arm in ("original", "fixed")]


def test_out_of_fold_has_as_many_runs_as_folds(runs) -> None:
    assert runs("sweep=out_of_fold", "split.folds=3") == [f"default/original/seed=0,fold={k}" for k in range(3)]


def test_a_swept_key_that_is_in_no_directory_becomes_part_of_the_name(runs) -> None:
    found = runs("name=x", "recipe.lr=0.001,3e-3", "seed=0,1")
    assert found == [f"x,recipe.lr={lr}/original/seed={seed}" for lr in ("0.001", "0.003") for seed in (0, 1)]
    assert [cfg.recipe.lr for cfg in runs.seen] == [0.001, 0.001, 0.003, 0.003]
    groups = runs("name=y", "recipe=scratch,finetune", "data.ignore='a,b',c")
    assert groups == [f"y,recipe={r},{t}/original/seed=0" for r in ("scratch", "finetune") for t in _texts("a,b", "c")]


def _texts(*values: str) -> list[str]:
    import hashlib

    return [
        f"data.ignore={v}" if v.isalnum() else f"data.ignore=a_b-{hashlib.sha256(v.encode()).hexdigest()[:6]}"
        for v in values
    ]


@pytest.mark.slow
def test_names_that_tell_runs_apart_stay_as_they_are(runs, tmp_path: Path) -> None:
    assert runs("name='lr-${recipe.lr}'", "recipe.lr=0.001,0.003") == [
        "lr-0.001/original/seed=0",
        "lr-0.003/original/seed=0",
    ]
    assert not (tmp_path / "outputs/lr-0.002").exists(), "no folder of a run that is none"
    assert runs("name='n${hydra:job.num}'", "recipe.lr=0.001,0.003") == ["n0/original/seed=0", "n1/original/seed=0"]
    for name in ("one", "two"):
        (tmp_path / "conf/experiment").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"conf/experiment/{name}.yaml").write_text(f"# @package _global_\nname: {name}\n")
    for folder in (["--config-dir", "conf"], [f"hydra.searchpath=[file://{tmp_path}/conf]"]):
        assert runs(*folder, "experiment=one,two", f"outputs=o{len(folder)}{folder[0][:3]}") == [
            "one/original/seed=0",
            "two/original/seed=0",
        ]


def test_runs_that_would_share_a_directory_are_refused_before_anything_is_trained(runs) -> None:
    assert runs("name='lr-${recipe.lr}'", "recipe.lr=0.001,0.001", "seed=0") == ["lr-0.001/original/seed=0"]
    assert runs("outputs=a,a/") == []
    assert runs.answer.code == 2 and "would share the directory a/default/original/seed=0" in runs.answer.err
    assert runs("name='e${recipe.epochs}'", "recipe=scratch,finetune", "recipe.epochs=2", "recipe.lr=0.1") == [
        "e2,recipe=scratch/original/seed=0",
        "e2,recipe=finetune/original/seed=0",
    ]


@pytest.mark.parametrize(
    ("key", "message", "hint"),
    [
        ("sed=range(0,2)", "unknown key sed", "did you mean seed"),
        ("recipe.lr=interval(0,1)", "no list of values", "range(0,10)"),
        ("recipe.lr=-1,1", "recipe.lr=-1", "->"),
        ("recipe.epochs=range(2,0)", "the sweep has no runs: recipe.epochs=range(2,0) has no values", "range(0,10)"),
        ("recipe.lr=choice(0.1,0.2", "recipe.lr=choice(0.1,0.2 can't be read as a sweep", "key=choice(a,b)"),
        ("hydra.sweep.dri=x", "unknown key hydra.sweep.dri", "--cfg hydra"),
        ("~recipe.lrr", "unknown key recipe.lrr", "did you mean recipe.lr"),
        ("~recipe.lr", "recipe.lr can't be removed", "recipe.lr=<value>"),
        ("name='lr-${recipe.lrr}'", "unknown key recipe.lrr in the value of name", "did you mean recipe.lr"),
        ("model=smal,small", "model=smal does not exist", "did you mean 'small'"),
        ("hydra/launcher=rq", "hydra/launcher=rq is not installed", "pip install 'hydra-rq-launcher'"),
        ("hydra/launcher=lokal", "hydra/launcher=lokal is not installed", "did you mean 'local'"),
        ("hydra/sweeper=ax", "hydra/sweeper=ax is not installed", "pip install 'hydra-ax-sweeper'"),
    ],
)
def test_errors_show_before_anything_is_trained(runs, key: str, message: str, hint: str, tmp_path: Path) -> None:
    assert runs(key, "seed=0,1") == []
    assert runs.answer.code == 2, runs.answer.err
    assert message in runs.answer.err and hint in runs.answer.err
    assert not list(tmp_path.rglob("seed=*")) and not list(tmp_path.rglob("multirun.yaml"))


def test_a_program_that_uses_hydra_may_start_a_sweep(runs, tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text("x: 1\n")
    with initialize_config_dir(str(tmp_path), version_base="1.2"):
        theirs = GlobalHydra.instance().hydra
        assert len(runs("seed=0,1")) == 2
        assert GlobalHydra.instance().hydra is theirs and compose("theirs").x == 1


def test_runs_of_wandb_agents_have_places_of_their_own(runs, mlfix, monkeypatch: pytest.MonkeyPatch) -> None:
    """`wandb agent` starts the command of the sweep with ``--key=value``."""
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    command = yaml.safe_load((REPO / "configs/wandb/grid.yaml").read_text())["command"]
    flags = ["--recipe.lr=0.001", "--seed=1", "--audit.every_n_epochs=None"]
    arguments = [part for one in command[1:] for part in (flags if one == "${args}" else [one])]
    assert mlfix(*arguments, "logger=none").code == 0
    place = "outputs/grid,recipe.lr=0.001,audit.every_n_epochs=null/original/seed=1"
    assert RunDirectory(place).status == "finished"
    monkeypatch.delenv("WANDB_SWEEP_ID")
    answer = mlfix("train", "--seeed=1", "data.root=x")
    assert answer.code == 2 and "unknown key seeed" in answer.err and "did you mean seed" in answer.err
    for flag in ("--multirnu", "--config-dri=conf", "-x"):
        answer = mlfix("train", flag, "data.root=x")
        assert answer.code == 2 and f"unknown flag {flag}" in answer.err and "--key=value" in answer.err


def test_search_paths_are_the_same_with_and_without_a_sweep(mlfix, tmp_path: Path, runs) -> None:
    for flags, problem in ((["--config-dir", "cnof"], f"there is no folder {tmp_path / 'cnof'}"), (["-cd"], "lacks")):
        for more in ([], ["-m"]):
            answer = mlfix("train", *more, "data.root=x", *flags)
            assert answer.code == 2 and problem in answer.err


PROBE = """
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
ConfigStore.instance().store(
    group="hydra/sweeper", name="probe", node={"_target_": "hydra_plugins.mlfix_probe.Probe"}, provider="probe"
)

class Probe(Sweeper):
    def setup(self, *, hydra_context, task_function, config):
        launcher = Plugins.instance().instantiate_launcher
        self.launcher = launcher(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments):
        for lr in ("0.01", "0.001", "0.001"):
            job, = self.launcher.launch([[*arguments, f"recipe.lr={lr}"]], initial_job_idx=0)
            try:
                print("RETURNED", job.return_value)
            except RuntimeError as error:
                print("RAISED", error)
"""


def test_an_optimizing_sweeper_gets_the_held_out_error_of_each_run(runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of one run does not say which keys are swept: all that are not of the whole sweep have a place."""
    import types

    from hydra.core.plugins import Plugins

    module = types.ModuleType("hydra_plugins.mlfix_probe")
    exec(PROBE, module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    Plugins.instance().register(module.Probe)
    found = runs("hydra/sweeper=probe", "name=x")
    assert runs.answer.code == 0, runs.answer.err
    assert found[:2] == ["x,recipe.lr=0.01/original/seed=0", "x,recipe.lr=0.001/original/seed=0"]
    assert "RETURNED 10.0" in runs.answer.out and "RETURNED 1.0" in runs.answer.out
    assert "best       outputs/x,recipe.lr=0.001/original/seed=0: held-out error 1.00%" in runs.answer.out
