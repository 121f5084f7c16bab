"""The configuration: every preset composes, every key is documented by use, mistakes name the nearest right key."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from itertools import zip_longest
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml
from shapes import REPO

from mlfix_train import COMMANDS
from mlfix_train.config.compose import compose, load
from mlfix_train.config.help import argument_docs
from mlfix_train.config.instantiate import instantiate
from mlfix_train.config.overrides import assign
from mlfix_train.config.paths import config_dir
from mlfix_train.config.schemas import schema_class
from mlfix_train.errors import ConfigError

GROUPS = {
    group: sorted(path.stem for path in (REPO / "configs" / group).glob("*.yaml"))
    for group in ("data", "model", "recipe", "trainer", "logger", "callbacks", "experiment", "sweep", "stop")
}
ALLOWED = {"train": {"pixels"}, "sort": {"pixels"}, "review": {"pixels", "data"}, "audit": {"pixels", "data"}}
ALLOWED["export"] = {"data"}
"""Keys whose default depends on the command."""


TOGETHER = [group for group in GROUPS if group not in ("experiment", "sweep", "stop")]
"""Groups whose presets go with each other's."""


@pytest.mark.parametrize(
    "presets",
    [
        *([f"{group}={name}"] for group in GROUPS if group not in TOGETHER for name in GROUPS[group]),
        *(
            [f"{group}={name}" for group, name in zip(TOGETHER, names, strict=True) if name]
            for names in zip_longest(*(GROUPS[group] for group in TOGETHER))
        ),
    ],
    ids=" ".join,
)
def test_every_preset_composes(presets: list[str]) -> None:
    fold = ["split.fold=0"] if "sweep=out_of_fold" in presets else []
    cfg = load("train", [*presets, "++data.root=x", "++data.file=x", "++data.name=x", *fold])
    assert cfg.seed == 0 and cfg.data["root"] == "x"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes(command: str) -> None:
    assert len(compose(command)) > 3


def test_an_unknown_command_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown command trian[\s\S]*did you mean 'train'"):
        compose("trian")


def test_data_root_is_enough_to_start() -> None:
    cfg = load("train", ["data.root=x"])
    assert cfg.model["backbone"] == "resnet50"
    assert cfg.data["_target_"].endswith("read_folder")


def test_missing_keys_are_named() -> None:
    with pytest.raises(ConfigError, match=r"mlfix train needs data\.root"):
        load("train")


def test_an_unknown_key_of_a_reader_is_named_before_a_missing_one() -> None:
    with pytest.raises(ConfigError, match=r"unknown key data\.path: .*read_table does not take it") as error:
        load("train", ["data=table", "data.path=samples.csv"])
    assert "data.file, data.root, data.columns, data.group" in error.value.hint


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["sed=3"], "did you mean seed?"),
        (["split.fractoin=0.3"], "did you mean split.fraction?"),
        (["data=foldr"], "did you mean 'folder'?"),
        (["experiment=smok"], "did you mean 'smoke'?"),
        (["recipe.epochs"], "key=value"),
    ],
)
def test_a_mistyped_key_names_the_nearest(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose("train", overrides)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "value", [r"(.+)_\d+\.jpg", "^speed", "a'b", "a b", r"x\'y", "tail\\", "speed|limit", "a=b", "[x"]
)
def test_values_survive_hydras_grammar(value: str) -> None:
    cfg = compose("compare", ["original=a", "fixed=b", "fixes.path=c", f"slices.x={value}"])
    assert cfg.slices.x == value
    assert compose("train", [assign("data.root", value)]).data.root == value


def test_a_comma_in_a_path_is_not_a_sweep() -> None:
    assert compose("train", ["data.root=größe, 1"]).data.root == "größe, 1"
    with pytest.raises(ConfigError, match="is a sweep over several values"):
        compose("train", ["seed=1,2"])


def test_assign_takes_any_path() -> None:
    for value in ("a, b", "with 'quotes' \\' and \\", "größe/停", "${x}".replace("$", "S")):
        assert compose("train", [assign("outputs", value)]).outputs == value


