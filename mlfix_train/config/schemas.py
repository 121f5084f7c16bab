"""Which dataclass describes which command, and how a composed configuration becomes an object of it.

The dataclasses are Hydra's structured configs: it rejects unknown keys and values of the wrong type. What types cannot
express, such as ranges, stands in their ``__post_init__``.
"""

import dataclasses
import importlib
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlfix_train.errors import ConfigError, format_list

SCHEMAS: dict[str, str] = {
    "compare": "mlfix_train.config.compare:CompareConfig",
    "crop": "mlfix_train.config.crop:CropConfig",
    "audit": "mlfix_train.config.audit:AuditConfig",
    "demo": "mlfix_train.config.demo:DemoConfig",
    "export": "mlfix_train.config.export:ExportConfig",
    "sort": "mlfix_train.config.sort:SortConfig",
    "review": "mlfix_train.config.review:ReviewConfig",
    "train": "mlfix_train.config.train:TrainConfig",
}
"""The dataclass of each command, as ``module:class``; imported when its command runs."""


def schema_name(command: str) -> str:
    """Returns the name under which the YAML of a command lists its schema in its defaults."""
    return f"mlfix_{command}_schema"


def schema_class(command: str) -> type[Any] | None:
    """Returns the dataclass of a command, or ``None`` where it has none."""
    if command not in SCHEMAS:
        return None
    module, _, name = SCHEMAS[command].partition(":")
    found: type[Any] = getattr(importlib.import_module(module), name)
    return found


def register_schema(command: str) -> None:
    """Stores the dataclass of a command in Hydra's ConfigStore."""
    from hydra.core.config_store import ConfigStore

    schema = schema_class(command)
    if schema is not None:
        node = OmegaConf.structured(schema)
        _make_writable(node)  # frozen dataclasses are read-only nodes, which no override could set
        ConfigStore.instance().store(name=schema_name(command), node=node)


def _make_writable(node: Any) -> None:
    OmegaConf.set_readonly(node, None)
    for key in node:
        if not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node[key]):
            _make_writable(node[key])


def to_object(command: str, cfg: DictConfig) -> Any:
    """Turns a composed configuration into the command's dataclass; sections without a schema become plain dicts.

    Raises:
        ConfigError: A required key is missing, an interpolation fails, or a value is out of range.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        example = " ".join(f"{key}=..." for key in missing)
        raise ConfigError(f"mlfix {command} needs {format_list(missing)}", f"set it: mlfix {command} {example}")
    try:
        return _to_dataclass(cfg, "")
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"the configuration cannot be resolved: {reason}", "check the ${...}") from error


def _to_dataclass(node: DictConfig, section: str) -> Any:
    kind = OmegaConf.get_type(node)
    if kind is None or not dataclasses.is_dataclass(kind):
        return OmegaConf.to_container(node, resolve=True)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        value = node[field.name]
        if OmegaConf.is_dict(value):
            values[field.name] = _to_dataclass(value, f"{section}{field.name}.")
        elif OmegaConf.is_list(value):
            values[field.name] = OmegaConf.to_container(value, resolve=True)
        else:
            values[field.name] = value
    try:
        return kind(**values)
    except ConfigError as error:
        if section and not error.problem.startswith(section):
            raise ConfigError(f"{section}{error.problem}", error.hint, error.details) from error
        raise
