"""Turns Hydra's and OmegaConf's errors into errors that name the key and the closest right one."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mlfix_train.config.paths import config_dir
from mlfix_train.errors import ConfigError, did_you_mean, format_list, nearest

UNKNOWN_KEY = (
    r"Could not (?:override|append to config) '([^']+)'",
    r"Key '([^']+)' is not in struct",
    r"Key '([^']+)' not in '\w+'",
    r"Could not delete from config\. '([^']+)' does not exist",
)
PLUGINS = {
    "hydra/launcher": {
        **dict.fromkeys(("submitit_slurm", "submitit_local"), "mlfix-train[slurm]"),
        **{"joblib": "hydra-joblib-launcher", "rq": "hydra-rq-launcher"},
    },
    "hydra/sweeper": {
        **{"optuna": "mlfix-train[optuna]", "ax": "hydra-ax-sweeper", "nevergrad": "hydra-nevergrad-sweeper"},
    },
}
"""Plug-ins of Hydra's by config group and name, and what installs them."""
BOOLEAN = "true or false"
TYPES = {"Integer": "an integer", "Float": "a number", "Boolean": BOOLEAN, "bool": BOOLEAN, "String": "text"}


def known_keys(command: str) -> Iterator[str]:
    """Yields all dotted keys of a command's default configuration, and its config groups."""
    from mlfix_train.config.compose import compose

    yield from _dotted(compose(command), "")
    yield from (
        path.name
        for path in Path(config_dir()).iterdir()
        if path.is_dir() and path.name not in ("base", "hydra", "wandb")
    )


def _dotted(node: DictConfig, prefix: str) -> Iterator[str]:
    for key in map(str, node):
        yield f"{prefix}{key}"
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        if OmegaConf.is_dict(node[key]):
            yield from _dotted(node[key], f"{prefix}{key}.")


def unknown_key(command: str, key: str) -> ConfigError:
    """Returns the error for a key that the command does not have, with the closest one that it has."""
    if key.startswith("hydra."):
        return ConfigError(f"unknown key {key}", f"`mlfix {command} --cfg hydra` shows Hydra's own keys")
    known = list(known_keys(command))
    last = key.rsplit(".", maxsplit=1)[-1]
    guess = nearest(key, known) or nearest(last, known) or [name for name in known if name.split(".")[-1] == last]
    guess = [name for name in guess if name != key]  # a group of another command
    hint = f"did you mean {guess[0]}?" if guess else f"`mlfix {command} --help` lists all keys"
    return ConfigError(f"unknown key {key}", hint)


def explain(command: str, error: Exception) -> ConfigError:
    """Returns a :class:`ConfigError` that explains in plain words what Hydra or OmegaConf rejected."""
    if isinstance(error, ConfigError):
        return error
    cause: BaseException | None = error
    lines = []
    while cause is not None:
        lines.append(str(cause))
        cause = cause.__cause__
    for explanation in (
        _invalid_value,
        _unknown_key,
        _unknown_preset,
        _null_group,
        _sweep_without_flag,
        _bad_interval,
    ):
        found = explanation(command, "\n".join(lines))
        if found is not None:
            return found
    first = " ".join(str(error).split())[:300] or type(error).__name__
    hint = "write overrides as key=value; quote values with spaces"
    return ConfigError(f"the configuration cannot be read: {first}", hint)


def _full_key(text: str, key: str) -> str:
    path = re.search(r"full_key: (\S+)", text)
    return path.group(1) if path else key


def _unknown_key(command: str, text: str) -> ConfigError | None:
    if match := re.search(r"Interpolation key '([^']+)' not found", text):
        error = unknown_key(command, match.group(1))
        return ConfigError(f"{error.problem} in the value of {_full_key(text, 'another')}", error.hint)
    if match := re.search(r"Error merging override ~(\S+)", text):
        return ConfigError(f"{match.group(1)} can't be removed", f"set it: {match.group(1)}=<value>")
    match = next(filter(None, (re.search(pattern, text) for pattern in UNKNOWN_KEY)), None)
    return unknown_key(command, _full_key(text, match.group(1))) if match else None