def test_one_default_in_one_place() -> None:
    """The YAML of a command holds no values: they stand in its dataclass, and in the presets of its groups."""
    for command in COMMANDS:
        content = yaml.safe_load((REPO / f"configs/{command}.yaml").read_text())
        values = set(content) - {"defaults", "hydra"}
        assert values <= ALLOWED.get(command, set()), command


def test_all_yaml_says_what_it_is() -> None:
    for path in Path(config_dir()).rglob("*.yaml"):
        assert path.read_text().lstrip().startswith("#") or path.parent.name in ("logger",), path


def test_a_program_that_uses_hydra_keeps_its_hydra() -> None:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir, version
    from hydra.core.global_hydra import GlobalHydra

    with initialize_config_dir(str(REPO / "configs" / "recipe"), job_name="theirs", version_base="1.2"):
        theirs = GlobalHydra.instance().hydra
        assert compose("demo", ["seeds=2"]).seeds == 2
        assert GlobalHydra.instance().hydra is theirs
        assert str(version.getbase()) == "1.2"
        assert hydra_compose("scratch").name == "scratch"


def test_help_describes_every_key_of_a_command() -> None:
    for command in COMMANDS:
        for kind in dataclass_tree(schema_class(command)):
            docs = argument_docs(kind)
            assert [field.name for field in fields(kind) if not docs.get(field.name)] == [], kind.__name__


def dataclass_tree(kind: type) -> list[type]:
    hints = get_type_hints(kind)
    nested = [hints[field.name] for field in fields(kind) if is_dataclass(hints[field.name])]
    return [kind, *(inner for child in nested for inner in dataclass_tree(child))]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seeds=x"], "seeds=x is not an integer"),
        (["seeds=0"], "seeds=0 is out of range"),
        (["control=null"], "control=null is not allowed"),
        (["planted=[1]"], "planted"),
    ],
)
def test_types_and_ranges_are_checked(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load("demo", overrides)
    assert message in str(caught.value)


class Part:
    """Something a user brings."""

    def __init__(self, size: int, inner: object = None) -> None:
        self.size, self.inner = size, inner


def test_instantiate_builds_nested_targets_and_passes_objects_on() -> None:
    table = object()
    built = instantiate({"_target_": "collections.ChainMap"}, "data")
    assert len(built) == 0
    section = {"_target_": "fractions.Fraction", "numerator": {"_target_": "builtins.int"}}
    assert instantiate(section, "data", denominator=3) == 0
    assert instantiate({"_target_": f"{__name__}.Part", "size": 3}, "data", inner=table).inner is table


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"size": 1}, "data has no _target_"),
        ({"_target_": "nowhere.Part"}, "data._target_=nowhere.Part cannot be imported"),
        ({"_target_": f"{__name__}.Part", "siez": 1}, "unknown key data.siez"),
        ({"_target_": f"{__name__}.Part"}, "needs data.size"),
    ],
)
def test_instantiate_explains_what_does_not_fit(section: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        instantiate(section, "data")
    assert message in str(caught.value)


@pytest.mark.parametrize("command", ["audit", "review"])
def test_the_root_of_a_preset_of_data_counts(command: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine.yaml").write_text("_target_: my_data.read\nroot: pictures\n")
    assert compose(command).data.root is None
    assert compose(command, [f"hydra.searchpath=[file://{tmp_path}]", "data=mine"]).data.root == "pictures"


def test_a_class_of_ones_own_gets_none_of_the_default_presets_arguments() -> None:
    from mlfix_train.config.overrides import normalize_overrides

    assert normalize_overrides(["data._target_=mine.read"])[-1] == "data=own"
    assert "model=own" not in normalize_overrides(["model._target_=mine.Net", "model=small"])
    assert "model=own" not in normalize_overrides(["experiment=mine", "model._target_=mine.Net"]), "it may choose one"
    assert dict(compose("train", ["model._target_=mine.Net", "model.width=8", "data.root=x"]).model) == {
        "_target_": "mine.Net",
        "width": 8,
    }
