"""The keys of each verb: where their YAML lies, what they are called, and what ``--help`` says of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlfix_train.errors import ConfigError

PACKAGE = Path(__file__).resolve().parent


def config_dir() -> str:
    """Returns the folder of the YAML: beside the package in a checkout, inside it in an installed wheel."""
    for folder in (PACKAGE / "configs", PACKAGE.parent / "configs"):
        if (folder / "train.yaml").is_file():
            return str(folder)
    raise ConfigError("the configs of mlfix_train are missing", "install the package again")


def describe_keys(verb: str) -> str:
    """Returns the keys of a verb with their values when not given and what they mean: its YAML, as it stands."""
    folder = Path(config_dir())
    lines = (folder / f"{verb}.yaml").read_text(encoding="utf-8").splitlines()
    groups = [line.strip("- ").split(": ") for line in lines if re.match(r"  - \w+: (?!null)", line)]
    told = ["Keys, their values when not given, and what they mean (a nested key is given as split.fraction=0.1):", ""]
    told += _without(lines, ("defaults:", "hydra:"))
    for group, preset in groups:
        others = sorted(path.stem for path in (folder / group).glob("*.yaml") if path.stem != preset)
        told += ["", f"{group}:  # {group}={preset}; other presets: {', '.join(others)}"]
        content = (folder / group / f"{preset}.yaml").read_text(encoding="utf-8").splitlines()
        told += [f"  {line}" for line in content if line.strip() and not line.startswith("_target_")]
    if verb == "train":
        told += ["", *_presets(folder, "experiment"), *_presets(folder, "sweep")]
    return "\n".join([*told, "", f"`mlfix {verb} --cfg job key=value` shows what a command comes to."])


def _without(lines: list[str], blocks: tuple[str, ...]) -> list[str]:
    kept, skip = [], False
    for line in lines:
        if line and not line.startswith(" "):
            skip = line.startswith(blocks)
        if not skip:
            kept.append(line)
    return kept


def _presets(folder: Path, group: str) -> list[str]:
    """Returns a line for each preset of a group that is not on by itself: its name and its own first comment."""
    told = []
    for path in sorted((folder / group).glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        words = next((line.lstrip("# ") for line in lines if line.startswith("# ") and "@package" not in line), "")
        told.append(f"{group}={path.stem}:  # {words}")
    return told


def known_keys(verb: str) -> Iterator[str]:
    """Yields all dotted keys of a verb's default configuration, and its groups."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import DictConfig

    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = hydra_compose(verb)

    def walk(node: Any, prefix: str) -> Iterator[str]:
        for key in node:
            name = f"{prefix}{key}"
            yield name
            child = node._get_node(key) if isinstance(node, DictConfig) else None
            if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
                yield from walk(child, f"{name}.")

    yield from walk(cfg, "")
    yield from (path.name for path in Path(config_dir()).iterdir() if path.is_dir() and path.name != "base")
