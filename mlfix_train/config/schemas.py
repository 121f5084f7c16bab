"""Which dataclass describes which command, and how a composed configuration becomes an object of it.

The dataclasses are Hydra's structured configs: it rejects unknown keys and values of the wrong type. What types cannot
express, such as ranges, stands in their ``__post_init__``.
"""

import dataclasses
import importlib
import inspect
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlfix_train import COMMANDS
from mlfix_train.errors import ConfigError, did_you_mean, format_list, name_keys


def schema_class(command: str) -> type[Any]:
    """Returns the dataclass of a command: of ``train``, ``TrainConfig`` in ``config/train.py``.

    Raises:
        ConfigError: There is no such command.
    """
    if command not in COMMANDS:
        raise ConfigError(f"unknown command {command}", did_you_mean(command, COMMANDS))
    module = importlib.import_module(f"mlfix_train.config.{command}")
    return getattr(module, f"{command.capitalize()}Config")  # type: ignore[no-any-return]


def register_schema(command: str) -> None:
    """Stores the dataclass of a command in Hydra's ConfigStore, under the name that its YAML lists in its defaults."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name=f"mlfix_{command}_schema", node=_schema(command))


def _schema(command: str) -> Any:
    """Returns the dataclass of a command as a node that values can be merged into."""
    node = OmegaConf.structured(schema_class(command))
    _make_writable(node)  # frozen dataclasses are read-only nodes, which no override could set
    return node


def _make_writable(node: Any) -> None:
    OmegaConf.set_readonly(node, None)
    for key in node:
        if not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node[key]):
            _make_writable(node[key])


@name_keys()
def to_object(command: str, cfg: DictConfig) -> Any:
    """Turns a composed configuration into the command's dataclass; sections without a schema become plain dicts.

    Raises:
        ConfigError: A required key is missing, an interpolation fails, or a value is out of range.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    for section in {key.rpartition(".")[0] for key in missing} - {""}:
        _check_arguments(OmegaConf.select(cfg, section), section)
    if missing:
        example = " ".join(f"{key}=..." for key in missing)
        raise ConfigError(f"mlfix {command} needs {format_list(missing)}", f"set it: mlfix {command} {example}")
    try:
        return _to_dataclass(cfg, "")
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"the configuration cannot be resolved: {reason}", "check the interpolations, ${...}"
        ) from error


def from_plain(command: str, values: dict[str, Any]) -> Any:
    """Returns a command's dataclass from plain values, such as ``config`` of a ``run.json``.

    Raises:
        ConfigError: A key that there isn't, or a value out of range.
    """
    try:
        merged = OmegaConf.merge(_schema(command), values)
    except OmegaConfBaseException as error:
        hint = "use the mlfix-train that wrote them"
        raise ConfigError(f"settings of another version: {str(error).splitlines()[0]}", hint) from error
    return to_object(command, merged)  # type: ignore[arg-type]


def _check_arguments(section: Any, name: str) -> None:
    """Checks the keys of a section that lacks one: it may be there under another name.

    Raises:
        ConfigError: The function that the section is for does not take a key.
    """
    target = section.get("_target_") if OmegaConf.is_dict(section) else None
    try:
        parameters = inspect.signature(get_object(target)).parameters if target else {}
    except (ImportError, ValueError, TypeError):
        return  # instantiate says so
    if not parameters or any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        return
    for key in map(str, section):
        if key not in parameters and not key.startswith("_"):
            keys = format_list((f"{name}.{option}" for option in parameters), 12)
            raise ConfigError(f"unknown key {name}.{key}: {target} does not take it", f"its keys are {keys}")


def _to_dataclass(node: DictConfig, section: str) -> Any:
    kind = OmegaConf.get_type(node)
    if kind is None or not dataclasses.is_dataclass(kind):
        return OmegaConf.to_container(node, resolve=True)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        value = node[field.name]
        if OmegaConf.is_dict(value):
            value = _to_dataclass(value, f"{section}{field.name}.")
        elif OmegaConf.is_list(value):
            value = OmegaConf.to_container(value, resolve=True)
        values[field.name] = value
    try:
        return kind(**values)
    except ConfigError as error:
        if section and not error.problem.startswith(section):
            raise ConfigError(f"{section}{error.problem}", error.hint, error.details) from error
        raise
