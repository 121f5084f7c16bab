"""Builds objects from configuration sections with ``_target_``, as Hydra does, with errors that name the key."""

import inspect
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate as hydra_instantiate

from mlfix_train.errors import ConfigError, MlfixError, did_you_mean

SPECIAL = ("_target_", "_args_", "_convert_", "_recursive_", "_partial_")
"""Keys of a section that are Hydra's, not arguments."""


def instantiate(section: Mapping[str, Any], key: str, **extra: Any) -> Any:
    """Calls the section's ``_target_`` with its other keys and ``extra`` as arguments; nested targets are built first.

    ``key`` is what the configuration calls the section, for errors; ``extra`` is passed on as it is.

    Raises:
        ConfigError: The target cannot be imported, or does not take these arguments.
    """
    if not section.get("_target_"):
        raise ConfigError(f"{key} has no _target_", f"set {key}._target_=<module>.<class or function>")
    name = str(section["_target_"])
    factory = _partial(section, key, name)
    _check_arguments(factory, key, name, [argument for argument in section if argument not in SPECIAL], extra)
    try:
        return factory(**extra)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ImportError):
            raise _not_installed(key, name, cause) from error
        raise cause if isinstance(cause, Exception) else error from error
    except ImportError as error:
        raise _not_installed(key, name, error) from error
    except TypeError as error:
        if "abstract method" in str(error):
            raise ConfigError(f"{key}._target_={name} lacks a method: {error}", f"define it in {name}") from error
        # of a class without an __init__ of its own, whose base class accepts anything
        found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if found is None or found[1] not in {*section, *extra}:
            raise
        problem = f"unknown key {key}.{found[1]}: {name} does not take it"
        raise ConfigError(problem, f"add it to {name}.__init__, or leave it out") from error


def _not_installed(key: str, name: str, error: ImportError) -> ConfigError:
    """Returns the error of a class that can be imported, but whose own requirements are not installed."""
    reason = " ".join(str(error).split())
    return ConfigError(f"{key}._target_={name} can't be used: {reason}", "install what it needs, or leave it out")


def instantiate_later(section: Mapping[str, Any], key: str, later: Sequence[str]) -> Any:
    """Returns the section's ``_target_`` with its other keys bound, to be called with the arguments ``later``.

    Raises:
        ConfigError: The target cannot be imported, or does not take these arguments.
    """
    name = str(section["_target_"])
    factory = _partial(section, key, name)
    given = [argument for argument in section if argument not in SPECIAL]
    _check_arguments(factory, key, name, given, dict.fromkeys(later[:1]), later[1:])
    return factory


def _partial(section: Mapping[str, Any], key: str, name: str) -> Any:
    try:
        return hydra_instantiate({"_convert_": "all", **section, "_partial_": True})
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MlfixError):
                raise cause from error
            last, cause = cause, cause.__cause__
        reason = " ".join(str(last).split())
        if isinstance(last, ImportError):
            raise ConfigError(
                f"{key}._target_={name} cannot be imported: {reason}",
                f"check its spelling; modules are looked up in the installed packages and in {os.getcwd()}",
            ) from error
        raise ConfigError(f"{key} cannot be built: {reason}", f"check the keys of {key}") from error


def _check_arguments(
    factory: Any, key: str, name: str, given: list[str], extra: Mapping[str, Any], later: Sequence[str] = ()
) -> None:
    try:
        parameters = inspect.signature(factory.func).parameters
    except (TypeError, ValueError):
        return  # some built-in callables have no signature
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for argument in given:
        if argument not in parameters:
            options = [option for option in parameters if option not in extra]
            hint = did_you_mean(argument, options) if options else "leave it out; there are no other keys"
            raise ConfigError(f"unknown key {key}.{argument}: {name} does not take it", hint)
    for argument in extra:
        if argument not in parameters:
            raise ConfigError(f"{name} does not take {argument!r}, which {key} needs", f"add this parameter to {name}")
    for option, parameter in parameters.items():
        named = parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        missing = option not in (*given, *extra, *later) and not factory.args
        if named and missing and parameter.default is inspect.Parameter.empty:
            raise ConfigError(f"{name} needs {key}.{option}", f"set it: {key}.{option}=...")
