"""Settings as plain values, checked against what takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mlfix_train.errors import ConfigError, did_you_mean


def plain(cfg: Any) -> Any:
    """Returns a configuration as dicts, lists and plain values, everything resolved."""
    if not OmegaConf.is_config(cfg):
        return cfg
    try:
        return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
    except Exception as error:  # OmegaConf's own errors name the key
        raise ConfigError(
            f"the settings can't be resolved: {str(error).splitlines()[0]}", "check the ${...}"
        ) from error


def checked(target: Callable[..., Any], values: Mapping[str, Any], key: str, **more: Any) -> Any:
    """Calls ``target`` with the values of one section of the configuration.

    Raises:
        ConfigError: a key that ``target`` doesn't take, or a value of another type than it takes.
    """
    parameters = inspect.signature(target).parameters
    for name, value in values.items():
        if name not in parameters:
            raise ConfigError(
                f"{key}.{name} is no key here", did_you_mean(name, [p for p in parameters if p not in more])
            )
        check_type(f"{key}.{name}", value, str(parameters[name].annotation))
    return target(**values, **more)


def check_type(key: str, value: Any, annotation: str) -> None:
    """Compares a plain value with a simple annotation, given as text."""
    if value is None:
        if "None" in annotation or annotation.startswith("Any"):
            return
        raise ConfigError(f"{key}=null is not allowed", f"give a value ({annotation})")
    names = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
    kinds = [kind for kind in annotation.replace(" ", "").split("|") if kind != "None"]
    if not kinds or any(kind not in names and kind != "Path" for kind in kinds):
        return
    fits = {
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, (int, float)) and not isinstance(value, bool),
        "bool": isinstance(value, bool),
        "str": isinstance(value, (str, int, float)) and not isinstance(value, bool),
        "Path": isinstance(value, str),
    }
    if not any(fits[kind] for kind in kinds):
        wanted = " or ".join(dict.fromkeys(names.get(kind, "a path") for kind in kinds))
        raise ConfigError(f"{key}={value} is not {wanted}", f"give {wanted}")


def as_list(value: Any) -> list[Any]:
    """Returns a list as it is, and a single value as a list of one."""
    value = plain(value)
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def check_place(key: str, value: Any) -> Path:
    """Returns the path that a key gives.

    Raises:
        ConfigError: it is empty or null.
    """
    if value is None or not str(value).strip(" ."):
        raise ConfigError(f"{key}={'null' if value is None else value} names no place", f"give a name: {key}=<folder>")
    return Path(str(value)).expanduser()
