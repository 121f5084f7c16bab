"""Normalizes ``key=value`` overrides as people type them into what Hydra's grammar accepts."""

import re

from mlfix_train.errors import ConfigError

PATHS = {
    *("root", "file", "path", "url", "images", "crops", "audit", "runs", "original", "fixed", "control"),
    *("out", "outputs", "cache", "weights", "network", "embeddings", "initial_order", "order"),
}
"""Keys whose values are paths; a comma in one is not a sweep."""
OPEN = (
    *("trainer.", "model.", "data.", "slices.", "scores.", "logger.", "callbacks.", "datamodule.", "embedder."),
    "stop.slices.",
    "hydra.launcher.init.",
)
"""Sections that take keys beyond those of their presets, without Hydra's plus sign."""
OWN = ("data", "model")
"""Groups with an empty preset ``own``, which is chosen where an override sets ``_target_``, and nothing a preset."""


def normalize_overrides(overrides: list[str], sweep: bool = False) -> list[str]:
    """Returns overrides, ``key=value`` strings, as Hydra's grammar wants them.

    A value that the grammar cannot read, such as a regular expression, is quoted, and so is a path with a comma, unless
    ``sweep`` is set, for which commas separate the values. A key of an open section is added where it does not exist.
    A reader or module of the user's gets none of the arguments that the default preset has for ours.

    Raises:
        ConfigError: A plus sign on a key of a section that takes no further keys.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    result = []
    for override in overrides:
        key, equals, value = override.partition("=")
        name = key.lstrip("+~")
        if key.startswith("++") and not name.startswith((*OPEN, "hydra")):
            key = name  # W&B's ${args_override_hydra}
        if key.startswith("+") and not name.startswith((*OPEN, "hydra")):
            raise ConfigError(f"{name} cannot be added", f"drop the +; keys can be added below {', '.join(OPEN)}")
        if name.startswith(OPEN) and equals and not key.startswith("~"):
            key = f"++{name}"
        if equals and not override.startswith("-"):
            try:
                parsed = parser.parse_override(f"{key}={value}")
                literal = parsed.is_choice_sweep() and name.split(".")[-1] in PATHS and not sweep
            except HydraException:
                literal = True
            value = quoted(value) if literal else value
        result.append(f"{key}{equals}{value}")
    names = [override.partition("=")[0].lstrip("+") for override in result]
    if "experiment" in names:  # which may choose presets itself
        return result
    return [*result, *(f"{group}=own" for group in OWN if f"{group}._target_" in names and group not in names)]


def quoted(value: str) -> str:
    """Quotes a value so that Hydra's grammar takes it literally (backslashes count only before a quote)."""
    body = re.sub(r"(\\*)'", r"\1\1\\'", value)
    body = re.sub(r"(\\+)$", r"\1\1", body)
    return f"'{body}'"


def assign(key: str, value: object) -> str:
    """Returns ``key='value'``, an override that works whatever characters the value has."""
    return f"{key}={quoted(str(value))}"