def _invalid_value(command: str, text: str) -> ConfigError | None:
    problem = r"Value '([^']*)'(?: of type '\w+')? (?:could not be converted to|is not a valid) (\w+)"
    if match := re.search(problem, text):
        value, kind = match.groups()
        if re.match(r"(choice|range|interval|glob|shuffle|sort|tag)\(", value):
            hint = "write key=a,b, key=choice(a,b) or key=range(0,10)"
            return ConfigError(f"{_full_key(text, 'a key')}={value} can't be read as a sweep", hint)
        wanted = TYPES.get(kind, kind)
        return ConfigError(f"{_full_key(text, 'a key')}={value} is not {wanted}", f"use {wanted}")
    if match := re.search(r"(?:field|Value) '?([\w.]+)'? is not Optional|Incompatible value 'None' for field", text):
        return ConfigError(f"{_full_key(text, match.group(1) or 'a key')}=null is not allowed", "set a value")
    if match := re.search(r"Value '([^']*)' of type '\w+' is incompatible with type hint '([^']*)'", text):
        value, hint = match.groups()
        wanted = hint.replace("Optional", "null or ").replace("Union", "one of ").replace("typing.", "")
        return ConfigError(f"{_full_key(text, 'a key')}={value} has the wrong type", f"use {wanted}")
    if re.search(r"Cannot (?:assign|merge) \w+ (?:to|with|into) \w+|(?:Invalid type assigned|Merge error): ", text):
        key = _full_key(text, "a section")
        return ConfigError(f"{key} is a section, not a single value", f"set its keys: {key}.<key>=...")
    return None


def _unknown_preset(command: str, text: str) -> ConfigError | None:
    match = re.search(r"(?:Could not find|Could not load|Cannot find primary config) '([^']+)'", text)
    if match is None:
        return None
    group, _, value = match.group(1).rpartition("/")
    available = re.search(r"Available options in '[^']*':\n((?:\t\S+\n?)+)", text)  # in the user's own folders too
    options = sorted(path.stem for path in Path(config_dir(), group).glob("*.yaml"))
    options = available.group(1).split() if available else options
    if group in PLUGINS:
        package = PLUGINS[group].get(value)
        hint = f"install its plug-in: pip install '{package}'" if package else did_you_mean(value, options)
        more = [f"{name} (pip install '{package}')" for name, package in PLUGINS[group].items() if name not in options]
        details = [f"installed: {format_list(options, 10)}", f"others: {format_list(more, 10)}"]
        return ConfigError(f"{group}={value} is not installed", hint, details)
    key = group or match.group(1)
    details = [f"any other by its class: {group}.<name>._target_=..."] if group in ("logger", "callbacks") else []
    return ConfigError(f"{key}={value} does not exist", did_you_mean(value, options) if options else "", details)


def _null_group(command: str, text: str) -> ConfigError | None:
    if "Config group override must be" not in text and "Config group override value type" not in text:
        return None
    return ConfigError(
        "a config group (such as data, model, recipe, trainer or logger) is set to null or to an empty name",
        "name one of its presets, such as data=folder or logger=none",
    )


def _sweep_without_flag(command: str, text: str) -> ConfigError | None:
    match = re.search(r"Sweep parameters '([^']*)'|Ambiguous value for argument '([^']*)'", text)
    if match is None:
        return None
    given: Any = match.group(1) or match.group(2)
    return ConfigError(f"{given} is a sweep over several values", f"add -m: mlfix {command} -m {given}")


def _bad_interval(command: str, text: str) -> ConfigError | None:
    if match := re.search(r"`low` value must be smaller.*\(low.([^,]+), high.([^)]+)\)", text):
        low, high = match.groups()
        return ConfigError(f"interval({low},{high}) ends before it begins", f"write interval({high},{low})")
    if "does not support sweep type" not in text and "only supports discrete distributions" not in text:
        return None
    hint = "write key=a,b,c or key=range(0,10); hydra/sweeper=optuna searches intervals"
    return ConfigError("a sweep over an interval has no list of values", hint)
