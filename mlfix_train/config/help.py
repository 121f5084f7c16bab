"""Text of ``mlfix <command> --help`` on the keys: names, defaults and meanings, from the dataclasses and the YAML."""

import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from mlfix_train.config.paths import config_dir
from mlfix_train.config.schemas import schema_class

COLUMN = 34
"""Where the meaning of a key begins, if its value leaves room."""
WIDTH = 118


def describe_keys(command: str) -> str:
    """Returns the keys of a command with their defaults and meanings, then the presets of its config groups."""
    folder = Path(config_dir())
    root = yaml.safe_load((folder / f"{command}.yaml").read_text(encoding="utf-8"))
    groups = _groups(root)
    lines = ["Keys with their defaults (write a nested key as split.fraction=0.1):", ""]
    overrides = {key: value for key, value in root.items() if key not in ("defaults", "hydra")}
    lines += _describe(schema_class(command), overrides, groups, folder, "")
    for group, preset in groups.items():
        if preset is None and (folder / group).is_dir():
            lines += ["", *_presets(folder, group)]
    return "\n".join([*lines, "", f"`mlfix {command} --cfg job key=value` prints the configuration without running."])


def argument_docs(kind: type[Any]) -> dict[str, str]:
    """Returns the ``Args:`` entries of a class's Google docstring by name."""
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        text = inspect.cleandoc(base.__dict__.get("__doc__") or "")
        section = re.search(r"^Args:\n((?:    .*\n?|\n)+)", text, re.M)
        for entry in re.split(r"\n(?=    \S)", section.group(1)) if section else []:
            name, _, meaning = entry.strip().partition(":")
            docs[name.strip()] = " ".join(meaning.split())
    return docs


def _groups(root: dict[str, Any]) -> dict[str, str | list[str] | None]:
    """Returns the config groups of a primary YAML with their default presets."""
    groups: dict[str, Any] = {}
    for entry in root.get("defaults", []):
        if isinstance(entry, dict):
            (name, preset), *_ = entry.items()
            if not name.startswith(("override", "/", "base")):
                groups[name] = preset
    return groups


def _describe(
    kind: type[Any], values: dict[str, Any], groups: dict[str, Any], folder: Path, indent: str
) -> Iterator[str]:
    docs = argument_docs(kind)
    hints = typing.get_type_hints(kind)
    nesting: dict[str, Any] = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    for field in sorted(dataclasses.fields(kind), key=lambda one: one.name in nesting or bool(groups.get(one.name))):
        meaning, nested = docs.get(field.name, ""), nesting.get(field.name)
        preset = groups.get(field.name) if not indent else None
        if preset is not None:
            chosen = [preset] if isinstance(preset, str) else preset
            others = sorted({path.stem for path in (folder / field.name).glob("*.yaml")} - set(chosen))
            more = f"; other presets: {', '.join(others)}" if others else ""
            yield from ("", f"{field.name}:  # {field.name}={','.join(chosen)}{more}")
            content = [folder / field.name / f"{name}.yaml" for name in chosen]
            if nested is None:
                lines = [f"  {line}" for path in content for line in _yaml_lines(path)]
                optional = (values.get(field.name) or {}).get("root", "???") is None
                yield from (line.replace("root: ???", "root: null") if optional else line for line in lines)
            else:
                yield from _describe(nested, _load_preset(content[0]), groups, folder, "  ")
        elif nested is not None:
            yield from (*([""] if not indent else []), f"{indent}{field.name}:{f'  # {meaning}' if meaning else ''}")
            yield from _describe(nested, values.get(field.name) or {}, groups, folder, indent + "  ")
        elif field.name not in groups:
            yield from _line(f"{indent}{field.name}: {_value(field, values)}", meaning)


def _load_preset(path: Path) -> dict[str, Any]:
    """Returns the keys of a preset, those of the presets in its defaults too."""
    loaded = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    merged: dict[str, Any] = {}
    for name in loaded.pop("defaults", ()):
        merged |= {} if name == "_self_" else _load_preset(path.with_name(f"{name}.yaml"))
    return {**merged, **loaded}


def _line(start: str, meaning: str) -> Iterator[str]:
    first, *more = textwrap.wrap(meaning, WIDTH - COLUMN - 2) or [""]
    padded = f"{start:<{COLUMN}}" if len(start) < COLUMN else f"{start}  "
    yield f"{padded}# {first}" if first else start
    yield from (f"{'':<{COLUMN}}# {line}" for line in more)


def _value(field: dataclasses.Field[Any], values: dict[str, Any]) -> str:
    factory = field.default_factory
    value = values.get(field.name, field.default if factory is dataclasses.MISSING else factory())
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) and not value.is_integer() else str(value)


def _yaml_lines(path: Path) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.lstrip().startswith(("_target_", "# @package", "defaults", "- override")):
            yield line


def _presets(folder: Path, group: str) -> Iterator[str]:
    """Yields each preset of a group that is off by default, with its first comment."""
    for path in sorted((folder / group).glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        meaning = next((line.lstrip("# ") for line in lines if line.startswith("# ") and "@package" not in line), "")
        yield f"{group}={path.stem}:  # {meaning}"
