"""The keys of each verb: where their YAML lies, what they are called, and what ``--help`` says of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlfix_train.errors import ConfigError, did_you_mean, nearest

PACKAGE = Path(__file__).resolve().parents[1]


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


def explain(verb: str, error: Exception) -> ConfigError:
    """Turns an error of Hydra's into one that names the key and the nearest right one."""
    text = str(error)
    if isinstance(error, ConfigError):
        return error
    cause = f"{text}\n{error.__cause__ or ''}"
    match = re.search(r"Could not (?:override|append to config) '([^']+)'", text) or re.search(
        r"Key '([^']+)' is not in struct", cause
    )
    if match:
        key = match.group(1)
        path = re.search(r"full_key: (\S+)", cause)
        full = path.group(1) if path else key
        known = list(known_keys(verb))
        guess = nearest(full, known) or nearest(full.split(".")[-1], known)
        guess = [name for name in guess if name != full]  # a group of other verbs
        if not guess:
            guess = [name for name in known if name.split(".")[-1] == full.split(".")[-1]][:1]
        hint = f"did you mean {guess[0]}?" if guess else f"`mlfix {verb} --cfg job` shows all keys"
        return ConfigError(f"{full} is no key of `mlfix {verb}`", hint)
    match = re.search(r"Could not find '([^']+)'", text) or re.search(r"Cannot find primary config '([^']+)'", text)
    if match:
        group, _, value = match.group(1).rpartition("/")
        options = sorted(path.stem for path in Path(config_dir(), group).glob("*.yaml"))
        key = group or match.group(1)
        return ConfigError(f"{key}={value} does not exist", did_you_mean(value, options) if options else "")
    if "Config group override must be" in text:
        return ConfigError(
            "a group (data, model, recipe, trainer, logger, experiment or sweep) is set to null or to no name",
            "name one of its presets, such as data=folder or logger=none",
        )
    sweep = re.search(r"Sweep parameters '([^']*)'|Ambiguous value for argument '([^']*)'", text)
    if sweep:
        given = sweep.group(1) or sweep.group(2)
        return ConfigError(f"{given} is a sweep over several values", f"add -m: mlfix {verb} -m {given}")
    first = " ".join(line.strip() for line in text.splitlines() if line.strip())[:300] or type(error).__name__
    return ConfigError(f"the settings can't be read: {first}", "keys are given as key=value; quote values with spaces")
